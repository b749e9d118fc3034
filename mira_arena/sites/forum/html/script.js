// The forum's widgets. Each only helps: without this script, its link leads to a page that does the same.
"use strict";

// A menu closes when something else is clicked, and on Escape.
function closeMenus(target) {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") closeMenus(null); });

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  closeMenus(event.target);
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (link.dataset.dialog) {
    event.preventDefault();
    closeMenus(null);
    document.getElementById(link.dataset.dialog).showModal();
  } else if (link.dataset.more) {
    event.preventDefault();
    loadMore(link);
  }
});

// Puts the longer list of the link's page in the place of the list that is here.
async function loadMore(link) {
  try {
    const answer = await fetch(link.href);
    const list = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(link.dataset.more);
    if (!list) throw new Error("no list");
    document.getElementById(link.dataset.more).replaceWith(list);
    history.replaceState(null, "", link.href);
  } catch {
    location.assign(link.href);
  }
}

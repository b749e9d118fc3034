// Search suggestions and the tabs of the directions form. Everything works without them, only slower.
"use strict";

const names = (document.body.dataset.names || "").split("|");

// The names that the text begins: each of its words begins some word of the name. Nothing once the name is whole.
function suggest(text) {
  const typed = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!typed.length || names.includes(typed.join(" "))) return [];
  return names.filter((name) => typed.every((part) => name.split(" ").some((word) => word.startsWith(part)))).slice(0, 5);
}

for (const input of document.querySelectorAll("input[data-suggest]")) {
  const list = document.createElement("ul");
  list.className = "suggestions";
  list.setAttribute("role", "listbox");
  list.hidden = true;
  input.after(list);

  const show = (found) => {
    list.hidden = !found.length;
    list.replaceChildren(...found.map((name) => {
      const option = document.createElement("li");
      option.setAttribute("role", "option");
      option.textContent = name;
      return option;
    }));
  };
  input.addEventListener("input", () => show(suggest(input.value)));
  input.addEventListener("keydown", (event) => { if (event.key === "Escape") show([]); });
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (!option) return;
    input.value = option.textContent;
    show([]);
    input.focus();
    if (input.dataset.suggest === "send") input.form.requestSubmit();
  });
}

for (const tab of document.querySelectorAll("[role=tab]")) {
  tab.addEventListener("click", (event) => {
    event.preventDefault();
    const form = tab.closest("form");
    form.elements.by.value = tab.dataset.by;
    for (const other of form.querySelectorAll("[role=tab]")) other.setAttribute("aria-selected", String(other === tab));
    if (form.elements.from.value && form.elements.to.value) form.requestSubmit();
  });
}

// The widgets: a menu that closes, names that complete themselves, a calendar for dates. Every page works without them.
"use strict";

const MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];

function make(tag, attributes, text = "") {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function setUpMenu(menu) {
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") menu.open = false; });
}

// Offers the people whose full name holds what is typed, until it is a name itself.
function setUpPeople(field) {
  const people = field.dataset.people.split(",").map((entry) => entry.split("|"));
  const list = make("ul", { role: "listbox", class: "suggestions", hidden: "" });
  field.after(list);

  const choose = (name) => { field.value = name; list.hidden = true; field.focus(); };
  field.addEventListener("input", () => {
    const typed = field.value.trim().toLowerCase();
    const done = !typed || people.some(([name]) => name === typed);
    const found = done ? [] : people.filter(([, fullName]) => fullName.includes(typed)).slice(0, 5);
    list.replaceChildren(...found.map(([name, fullName]) => {
      const option = make("li", { role: "option" }, fullName);
      option.addEventListener("click", () => choose(name));
      return option;
    }));
    list.hidden = !found.length;
  });
  // The field keeps the focus while an option is clicked.
  list.addEventListener("mousedown", (event) => event.preventDefault());
  field.addEventListener("blur", () => { list.hidden = true; });
  field.addEventListener("keydown", (event) => { if (event.key === "Escape") list.hidden = true; });
}

// A button beside the field opens the month of its date, or of today.
function setUpDate(field) {
  const button = make("button", { type: "button", class: "quiet" }, `pick ${field.labels[0].textContent}`);
  const calendar = make("div", { class: "calendar", hidden: "" });
  field.after(button, calendar);
  let year, month;

  const turn = (months) => {
    month += months;
    year += Math.floor(month / 12);
    month = (month + 12) % 12;
    draw();
  };
  const step = (name, months) => {
    const made = make("button", { type: "button", class: "quiet", "aria-label": name }, months < 0 ? "‹" : "›");
    made.addEventListener("click", () => turn(months));
    return made;
  };
  const day = (number) => {
    const made = make("button", { type: "button", class: "quiet", "aria-label": `${MONTHS[month]} ${number}` }, String(number));
    made.addEventListener("click", () => {
      field.value = [year, month + 1, number].map((part) => String(part).padStart(2, "0")).join("-");
      calendar.hidden = true;
    });
    return made;
  };
  const draw = () => {
    const days = new Date(Date.UTC(year, month + 1, 0)).getUTCDate();
    const first = (new Date(Date.UTC(year, month, 1)).getUTCDay() + 6) % 7;
    const grid = make("div", { class: "days" });
    grid.append(...Array.from({ length: days }, (_, index) => day(index + 1)));
    grid.firstChild.style.gridColumnStart = first + 1;
    calendar.replaceChildren(step("previous month", -1), make("b", {}, `${MONTHS[month]} ${year}`), step("next month", 1), grid);
  };
  button.addEventListener("click", () => {
    const shown = /^\d{4}-\d\d-\d\d$/.test(field.value) ? field.value : field.dataset.date;
    [year, month] = [Number(shown.slice(0, 4)), (Number(shown.slice(5, 7)) + 11) % 12];
    draw();
    calendar.hidden = !calendar.hidden;
  });
}

document.querySelectorAll("details.menu").forEach(setUpMenu);
document.querySelectorAll("input[data-people]").forEach(setUpPeople);
document.querySelectorAll("input[data-date]").forEach(setUpDate);

// What a page does beside showing what the server wrote: it hears of changes, draws charts,
// keeps what was selected in its address, and answers to keys.
import { mountCharts, refreshCharts } from "./charts.js";
import { follow } from "./live.js";
import { mountParts, refreshParts } from "./parts.js";
import { placePinned } from "./pinned.js";
import "./print.js";
import { mountView } from "./study.js";

// Of what only moved, trials under way are shown anew and nothing else.
function changed(onlyMoved) {
  htmx.trigger(document.body, "moved");
  refreshCharts(onlyMoved);
  if (onlyMoved) return;
  htmx.trigger(document.body, "changed");
  refreshParts();
}

// Selected trials stand in the address, so that a link shows the same.
function picked() {
  const text = new URL(location.href).searchParams.get("pick") || "";
  return text.split(",").filter(Boolean);
}

function pick(number, on) {
  const numbers = picked().filter((one) => one !== number);
  if (on) numbers.push(number);
  const url = new URL(location.href);
  if (numbers.length) url.searchParams.set("pick", numbers.join(","));
  else url.searchParams.delete("pick");
  history.replaceState(null, "", url);
  showPicked();
}

function showPicked() {
  const numbers = picked();
  for (const box of document.querySelectorAll("[data-pick]")) {
    box.checked = numbers.includes(box.dataset.pick);
    box.closest("tr").classList.toggle("picked", box.checked);
  }
  for (const link of document.querySelectorAll("[data-compare]")) {
    link.hidden = numbers.length < 2 || numbers.length > 8;
    link.href = link.dataset.compare + numbers.join(",");
    link.textContent = `Compare the ${numbers.length > 2 ? numbers.length : "two"} selected`;
  }
  // Other pages and orders keep what is selected, and so does a filter.
  for (const form of document.querySelectorAll("form.filter, [data-columns]")) {
    let field = form.elements.pick;
    if (!field) {
      field = Object.assign(document.createElement("input"), { type: "hidden", name: "pick" });
      form.append(field);
    }
    field.value = numbers.join(",");
    field.disabled = !numbers.length;
  }
  for (const link of document.querySelectorAll("#trials thead a, #trials .pages a")) {
    const url = new URL(link.href);
    if (numbers.length) url.searchParams.set("pick", numbers.join(","));
    else url.searchParams.delete("pick");
    link.href = url;
  }
}

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.dataset && box.dataset.pick) pick(box.dataset.pick, box.checked);
  const form = box.closest && box.closest("[data-columns]");
  if (form) {
    const names = [...form.querySelectorAll("input[type=checkbox]:checked")].map((one) => one.value);
    form.elements.columns.value = names.join(",");
  }
});
document.body.addEventListener("htmx:after:swap", () => {
  if (document.querySelector("[data-pick]")) showPicked();
  // A part that was written anew knows nothing of the row one is at.
  if (row !== null) showRow();
  if (inRow && document.activeElement === document.body) focusRow();
  mountCharts();
  mountParts();
  placePinned();
});

// Keys
let row = null; // what the row is of: rows may come and go around it
let inRow = false; // whether it had the focus when a part began to be written anew
const rows = () => [...document.querySelectorAll("[data-row]")];

function showRow() {
  rows().forEach((one) => one.classList.toggle("at", one.dataset.row === row));
}

function focusRow() {
  const at = rows().find((one) => one.dataset.row === row);
  if (!at) return;
  at.tabIndex = -1;
  at.focus({ preventScroll: true });
}

document.body.addEventListener("htmx:before:swap", () => {
  inRow = document.activeElement?.dataset.row !== undefined && document.activeElement.dataset.row === row;
});

function move(step) {
  const all = rows();
  if (!all.length) return;
  const focused = document.activeElement?.closest("[data-row]");
  if (focused) row = focused.dataset.row;
  const place = all.findIndex((one) => one.dataset.row === row);
  const next = all[Math.max(0, Math.min(all.length - 1, place + step))];
  row = next.dataset.row;
  showRow();
  // The focus moves as well, so that Tab goes on from the row and a screen reader reads it.
  focusRow();
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const at = rows().find((one) => one.dataset.row === row);
  const help = document.getElementById("keys");
  const actions = {
    "/": () => document.querySelector("[data-search]")?.focus(),
    j: () => move(1),
    k: () => move(-1),
    Enter: () => !event.target.closest("a, button, summary") && at?.querySelector("a")?.click(),
    x: () => at?.querySelector("[data-pick]")?.click(),
    c: () => document.querySelector("[data-compare]:not([hidden])")?.click(),
    "?": () => help?.showModal(),
  };
  if (actions[event.key]) {
    if (event.key === "/") event.preventDefault();
    actions[event.key]();
  }
});

mountCharts();
mountParts();
mountView();
placePinned();
if (document.querySelector("[data-pick]")) showPicked();
follow(changed);

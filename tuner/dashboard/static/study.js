// What a reader chose to see of a study stands in the address: a choice changes it without loading
// the page again, and every part and chart asks with the new one.
import { changeCharts } from "./charts.js";
import { changeParallel, mountParallel } from "./parallel.js";
import { refreshParts } from "./parts.js";

function show() {
  htmx.trigger(document.body, "view");
  refreshParts();
  changeCharts();
  changeParallel();
}

// Go to an address of this page; Back undoes it.
function choose(url) {
  const next = new URL(url, location.href);
  if (next.search === location.search) return;
  next.hash = "";
  history.pushState(null, "", next);
  show();
}

export function mountView() {
  mountParallel(choose);
  if (!document.querySelector("[data-view]")) return;
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a[data-view]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
    event.preventDefault();
    choose(link.href);
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-view]")) return;
    event.preventDefault();
    const url = new URL(location.href);
    const q = event.target.elements.q.value.trim();
    if (q) url.searchParams.set("q", q);
    else url.searchParams.delete("q");
    choose(url);
  });
  window.addEventListener("popstate", show);
}

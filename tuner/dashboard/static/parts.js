// Parts of a page: asked for with the page's own address, so that they show what it says; those
// marked as late are asked for when they come into view.
const late = new Map();
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const part = late.get(entry.target);
    part.visible = entry.isIntersecting;
    if (part.visible && part.stale) ask(entry.target, part);
  }
}, { rootMargin: "300px" });

function ask(element, part) {
  part.stale = false;
  htmx.trigger(element, "seen");
}

// Parts that were not in view since something changed.
export const unseenParts = () => [...late].filter(([element, part]) => part.stale && element.isConnected).map(([element]) => element);

export function mountParts() {
  for (const element of document.querySelectorAll("[data-late]")) {
    if (late.has(element)) continue;
    late.set(element, { stale: true, visible: false });
    seen.observe(element);
  }
}

export function refreshParts() {
  for (const [element, part] of late) {
    part.stale = true;
    if (part.visible) ask(element, part);
  }
}

document.body.addEventListener("htmx:config:request", (event) => {
  const { request, sourceElement } = event.detail.ctx;
  if (!sourceElement || sourceElement.dataset.have === undefined) return;
  request.action = addressOf(request.action);
});

// The address of a part with what the page's address says by now.
export function addressOf(address) {
  const asked = new URL(address, location.href);
  if (asked.pathname !== location.pathname) return address;
  const here = new URLSearchParams(location.search);
  for (const name of ["part", "id"]) {
    if (asked.searchParams.has(name)) here.set(name, asked.searchParams.get(name));
  }
  return `${location.pathname}?${here}`;
}

// A part that did not change is not sent again: the request says what the page has.
// Said when it is sent, not when it is asked for: one that waited its turn has something else.
document.body.addEventListener("htmx:before:request", (event) => {
  const have = event.target.dataset && event.target.dataset.have;
  if (have) event.detail.ctx.request.headers.have = have;
});
document.body.addEventListener("htmx:before:swap", (event) => {
  const part = event.detail.ctx.sourceElement;
  const mark = event.detail.ctx.response && event.detail.ctx.response.raw.headers.get("have");
  if (part && mark) part.dataset.have = mark;
});
// A refused or failed part leaves the page as it is; a late one is asked for again.
document.body.addEventListener("htmx:before:response", (event) => {
  const status = event.detail.ctx.response.raw.status;
  if (status === 204 || status >= 400) event.preventDefault();
});

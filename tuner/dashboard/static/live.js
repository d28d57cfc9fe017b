// How a page hears of changes: by the stream that all tabs share (stream.js), or by one of its own
// where the browser has no shared workers. Nothing is open while the tab is hidden.
const live = document.getElementById("live");
const WORDS = { live: "live", away: "not live: the database is away", lost: "not live: no connection", wait: "connecting" };
const PATIENCE = 3000; // milliseconds for the shared stream to answer at all
const AGAIN = 3000;

let port = null;
let source = null;
let answered = false;
let changed = () => {}; // called with true where nothing but trials under way has changed

function say(state) {
  if (!live) return;
  live.dataset.state = state === "lost" ? "away" : state;
  if (live.textContent !== WORDS[state]) live.textContent = WORDS[state];
}

function become(state) {
  say(state);
  // Whatever changed before the stream was there, or while it was lost, nobody told this page.
  if (state === "live") changed(false);
}

function concerns(studies) {
  const mine = document.body.dataset.study;
  return !studies || !mine || studies.split(" ").includes(mine);
}

function share() {
  if (port || !("SharedWorker" in window)) return;
  try {
    const worker = new SharedWorker(new URL("stream.js", import.meta.url), { name: "tuner" });
    worker.onerror = alone;
    port = worker.port;
    port.onmessage = ({ data }) => {
      answered = true;
      if (data.state) become(data.state);
      else if (data.moved) concerns(data.moved) && changed(true);
      else if (concerns(data.changed)) changed(false);
    };
  } catch {
    port = null;
  }
}

function alone() {
  if (port) port.close();
  port = null;
  Object.defineProperty(window, "SharedWorker", { value: undefined, configurable: true });
  if (!document.hidden) listen();
}

function listen() {
  share();
  if (port) {
    port.postMessage({ watch: true });
    setTimeout(() => { if (!answered && port) alone(); }, PATIENCE);
    return;
  }
  if (source) return;
  source = new EventSource(document.body.dataset.events);
  source.addEventListener("live", () => become("live"));
  source.addEventListener("away", () => become("away"));
  source.addEventListener("changed", () => changed(false));
  source.addEventListener("moved", () => changed(true));
  source.onerror = () => {
    say("lost");
    // A stream that the server refused is not opened again by the browser.
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(() => { if (!document.hidden) listen(); }, AGAIN);
    }
  };
}

function rest() {
  if (port) port.postMessage({ watch: false });
  if (source) source.close();
  source = null;
  say("wait");
}

// `tell` is called whenever something that the page shows may have changed.
export function follow(tell) {
  changed = tell;
  if (!document.hidden) listen();
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
  window.addEventListener("pagehide", rest);
  window.addEventListener("pageshow", (event) => { if (event.persisted && !document.hidden) listen(); });
}

// One stream of changes for all tabs of a browser, which may hold only six connections to a host.
// It runs as a shared worker, is open while some tab is looked at, and closed when none is.
const AGAIN = 3000; // milliseconds before a stream that was refused is opened again
const watching = new Set();
let source = null;
let state = "wait";

function tell(message) {
  for (const port of watching) port.postMessage(message);
}

function become(next) {
  state = next;
  tell({ state });
}

function open() {
  if (source || !watching.size) return;
  source = new EventSource(new URL("../../events", location.href)); // beside /assets/MARK
  source.addEventListener("live", () => become("live"));
  source.addEventListener("away", () => become("away"));
  source.addEventListener("changed", (event) => tell({ changed: event.data }));
  source.addEventListener("moved", (event) => tell({ moved: event.data }));
  source.onerror = () => {
    become("lost");
    if (source && source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(open, AGAIN);
    }
  };
}

function leave(port) {
  watching.delete(port);
  if (watching.size) return;
  if (source) source.close();
  source = null;
  state = "wait";
}

self.onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = ({ data }) => {
    if (!data.watch) {
      leave(port);
      return;
    }
    watching.add(port);
    // The tab asks for its parts again when it hears "live": what changed between its page and
    // this moment nobody told it.
    port.postMessage({ state });
    open();
  };
};

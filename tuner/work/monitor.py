"""Serves one worker's counters and measurements to Prometheus while it works."""

import errno
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOL_SOCKET, gethostname
from typing import TYPE_CHECKING, Any

from tuner.errors import MachineError
from tuner.settings import Endpoint
from tuner.store.tallies import CLAIM_BOUNDS, Tally
from tuner.work.renewal import Renewal

if TYPE_CHECKING:
    from tuner.exposition import MetricsPage

logger = logging.getLogger(__name__)

PORTS_TRIED = 100
"""Each worker of a host takes the first free one of this many ports."""
REQUEST_SECONDS = 10.0
TAKEN = (errno.EADDRINUSE, errno.EACCES)


class Monitor:
    """The counters of a worker by study, and its load; other threads may read them at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._past: dict[str, Tally] = {}
        """Counters by study of the visits before the last one; the worker may return to a study."""
        self._last: tuple[str, Tally] | None = None
        """Study and counters of the current or last visit. It counts until its leases are given
        back, after its training, so it is added to the past only when the next visit begins."""
        self._now: tuple[str, str, Renewal] | None = None
        """The current study, the device, and the renewal of leases."""

    @contextmanager
    def on(self, study: str, device: str, renewal: Renewal) -> Iterator[None]:
        """Count for a study."""
        # Under the lock: a page made between the two steps would lack a visit. Its counters would
        # fall, and Prometheus would take their next rise for new epochs.
        with self._lock:
            self._past = self._sums()
            self._last = (study, renewal.tally)
        self._now = (study, device, renewal)
        try:
            yield
        finally:
            self._now = None

    def tallies(self) -> dict[str, Tally]:
        """Return the counters by study; none ever falls."""
        with self._lock:
            return self._sums()

    def _sums(self) -> dict[str, Tally]:
        sums = dict(self._past)
        if self._last is not None:
            study, tally = self._last
            sums[study] = sums.get(study, Tally()) + tally
        return sums

    def page(self) -> "MetricsPage":
        """Return the worker's metrics."""
        from tuner.exposition import MetricsPage

        page, now = MetricsPage(), self._now
        if now is not None:
            study, device, renewal = now
            page.gauge(
                "tuner_worker_info",
                "The study that this worker is on, and its device.",
                {(study, device, gethostname()): 1},
                *("study", "device", "host"),
            )
            page.gauge(
                "tuner_worker_trials",
                "Trials that this worker holds.",
                {(study,): renewal.held},
                "study",
            )
        tallies = self.tallies()
        for name, about, attribute in (
            ("epochs", "Epochs that this worker trained and stored.", "epochs"),
            ("database_retries", "Transactions that were tried again.", "retries"),
            ("leases_lost", "Leases that another worker had taken over.", "lost"),
        ):
            values = {(study,): getattr(tally, attribute) for study, tally in tallies.items()}
            page.counter(f"tuner_worker_{name}_total", about, values, "study")
        page.histogram(
            "tuner_worker_claim_seconds",
            "How long a claim took until it was answered.",
            CLAIM_BOUNDS,
            {(study,): (tally.claims, tally.claim_seconds) for study, tally in tallies.items()},
            "study",
        )
        if now is not None and (load := now[2].load) is not None:
            for name, about, value in (
                ("memory_bytes", "Resident memory of worker and trainer.", load.memory),
                ("cpu_cores", "Cores that worker and trainer keep busy.", load.cores),
                ("gpu_utilization_ratio", "Share of time that the GPU is at work.", load.gpu),
                ("gpu_memory_used_bytes", "GPU memory in use, by anybody.", load.gpu_memory),
                ("gpu_memory_total_bytes", "Memory of the GPU.", load.gpu_total),
            ):
                if value is not None:
                    page.gauge(f"tuner_worker_{name}", about, {(now[1],): value}, "device")
        return page


@contextmanager
def served(monitor: Monitor, endpoint: Endpoint | None) -> Iterator[None]:
    """Serve a monitor's page on the first free port from the given one on, if one is given.

    If that is impossible, as on cluster nodes that do not have the launcher's address, this is
    logged and the worker trains without it.
    """
    if endpoint is None:
        yield
        return
    # Imported now, so that a missing package is reported before anything is trained.
    import tuner.exposition  # noqa: F401

    try:
        server = _listen(monitor, endpoint)
    except MachineError as error:
        logger.warning("%s", error)
        yield
        return
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    logger.info("metrics are at http://%s:%d/metrics", host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def _listen(monitor: Monitor, endpoint: Endpoint) -> "_Server":
    # The kernel gives a port to one process only, so workers that start at the same moment need no
    # agreement: the second one takes the next port.
    last = endpoint.port + (PORTS_TRIED if endpoint.port else 1)
    for port in range(endpoint.port, min(last, 65_536)):
        try:
            return _Server(monitor, endpoint.host, port)
        except OSError as error:
            if error.errno not in TAKEN:
                raise MachineError(
                    f"Metrics cannot be served at {endpoint.host}:{port}: {error.strerror}."
                ) from None
    raise MachineError(
        f"Metrics cannot be served: no port of {endpoint.host} from {endpoint.port} to "
        f"{min(last, 65_536) - 1} is free."
    )


class _Server(ThreadingHTTPServer):
    """Answers each request in its own thread, so that a slow scraper delays no other."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, monitor: Monitor, host: str, port: int) -> None:
        self.monitor = monitor
        self.address_family = AF_INET6 if ":" in host else AF_INET
        super().__init__((host, port), _Request)

    def server_bind(self) -> None:
        """Bind without looking up this machine's name, which may take long."""
        # Otherwise the port of a worker that has just ended would stay in use for a minute. On
        # Linux this does not allow a second listener.
        self.socket.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, *_: Any) -> None:
        """Only log at debug level that a scraper went away."""
        logger.debug("a request for metrics was broken off", exc_info=True)


class _Request(BaseHTTPRequestHandler):
    """One request for the page."""

    server: _Server
    timeout = REQUEST_SECONDS
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Send the page."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Metrics are at /metrics")
            return
        body, media = self.server.monitor.page().encoded(self.headers.get("Accept", ""))
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log no requests."""

"""A worker's metrics: counted during training, at a separate port."""

import logging
import socket
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import QUICK
from tests.harness.processes import until
from tests.store.specs import make_spec
from tests.work.conftest import Station
from tuner.errors import UserError
from tuner.settings import Endpoint
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.workers import Post
from tuner.work.monitor import Monitor, served
from tuner.work.renewal import Renewal
from tuner.work.stopping import StopRequest
from tuner.work.worker import work


def free_port() -> int:
    """Return a port that is currently free."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def scraped(port: int) -> dict[str, float]:
    """Return the values of a worker's page by name; of buckets the last one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def told(port: int) -> dict[str, float]:
    """Return the same, or nothing while the worker does not listen."""
    try:
        return scraped(port)
    except urllib.error.URLError:
        return {}


def test_a_worker_tells_what_it_has_done(station: Station) -> None:
    """Counts are served during training, and equal those in the database at the end."""
    bench = station.launch(make_spec(dimensions=(), seeds=2, epochs=4))
    port = free_port()
    station.settings = replace(station.settings, metrics=Endpoint("127.0.0.1", port))
    thread = station.in_thread("small", "held", StopRequest())
    until(lambda: bench.rows(t.lease), "the trial was claimed")
    until(lambda: told(port).get("tuner_worker_trials") == 1, "the trial is told")
    values = scraped(port)
    assert values["tuner_worker_info"] == 1
    assert values["tuner_worker_claim_seconds_count"] == 1
    assert values["tuner_worker_leases_lost_total"] == 0
    until(lambda: scraped(port).get("tuner_worker_memory_bytes"), "its memory was measured")
    (station.folder / "go").touch()
    thread.join(30)
    (worker,) = bench.rows(t.worker)
    assert worker.tally["epochs"] == len(bench.rows(t.epoch)) == 8
    assert sum(worker.tally["claims"]) == 3
    assert worker.tally["claim_seconds"] > 0
    with pytest.raises(urllib.error.URLError):
        scraped(port)


def test_no_counter_falls_while_a_worker_goes_from_study_to_study(
    database: Database,
) -> None:
    """Each count is included once at any moment, also those after a visit's training."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    monitor, ended, seen = Monitor(), threading.Event(), []

    def read() -> None:
        while not ended.is_set():
            tallies = monitor.tallies()
            seen.append(sum(tally.epochs for tally in tallies.values()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for visit in range(400):
            renewal = Renewal(database, Post(1, visit), QUICK)
            with monitor.on("one" if visit % 2 else "two", "cpu", renewal):
                renewal.tally.epochs += 2
            renewal.tally.epochs += 1
    finally:
        ended.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert seen == sorted(seen)
    assert {name: one.epochs for name, one in monitor.tallies().items()} == {"one": 600, "two": 600}


def test_workers_of_one_host_take_one_port_each(caplog: pytest.LogCaptureFixture) -> None:
    """Ports are taken from the given one on; the log names them."""
    endpoint = Endpoint("127.0.0.1", free_port())
    with caplog.at_level(logging.INFO), served(Monitor(), endpoint), served(Monitor(), endpoint):
        said = [record.args for record in caplog.records]
        ports = [args[1] for args in said if isinstance(args, tuple)]
        assert len(set(ports)) == 2
        for port in ports:
            assert scraped(int(str(port))) == {}
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/", timeout=30)


def test_an_address_of_another_machine_costs_no_training(caplog: pytest.LogCaptureFixture) -> None:
    """Nodes may get a launcher's address that they lack: the log says so; training continues."""
    trained = False
    with served(Monitor(), Endpoint("192.0.2.1", 9200)):
        trained = True
    assert trained
    assert "cannot be served at 192.0.2.1" in caplog.text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("9200", Endpoint("127.0.0.1", 9200)),
        ("0.0.0.0:9200", Endpoint("0.0.0.0", 9200)),
        ("[::1]:9200", Endpoint("::1", 9200)),
    ],
)
def test_an_endpoint_is_an_address_and_a_port(text: str, endpoint: Endpoint) -> None:
    """An endpoint is parsed and written in the same form."""
    assert Endpoint.parse(text, "--metrics") == endpoint
    assert Endpoint.parse(str(endpoint), "--metrics") == endpoint


@pytest.mark.parametrize("text", ["", "localhost:9200", "9200x", "127.0.0.1:", "1.2.3.4:70000"])
def test_anything_else_is_refused(text: str) -> None:
    """Any other text is refused with what is expected."""
    with pytest.raises(UserError, match=r"--metrics is .* 127\.0\.0\.1:9200"):
        Endpoint.parse(text, "--metrics")


def test_a_study_that_is_left_keeps_its_counts(station: Station) -> None:
    """A worker on any study reports all studies that it has visited."""
    station.launch(make_spec("one", dimensions=(), epochs=2))
    port = free_port()
    settings = replace(station.settings, metrics=Endpoint("127.0.0.1", port))
    orders = replace(station.orders("one", "quick"), study=None, idle_seconds=60.0)
    stop = StopRequest()
    thread = threading.Thread(target=work, args=(settings, orders, stop), daemon=True)
    thread.start()
    until(lambda: told(port).get("tuner_worker_epochs_total") == 2, "the study's epochs are told")
    until(lambda: "tuner_worker_trials" not in scraped(port), "it has left the study")
    assert scraped(port)["tuner_worker_epochs_total"] == 2
    stop._take(None, None)
    thread.join(30)
    assert not thread.is_alive()

"""The Prometheus page: parsed by Prometheus's own parser, and compared with the database."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for, deleting
from tests.store.specs import Bench, claim_trial, finish, make_curve, make_spec
from tuner.dashboard.app import build
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import Access, Door
from tuner.dashboard.pages import metrics
from tuner.store import accounts, studies, totals
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.workers import Post
from tuner.store.overview import overview
from tuner.store.spending import Used
from tuner.store.tallies import CLAIM_BOUNDS, Tally

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Samples:
    """Return the samples of a page by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, study: str) -> dict[str, float]:
    """Return the values of one study, by its other label."""
    found: dict[str, float] = {}
    for (called, labels), value in samples.items():
        further = dict(labels)
        if called == name and further.pop("study", None) == study:
            found["".join(further.values())] = value
    return found


def test_figures_are_those_of_the_database(pages: TestClient, stored: Database) -> None:
    """The figures of every stored study are those of `tuner status`."""
    answer = pages.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = read(answer.text)
    with stored.transaction() as connection:
        listed = studies.listing(connection)
        seen = {study.full_name: overview(connection, study) for study in listed}
        events = sa.select(t.study.c.name, t.event.c.kind).select_from(t.event.join(t.study))
        kinds = Counter((row.name, row.kind) for row in connection.execute(events))
    assert len(seen) > 10
    for name, one in seen.items():
        counts, trials = one.counts, of(samples, "tuner_trials", name)
        for state in ("complete", "pruned", "diverged", "failed", "running", "waiting", "paused"):
            assert trials[state] == getattr(counts, state), (name, state)
        assert sum(trials.values()) == counts.total
        assert of(samples, "tuner_study_state", name) == {one.state: 1}
        assert of(samples, "tuner_epochs", name) == {"": one.epochs_recorded}
        assert of(samples, "tuner_workers", name) == {
            "": len({line.worker_id for line in one.workers})
        }
        for kind, (metric, _) in metrics.EVENTS.items():
            assert of(samples, metric, name) == {"": kinds[name.partition("@")[0], kind]}
    states = Counter(str(study.state) for study in listed)
    for state in totals.STATES:
        assert samples["tuner_studies", (("state", state),)] == states[state]


@pytest.fixture
def counted(bench: Bench) -> Bench:
    """Let two workers of a study count something, and exit."""
    for epochs, seconds in ((7, (0.004, 0.3)), (4, (60.0,))):
        tally = Tally(epochs=epochs)
        tally.retried()
        for one in seconds:
            tally.claimed(one)
        with bench.database.transaction() as connection:
            post = workers.join(connection, bench.study.study_id, workers.Worker("gpu1", 1, "cpu"))
            load = {"gpu": 0.5 if epochs == 7 else None, "gpu_memory": 10, "gpu_total": 40}
            workers.renew(connection, post, (), bench.worker().timing, Used(2.5), load=load)
            workers.leave(connection, post, Used(2.5), tally.to_json())
    return bench


@pytest.fixture
def page(counted: Bench) -> Iterator[TestClient]:
    """Serve that study without a socket."""
    with TestClient(app_for(Desk(counted.database)), LOCAL) as client:
        yield client


def test_what_workers_counted_is_summed_up(counted: Bench, page: TestClient) -> None:
    """Counts include those of exited workers; claims are counted by duration."""
    samples = read(page.get("/metrics").text)
    assert of(samples, "tuner_epochs_trained_total", "small@1") == {"": 11}
    assert of(samples, "tuner_database_retries_total", "small@1") == {"": 2}
    assert of(samples, "tuner_busy_seconds_total", "small@1") == {"": 5.0}
    buckets = of(samples, "tuner_claim_seconds_bucket", "small@1")
    assert [buckets[str(bound)] for bound in CLAIM_BOUNDS] == [1, 1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert buckets["+Inf"] == of(samples, "tuner_claim_seconds_count", "small@1")[""] == 3
    assert of(samples, "tuner_claim_seconds_sum", "small@1")[""] == pytest.approx(60.304)


def test_a_gpu_is_told_as_long_as_a_worker_is_on_it(counted: Bench, page: TestClient) -> None:
    """A GPU is reported only while a worker uses it."""
    assert "gpu1" not in page.get("/metrics").text
    with counted.database.transaction() as connection:
        connection.execute(sa.update(t.worker).values(ended=None))
        connection.execute(sa.update(t.worker).values(device="cuda:0"))
        found = totals.read(connection)
    assert found.gpus == {("gpu1", "cuda:0"): totals.GpuLoad(0.5, 10, 40)}


def test_labels_are_escaped_and_openmetrics_is_spoken(database: Database) -> None:
    """Labels are escaped for any study name; a scraper chooses its format."""
    bench = Bench.launch(database, make_spec("b_2-c"))
    with bench.database.transaction() as connection:
        connection.execute(sa.update(t.study).values(name='a"b\\c\nd'))
    with TestClient(app_for(Desk(database)), LOCAL) as client:
        text = client.get("/metrics").text
        assert of(read(text), "tuner_workers", 'a"b\\c\nd@1') == {"": 0}
        accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
        answer = client.get("/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_scrapers_that_come_together_cost_one_reading(
    counted: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is cached for some seconds, although trials continue meanwhile."""
    readings = []
    read_totals = totals.read

    def noted(connection: sa.Connection) -> Any:
        readings.append(connection)
        return read_totals(connection)

    monkeypatch.setattr(totals, "read", noted)
    monkeypatch.setattr(metrics, "KEPT_SECONDS", 3600.0)
    with TestClient(app_for(Desk(counted.database)), LOCAL) as client:
        first = client.get("/metrics").text
        worker = counted.worker()
        finish(worker, claim_trial(worker))
        assert client.get("/metrics").text == first
    assert len(readings) == 1


def test_only_so_many_studies_have_series(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open studies have series first, then the newest; archived ones are only counted."""
    for name in ("first", "old", "new", "hidden"):
        Bench.launch(database, make_spec(name))
    with database.transaction() as connection:
        done = t.study.c.name.in_(["old", "new"])
        connection.execute(sa.update(t.study).where(done).values(state="complete"))
        archived = sa.update(t.study).where(t.study.c.name == "hidden")
        connection.execute(archived.values(archived=t.NOW))
        monkeypatch.setattr(totals, "STUDIES_MOST", 2)
        found = totals.read(connection)
    assert [study.name for study in found.studies] == ["first@1", "new@1"]
    none = dict.fromkeys(("paused", "stopped", "spent"), 0)
    assert found.states == {"open": 1, "complete": 2, "archived": 1, **none}


def test_epochs_are_counted_while_a_trial_runs(bench: Bench) -> None:
    """Epochs of running and of ended trials are counted."""
    worker = bench.worker()
    worker.record(claim_trial(worker), make_curve(0.5, 0.4))
    with bench.database.transaction() as connection:
        (study,) = totals.read(connection).studies
    assert (study.epochs, study.trials["running"], study.trials["not_started"]) == (5, 1, 1)


def test_a_scraper_without_a_token_is_refused_and_not_sent_to_the_login(bench: Bench) -> None:
    """Without a token a scraper gets an error, not the login page; a reader's token works."""
    door = Door(bench.database, Access(login=True))
    with bench.database.transaction() as connection:
        token = accounts.add_token(connection, "prometheus", "reader", None)
    app = build(Desk(bench.database), door, deleting(bench.database))
    with TestClient(app, LOCAL) as client:
        refused = client.get("/metrics", follow_redirects=False)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert "tuner_trials{" in answer.text


def test_a_renewal_stores_what_was_counted(bench: Bench) -> None:
    """A renewal stores the counts, so a killed worker loses almost none."""
    worker = bench.worker()
    tally = Tally(epochs=3)
    with bench.database.transaction() as connection:
        post = Post(bench.study.study_id, worker.worker_id)
        workers.renew(connection, post, (), worker.timing, Used(), tally=tally.to_json())
        (study,) = totals.read(connection).studies
    assert study.tally == tally

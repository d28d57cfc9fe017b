"""The dashboard: what optuna-dashboard shows, and nothing that could be changed or stolen."""

import pytest
import sqlalchemy as sa
from webtest import TestApp

from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.dashboard.server import build, serve
from tuner.errors import MachineError, UserError
from tuner.store.database import Database

LOCAL = {"HTTP_HOST": "127.0.0.1:8080"}


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study with one finished trial."""
    bench = Bench.launch(database, make_spec())
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    return bench


@pytest.fixture
def app(bench: Bench) -> TestApp:
    """Serve the study without a socket."""
    return TestApp(build(bench.database), extra_environ=LOCAL)


def test_studies_and_trials_are_shown(app: TestApp, bench: Bench) -> None:
    """The page, the list of studies, and a trial with our figures as its attributes."""
    assert "Optuna Dashboard" in app.get("/dashboard").text
    listed = app.get("/api/studies").json["study_summaries"]
    assert [study["study_name"] for study in listed] == ["small"]
    (trial,) = app.get(f"/api/studies/{bench.study.study_id}").json["trials"]
    attributes = {one["key"]: one["value"] for one in trial["user_attrs"]}
    assert trial["state"] == "Complete"
    assert {"seed", "gap", "test_acc", "seconds"} <= set(attributes)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(app: TestApp, bench: Bench, method: str) -> None:
    """Every method but GET and HEAD is refused, and the database stays as it was."""
    before = bench.contents()
    answer = app.request(f"/api/studies/{bench.study.study_id}", method=method, status=405)
    assert answer.headers["Allow"] == "GET, HEAD"
    assert bench.contents() == before


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "", "[::2]:80"])
def test_other_names_are_refused(app: TestApp, host: str) -> None:
    """A page elsewhere that points its name at 127.0.0.1 reads nothing."""
    answer = app.get("/api/studies", extra_environ={"HTTP_HOST": host}, status=421)
    assert "small" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "[::1]:8080", "127.0.0.1"])
def test_this_machines_names_are_served(app: TestApp, host: str) -> None:
    """The names of this machine work, with and without port."""
    assert app.get("/api/studies", extra_environ={"HTTP_HOST": host}).status_int == 200


def test_answers_cannot_be_framed_sniffed_or_read_across(app: TestApp) -> None:
    """Every answer carries the headers that keep other sites out; artifacts are sandboxed."""
    headers = app.get("/api/studies").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    artifact = app.get("/artifacts/1/2/3", status="*")
    assert "Access-Control-Allow-Origin" not in artifact.headers
    assert artifact.headers["Content-Security-Policy"].startswith("sandbox")


def test_a_refresh_reads_finished_trials_once(app: TestApp, bench: Bench) -> None:
    """The second refresh does not load the finished trials' parameters again."""
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    path = f"/api/studies/{bench.study.study_id}"
    statements: list[str] = []

    def note(_c: object, _cur: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    app.get(path)
    sa.event.listen(bench.database.engine, "before_cursor_execute", note)
    app.get(path)
    assert statements
    assert not [one for one in statements if "FROM trial_params" in one]


def test_only_this_machine_is_served(bench: Bench) -> None:
    """Listening for the network is refused with the way to do it safely."""
    with pytest.raises(UserError, match="ssh -L"):
        serve(bench.database, "192.0.2.1", 0, anywhere=False, ready=lambda _: None)


def test_port_in_use_is_told(bench: Bench) -> None:
    """A port that another program has is named, with what to do."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(MachineError, match="--port"):
            serve(bench.database, "127.0.0.1", taken.getsockname()[1], anywhere=False, ready=print)

"""The dashboard shows what optuna-dashboard shows, and nothing can be changed or stolen."""

import os
import signal
import socket
import urllib.request
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, NO_CHECKPOINTS, app_for, deleting
from tests.harness import warm
from tests.store.specs import Bench, claim_trial, finish, limited, make_spec
from tuner.dashboard.assets import FOLDER
from tuner.dashboard.desk import Desk
from tuner.dashboard.server import Site, serve
from tuner.errors import MachineError
from tuner.settings import Settings
from tuner.spec.study import Checkpoints
from tuner.store import control
from tuner.store.database import Database
from tuner.work import removal


def test_studies_and_trials_are_shown(app: TestClient, bench: Bench) -> None:
    """The page, the list of studies, and a trial with our figures as its attributes."""
    assert "Optuna Dashboard" in app.get("/dashboard").text
    listed = app.get("/api/studies").json()["study_summaries"]
    assert [study["study_name"] for study in listed] == ["small"]
    (trial,) = app.get(f"/api/studies/{bench.study.study_id}").json()["trials"]
    attributes = {one["key"]: one["value"] for one in trial["user_attrs"]}
    assert trial["state"] == "Complete"
    assert {"seed", "gap", "test_acc", "seconds"} <= set(attributes)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(app: TestClient, bench: Bench, method: str) -> None:
    """Every method but GET and HEAD is refused, and the database stays as it was."""
    before = bench.contents()
    answer = app.request(method, f"/api/studies/{bench.study.study_id}")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert bench.contents() == before


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example:8080", "", "[::2]:80", "[::1]x.evil", "localhost:x"],
)
def test_other_names_are_refused(app: TestClient, host: str) -> None:
    """A page elsewhere whose host name points to 127.0.0.1 reads nothing."""
    for path in ("/api/studies", "/", "/studies/small"):
        answer = app.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "small" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "[::1]:8080", "127.0.0.1"])
def test_this_machines_names_are_served(app: TestClient, host: str) -> None:
    """This machine's names work, with and without port."""
    assert app.get("/api/studies", headers={"Host": host}).status_code == 200
    assert "small" in app.get("/", headers={"Host": host}).text


def test_answers_cannot_be_framed_sniffed_or_read_across(app: TestClient) -> None:
    """Every answer has the headers against framing, sniffing and cross-site reading."""
    headers = app.get("/api/studies").headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    artifact = app.get("/artifacts/1/2/3")
    assert "Access-Control-Allow-Origin" not in artifact.headers
    assert artifact.headers["Content-Security-Policy"].startswith("sandbox")


def test_other_sites_can_have_nothing_computed(app: TestClient) -> None:
    """A picture or script in a page elsewhere is refused; a link from there is followed."""
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert app.get("/studies/small", headers=embedded).status_code == 403
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert app.get("/", headers={**link, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    assert app.get("/", headers={**link, "Sec-Fetch-Dest": "document"}).status_code == 200


def test_the_page_of_an_error_is_guarded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An internal error is shown without its reason, with the same headers as every page."""

    def fails(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("tuner.dashboard.pages.front._matches", fails)
    with TestClient(app_for(Desk(bench.database)), LOCAL, raise_server_exceptions=False) as app:
        answer = app.get("/")
    assert answer.status_code == 500
    assert "a secret" not in answer.text
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_refresh_reads_finished_trials_once(app: TestClient, bench: Bench) -> None:
    """A refresh does not load the parameters of finished trials again."""
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


def test_a_retried_trial_is_shown_as_it_is_now(database: Database) -> None:
    """A trial shown as failed is shown as running after `tuner retry`."""
    bench = Bench.launch(database, limited(make_spec(), attempts=1))
    worker = bench.worker()
    worker.fail(claim_trial(worker), "not today")
    with TestClient(app_for(Desk(database)), LOCAL) as app:

        def shown() -> list[str]:
            trials = app.get(f"/api/studies/{bench.study.study_id}").json()["trials"]
            return [trial["state"] for trial in trials]

        assert shown() == ["Fail"]
        control.retry(database, bench.binding, bench.study, [0])
        assert shown() == ["Running"]


def test_a_package_that_is_reached_by_a_link_serves_its_files(tmp_path: Path) -> None:
    """Files are served by their real path, even if the package is a symbolic link."""
    (tmp_path / "dashboard").symlink_to(FOLDER.parent)
    module = run_path(str(tmp_path / "dashboard" / "assets.py"))
    assert module["FOLDER"] == FOLDER
    assert {"page.js", "style.css", "vendor/htmx.min.js"} <= set(module["assets"]())


def test_deleting_connects_to_no_server_that_the_database_names(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints on a server named in the database stay, with a message; ours are removed."""
    looked: list[str] = []
    monkeypatch.setattr(removal, "forget", lambda _tree, study: looked.append(study.name))
    settings = Settings(home=Path("/nowhere"), checkpoints="memory://ours")
    told = {}
    for name, location in (("ours", "memory://ours"), ("theirs", "memory://key:secret@theirs")):
        spec = replace(make_spec(name), checkpoints=Checkpoints(location=location))
        study = Bench.launch(database, spec).study
        told[name] = removal.delete(settings, database, study, elsewhere=False)
    assert looked == ["ours"]
    assert told["ours"] is None
    assert "memory://***@theirs is not connected to" in str(told["theirs"])
    assert "secret" not in str(told["theirs"])


def run(bench: Bench, site: Site) -> None:
    """Serve until an error stops it."""
    serve(NO_CHECKPOINTS, bench.database, site, deleting(bench.database), print)


def reachable(address: str) -> bool:
    """Return whether this machine has an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, 0), family=family).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("localhost", ("127.0.0.1", "::1")),
        ("127.0.0.1", ("127.0.0.1",)),
        ("::1", ("::1",)),
    ],
)
def test_every_local_name_is_served(
    bench: Bench, tmp_path: Path, host: str, addresses: tuple[str, ...]
) -> None:
    """`localhost` is served on both addresses if the machine has both; the printed URL works."""
    have = [address for address in addresses if reachable(address)]
    if not have:
        pytest.skip(f"this machine has no {host}")
    environment = {
        **os.environ,
        "TUNER_DATABASE_URL": bench.database.address.url(show_password=True),
    }
    process = warm.start(["dashboard", "--host", host, "--port", "0"], tmp_path, environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        name = f"[{host}]" if ":" in host else host
        assert url.startswith(f"http://{name}:")
        with urllib.request.urlopen(f"{url}api/studies", timeout=60) as answer:
            assert b"small" in answer.read()
        port = int(url.rstrip("/").rpartition(":")[2])
        for address in have:
            socket.create_connection((address, port), timeout=60).close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def test_a_port_that_one_of_two_addresses_lacks_is_told(bench: Bench) -> None:
    """A program on ::1 alone also blocks the port of `localhost`."""
    if not (reachable("::1") and reachable("127.0.0.1")):
        pytest.skip("this machine has one loopback address")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"Port {port} of localhost cannot be used"):
            run(bench, Site("localhost", port))


def test_port_in_use_is_told(bench: Bench) -> None:
    """A port in use is named, with what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site = Site(port=taken.getsockname()[1])
        with pytest.raises(MachineError, match="--port"):
            run(bench, site)

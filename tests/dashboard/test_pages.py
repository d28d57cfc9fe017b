"""Our pages agree with the commands, as HTML and as JSON, and show what a link asks for."""

import json
import re
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from httpx2 import Response
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.answers.plain import plain
from tuner.answers.question import answer
from tuner.answers.setting_comparison import compare_settings
from tuner.answers.trial import one_trial
from tuner.dashboard.assets import FOLDER
from tuner.dashboard.desk import Desk
from tuner.dashboard.pages import documents
from tuner.results import Results
from tuner.spec.study_ref import StudyRef
from tuner.store import studies
from tuner.store.address import Address
from tuner.store.database import Database

STUDIES = (
    "lr_sched",
    "everything",
    "digits",
    "pruned",
    "one_seed@1",
    "no_test",
    "patients",
    "failed",
    "paused",
    "single",
    "stopped",
    "interrupted",
    "running",
)
INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\sstyle=|<style|javascript:", re.IGNORECASE
)


def wait_for(pages: TestClient, path: str, key: str) -> dict[str, object]:
    """Request a page as JSON until slow parts have been computed."""
    for _ in range(200):
        body: dict[str, object] = pages.get(path).json()
        if body[key] is not None:
            return body
    raise AssertionError(f"{path} has no {key}")


def written(pages: TestClient, path: str) -> Response:
    """Request a document until it has been written."""
    for _ in range(40):
        answer = pages.get(path)
        if answer.status_code != 202:
            return answer
        assert answer.headers["Refresh"]
    raise AssertionError(f"{path} was not written")


@pytest.mark.parametrize("study", STUDIES)
def test_every_page_of_every_study_opens(pages: TestClient, study: str) -> None:
    """Pages open without a trial, a seed or a test set; none has inline script."""
    paths = [f"/studies/{study}", f"/studies/{study}/trials"]
    rows = pages.get(f"/studies/{study}/trials.json").json()["trials"]
    paths += [f"/studies/{study}/trials/{row['trial']}" for row in rows[:2]]
    for path in paths:
        page = pages.get(path)
        assert page.status_code == 200, page.text
        assert study in page.text
        assert not INLINE.search(page.text)
        assert pages.get(f"{path}.json").status_code == 200
    # The first answer may be "being computed", because no page waits for it.
    assert pages.get(f"/studies/{study}/curves.json").status_code in (200, 202)


def test_the_front_lists_what_is_stored(pages: TestClient, stored: Database) -> None:
    """The front page lists all studies, newest first; a search keeps those with all its words."""
    with stored.transaction() as connection:
        titles = [study.title for study in studies.listing(connection)][::-1]
    assert [card["study"] for card in pages.get("/studies.json").json()["studies"]] == titles
    found = pages.get("/?q=RATE+optimizer").text
    assert "pruned" in found
    assert "lr_sched" not in found
    assert "No study matches" in pages.get("/?q=nothing_like_it").text


def test_the_front_says_who_works_and_what_is_best(pages: TestClient) -> None:
    """A study's card has the hosts that work on it, and its best setting by its metric."""
    cards: dict[str, dict[str, Any]] = {}

    def found() -> bool:
        listed = pages.get("/studies.json").json()["studies"]
        cards.update((card["study"], card) for card in listed)
        return all(card["verdict"] for card in listed)

    until(found, "all verdicts are known")
    assert sum(cards["running"]["hosts"].values()) == cards["running"]["workers"] > 0
    overview = pages.get("/studies/lr_sched.json").json()["overview"]["best"]
    best = cards["lr_sched"]["best"]
    assert (best["trial"], best["seeds"]) == (overview["number"], overview["seeds"])
    assert best["value"] == pytest.approx(overview["mean"]["value"])
    assert cards["paused"]["best"] is None
    page = pages.get("/").text
    assert "over 5 seeds" in page
    assert all(host in page for host in cards["running"]["hosts"])


def test_the_front_goes_on_before_a_study(
    pages: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many studies are shown in pages; a new one does not shift them."""
    every = [card["study"] for card in pages.get("/studies.json").json()["studies"]]
    monkeypatch.setattr("tuner.dashboard.pages.front.SIZE", 5)
    first = pages.get("/studies.json").json()
    second = pages.get(f"/studies.json?before={first['before']}").json()
    names = [card["study"] for card in (*first["studies"], *second["studies"])]
    assert names == every[:10]
    assert f"before={first['before']}" in pages.get("/").text
    assert pages.get("/studies.json?before=1").json()["studies"] == []


def test_the_page_says_what_the_commands_say(pages: TestClient, stored: Database) -> None:
    """The answer and the comparison on the page are those of `report` and `compare`."""
    body = wait_for(pages, "/studies/lr_sched.json", "answer")
    body |= wait_for(pages, "/studies/lr_sched.json", "comparisons")
    with stored.snapshot() as connection:
        results = Results.of(connection, StudyRef("lr_sched"))
        said, compared = answer(results), plain(compare_settings(results))
    shown = body["answer"]
    assert isinstance(shown, dict)
    assert tuple(shown["sentences"]) == said
    text = json.dumps(body["comparisons"])
    assert json.dumps(compared) in text
    assert said[0] in pages.get("/studies/lr_sched").text


def test_a_trials_page_says_what_show_says(pages: TestClient, stored: Database) -> None:
    """A trial's page has all of `tuner show --json`, and the misclassified images."""
    with stored.snapshot() as connection:
        results = Results.of(connection, StudyRef("lr_sched"))
        shown = plain(one_trial(results, 23))
        read = results.predicted(23, "test")
    body = pages.get("/studies/lr_sched/trials/23.json").json()
    assert {key: body[key] for key in shown} == json.loads(json.dumps(shown))
    test = next(split for split in body["predictions"] if split["split"] == "test")
    taken = read.log_probabilities.argmax(axis=1)
    wrong = {image for image, one, label in zip(read.ids, taken, read.labels, strict=True)
             if one != label}  # fmt: skip
    assert {mistake["image"] for mistake in test["mistakes"]} == wrong
    assert test["wrong"] == len(wrong)
    chances = [mistake["probability"] for mistake in test["mistakes"]]
    assert chances == sorted(chances, reverse=True)


def test_two_trials_are_compared(pages: TestClient) -> None:
    """Two different trials are compared: verdict, differences, and images that one has right."""
    body = pages.get("/studies/lr_sched/compare.json?trials=3,4").json()
    assert body["differing"] == [["lr", [0.0001, 0.001]]]
    apart = body["apart"]
    assert apart["total"] == len(apart["listed"]) > 0
    for one in apart["listed"]:
        assert [taken["trial"] for taken in one["taken"]] == [3, 4]
        assert {taken["right"] for taken in one["taken"]} == {True, False}
    assert body["verdict"] in pages.get("/studies/lr_sched/compare?trials=3,4").text
    for wrong in ("", "3", "3,3", "3,x"):
        refused = pages.get(f"/studies/lr_sched/compare?trials={wrong}")
        assert refused.status_code == 400
        assert "different trials" in refused.text


def test_filter_sort_and_columns_stand_in_the_address(pages: TestClient) -> None:
    """A link has filter, order and columns; a filter's error is shown above the rows."""
    path = "/studies/lr_sched/trials.json?q=lr>0.001 scheduler:step&sort=-test_acc&columns=lr"
    body = pages.get(path).json()
    assert [set(row) for row in body["trials"]] == [{"trial", "lr"}] * 5
    assert {row["lr"] for row in body["trials"]} == {0.01}
    page = pages.get("/studies/lr_sched/trials?q=scheduller:step")
    assert "did you mean" in page.text.lower()
    assert 'value="scheduller:step"' in page.text
    assert pages.get("/studies/lr_sched/trials?sort=nope").status_code == 400
    assert pages.get("/studies/lr_sched/trials?size=0").status_code == 400
    assert pages.get("/studies/lr_sched/trials?after=[1]").status_code == 400
    csv = pages.get("/studies/lr_sched/trials.csv?q=lr>0.001 scheduler:step&sort=-test_acc").text
    numbers = [line.split(",")[0] for line in csv.splitlines()[1:]]
    assert numbers == [str(row["trial"]) for row in body["trials"]]


def test_what_did_not_change_is_not_sent_again(pages: TestClient) -> None:
    """A part is only its block; a page that has it already gets nothing."""
    part = pages.get("/studies/digits/trials?part=trials")
    assert "<html" not in part.text
    assert "<table" in part.text
    again = pages.get("/studies/digits/trials?part=trials", headers={"have": part.headers["have"]})
    assert again.status_code == 204
    assert pages.get("/studies/digits?part=nothing").status_code == 404


def test_names_and_values_are_texts(database: Database) -> None:
    """Markup in a study's question or a parameter's value is escaped."""
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u202e"
    spec = make_spec()
    object.__setattr__(spec, "question", evil)
    bench = Bench.launch(database, spec)
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    with database.transaction() as connection:
        connection.execute(sa.text("UPDATE tuner.event SET text = :text"), {"text": evil})
    with TestClient(app_for(Desk(database)), LOCAL) as app:
        for path in ("/", "/studies/small", "/studies/small/trials", "/studies/small/trials/0"):
            page = app.get(path).text
            assert "<script>alert" not in page
            assert "<img src=x" not in page
        filtered = app.get("/studies/small/trials", params={"q": evil})
        assert "<script>alert" not in filtered.text


def test_an_empty_database_says_what_to_do(database: Database) -> None:
    """The first page of a new database names the first command."""
    with TestClient(app_for(Desk(database)), LOCAL) as app:
        assert "tuner launch" in app.get("/").text
        assert app.get("/studies.json").json()["studies"] == []
        assert "tuner worker" in app.get("/workers").text


def test_a_deleted_study_is_told(bench: Bench) -> None:
    """A page of a deleted study says so, as HTML and as JSON, with 404.

    It may be shown unchanged for the moment that the database's announcement takes.
    """
    with TestClient(app_for(Desk(bench.database)), LOCAL) as app:
        assert app.get("/studies/small").status_code == 200
        with bench.database.transaction() as connection:
            studies.delete(connection, bench.study)
        for path in ("/studies/small", "/studies/small/trials", "/studies/small/trials/0"):
            until(partial(_is_gone, app, path), f"{path} is gone")
            assert "Traceback" not in app.get(path).text
        assert "error" in app.get("/studies/small.json").json()


def test_a_name_means_the_newest_version_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relaunched study appears as soon as it is announced, not at the next tick."""
    monkeypatch.setattr("tuner.dashboard.desk.CLOCK", 1e9)
    desk = Desk(bench.database)
    with TestClient(app_for(desk), LOCAL) as app:
        until(lambda: desk.announcements.live, "announcements are heard")
        assert app.get("/studies/small").status_code == 200
        assert desk.study("small").version == 1
        Bench.launch(bench.database, make_spec(epochs=4), new_version=True)
        until(lambda: desk.study("small").version == 2, "the new version")
        assert "small@2" in app.get("/studies/small").text


def test_summaries_of_changed_studies_are_read_in_one_transaction(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Summaries for open pages of two studies are read before the pages are notified."""
    # No value expires during this test.
    monkeypatch.setattr("tuner.dashboard.desk.CLOCK", 1e9)
    monkeypatch.setattr("tuner.dashboard.live.UNHEARD", 1e9)
    first, second = (Bench.launch(database, make_spec(name)) for name in ("one", "two"))
    unwatched = Bench.launch(database, make_spec("three"))
    desk = Desk(database)
    for bench in (first, second):
        assert desk.overview(bench.study).counts.running == 0
        claim_trial(bench.worker())
        desk.announcements.changed(bench.study.study_id)
    begun: list[object] = []
    listener = ("begin", begun.append)
    sa.event.listen(database.engine, *listener)
    try:
        numbers = [bench.study.study_id for bench in (first, second, unwatched)]
        ready: list[int] = []
        desk.prepare(numbers, ready.append)
        assert len(begun) == 1
        # The unwatched study does not wait for the others' summaries.
        assert ready == [numbers[2], *numbers[:2]]
        for bench in (first, second):
            assert desk.overview(bench.study).counts.running == 1
        assert len(begun) == 1
    finally:
        sa.event.remove(database.engine, *listener)
        desk.close()


def _is_gone(app: TestClient, path: str) -> bool:
    return app.get(path).status_code == 404


def test_a_database_that_is_away_is_told(bench: Bench) -> None:
    """Without its database a page shows 503, and reloads itself later."""
    nowhere = Address({**bench.database.address.parameters, "host": "127.0.0.1", "port": "1"})
    desk = Desk(bench.database)
    with TestClient(app_for(desk), LOCAL, raise_server_exceptions=False) as app:
        desk.database = Database(nowhere)
        front = app.get("/")
        assert front.status_code == 503
        assert "does not answer" in front.text
        assert 'http-equiv="refresh"' in front.text
        assert "Traceback" not in front.text
        assert app.get("/studies.json").status_code == 503


def test_a_migration_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While tables are locked a page says that it will reload; after the migration, to restart."""
    monkeypatch.setattr("tuner.dashboard.desk.CLOCK", 0.01)
    with TestClient(app_for(Desk(bench.database)), LOCAL) as app:
        with bench.database.transaction() as connection:
            connection.execute(sa.text("LOCK TABLE tuner.study IN ACCESS EXCLUSIVE MODE"))
            sa.event.listen(bench.database.engine, "begin", _impatient)
            page = app.get("/studies/small")
            sa.event.remove(bench.database.engine, "begin", _impatient)
        assert page.status_code == 503
        assert "reloads by itself" in page.text
        with bench.database.transaction() as connection:
            connection.execute(sa.text("ALTER TABLE tuner.study RENAME COLUMN reason TO why"))
        page = app.get("/studies/small")
        assert page.status_code == 503
        assert "Restart the dashboard" in page.text
        assert "Traceback" not in page.text


def _impatient(connection: sa.Connection) -> None:
    connection.exec_driver_sql("SET LOCAL lock_timeout = 50")


def test_documents(pages: TestClient) -> None:
    """A picture and the report are served complete, and can run no script."""
    picture, report = (
        written(pages, path)
        for path in ("/studies/digits/pictures/curves.svg", "/studies/single/report")
    )
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "How good is the usual setting?" in report.text
    for document in (picture, report):
        policy = document.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "sandbox" in policy
    assert written(pages, "/studies/digits/pictures/nope.svg").status_code == 400
    assert pages.get("/studies/digits/trials/0/curves.json?curve=nope").status_code == 400


def test_our_pages_allow_no_foreign_or_inline_script(pages: TestClient) -> None:
    """The policy names only our own files, and every asset that a page names exists."""
    page = pages.get("/studies/lr_sched")
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assets = re.findall(r"(?:src|href)=\"(/assets/[^\"]+)\"", page.text)
    assert len(assets) >= 5
    for path in assets:
        assert pages.get(path).status_code == 200
    assert pages.get("/assets/../guard.py").status_code in (400, 404)
    assert pages.get("/assets/%2e%2e/guard.py").status_code in (400, 404)


def test_a_browser_asks_for_each_of_our_files_once(pages: TestClient) -> None:
    """Our files' addresses have a hash of their content, and are served compressed."""
    page = pages.get("/studies/lr_sched").text
    (mark,) = set(re.findall(r"/assets/([0-9a-f]{16})/", page))
    named = set(re.findall(rf"/assets/{mark}/([^\"]+)\"", page))
    imported = {
        found
        for name in named
        if name.endswith(".js")
        for found in re.findall(r'(?:from|import) "\./([^"]+)"', (FOLDER / name).read_text())
    }
    assert "print.js" in imported  # by `import` without `from`
    assert imported <= named  # none is discovered only after another has been read
    for name in named:
        answer = pages.get(f"/assets/{mark}/{name}")
        assert "immutable" in answer.headers["Cache-Control"], name
        assert answer.headers["Content-Encoding"] == "gzip", name
        assert answer.content == (FOLDER / name).read_bytes(), name  # decompressed by the client


@pytest.mark.parametrize("name", ["page.js", f"{'0' * 16}/page.js"])
def test_a_file_of_another_version_is_sent_once(pages: TestClient, name: str) -> None:
    """A file under another version's mark is revalidated by its ETag each time."""
    whole = pages.get(f"/assets/{name}")
    assert whole.headers["Cache-Control"] == "no-cache"
    assert whole.content == (FOLDER / "page.js").read_bytes()
    tag = whole.headers["ETag"]
    same = pages.get(f"/assets/{name}", headers={"If-None-Match": f'"other", {tag}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert same.headers["Cache-Control"] == "no-cache"
    assert pages.get("/assets/style.css", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("br, gzip", "gzip"),
        ("gzip;q=0.5", "gzip"),
        ("gzip;q=0", None),
        ("br, gzip; q=0.000", None),
        ("identity", None),
    ],
)
def test_only_who_accepts_it_gets_gzip(
    pages: TestClient, accepted: str, encoding: str | None
) -> None:
    """Files and pages are compressed only if accepted; a weight of 0 refuses gzip."""
    for path in ("/assets/page.js", "/studies/digits"):
        answer = pages.get(path, headers={"Accept-Encoding": accepted})
        assert answer.headers.get("Content-Encoding") == encoding, path
        assert "Accept-Encoding" in answer.headers["Vary"], path


def test_a_second_export_does_not_wait_for_the_first(pages: TestClient) -> None:
    """A second export gets 503 with Retry-After: waiting would block a thread for pages."""
    with documents.EXPORTING:
        answer = pages.get("/studies/digits/export.csv")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert pages.get("/studies/digits/export.csv").status_code == 200
    assert pages.get("/studies/digits/export.csv?q=nosuchcolumn>1").status_code == 400
    assert pages.get("/studies/digits/export.csv").status_code == 200


ODD_ADDRESSES = (
    "/studies/digits/trials?size=²",
    "/studies/digits/trials?size=99999999999",
    "/studies/digits/trials?after=[true,true]",
    '/studies/digits/trials?after=["x",1]',
    '/studies/digits/trials?after=["\\ud800",1]&sort=state',
    "/studies/digits/trials?after=" + "[" * 9000,
    "/studies/digits/trials?q=state:%00",
    "/studies/a%00b",
    "/studies/digits/compare?trials=²,3",
    "/studies/digits/compare?trials=1,2,3,3",
    "/studies/digits/compare?trials=0,1,2,3,4,5,6,7,8",
    "/studies/digits/compare?settings=1",
    "/studies/digits/compare?settings=1,99",
    "/studies/digits/compare/curves.json?trials=1,2&curve=nope",
    "/studies/digits/export.exe",
    "/studies/digits/export.a%0d%0aX-Bad:1.csv",
    "/studies/digits/export.é.csv",
    "/studies/digits/export.md?columns=nope",
)


@pytest.mark.parametrize("address", ODD_ADDRESSES)
def test_an_odd_address_is_refused(stored: Database, address: str) -> None:
    """A request that no browser would send gets a sentence, never an internal error."""
    with TestClient(app_for(Desk(stored)), LOCAL, raise_server_exceptions=False) as app:
        answer = app.get(address)
    assert answer.status_code == 400
    assert len(answer.text) < 5000


def test_a_number_that_is_none_of_ours_is_not_found(pages: TestClient) -> None:
    """A number of no study is not found, however many digits it has."""
    for number in ("9" * 9, "9" * 10, "9" * 5000):
        for path in ("", ".json", "/images/test/0.png"):
            address = f"/studies/digits/trials/{number}{path}"
            assert pages.get(address).status_code in (400, 404), address[:60]
        assert pages.get(f"/studies/digits/trials/{number}/curves.json").status_code in (200, 404)
        assert pages.get(f"/studies/digits/trials/3/images/test/{number}.png").status_code == 404


def test_a_silent_worker_disappears(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead machine announces nothing: a page notices it by the clock."""
    monkeypatch.setattr("tuner.dashboard.desk.CLOCK", 0.2)
    claim_trial(bench.worker())
    with TestClient(app_for(Desk(bench.database)), LOCAL) as app:
        assert app.get("/workers.json").json()["lines"]
        assert "1 running" in app.get("/studies/small").text
        with bench.database.transaction() as connection:
            connection.execute(sa.text("UPDATE tuner.worker SET seen = seen - interval '1 hour'"))
            connection.execute(sa.text("UPDATE tuner.lease SET expires = now() - interval '1 s'"))
        until(lambda: not app.get("/workers.json").json()["lines"], "the worker is gone")
        until(lambda: "1 waiting" in app.get("/studies/small").text, "its trial waits")
        assert "waiting" in app.get("/studies/small/trials").text


def test_a_page_of_another_version_is_loaded_again(pages: TestClient) -> None:
    """If a name now means another study, its page's part makes the page reload."""
    other = pages.get("/studies/digits?part=now&id=999999")
    assert other.headers["HX-Refresh"] == "true"
    assert not other.text

"""Changes are noticed at once, sent at most a few times a second, and missed ones caught up."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import QUICK
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, make_epoch, make_spec
from tuner.dashboard import live
from tuner.dashboard.live import PAUSE, Announcements
from tuner.dashboard.shelf import Shelf
from tuner.errors import MachineError, UserError
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.spending import Used


@pytest.fixture(autouse=True)
def no_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable echoes, so that a study counts as changed only when announced."""
    monkeypatch.setattr(live, "ECHOES", ())


async def heard(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def next_event(stream: AsyncIterator[str]) -> str:
    """Return the name of the next event of a stream."""
    text = await asyncio.wait_for(anext(stream), 30)
    return next(line for line in text.splitlines() if line.startswith("event: "))[7:]


def test_what_workers_store_is_announced(database: Database) -> None:
    """A claim, an epoch and an end each raise the study's version, and no other study's."""

    async def scene() -> None:
        bench = Bench.launch(database, make_spec())
        other = Bench.launch(database, make_spec("other"))
        announcements = Announcements(database)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        number, unconcerned = bench.study.study_id, other.study.study_id
        untouched = announcements.version(unconcerned)
        stream = announcements.stream(number)
        assert await next_event(stream) == "live"

        async def does(what: Callable[[], object], event: str) -> None:
            before = announcements.version(number)
            settled = announcements.settled_version(number)
            await asyncio.to_thread(what)
            await heard(lambda: announcements.version(number) != before)
            assert await next_event(stream) == event
            # The data behind answers are unchanged while trials only advance.
            assert (announcements.settled_version(number) == settled) == (event == "moved")

        worker = bench.worker()
        await heard(lambda: announcements.version(number)[-1] > 0)
        assert await next_event(stream) == "changed"
        lease = await asyncio.to_thread(claim_trial, worker)
        await heard(lambda: announcements.version(number)[-1] > 1)
        assert await next_event(stream) == "changed"
        await does(lambda: worker.record(lease, [make_epoch(1)]), "moved")
        await does(lambda: worker.keep_output(lease, "said"), "moved")
        await does(lambda: worker.keep_output(lease, "said more"), "moved")
        await does(lambda: worker.fail(lease, "not today"), "changed")
        assert announcements.version(unconcerned) == untouched
        task.cancel()

    asyncio.run(scene())


def test_a_change_that_was_not_announced_is_looked_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transactions that commit beside an announcing one are silent: an echo finds their changes."""
    monkeypatch.setattr(live, "ECHOES", (0.3, 3.0))

    async def scene() -> None:
        bench = Bench.launch(database, make_spec())
        number = bench.study.study_id
        announcements = Announcements(database)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        with database.transaction() as silent:
            with database.transaction() as announcing:
                announcing.execute(
                    sa.text(
                        "SELECT pg_advisory_xact_lock(29806, :study),"
                        " pg_notify('tuner', CAST(:study AS text))"
                    ),
                    {"study": number},
                )
                # Not announced, since the other transaction announces at this moment.
                studies.add_event(silent, bench.study, "looked", "")
            await heard(lambda: announcements.version(number)[-1] == 1)
        await heard(lambda: announcements.version(number)[-1] == 2)
        assert announcements.settled_version(number)[-1] == 2
        task.cancel()

    asyncio.run(scene())


def test_an_echo_of_nothing_new_wakes_nobody(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the second look at a study finds it unchanged, no page requests again."""
    monkeypatch.setattr(live, "ECHOES", (0.02,))

    async def scene() -> None:
        number = Bench.launch(database, make_spec()).study.study_id
        announcements = Announcements(database)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        with database.transaction() as connection:
            connection.execute(sa.text("SELECT pg_notify('tuner', :study)"), {"study": str(number)})
        await heard(lambda: announcements.version(number)[-1] == 1)
        # The study's echo is judged before this announcement, which comes later.
        await asyncio.sleep(0.05)
        with database.transaction() as connection:
            connection.execute(sa.text("SELECT pg_notify('tuner', '999999')"))
        await heard(lambda: announcements.version(999999)[-1] == 1)
        assert announcements.version(number)[-1] == 1
        task.cancel()

    asyncio.run(scene())


def test_renewals_wake_nobody(database: Database) -> None:
    """A worker's renewal of its lease is no change."""

    async def scene() -> None:
        bench = Bench.launch(database, make_spec())
        worker = bench.worker()
        lease = await asyncio.to_thread(claim_trial, worker)
        announcements = Announcements(database)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        before = announcements.version(bench.study.study_id)
        with database.transaction() as connection:
            post = workers.Post(bench.study.study_id, worker.worker_id)
            renewed = workers.renew(connection, post, [lease], QUICK, Used(1.0, 1.0))
        assert not renewed.lost
        # Anything that the renewal announces comes before this.
        with database.transaction() as connection:
            connection.execute(sa.text("SELECT pg_notify('tuner', '999999')"))
        await heard(lambda: announcements.version(999999)[-1] == 1)
        assert announcements.version(bench.study.study_id) == before
        task.cancel()

    asyncio.run(scene())


def test_a_summary_that_fails_leaves_pages_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of two changed studies cannot be prepared, both are announced; nothing breaks."""
    monkeypatch.setattr(live, "BREATH", 300.0)  # a page that is not told must not look by itself

    async def scene() -> None:
        benches = [Bench.launch(database, make_spec(name)) for name in ("one", "two")]
        asked: list[list[int]] = []

        def prepare(changed: Collection[int], ready: Callable[[int], None]) -> None:
            asked.append(sorted(changed))
            raise MachineError("no summary today")

        announcements = Announcements(database, prepare)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        streams = [announcements.stream(bench.study.study_id) for bench in benches]
        for stream in streams:
            assert await next_event(stream) == "live"
        for bench in benches:
            await asyncio.to_thread(bench.worker)
        for stream in streams:
            assert await next_event(stream) == "changed"
        assert asked
        assert announcements.live
        assert not task.done()
        task.cancel()

    asyncio.run(scene())


def test_an_announcement_during_preparation_does_not_spin_the_loop(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays unread while summaries are prepared, wakes no page, and is processed afterwards."""
    watched = False

    async def scene() -> None:
        one, two = (Bench.launch(database, make_spec(name)) for name in ("one", "two"))
        begun, go = threading.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        add, remove = loop.add_reader, loop.remove_reader

        def begin_watching(*given: Any) -> None:
            nonlocal watched
            watched = True
            add(*given)

        def stop_watching(line: int) -> bool:
            nonlocal watched
            watched = False
            return remove(line)

        monkeypatch.setattr(loop, "add_reader", begin_watching)
        monkeypatch.setattr(loop, "remove_reader", stop_watching)

        def prepare(changed: Collection[int], ready: Callable[[int], None]) -> None:
            begun.set()
            assert go.wait(30)
            for number in changed:
                ready(number)

        announcements = Announcements(database, prepare)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        before = announcements.version(two.study.study_id)
        await asyncio.to_thread(one.worker)
        await heard(begun.is_set)
        assert not watched
        await asyncio.to_thread(two.worker)
        await asyncio.sleep(0.2)
        assert announcements.version(two.study.study_id) == before
        go.set()
        await heard(lambda: announcements.version(two.study.study_id) != before)
        await heard(lambda: watched)
        task.cancel()

    asyncio.run(scene())


def test_a_lost_line_is_told_and_made_up_for(database: Database) -> None:
    """When the server ends the connection pages are told, and later request everything again."""

    async def scene() -> None:
        announcements = Announcements(database)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        stream = announcements.stream(None)
        assert await next_event(stream) == "live"
        before = announcements.version()
        with database.transaction() as connection:
            ended = connection.execute(
                sa.text(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE query ~ '^(LISTEN|NOTIFY)' AND datname = current_database()"
                )
            ).scalar()
        assert ended == 1
        events = [await next_event(stream) for _ in range(3)]
        assert "changed" in events
        await heard(lambda: announcements.live)
        assert announcements.version() != before
        task.cancel()

    asyncio.run(scene())


def test_a_fast_study_wakes_a_tab_a_few_times_a_second(database: Database) -> None:
    """A hundred changes at once are one message, and the next comes after a pause."""

    async def scene() -> None:
        announcements = Announcements(database)
        stream = announcements.stream(7)
        await next_event(stream)
        for _ in range(100):
            announcements.changed(7)
        begun = time.monotonic()
        assert await next_event(stream) == "changed"
        announcements.changed(7)
        assert await next_event(stream) == "changed"
        assert time.monotonic() - begun >= PAUSE * 0.9
        announcements.changed(8)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 2 * PAUSE)

    asyncio.run(scene())


def test_odd_announcements_harm_nobody(database: Database) -> None:
    """Anyone who can connect may send any payload; real changes still arrive."""

    async def scene() -> None:
        announcements = Announcements(database)
        task = asyncio.create_task(announcements.listen())
        await heard(lambda: announcements.live)
        with database.transaction() as connection:
            for odd in ("²", "-1", "", "x" * 7000, "12"):
                connection.execute(sa.text("SELECT pg_notify('tuner', :odd)"), {"odd": odd})
        await heard(lambda: announcements.version(12)[-1] == 1)
        assert announcements.live
        assert not task.done()
        task.cancel()

    asyncio.run(scene())


def test_the_last_change_is_computed_though_nobody_asks_again() -> None:
    """A change during an answer's rest is computed after it, though nobody asks again."""
    shelf, computed = Shelf(9), []

    def ask(version: int) -> object:
        def compute() -> int:
            time.sleep(0.1)
            computed.append(version)
            return version

        return shelf.recent("question", version, compute, patience=0.0, ready=lambda: None)

    ask(1)
    until(lambda: computed == [1], "the first version")
    until(lambda: ask(1) is not None, "it is kept")
    ask(2)
    assert computed == [1]
    until(lambda: computed == [1, 2], "the second one, after the rest")
    shelf.close()


def test_many_changing_studies_leave_the_processor_room() -> None:
    """Recomputing many changing answers takes only part of one core."""
    shelf, busy = Shelf(99, threads=2), []

    def ask(question: int, version: int) -> object:
        def compute() -> int:
            begun = time.monotonic()
            time.sleep(0.02)
            busy.append(time.monotonic() - begun)
            return version

        return shelf.recent(question, version, compute, patience=0.0, ready=lambda: None)

    until(lambda: all(ask(question, 0) is not None for question in range(20)), "all are there")
    busy.clear()
    begun = time.monotonic()
    for version in range(1, 101):
        for question in range(20):
            ask(question, version)
        time.sleep(0.01)
    elapsed = time.monotonic() - begun
    assert 0 < sum(busy) < 0.6 * elapsed
    shelf.close()


def test_a_failure_is_told_and_not_repeated() -> None:
    """A failed answer says so until something changes, and is not retried meanwhile."""
    shelf, calls = Shelf(9), []

    def fail() -> None:
        calls.append(1)
        raise ValueError("odd data")

    def ask(version: int) -> object:
        return shelf.recent("question", version, fail, patience=5.0, ready=lambda: None)

    for _ in range(3):
        with pytest.raises(MachineError, match="could not be computed"):
            ask(1)
    assert len(calls) == 1
    with pytest.raises(MachineError):
        ask(2)
    assert len(calls) == 2
    shelf.close()


def test_one_thread_computes_for_all() -> None:
    """Twenty requests at once get one result; a new version is computed once more."""
    shelf, calls = Shelf(9), []
    barrier = threading.Barrier(20)

    def compute() -> int:
        calls.append(1)
        time.sleep(0.05)
        return len(calls)

    def ask() -> None:
        barrier.wait()
        results.append(shelf.fresh("question", 1, compute))

    results: list[int] = []
    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 20
    assert shelf.fresh("question", 2, compute) == 2
    shelf.close()


def test_a_slow_answer_is_shown_as_it_was() -> None:
    """While a new version is computed the old one is returned, and `ready` is called at the end."""
    shelf, ready, gate = Shelf(9), [], threading.Event()

    def ask(version: int, value: str, patience: float = 0.0) -> tuple[str, bool] | None:
        def compute() -> str:
            assert gate.wait(30)
            return value

        kept = shelf.recent(
            "question", version, compute, patience=patience, ready=lambda: ready.append(value)
        )
        return None if kept is None else (kept.value, kept.current)

    assert ask(1, "old") is None
    gate.set()
    until(lambda: ready == ["old"], "the first answer")
    assert ask(1, "never") == ("old", True)
    gate.clear()
    until(lambda: ask(2, "new") == ("old", False) and len(ready) == 1, "the older one meanwhile")
    gate.set()
    until(lambda: ask(2, "new") == ("new", True), "the newer one")
    shelf.close()


def test_a_refusal_is_an_answer_and_an_accident_is_not() -> None:
    """A user error is cached like an answer; a lost connection is retried the next time."""
    shelf, calls = Shelf(9), []

    def refuse() -> None:
        calls.append("refused")
        raise UserError("No trial is complete yet.")

    def break_down() -> None:
        calls.append("broken")
        raise OSError("gone")

    for _ in range(2):
        with pytest.raises(UserError):
            shelf.fresh("refused", 1, refuse)
        with pytest.raises(OSError, match="gone"):
            shelf.fresh("broken", 1, break_down)
    assert calls == ["refused", "broken", "broken"]
    shelf.close()


def test_questions_without_end_fill_no_queue() -> None:
    """Of a hundred filters at once a few are computed; repeated requests are answered."""
    shelf, gate, computed = Shelf(1_000, queue=4), threading.Event(), []

    def ask(number: int) -> object:
        def compute() -> int:
            gate.wait(60)
            computed.append(number)
            return number

        return shelf.recent(number, 1, compute, patience=0.0, ready=lambda: None)

    for number in range(100):
        assert ask(number) is None
    gate.set()
    until(lambda: len(computed) == 8, "those of the queue, and the newest that were postponed")
    assert set(computed) == {0, 1, 2, 3, 96, 97, 98, 99}
    until(lambda: ask(50) is not None, "it is asked for again")
    assert computed[8:] == [50]
    shelf.close()

"""The dashboard beside plain optuna-dashboard, on one database with many trials.

    python -m benchmarks.dashboard                                # 14 minutes
    python -m benchmarks.dashboard --trials 2000 --seconds 20 --minutes 1 --many 0    # to try it

The database holds 20 studies with this many trials of 50 epochs in all, each with the predictions
for 400 validation and 400 test images, and 50 trials are running: a process claims them and records
an epoch of each every five seconds, through the ledger, as workers do. Three cases take turns: no
tabs; 20 tabs of optuna-dashboard; 20 tabs of `tuner dashboard`. One of the tabs is Chromium, whose
times are measured. The others are programs that send the requests of its pages (of tuner, every
part when something has changed; of optuna-dashboard, the study every ten seconds), so that the time
of 19 more browsers is not taken from the same cores. The browser and these programs stand for other
people's machines, so they give way to the workers, the database and the servers (nice 10).

A page is open when it shows the study's name and its trials' numbers or, of optuna-dashboard, the
name. It is complete when its answer, workers and curves are there, which is what a window of 1280
by 1600 shows of it; of optuna-dashboard, when its history has been drawn. Each page gets 20
seconds for either, and those that take longer are counted. An update is the time from a committed
epoch to its number on the page.

Before that both take a turn on a smaller database, where optuna-dashboard keeps up. After the turns
20 tabs keep `tuner dashboard` open until ten minutes are over, and its memory is recorded.
Meanwhile a second database is filled, with 100,000 trials in 20 studies, and pages of these are
opened: the times are those of the page with its figures (open), and of all of it (complete).
"""

import argparse
import asyncio
import json
import math
import os
import random
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin
from urllib.request import urlopen

import httpx2
import numpy as np
import psutil
import sqlalchemy as sa
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from benchmarks import record
from benchmarks.stored import make_dataset, make_training, settle, store
from tests.store.specs import SETUP, Bench, claim_trial
from tuner.settings import Settings, Timing, from_environment, worker_environment
from tuner.spec.study_ref import StudyRef
from tuner.store import schema, studies
from tuner.store.database import Database
from tuner.store.ledger import workers
from tuner.store.ledger.ledger import Ledger
from tuner.store.optuna_storage import Binding
from tuner.store.spending import Used

STUDIES = 20
EPOCHS = 50
IMAGES = 400
RUNNING = 50
EPOCH_SECONDS = 5.0
ROOM = 100
"""Untrained trials of each study."""
TABS = 20
NICE = 10
"""The niceness of processes that stand for other machines."""
LOADS = 12
"""Pages that the browser opens in a turn."""
WINDOW: ViewportSize = {"width": 1280, "height": 1600}
LIMIT = 20.0
"""Seconds that a page gets to be complete."""
LOOKERS = ("nobody", "optuna-dashboard", "tuner")
ROOT = Path(__file__).resolve().parents[1]
DISK = Path("/var/tmp")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@dataclass(frozen=True)
class Site:
    """The database, and what children need to reach it."""

    database: Database
    folder: Path
    environment: Mapping[str, str]
    studies: Mapping[str, int]


@dataclass(frozen=True)
class Stage:
    """What all turns share."""

    site: Site
    servers: Mapping[str, tuple[str, psutil.Process]]
    """Servers that run beyond their turn."""
    browser: Browser
    notes: Path
    """The file in which workers record the times of their calls."""
    seconds: float
    """The duration of a turn."""


@dataclass
class Turn:
    """What was measured during one turn."""

    looked_at: str
    opens: list[float | None] = field(default_factory=list)
    """Seconds until a page shows its study, with an empty browser cache."""
    loads: list[float | None] = field(default_factory=list)
    """Seconds to a complete page, with an empty browser cache; None for too many."""
    again: list[float | None] = field(default_factory=list)
    """The same, with the scripts in the browser's cache."""
    updates: list[float] = field(default_factory=list)
    page_bytes: list[int] = field(default_factory=list)
    minute_bytes: float | None = None
    calls: dict[str, list[float]] = field(default_factory=dict)
    """Seconds that workers' calls took."""
    transactions: float = 0.0
    """Transactions of the database per second."""
    cpu: float = 0.0
    """The server's processor time per second."""
    memory: list[int] = field(default_factory=list)


def main() -> None:
    """Measure what the command line asks for, or play a part that this program started."""
    if len(sys.argv) > 1 and sys.argv[1] in PART_OF:
        PART_OF[sys.argv[1]](*sys.argv[2:])
        return
    options = _options()
    figures: dict[str, Any] = {"trials": options.trials, "seconds": options.seconds}
    with sync_playwright() as playwright, _nice_chromium() as program:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        if options.small:
            both = [name for name in options.only if name in SERVERS]
            with _stage(options.small, both, browser, options.seconds) as stage:
                turns = [_turn(stage, looked_at) for looked_at in both]
            figures["small"] = {"trials": options.small, "turns": _summed(turns)}
        with (
            _stage(options.trials, options.only, browser, options.seconds) as stage,
            ExitStack() as stack,
        ):
            memory = _Memory(stage.servers["tuner"][1]) if "tuner" in stage.servers else None
            turns = []
            for _ in range(options.rounds):
                for looked_at in options.only:
                    if looked_at == "tuner" and memory is not None:
                        stack.enter_context(memory)
                    turns.append(_turn(stage, looked_at))
            figures["turns"] = _summed(turns)
            if memory is not None:
                site, url = stage.site, stage.servers["tuner"][0]
                stack.enter_context(_child(site, "tabs", url, "tuner", *_tabs(site)))
                if options.many:
                    figures["many"] = _many(options.many, browser)
                memory.until(options.minutes)
                figures["memory"] = memory.figures
        browser.close()
    record.finish(options, "dashboard", figures, list(lines(figures)))


@contextmanager
def _nice_chromium() -> Iterator[Path | None]:
    """Write a program that runs Chromium at low priority; return None if Playwright has its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        program = Path(folder) / "chromium"
        if CHROMIUM is not None:
            program.write_text(f'#!/bin/sh\nexec nice -n {NICE} {shlex.quote(CHROMIUM)} "$@"\n')
            program.chmod(0o700)
        yield program if CHROMIUM is not None else None


@contextmanager
def _stage(
    trials: int, looked_at: Sequence[str], browser: Browser, seconds: float
) -> Iterator[Stage]:
    """Fill a database, keep training on it, and serve it by the dashboards under test."""
    with _site(trials) as site, ExitStack() as stack:
        notes = site.folder / "notes.jsonl"
        stack.enter_context(_child(site, "workers", str(notes), *site.studies))
        # tuner's memory is measured beyond its turn. optuna-dashboard is stopped after its own: it
        # works for minutes on the requests it has received.
        servers = {"tuner": stack.enter_context(_tuner(site))} if "tuner" in looked_at else {}
        _wait_for(notes)
        yield Stage(site, servers, browser, notes, seconds)


def _many(trials: int, browser: Browser) -> dict[str, Any]:
    """Open pages of a database with very many trials."""
    opened: list[float | None] = []
    complete: list[float | None] = []
    with _site(trials) as site, _tuner(site) as (url, _):
        rng = random.Random(1)  # which page is opened
        for place in range(LOADS):
            context = browser.new_context(viewport=WINDOW, bypass_csp=True)
            study = rng.choice(list(site.studies.items()))
            load = _load(context.new_page(), url, KINDS["tuner"], study)
            opened.append(load.opened)
            complete.append(load.complete)
            record.progress(f"page {place + 1} of {trials:,} trials: {opened[-1]} {complete[-1]}")
            context.close()
    return {"trials": trials, "opened": _spread(opened), "complete": _spread(complete)}


class _Memory:
    """Samples the memory of a server for some minutes."""

    EVERY = 5.0

    def __init__(self, server: psutil.Process) -> None:
        self._server = server
        self._began: float | None = None
        self._noted: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._note, daemon=True)

    def __enter__(self) -> "_Memory":
        """Begin; entering again has no effect."""
        if self._began is None:
            self._began = time.monotonic()
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()

    def until(self, minutes: float) -> None:
        """Wait until memory has been sampled for this long."""
        assert self._began is not None
        time.sleep(max(0.0, self._began + 60 * minutes - time.monotonic()))
        self._stop.set()
        self._thread.join()

    @property
    def figures(self) -> dict[str, Any]:
        """Return the minutes, and the bytes after one minute, at the later peak, and at the end."""
        first = next(size for at, size in self._noted if at >= min(60.0, self._noted[-1][0]))
        after = [size for at, size in self._noted if at >= 60.0] or [first]
        return {
            "minutes": self._noted[-1][0] / 60,
            "first": first,
            "most": max(after),
            "last": self._noted[-1][1],
        }

    def _note(self) -> None:
        assert self._began is not None
        while not self._stop.wait(self.EVERY):
            self._noted.append((time.monotonic() - self._began, _memory(self._server)))


@contextmanager
def _site(trials: int) -> Iterator[Site]:
    # On a disk: the folder that tests use for their small databases may be in memory.
    with tempfile.TemporaryDirectory(prefix="bench-", dir=DISK, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user, who needs access
        settings = Settings(folder / ".tuner", timing=Timing())
        with Database.open(settings, create=True) as database:
            schema.ensure(database)
            stored = trials // STUDIES
            made = {}
            for number in range(STUDIES):
                bench = store(
                    database,
                    f"study_{number:02}",
                    stored=stored,
                    trials=stored + ROOM,
                    epochs=EPOCHS,
                    images=IMAGES,
                )
                made[bench.study.title] = bench.study.study_id
                record.progress(f"{(number + 1) * stored:,} trials are stored")
            settle(database)
            kept = {k: v for k, v in os.environ.items() if k.startswith(("PATH", "PYTHON", "HOME"))}
            yield Site(database, folder, {**kept, **worker_environment(settings)}, made)


# Workers


def _keep_training(notes: str, *names: str) -> None:
    """Train fifty trials for ever, without computing, at the pace of fifty workers."""
    settings = from_environment(os.environ)
    rng = np.random.default_rng(1)
    dataset = make_dataset(IMAGES)
    with Database.open(settings) as database, Path(notes).open("a", encoding="utf-8") as out:
        crew = []
        for place in range(RUNNING):
            with database.transaction() as connection:
                study = studies.find(connection, StudyRef.stored(names[place % len(names)]))
                me = workers.Worker(f"machine-{place % 8}", place, "cpu")
                post = workers.join(connection, study.study_id, me)
            crew.append((Bench(database, Binding(database), study), post))
        ledgers = [
            Ledger(database, bench.binding, bench.study, post.worker_id, settings.timing)
            for bench, post in crew
        ]
        trained: list[Any] = [None] * RUNNING
        begun = time.monotonic()
        for tick in range(10**9):
            place = tick % RUNNING
            time.sleep(max(0.0, begun + tick * EPOCH_SECONDS / RUNNING - time.monotonic()))
            ledger, (bench, post) = ledgers[place], crew[place]

            def timed(what: str, call: Any, **more: Any) -> Any:
                started = time.perf_counter()
                given = call()
                took = time.perf_counter() - started
                note = {"at": time.time(), "what": what, "took": took, **more}
                out.write(json.dumps(note) + "\n")
                out.flush()
                return given

            if trained[place] is None:
                held = timed("claim", lambda: claim_trial(ledger))  # noqa: B023
                curve, result = make_training(dataset, EPOCHS, rng)
                trained[place] = (held, curve, result, rng.integers(0, EPOCHS // 2))
                if tick >= RUNNING:
                    trained[place] = (*trained[place][:3], 0)
                held, curve, _, first = trained[place]
                if first:
                    ledger.record(held, curve[:first])
                continue
            held, curve, result, done = trained[place]
            with database.transaction() as connection:
                workers.renew(connection, post, [held], settings.timing, Used())
            name = bench.study.title
            timed(
                "record",
                lambda: ledger.record(held, curve[done : done + 1]),  # noqa: B023
                study=name,
                trial=held.number,
                epoch=int(done) + 1,
            )
            trained[place] = (held, curve, result, done + 1)
            if done + 1 == EPOCHS:
                timed("complete", lambda: ledger.complete(held, SETUP, dataset, result))  # noqa: B023
                trained[place] = None


@contextmanager
def _child(site: Site, part: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "benchmarks.dashboard", part, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, env=dict(site.environment), text=True, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
            if process.poll() is not None:
                assert process.stderr is not None
                raise SystemExit(f"{part} ended: {process.stderr.read()[-4000:]}")
        finally:
            process.kill()


def _wait_for(notes: Path) -> None:
    """Wait until every worker has recorded an epoch."""
    for _ in range(1_200):
        with suppress(FileNotFoundError):
            text = notes.read_text(encoding="utf-8")
            if text.count('"record"') >= RUNNING:
                return
        time.sleep(0.1)
    raise SystemExit("the workers record nothing")


# Servers


@contextmanager
def _tuner(site: Site) -> Iterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "tuner", "dashboard", "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=dict(site.environment), text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http"))
        try:
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def _optuna(site: Site) -> Iterator[tuple[str, psutil.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard"))]
    # The password of a database that only this benchmark uses.
    command += [
        site.database.address.url(show_password=True).replace("://", "+psycopg2://", 1),
        "--port",
        str(port),
    ]
    with subprocess.Popen(
        command, cwd=site.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            with suppress(OSError), urlopen(url, timeout=1):  # our own server
                break
            time.sleep(0.1)
        try:
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


SERVERS = {"tuner": _tuner, "optuna-dashboard": _optuna}


# Tabs without a screen


class _Parts(HTMLParser):
    """Finds the parts that a page requests again when something has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.moving: list[str] = []
        """Parts requested even if only running trials have changed."""
        self.others: list[str] = []
        self.charts = 0

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Note a part or a chart."""
        given = dict(attrs)
        trigger = given.get("hx-trigger") or ""
        part = given.get("hx-get") if "moved" in trigger or "changed" in trigger else None
        # Charts further down are requested only after scrolling.
        chart = None if self.charts else given.get("data-chart")
        self.charts += chart is not None
        if address := part or chart:
            moves = "moved" in trigger or "data-moves" in given
            (self.moving if moves else self.others).append(address)


def _look(url: str, kind: str, *names: str) -> None:
    """Be this many tabs, until killed."""
    os.nice(NICE)

    async def all_tabs() -> None:
        async with httpx2.AsyncClient(
            timeout=60, limits=httpx2.Limits(max_connections=None)
        ) as web:
            await asyncio.gather(*(_tab(TABS_OF[kind], web, url, name) for name in names))

    asyncio.run(all_tabs())


async def _tab(look: Callable[..., Any], web: httpx2.AsyncClient, url: str, name: str) -> None:
    """Keep a tab open: a browser repeats a request that takes too long."""
    while True:
        with suppress(httpx2.TransportError):
            await look(web, url, name)
        await asyncio.sleep(1.0)


async def _tuner_tab(web: httpx2.AsyncClient, url: str, name: str) -> None:
    page = urljoin(url, f"/studies/{name.split(':', maxsplit=1)[0]}")
    marks: dict[str, str] = {}

    async def part(address: str) -> None:
        headers = {"have": marks[address]} if address in marks else {}
        answer = await web.get(urljoin(url, address), headers=headers)
        if "have" in answer.headers:
            marks[address] = answer.headers["have"]

    found = _Parts()
    found.feed((await web.get(page)).text)
    stream = urljoin(url, f"/events?study={name.split(':')[1]}")
    async with web.stream("GET", stream, timeout=None) as events:
        async for line in events.aiter_lines():
            if line in ("event: changed", "event: live"):
                await asyncio.gather(*map(part, [*found.moving, *found.others]))
            elif line == "event: moved":
                await asyncio.gather(*map(part, found.moving))


async def _optuna_tab(web: httpx2.AsyncClient, url: str, name: str) -> None:
    study = urljoin(url, f"/api/studies/{name.split(':')[1]}")
    after = 0
    while True:
        answer = await web.get(study, params={"after": after})
        if answer.status_code != 200:
            # A server that cannot keep up answers with errors; its page keeps asking.
            await asyncio.sleep(10)
            continue
        body = answer.json()
        # It requests the unfinished trials again.
        running = [t["number"] for t in body["trials"] if t["state"] in ("Running", "Waiting")]
        after = min(running) if running else after + len(body["trials"])
        await asyncio.sleep(10)


TABS_OF = {"tuner": _tuner_tab, "optuna-dashboard": _optuna_tab}
PART_OF: Mapping[str, Callable[..., None]] = {"workers": _keep_training, "tabs": _look}


# A turn


def _turn(stage: Stage, looked_at: str) -> Turn:
    site, notes = stage.site, stage.notes
    turn = Turn(looked_at)
    with ExitStack() as stack:
        server = stage.servers.get(looked_at)
        if server is None and looked_at in SERVERS:
            server = stack.enter_context(SERVERS[looked_at](site))
        if server is not None:
            stack.enter_context(_child(site, "tabs", server[0], looked_at, *_tabs(site)))
            time.sleep(2.0)
        began, used = time.time(), _transactions(site)
        if server is not None:
            cpu = _cpu(server[1])
            _browse(stage, turn, *server)
            turn.cpu = (_cpu(server[1]) - cpu) / (time.time() - began)
        else:
            time.sleep(stage.seconds)
        turn.transactions = (_transactions(site) - used) / (time.time() - began)
    for line in notes.read_text(encoding="utf-8").splitlines():
        note = json.loads(line)
        if note["at"] >= began:
            turn.calls.setdefault(note["what"], []).append(note["took"])
    record.progress(f"{looked_at}: {json.dumps(_summary(turn))}")
    return turn


def _tabs(site: Site) -> list[str]:
    """Return which studies are open in the tabs other than the browser's."""
    return [f"{name}:{number}" for name, number in site.studies.items()][: TABS - 1]


def _browse(stage: Stage, turn: Turn, url: str, server: psutil.Process) -> None:
    """Open pages, and keep one open to time its updates."""
    browser = stage.browser
    kind = KINDS[turn.looked_at]
    names = list(stage.site.studies.items())
    until = time.monotonic() + stage.seconds
    watched = browser.new_context(viewport=WINDOW, bypass_csp=True)
    page = watched.new_page()
    counted = _count_bytes(page)
    first = _open(page, url, kind, names[0])
    turn.opens.append(first.opened)
    turn.loads.append(first.complete)
    if turn.looked_at == "tuner":
        page.evaluate(WATCH)
    before, since = counted[0], time.monotonic()
    rng = random.Random(len(turn.loads))  # which page is opened
    context = None
    for place in range(LOADS):
        if place >= 2 and time.monotonic() > until:
            break  # if a server's pages are never complete, a few are enough
        fresh = place % 2 == 0
        if fresh:
            if context is not None:
                context.close()
            context = browser.new_context(viewport=WINDOW, bypass_csp=True)
        assert context is not None
        load = _load(context.new_page(), url, kind, rng.choice(names))
        (turn.loads if fresh else turn.again).append(load.complete)
        if fresh:
            turn.opens.append(load.opened)
            turn.page_bytes.append(load.size)
        turn.memory.append(_memory(server))
        time.sleep(max(0.0, (until - time.monotonic()) / (LOADS - place)))
    if context is not None:
        context.close()
    turn.minute_bytes = (counted[0] - before) / (time.monotonic() - since) * 60
    if turn.looked_at == "tuner":
        shown = page.evaluate("window.shown")
        turn.updates = _delays(shown, stage.notes, names[0][0])
    watched.close()


@dataclass(frozen=True)
class _Kind:
    path: str
    opened: str
    complete: str
    """JavaScript that is true when the page shows its study, and when it is complete."""
    waited: str
    """The condition in words."""


KINDS = {
    "tuner": _Kind(
        "/studies/{name}",
        "document.querySelector('#now .facts')",
        "document.querySelector('#answer .answer:not(.soft)')"
        " && document.querySelector('#curves canvas')",
        "the answer, the workers and the curves",
    ),
    "optuna-dashboard": _Kind(
        "/dashboard/studies/{number}",
        "document.body && document.body.innerText.includes('{name}')",
        "document.querySelector('.js-plotly-plot .main-svg .trace')",
        "the history of its trials",
    ),
}
WATCH = """() => {
  window.shown = [];
  const seen = new Set();
  const look = () => {
    const now = document.getElementById("now");
    if (now)
      for (const row of now.querySelectorAll("tbody tr")) {
        const epoch = /(\\d+)\\/\\d+/.exec(row.textContent);
        const link = row.querySelector("a");
        const key = link && epoch && link.textContent + ":" + epoch[1];
        if (key && !seen.has(key)) {
          seen.add(key);
          window.shown.push([Date.now() / 1000, Number(link.textContent), Number(epoch[1])]);
        }
      }
  };
  look();
  window.shown = [];
  const all = { childList: true, subtree: true, characterData: true };
  new MutationObserver(look).observe(document.body, all);
}"""


@dataclass(frozen=True)
class _Load:
    """What opening a page took: seconds (None if too many) and bytes."""

    opened: float | None
    complete: float | None
    size: int = 0


def _load(page: Page, url: str, kind: _Kind, study: tuple[str, int]) -> _Load:
    counted = _count_bytes(page)
    load = _open(page, url, kind, study)
    page.close()
    return replace(load, size=counted[0])


def _open(page: Page, url: str, kind: _Kind, study: tuple[str, int]) -> _Load:
    name, number = study
    started = time.perf_counter()
    address = url.rstrip("/") + kind.path.format(name=name, number=number)
    try:
        page.goto(address, wait_until="commit", timeout=1000 * LIMIT)
    except PlaywrightTimeoutError:
        return _Load(None, None)
    opened = _waited(page, kind.opened.format(name=name), started)
    return _Load(opened, _waited(page, kind.complete, started))


def _waited(page: Page, condition: str, started: float) -> float | None:
    """Wait for something on a page; return the seconds it took, or None if it took too long."""
    left = LIMIT - (time.perf_counter() - started)
    try:
        page.wait_for_function(condition, timeout=max(1.0, 1000 * left), polling="raf")
    except PlaywrightTimeoutError:
        return None
    return time.perf_counter() - started


def _count_bytes(page: Page) -> list[int]:
    """Count the bytes that a page receives, as sent over the network."""
    counted = [0]
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")

    def received(event: Mapping[str, Any]) -> None:
        counted[0] += int(event.get("encodedDataLength", 0))

    session.on("Network.dataReceived", received)
    return counted


def _delays(shown: Sequence[Sequence[float]], notes: Path, study: str) -> list[float]:
    """Return how long after their commit epochs appeared on the page."""
    committed = {
        (note["trial"], note["epoch"]): note["at"]
        for note in map(json.loads, notes.read_text(encoding="utf-8").splitlines())
        if note["what"] == "record" and note["study"] == study
    }
    return [
        at - committed[int(trial), int(epoch)]
        for at, trial, epoch in shown
        if (int(trial), int(epoch)) in committed
    ]


def _transactions(site: Site) -> int:
    with site.database.autocommit() as connection:
        return int(
            connection.execute(
                sa.text(
                    "select xact_commit + xact_rollback from pg_stat_database"
                    " where datname = current_database()"
                )
            ).scalar_one()
        )


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(process: psutil.Process) -> float:
    times = [one.cpu_times() for one in _tree(process)]
    return sum(one.user + one.system for one in times)


def _memory(process: psutil.Process) -> int:
    return sum(one.memory_info().rss for one in _tree(process))


# Figures


def _summed(turns: Sequence[Turn]) -> dict[str, Any]:
    """Return the figures of each dashboard over all its turns."""
    found: dict[str, Any] = {}
    for looked_at in dict.fromkeys(turn.looked_at for turn in turns):
        mine = [turn for turn in turns if turn.looked_at == looked_at]
        whole = Turn(looked_at)
        for turn in mine:
            whole.opens += turn.opens
            whole.loads += turn.loads
            whole.again += turn.again
            whole.updates += turn.updates
            whole.page_bytes += turn.page_bytes
            whole.memory += turn.memory
            for what, took in turn.calls.items():
                whole.calls.setdefault(what, []).extend(took)
        minutes = [turn.minute_bytes for turn in mine if turn.minute_bytes is not None]
        whole.minute_bytes = statistics.fmean(minutes) if minutes else None
        whole.transactions = statistics.fmean(turn.transactions for turn in mine)
        whole.cpu = statistics.fmean(turn.cpu for turn in mine)
        found[looked_at] = _summary(whole)
    return found


def _summary(turn: Turn) -> dict[str, Any]:
    return {
        "opened": _spread(turn.opens),
        "first_visit": _spread(turn.loads),
        "again": _spread(turn.again),
        "update": _spread(turn.updates),
        "page_bytes": statistics.median(turn.page_bytes) if turn.page_bytes else None,
        "minute_bytes": turn.minute_bytes,
        "calls": {what: _spread(took) for what, took in sorted(turn.calls.items())},
        "transactions": turn.transactions,
        "cpu": turn.cpu,
        "memory": [turn.memory[0], turn.memory[-1]] if turn.memory else None,
    }


def _spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Return the median, the 95th percentile and the number of some values.

    None stands for a value above the limit; the median or percentile may be None too.
    """
    if not values:
        return None
    known = sorted(math.inf if value is None else value for value in values)
    median, p95 = (
        None if value > LIMIT else float(value)
        for value in (statistics.median(known), np.quantile(known, 0.95, method="higher"))
    )
    return {"median": median, "p95": p95, "n": len(values), "late": list(values).count(None)}


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as Markdown tables."""
    yield from _table(figures)
    if "small" in figures:
        yield ""
        yield from _table(figures["small"])
    yield from _further(figures)


def _table(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of all turns at one size."""

    def ms(spread: Mapping[str, Any] | None, digits: int = 0) -> str:
        if spread is None:
            return "–"
        median, p95 = (
            f"> {1000 * LIMIT:,.0f}" if value is None else f"{1000 * value:,.{digits}f}"
            for value in (spread["median"], spread["p95"])
        )
        return f"{median} ({p95})"

    turns = figures["turns"]
    yield f"{figures['trials']:,} trials of {EPOCHS} epochs in {STUDIES} studies, {RUNNING} running"
    yield ""
    yield "| | " + " | ".join(turns) + " |"
    yield "|---" * (len(turns) + 1) + "|"

    def row(title: str, value: Any) -> str:
        return f"| {title} | " + " | ".join(value(turn) for turn in turns.values()) + " |"

    if any("opened" in turn for turn in turns.values()):
        yield row("study page open, first visit, ms: median (95%)", lambda t: ms(t["opened"]))
    yield row("study page complete, first visit, ms", lambda t: ms(t["first_visit"]))
    yield row("study page complete, scripts cached, ms", lambda t: ms(t["again"]))
    yield row("an epoch on the page after its commit, ms", lambda t: ms(t["update"]))
    yield row("bytes a page, kB", lambda t: _kilobytes(t["page_bytes"]))
    yield row("bytes a minute, kB", lambda t: _kilobytes(t["minute_bytes"]))
    yield row("transactions of the database a second", lambda t: f"{t['transactions']:.0f}")
    yield row("processor of the server, seconds a second", lambda t: f"{t['cpu']:.2f}")
    yield row(
        "memory of the server, first and last, MB",
        lambda t: " → ".join(f"{b / 2**20:.0f}" for b in t["memory"]) if t["memory"] else "–",
    )
    for what in ("claim", "record", "complete"):
        yield row(f"a worker's {what}, ms", lambda t: ms(t["calls"].get(what), 1))  # noqa: B023
    for looked_at, turn in turns.items():
        visits = turn["first_visit"]
        if visits is not None and visits.get("late"):
            yield ""
            yield (
                f"{looked_at}: {visits['late']} of {visits['n']} first visits did not have "
                f"{KINDS[looked_at].waited} within {LIMIT:.0f} s, and were given up."
            )


def _further(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured outside the turns."""
    memory, many = figures.get("memory"), figures.get("many")
    if memory is not None:
        sizes = [memory[name] / 2**20 for name in ("first", "most", "last")]
        yield ""
        yield (
            f"Memory of tuner's server with {TABS} tabs: {sizes[0]:.0f} MB after the first minute, "
            f"{sizes[1]:.0f} at most, {sizes[2]:.0f} after {memory['minutes']:.0f} minutes."
        )
    if many is not None:
        said = [
            f"not within {LIMIT:.0f} s" if value is None else f"{value:.2f} s"
            for name in ("opened", "complete")
            for value in (many[name]["median"], many[name]["p95"])
        ]
        yield ""
        yield (
            f"At {many['trials']:,} trials, a page is open after {said[0]} (95%: {said[1]}) "
            f"and complete after {said[2]} ({said[3]}); the workers and tabs of the table go on "
            "meanwhile."
        )


def _kilobytes(size: float | None) -> str:
    return "–" if size is None else f"{size / 1000:,.0f}"


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=25.0, help="how long a turn takes")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="how long the memory of tuner's is noted"
    )
    parser.add_argument(
        "--many", type=int, default=100_000, help="trials of the second database; 0 for none"
    )
    parser.add_argument(
        "--small", type=int, default=1_200, help="trials of the smaller database; 0 for none"
    )
    parser.add_argument("--only", nargs="+", choices=LOOKERS, default=list(LOOKERS))
    return parser.parse_args()


if __name__ == "__main__":
    main()

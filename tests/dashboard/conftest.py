"""The dashboard without a socket: over a study with one trial, and over the stored studies."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from queue import Queue

import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.conftest import own_database
from tests.golden.stored import load
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, finish, make_spec
from tuner.dashboard import server as dashboard_server
from tuner.dashboard.app import build
from tuner.dashboard.desk import Desk
from tuner.dashboard.door import PEER, Access, Door
from tuner.dashboard.pages.actions import Delete
from tuner.dashboard.peers import End, Peer
from tuner.dashboard.server import Site, _Server, serve
from tuner.settings import Settings
from tuner.store.address import Address
from tuner.store.database import Database
from tuner.store.studies import Study
from tuner.work import removal

LOCAL = "http://127.0.0.1:8080"


NO_CHECKPOINTS = Settings(home=Path("/nowhere"), checkpoints="off")


def deleting(database: Database) -> Delete:
    """Return a function that deletes a study without checkpoints."""

    def delete(study: Study) -> str:
        assert removal.delete(NO_CHECKPOINTS, database, study) is None
        return ""

    return delete


class Connected:
    """An app whose requests come from a connection of this process, by the user who started it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._server = socket.create_server(("127.0.0.1", 0))
        self._client = socket.create_connection(self._server.getsockname())
        ends = self._client.getsockname(), self._server.getsockname()
        self._peer = Peer(*(End.of(*one) for one in ends))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        state = {**scope.get("state", {}), PEER: self._peer}
        await self._app({**scope, "state": state}, receive, send)

    def __del__(self) -> None:
        """Close the connection."""
        for one in (self._client, self._server):
            one.close()


def app_for(desk: Desk, access: Access | None = None) -> ASGIApp:
    """Return the dashboard as accessed by the user who started it; others have no access."""
    return Connected(build(desk, Door(desk.database, access or Access()), deleting(desk.database)))


@pytest.fixture
def bench(database: Database) -> Bench:
    """Store a study with one finished trial."""
    bench = Bench.launch(database, make_spec())
    worker = bench.worker()
    finish(worker, claim_trial(worker))
    return bench


@pytest.fixture
def app(bench: Bench) -> Iterator[TestClient]:
    """Serve the study without a socket."""
    with TestClient(app_for(Desk(bench.database)), LOCAL) as client:
        yield client


@pytest.fixture(scope="module")
def stored(server: Address) -> Iterator[Database]:
    """Open the stored studies, shared with tests/golden, read-only."""
    with own_database(server, "template0") as address:
        load(address)
        with Database(address) as database:
            yield database


@pytest.fixture(scope="module")
def pages(stored: Database) -> Iterator[TestClient]:
    """Serve the stored studies without a socket."""
    with TestClient(app_for(Desk(stored)), LOCAL) as client:
        yield client


Serving = Callable[[Site], AbstractContextManager[str]]


@pytest.fixture
def serving(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """Return a function that serves a study on a free port, in a thread, and yields its address."""

    class Kept(_Server):
        loop: asyncio.AbstractEventLoop | None = None

        def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
            super().__init__(config, desk)
            servers.append(self)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            self.loop = asyncio.get_running_loop()
            await super().startup(sockets)

    servers: list[Kept] = []
    monkeypatch.setattr(dashboard_server, "_Server", Kept)

    @contextmanager
    def served(site: Site) -> Iterator[str]:
        said: Queue[str] = Queue()
        thread = threading.Thread(
            target=serve,
            args=(NO_CHECKPOINTS, bench.database, site, deleting(bench.database)),
            kwargs={"ready": lambda lines: said.put(lines[0])},
            daemon=True,
        )
        thread.start()
        try:
            yield said.get(timeout=60).split()[0].rstrip("/")
        finally:
            until(lambda: servers and servers[-1].loop, "the server runs")
            for one in servers:
                assert one.loop is not None
                if not one.loop.is_closed():
                    # As a signal does, in the event loop's thread.
                    one.loop.call_soon_threadsafe(one.handle_exit, signal.SIGTERM, None)
            thread.join(60)
        assert not thread.is_alive()

    return served

"""The dashboard behind nginx and Caddy, configured as in docs/dashboard.md, over https."""

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from playwright.sync_api import Browser, expect

from tests.dashboard.conftest import Serving
from tests.dashboard.test_browser import CHROMIUM, browser  # noqa: F401  # the fixture
from tests.harness.processes import until
from tests.store.specs import Bench, claim_trial, finish
from tuner.dashboard.server import Site
from tuner.store import accounts
from tuner.store import tables as t

HOST = "tuner.example.org"
PASSWORD = "correct horse battery"
NONE: Mapping[str, str] = {}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "dashboard.md"
# Debian installs servers in a folder that is only in root's PATH.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NGINX, CADDY = shutil.which("nginx", path=PATH), shutil.which("caddy", path=PATH)

pytestmark = pytest.mark.processes
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (apt install nginx)")
needs_caddy = pytest.mark.skipif(CADDY is None, reason="Caddy is not installed (apt install caddy)")


def documented(server: str, base: str) -> str:
    """Return docs/dashboard.md's example for a server, for a host or for a path of one."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", DOCS.read_text(), re.MULTILINE)
    wanted = "proxy_pass" if server == "nginx" else "reverse_proxy"
    here = r"(location|reverse_proxy) /tuner/"
    found = [one for one in blocks if wanted in one and bool(re.search(here, one)) == bool(base)]
    assert len(found) == 1, (server, base, len(found))
    return re.sub("^    ", "", found[0], flags=re.MULTILINE)


@dataclass(frozen=True)
class Behind:
    """A proxy with a dashboard behind it."""

    port: int
    base: str
    certificate: Path

    @property
    def url(self) -> str:
        """The address for browsers."""
        return f"https://{HOST}:{self.port}{self.base}"

    def ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | None = None,
        *,
        client: str = "127.0.0.2",
        headers: Mapping[str, str] = NONE,
    ) -> http.client.HTTPResponse:
        """Send a request from an address of this machine."""
        plain = socket.create_connection(("127.0.0.1", self.port), 60, (client, 0))
        trusting = ssl.create_default_context(cafile=self.certificate)
        connection = http.client.HTTPConnection(HOST, self.port)
        connection.sock = trusting.wrap_socket(plain, server_hostname=HOST)
        origin = {"Origin": f"https://{HOST}:{self.port}"} if fields else {}
        form = {"Content-Type": "application/x-www-form-urlencoded"} if fields else {}
        body = urlencode(fields) if fields else None
        connection.request(method, self.base + path, body, {**form, **origin, **headers})
        return connection.getresponse()

    def log_in(
        self, password: str, client: str = "127.0.0.2", headers: Mapping[str, str] = NONE
    ) -> http.client.HTTPResponse:
        """Send the login form."""
        fields = {"name": "maria", "password": password}
        return self.ask("POST", "/login", fields, client=client, headers=headers)


Proxied = Callable[[str, str], AbstractContextManager[Behind]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Create a self-signed certificate for the host."""
    folder = tmp_path_factory.mktemp("tls")
    made = SimpleNamespace(certificate=folder / "fullchain.pem", key=folder / "privkey.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"]
    command += ["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"]
    command += ["-addext", f"subjectAltName=DNS:{HOST}"]
    command += ["-keyout", str(made.key), "-out", str(made.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return made


@pytest.fixture
def proxied(
    bench: Bench,
    serving: Serving,
    certificate: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Proxied:
    """Return a function that serves a study behind a proxy, with a user maria."""
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(accounts, "hasher", quick)
    with bench.database.transaction() as connection:
        accounts.add(connection, "maria", "operator", accounts.hashed(PASSWORD))

    @contextmanager
    def behind(server: str, base: str) -> Iterator[Behind]:
        port, inner = _free_port(), _free_port()
        site = Site(port=inner, names=(HOST,), proxies=("127.0.0.1",), base=base)
        with serving(site):
            example = documented(server, base)
            assert "127.0.0.1:8080" in example
            example = example.replace("127.0.0.1:8080", f"127.0.0.1:{inner}")
            write = _nginx if server == "nginx" else _caddy
            command = write(example, port, certificate, tmp_path)
            log = (tmp_path / "log").open("wb")
            environment = {"PATH": PATH, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
            process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=tmp_path
            )
            try:
                until(lambda: _listens(port) or process.poll() is not None, f"{server} listens")
                assert process.poll() is None, (tmp_path / "log").read_text()
                yield Behind(port, base, certificate.certificate)
            finally:
                process.terminate()
                process.wait(60)
                log.close()

    return behind


def _nginx(example: str, port: int, certificate: SimpleNamespace, folder: Path) -> list[str]:
    ours = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "/etc/ssl/tuner/fullchain.pem": str(certificate.certificate),
        "/etc/ssl/tuner/privkey.pem": str(certificate.key),
    }
    for old, new in ours.items():
        assert old in example, old
        example = example.replace(old, new)
    kept = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user}daemon off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{kept}{example}}}\n"
    )
    return [NGINX or "nginx", "-p", str(folder), "-e", "stderr", "-c", str(file)]


def _caddy(example: str, port: int, certificate: SimpleNamespace, folder: Path) -> list[str]:
    head = f"{HOST} {{\n"
    assert head in example
    # Caddy would request a certificate over the network.
    tls = f"{HOST}:{port} {{\n    bind 127.0.0.1\n"
    tls += f"    tls {certificate.certificate} {certificate.key}\n"
    file = folder / "Caddyfile"
    file.write_text("{\nadmin off\nauto_https disable_redirects\n}\n" + example.replace(head, tls))
    return [CADDY or "caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _listens(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


@pytest.mark.parametrize("base", ["", "/tuner"])
@pytest.mark.parametrize(
    "program",
    [pytest.param("nginx", marks=needs_nginx), pytest.param("caddy", marks=needs_caddy)],
)
def test_as_documented(proxied: Proxied, bench: Bench, program: str, base: str) -> None:
    """Over https login works, changes arrive live, and each client has its own address."""
    with proxied(program, base) as site:
        asked = site.ask("GET", "/studies/small")
        assert (asked.status, asked.headers["Location"]) == (
            303, f"{base}/login?next=%2Fstudies%2Fsmall"
        )  # fmt: skip
        entered = site.log_in(PASSWORD, client="127.0.0.3")
        assert (entered.status, entered.headers["Location"]) == (303, f"{base}/")
        cookies = entered.headers.get_all("Set-Cookie") or []
        assert all("Secure" in one and f"Path={base or '/'};" in one for one in cookies)
        session = {"Cookie": "; ".join(one.partition(";")[0] for one in cookies)}
        assert b"small" in site.ask("GET", "/studies.json", headers=session).read()

        # Each event arrives before the next one happens: the proxy does not buffer.
        stream = site.ask("GET", f"/events?study={bench.study.study_id}", headers=session)
        _until_event(stream, b"live")
        for _ in range(2):
            worker = bench.worker()
            finish(worker, claim_trial(worker))
            _until_event(stream, b"changed")
        stream.close()

        # A client's own forwarding headers are not trusted.
        for place in range(11):
            guess = site.log_in("guess guess", headers={"X-Forwarded-For": f"198.51.100.{place}"})
        assert guess.status == 429
        assert site.log_in("guess guess", client="127.0.0.4").status == 403


def _until_event(stream: http.client.HTTPResponse, kind: bytes) -> None:
    while line := stream.readline():
        if line.strip() == b"event: " + kind:
            return
    raise AssertionError(f"the stream ended before {kind!r}")


@needs_nginx
@pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (apt install chromium)")
def test_in_a_browser_below_a_path(
    proxied: Proxied,
    bench: Bench,
    browser: Browser,  # noqa: F811  # the fixture
    tmp_path: Path,
) -> None:
    """Below a path, in a browser: log in, watch a trial end, navigate and download."""
    with proxied("nginx", "/tuner") as site:
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type == "error" else None,
        )
        page.goto(f"{site.url}/studies/small")
        page.get_by_label("Name").fill("maria")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        expect(page).to_have_url(f"{site.url}/studies/small")
        expect(page.locator("#live")).to_have_text("live")
        with bench.database.transaction() as connection:
            past = sa.func.clock_timestamp() - timedelta(hours=2)
            connection.execute(sa.update(t.session).values(seen=past))
        worker = bench.worker()
        finish(worker, claim_trial(worker))
        expect(page.locator("#now")).to_contain_text("2 complete")
        expect(page.locator("#curves canvas")).to_be_visible()
        with bench.database.transaction() as connection:
            now = sa.func.clock_timestamp()
            idle = connection.scalar(sa.select(t.session.c.seen < now - timedelta(hours=1)))
        assert idle, "parts of an open tab kept its session"
        page.get_by_role("link", name="All trials").first.click()
        expect(page.locator("#trials tbody tr")).to_have_count(2)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download CSV").click()
        download.value.save_as(tmp_path / "trials.csv")
        assert (tmp_path / "trials.csv").read_text().startswith("trial,")
        page.get_by_role("link", name="maria").click()
        expect(page).to_have_url(f"{site.url}/account")
        assert complaints == []
        page.get_by_role("link", name="Studies").click()
        page.get_by_role("link", name="Optuna Dashboard").click()
        expect(page.locator(".answer")).to_contain_text("not shown here")
        page.goto(f"{site.url}/")
        page.get_by_role("button", name="Log out").click()
        expect(page).to_have_url(f"{site.url}/login")
        context.close()

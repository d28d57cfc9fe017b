"""The dashboard's server: host names, protocols and slow clients."""

import http.client
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.dashboard.conftest import Serving
from tuner.answers.sheets import formats
from tuner.dashboard import server
from tuner.dashboard.pages import documents
from tuner.dashboard.server import Site, _encryption
from tuner.errors import UserError


def studies_at(url: str, context: ssl.SSLContext | None = None) -> bytes:
    """Return the list of studies."""
    with urllib.request.urlopen(f"{url}/studies.json", timeout=60, context=context) as answer:
        listed: bytes = answer.read()
    return listed


HALVES = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-",
    b"\r\n".join((
        b"POST /login HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Sec-Fetch-Site: same-origin",
        b"Content-Length: 100",
        b"",
        b"name=",
    )),
)  # fmt: skip


def test_requests_that_are_sent_by_half_hold_up_nobody(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished request delays no other, and its connection is closed in time."""
    monkeypatch.setattr(server, "REQUEST_SECONDS", 1.0)
    with serving(Site(port=0)) as url, ExitStack() as opened:
        port = int(url.rpartition(":")[2])
        slow = []
        for number in range(120):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
            one.sendall(HALVES[number % 2])
            slow.append(one)
        assert b"small" in studies_at(url)
        for one in slow:
            with suppress(ConnectionResetError):
                assert one.recv(1) == b""


@pytest.mark.parametrize("deaf", [False, True], ids=["between two pieces", "within a piece"])
def test_a_stop_breaks_off_an_export_without_a_traceback(
    serving: Serving,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    deaf: bool,
) -> None:
    """Stopping during an export shows the client an incomplete file, and frees the connection."""
    ended = threading.Event()

    def endless(*_: object) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                # Longer than the graceful second: a query that the server waits for.
                time.sleep(1.3 if deaf else 0.02)
        finally:
            ended.set()

    monkeypatch.setattr(formats, "pieces", endless)
    with serving(Site(port=0)) as url:
        answer = urllib.request.urlopen(f"{url}/studies/small/export.csv", timeout=60)
        assert answer.read(500) == b"x" * 500
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    assert ended.wait(30)
    assert not documents.EXPORTING.locked()
    # Answers are prepared meanwhile, which this study's trials without predictions do not allow.
    exporting = [one for one in caplog.records if one.name != "tuner.dashboard.shelf"]
    assert [record.message for record in exporting if record.exc_info] == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Create a self-signed certificate for 127.0.0.1, and another certificate's key."""
    folder: Path = tmp_path_factory.mktemp("tls")
    certificate, key, other = folder / "cert.pem", folder / "key.pem", folder / "other.pem"
    asked = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=tuner",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    for out, private in ((certificate, key), (folder / "unused.pem", other)):
        command = [*asked, "-keyout", str(private), "-out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
    return SimpleNamespace(certificate=certificate, key=key, other=other)


def test_https_with_a_certificate_of_ones_own(
    serving: Serving, certificates: SimpleNamespace
) -> None:
    """A client that trusts the certificate is served over https, and nothing over http."""
    site = Site(port=0, certificate=certificates.certificate, certificate_key=certificates.key)
    trusting = ssl.create_default_context(cafile=certificates.certificate)
    with serving(site) as url:
        assert url.startswith("https://127.0.0.1:")
        assert b"small" in studies_at(url, trusting)
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            studies_at(url)
        with pytest.raises(OSError):  # noqa: PT011  # reset, or closed without an answer
            studies_at(url.replace("https:", "http:"))


def test_a_certificate_that_cannot_be_used_is_told(certificates: SimpleNamespace) -> None:
    """A wrong key, an invalid file or a key alone is refused before anything listens."""
    certificate, key = certificates.certificate, certificates.key
    for site in (
        Site(certificate=certificate, certificate_key=certificates.other),
        Site(certificate=certificate),
        Site(certificate=key, certificate_key=key),
        Site(certificate=Path("/no/such/file"), certificate_key=key),
    ):
        with pytest.raises(UserError, match="--tls-cert is a PEM"):
            _encryption(site)
    with pytest.raises(UserError, match="--tls-key needs --tls-cert"):
        _encryption(Site(certificate_key=key))


REFUSED = [
    (Site("0.0.0.0"), "in plain text"),
    (Site("::"), "in plain text"),
    (Site("192.0.2.1", names=("tuner.example.org",)), "in plain text"),
    (Site("tuner.example.org", insecure_http=True), "is not an IP address"),
    (Site("", insecure_http=True), "is not an IP address"),
    (Site(proxies=("proxy.example.org",)), "--trusted-proxy takes an IP address"),
]


@pytest.mark.parametrize(("site", "told"), REFUSED)
def test_what_would_not_be_safe_is_refused(site: Site, told: str) -> None:
    """Plain text over the network, and names in place of addresses, are refused."""
    with pytest.raises(UserError, match=told):
        site.access  # noqa: B018


FILE = Path("cert.pem")
ALLOWED = [
    (Site(), False, False),
    (Site("localhost"), False, False),
    (Site("::1", certificate=FILE), False, False),
    (Site(names=("tuner.example.org",)), True, False),
    (Site(proxies=("10.0.0.0/8",)), True, True),
    (Site(base="/tuner"), True, False),
    (Site(base="/"), False, False),
    (Site("0.0.0.0", certificate=FILE), True, True),
    (Site("192.0.2.1", proxies=("192.0.2.7",)), True, True),
    (Site("0.0.0.0", insecure_http=True), True, False),
    (Site("0.0.0.0", proxies=("192.0.2.7",), insecure_http=True), True, False),
]


@pytest.mark.parametrize(("site", "login", "https"), ALLOWED)
def test_who_logs_in_and_by_which_protocol(site: Site, *, login: bool, https: bool) -> None:
    """If others have access all must log in, and over https if there is a certificate."""
    access = site.access
    assert (access.login, access.https_only) == (login, https)


def test_it_answers_to_its_own_address_and_to_names_that_were_given() -> None:
    """Its own address and the given names are accepted; a wildcard address is not a name."""
    access = Site("192.0.2.1", names=("Tuner.Example.org",), certificate=FILE).access
    for host in ("192.0.2.1:8443", "tuner.example.org", "TUNER.example.org:1", "localhost"):
        assert access.names(host), host
    assert Site("2001:db8::1", certificate=FILE).access.names("[2001:db8::1]:8080")
    for host in ("0.0.0.0", "example.org", "x.tuner.example.org", "192.0.2.2"):
        assert not access.names(host), host
    assert not Site("0.0.0.0", certificate=FILE).access.names("0.0.0.0")

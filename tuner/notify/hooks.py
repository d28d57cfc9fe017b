"""Hooks: where a notice goes. A webhook's address is often a password, and is never shown whole."""

import http.client
import json
import logging
import os
import shlex
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from tuner import logs
from tuner.errors import UserError
from tuner.settings import HookSettings, child_environment, person
from tuner.store.notices import hook_of
from tuner.version import version

logger = logging.getLogger(__name__)

SEND_SECONDS = 15.0
"""Time limit of a webhook's whole answer."""
COMMAND_SECONDS = 60.0
TEMPORARY = frozenset({408, 425, 429})
"""Refusals worth retrying, besides 500 and above."""
PRINTED_MOST = 2_000

Outcome = Literal["told", "later", "never"]


@dataclass(frozen=True)
class Answer:
    """Whether a hook took a notice, and the reason, without the hook's secret."""

    outcome: Outcome
    reason: str = ""


class Hook(Protocol):
    """Something that is notified of events."""

    @property
    def key(self) -> str:
        """Its key in the database."""

    @property
    def name(self) -> str:
        """Its name in logs."""

    def send(self, body: Mapping[str, Any]) -> Answer:
        """Deliver a notice within a limited time; raises nothing."""


@dataclass(frozen=True)
class Webhook:
    """An address to which notices are sent by POST."""

    address: str = field(repr=False)
    key: str
    name: str

    @classmethod
    def of(cls, address: str) -> "Webhook":
        """Check an address; no message shows it."""
        logs.hide(address)
        try:
            parts = urlsplit(address)
            _ = parts.port
        except ValueError:
            parts = urlsplit("")
        readable = address.isascii() and address.isprintable() and " " not in address
        if parts.scheme not in ("http", "https") or not parts.hostname or not readable:
            raise UserError(
                "The webhook's address (TUNER_WEBHOOK, or the file given by --webhook-file) is "
                "not of the form https://HOST/PATH."
            )
        if parts.username is not None:
            raise UserError(
                "The webhook's address holds a user name. tuner sends no login with it: use an "
                "address with a token in its path."
            )
        # A token may be in the path or the query; the host says enough.
        path = "/…" if parts.path.strip("/") or parts.query else "/"
        name = f"the webhook {parts.scheme}://{parts.netloc}{path}"
        return cls(address, hook_of("webhook", address), name)

    def send(self, body: Mapping[str, Any]) -> Answer:
        """POST a notice as JSON; redirects are not followed."""
        request = urllib.request.Request(  # noqa: S310  # its scheme has been checked
            self.address,
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "User-Agent": f"tuner/{version()}",
                "Idempotency-Key": str(body["id"]),
            },
            method="POST",
        )
        given: list[Answer] = []

        def post() -> None:
            given.append(_post(request))

        # In a thread, because two waits have no timeout: a name lookup that never returns, and a
        # server that keeps sending single bytes. Such a thread is abandoned; it holds nothing.
        thread = threading.Thread(target=post, name="webhook", daemon=True)
        thread.start()
        thread.join(SEND_SECONDS)
        return given[0] if given else Answer("later", f"no answer within {SEND_SECONDS:g} s")


@dataclass(frozen=True)
class Command:
    """A program on this machine that reads a notice from its standard input.

    Its command line comes from this process's arguments or environment, never from the database.
    """

    words: tuple[str, ...]
    key: str
    name: str

    @classmethod
    def of(cls, text: str) -> "Command":
        """Split a command line as a shell would; no shell runs it."""
        try:
            words = tuple(shlex.split(text))
        except ValueError as error:
            raise UserError(f"The command of --on-event cannot be read: {error}.") from None
        if not words:
            raise UserError("The command of --on-event is empty.")
        # Separate for each user and machine: a command that ran elsewhere alerts nobody here.
        key = hook_of("command", "\0".join((person(), *words)))
        return cls(words, key, f"the command {words[0]}")

    def send(self, body: Mapping[str, Any]) -> Answer:
        """Run it once, without the database's password, and log its output."""
        environment = child_environment() | {
            "TUNER_EVENT": str(body["event"]),
            "TUNER_STUDY": str(body["study"]),
        }
        try:
            process = subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            return Answer("never", f"it cannot be run: {error.strerror}")
        try:
            printed, _ = process.communicate(json.dumps(body).encode(), timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            # The whole process group: a child of it would keep the pipe open.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Answer("never", f"it was killed after {COMMAND_SECONDS:g} s")
        if text := printed.decode(errors="replace").strip():
            logger.info("%s printed: %s", self.name, text[-PRINTED_MOST:])
        if process.returncode:
            # No retry: it may have done its work before it failed.
            return Answer("never", f"it ended with exit code {process.returncode}")
        return Answer("told")


def hooks_of(given: HookSettings) -> tuple[Hook, ...]:
    """Return the hooks named by the environment and the command line."""
    hooks: list[Hook] = []
    address = given.webhook
    if (file := given.webhook_file) is not None:
        try:
            address = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise UserError(f"{file} should hold the webhook's address: {reason}.") from None
    if address is not None:
        hooks.append(Webhook.of(address))
    if given.command is not None:
        hooks.append(Command.of(given.command))
    return tuple(hooks)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the notice and the token in its address are for one server only."""

    def redirect_request(self, *_: Any) -> None:
        return None


# Proxies come from the environment (https_proxy), as for other programs.
_open: Callable[..., Any] = urllib.request.build_opener(_NoRedirects).open


def _post(request: urllib.request.Request) -> Answer:
    try:
        with _open(request, timeout=SEND_SECONDS) as answer:
            return _by_status(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return _by_status(error.code)
    except urllib.error.URLError as error:
        reason = error.reason
        return Answer("later", getattr(reason, "strerror", None) or str(reason))
    except (OSError, http.client.HTTPException) as error:
        return Answer("later", getattr(error, "strerror", None) or type(error).__name__)


def _by_status(status: int) -> Answer:
    if 200 <= status < 300:
        return Answer("told", f"HTTP {status}")
    if 300 <= status < 400:
        return Answer("never", f"HTTP {status}: it redirects, which is not followed")
    retry = status in TEMPORARY or status >= 500
    return Answer("later" if retry else "never", f"HTTP {status}")

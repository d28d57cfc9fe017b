"""Settings from the environment, which is read only here."""

import ipaddress
import os
import pwd
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner import home as home_folder
from tuner.errors import UserError
from tuner.logs import FORMATS

GIVE_BACK = "TUNER_GIVE_BACK_SECONDS"
PRICE = "TUNER_PRICE_PER_HOUR"
METRICS = "TUNER_METRICS"
LOG_FORMAT = "TUNER_LOG_FORMAT"
LIBPQ_ADDRESS = ("PGHOST", "PGHOSTADDR", "PGSERVICE")
SECRET_VARIABLES = (
    "TUNER_DATABASE_URL",
    "TUNER_DATABASE_PASSWORD_FILE",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "RAY_AUTH_TOKEN",
    "TUNER_WEBHOOK",
    "TUNER_WEBHOOK_FILE",
)
HOOKS = ("TUNER_WEBHOOK", "TUNER_WEBHOOK_FILE", "TUNER_ON_EVENT")
"""Variables for the launcher only, not passed on to its workers."""


@dataclass(frozen=True)
class Timing:
    """Lease times and timeouts, in seconds; all workers should agree."""

    lease: float = 30.0
    renew: float = 5.0
    grace: float = 12.0
    """How long the database must have answered before an expired lease is taken over."""
    poll: float = 1.0
    """How often an idle worker asks for a trial."""
    give_back: float = 30.0
    """How long a trial may continue after SIGINT or SIGTERM to finish its epoch."""
    lookup: float = 60.0
    """How long a trainer or a command waits for a checkpoint location to respond."""


@dataclass(frozen=True)
class Endpoint:
    """An address of this machine and a port to listen on."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, called: str) -> "Endpoint":
        """Parse `[HOST:]PORT`; without a host, it is the loopback address."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            address = str(ipaddress.ip_address(host or "127.0.0.1"))
        except ValueError:
            address = ""
        if not address or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
            raise UserError(
                f"{called} is {text!r}; expected an IP address and a port such as 127.0.0.1:9200, "
                "or a port."
            )
        return cls(address, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class HookSettings:
    """The hooks that are notified of the end of a study, and of failed trials."""

    webhook: str | None = field(default=None, repr=False)
    """The address of a webhook, which is often a secret."""
    webhook_file: Path | None = None
    """A file with the address."""
    command: str | None = None
    """A command line of this machine."""
    dashboard: str | None = None
    """The address of a dashboard, for links."""

    @property
    def none(self) -> bool:
        """Whether no hook is set."""
        return not (self.webhook or self.webhook_file or self.command)


@dataclass(frozen=True)
class Settings:
    """Where tuner keeps its files, which database it uses, and how leases are timed."""

    home: Path
    database_url: str | None = None
    """A server's address; None means libpq's variables or the embedded server."""
    password_file: Path | None = None
    """File with the password for `database_url`, if the URL has none."""
    libpq: bool = False
    """Whether PGHOST, PGHOSTADDR or PGSERVICE name a server."""
    checkpoints: str | None = None
    """Where checkpoints are stored: a folder or an fsspec address; `off` disables them."""
    price_per_hour: float | None = None
    """Price of a device of this machine, overriding the study's."""
    timing: Timing = Timing()
    metrics: Endpoint | None = None
    """Where a worker serves its metrics, if anywhere."""
    log_format: str = "text"
    hooks: HookSettings = HookSettings()
    home_notes: tuple[str, ...] = ()
    """Notes for people on the choice of home."""

    @property
    def embedded(self) -> bool:
        """Whether studies are stored in the embedded server under `home`."""
        return self.database_url is None and not self.libpq

    def with_database(self, url: str | None) -> "Settings":
        """Return these settings with `--database URL` applied, if one was given."""
        return self if url is None else replace(self, database_url=url)


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Read the settings; an invalid variable raises a UserError."""
    defaults = Timing()
    timing = Timing(
        lease=_seconds(environ, "TUNER_LEASE_SECONDS", defaults.lease),
        renew=_seconds(environ, "TUNER_RENEW_SECONDS", defaults.renew),
        grace=_seconds(environ, "TUNER_GRACE_SECONDS", defaults.grace),
        poll=_seconds(environ, "TUNER_POLL_SECONDS", defaults.poll),
        give_back=_seconds(environ, GIVE_BACK, defaults.give_back),
    )
    if timing.renew * 2 > timing.lease:
        raise UserError(
            f"TUNER_RENEW_SECONDS ({timing.renew:g}) must be at most half of "
            f"TUNER_LEASE_SECONDS ({timing.lease:g}), or healthy trials would be taken over."
        )
    found = _home(environ)
    return Settings(
        home=found.home,
        home_notes=found.notes,
        database_url=environ.get("TUNER_DATABASE_URL") or None,
        password_file=_path(environ, "TUNER_DATABASE_PASSWORD_FILE"),
        checkpoints=environ.get("TUNER_CHECKPOINTS") or None,
        libpq=any(environ.get(name) for name in LIBPQ_ADDRESS),
        price_per_hour=_price(environ),
        timing=timing,
        metrics=Endpoint.parse(metrics, METRICS) if (metrics := environ.get(METRICS)) else None,
        log_format=_log_format(environ),
        hooks=HookSettings(
            webhook=environ.get("TUNER_WEBHOOK") or None,
            webhook_file=_path(environ, "TUNER_WEBHOOK_FILE"),
            command=environ.get("TUNER_ON_EVENT") or None,
            dashboard=environ.get("TUNER_DASHBOARD_URL") or None,
        ),
    )


def child_environment() -> dict[str, str]:
    """Return this process's environment for a child that must not reach the database."""
    return without_secrets(os.environ)


def git_environment() -> dict[str, str]:
    """Return an environment for asking git about the working folder only.

    GIT_DIR and similar variables, set in a hook or by a script, would point git to another
    checkout; others name programs that it runs.
    """
    return {k: v for k, v in child_environment().items() if not k.startswith("GIT_")} | {
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def visible_gpus() -> int | None:
    """Return how many GPUs CUDA_VISIBLE_DEVICES leaves visible, or None if it is not set."""
    names = visible_gpu_names()
    return None if names is None else len(names)


def visible_gpu_names() -> list[str] | None:
    """Return the numbers or UUIDs in CUDA_VISIBLE_DEVICES, or None if it is not set."""
    text = os.environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip() not in ("", "-1")]


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a worker process, with the launcher's settings, not in argv."""
    environment = {**_without_here(os.environ), "TUNER_HOME": str(settings.home)}
    for name in HOOKS:
        environment.pop(name, None)
    if settings.database_url is not None:
        environment["TUNER_DATABASE_URL"] = settings.database_url
    return environment | _watched(settings)


def launcher_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a launch that takes over from this one."""
    hooks = settings.hooks
    given = {
        "TUNER_WEBHOOK": hooks.webhook,
        "TUNER_WEBHOOK_FILE": None if hooks.webhook_file is None else str(hooks.webhook_file),
        "TUNER_ON_EVENT": hooks.command,
    }
    return worker_environment(settings) | {key: text for key, text in given.items() if text}


def _watched(settings: Settings) -> dict[str, str]:
    """Return how a worker is watched, as the launcher's command line says."""
    metrics = {} if settings.metrics is None else {METRICS: str(settings.metrics)}
    return metrics | {LOG_FORMAT: settings.log_format}


@dataclass(frozen=True)
class Portable:
    """The environment of a worker on another machine."""

    variables: Mapping[str, str]
    """Without secrets, and without the address that `database_url` holds."""
    libpq_password: str | None = field(default=None, repr=False)


def portable_environment(settings: Settings) -> Portable:
    """Return the variables that a worker elsewhere needs, and libpq's password apart from them."""
    mine = {name: value for name, value in os.environ.items() if name.startswith(("TUNER_", "PG"))}
    password = mine.pop("PGPASSWORD", None)
    # The home, the price and the hooks are those of this machine.
    here = ("TUNER_HOME", PRICE, "TUNER_DATABASE_URL", "TUNER_DATABASE_PASSWORD_FILE", *HOOKS)
    for name in here:
        mine.pop(name, None)
    mine |= _watched(settings)
    if settings.checkpoints is not None:
        mine["TUNER_CHECKPOINTS"] = settings.checkpoints
    defaults = Timing()
    for name in ("lease", "renew", "grace", "poll", "give_back"):
        seconds = getattr(settings.timing, name)
        if seconds != getattr(defaults, name):
            mine[f"TUNER_{name.upper()}_SECONDS"] = f"{seconds:g}"
    return Portable(mine, password)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a trainer, without anything that opens the database."""
    kept = {key: value for key, value in environ.items() if key not in SECRET_VARIABLES}
    return _without_here(kept)


def _without_here(environ: Mapping[str, str]) -> dict[str, str]:
    """Drop empty entries of PYTHONPATH, which mean the working folder.

    `PYTHONPATH=$PYTHONPATH:/lib` creates one by accident if the variable was empty.
    """
    path = environ.get("PYTHONPATH")
    if path is None:
        return dict(environ)
    return {**environ, "PYTHONPATH": os.pathsep.join(filter(None, path.split(os.pathsep)))}


def _home(environ: Mapping[str, str]) -> home_folder.FoundHome:
    """Return TUNER_HOME, or else the home of the working folder or of one above it."""
    given = environ.get("TUNER_HOME")
    if given:
        return home_folder.FoundHome(Path(given).expanduser().absolute())
    own = environ.get("HOME")
    sudo = environ.get("SUDO_UID", "")
    return home_folder.find(
        Path.cwd(),
        stop=Path(own).resolve() if own else None,
        uid=os.geteuid(),
        sudo_uid=int(sudo) if os.geteuid() == 0 and sudo.isdecimal() else None,
    )


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    return Path(text).expanduser().absolute() if text else None


def _price(environ: Mapping[str, str]) -> float | None:
    text = environ.get(PRICE)
    if not text:
        return None
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < 1_000_000:
        raise UserError(f"{PRICE} is {text!r}; expected an amount of money, such as 2.5.")
    return price


def _log_format(environ: Mapping[str, str]) -> str:
    text = environ.get(LOG_FORMAT) or "text"
    if text not in FORMATS:
        raise UserError(f"{LOG_FORMAT} is {text!r}; expected {' or '.join(FORMATS)}.")
    return text


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 86_400:
        raise UserError(f"{name} is {text!r}; expected a number of seconds above 0.")
    return value


def person() -> str:
    """Return who runs this program, as histories name them: the user, at which machine."""
    try:
        # By the number, not by USER or LOGNAME, which may say anything.
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return f"{name}@{socket.gethostname()}"

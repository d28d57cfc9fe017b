"""Options and lookups that several commands share."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tuner.cli.completion import parse_study
from tuner.cli.terminal import echo, use_log_format
from tuner.errors import DatabaseUnreachableError, UnknownStudyError, UserError
from tuner.logs import FORMATS
from tuner.names import meant
from tuner.settings import Endpoint, Settings
from tuner.spec.quantities import parse_seconds
from tuner.spec.study_ref import StudyRef

if TYPE_CHECKING:
    from tuner.results import Results
    from tuner.spec.reader import Declared
    from tuner.spec.study import Spec
    from tuner.store.database import Database

PATHS = ("data.path", "weights", "fixed.weights")
"""Keys of `--set` whose values are paths."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def add_common(command: click.Command) -> None:
    """Add the options of every command to a command and its subcommands."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            add_common(below)
        if not command.invoke_without_command:
            return
    parse_study(command)
    for parameter in command.params:
        if type(parameter.type) is click.Choice:
            parameter.type = NearChoice(parameter.type.choices)
    if any(parameter.name == "database" for parameter in command.params):
        return
    command.params += [
        click.Option(
            ["--database"],
            metavar="URL",
            expose_value=False,
            callback=_use_database,
            help="PostgreSQL server to use, instead of TUNER_DATABASE_URL or the embedded one.",
        ),
        click.Option(
            ["--debug"], is_flag=True, expose_value=False, help="Show tracebacks and debug output."
        ),
    ]


class NearChoice(click.Choice[Any]):
    """A choice that suggests the nearest word for a misspelt one."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the error for a value, with a suggestion."""
        known = [str(choice) for choice in self.choices]
        return super().get_invalid_choice_message(value, ctx) + meant(str(value), known)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic in later versions only
    """A duration as in a study file, such as 90s, 55m or 2h; in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse a duration to seconds."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_seconds(value)
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 90s, 55m or 2h.", param, ctx)


DURATION = Duration()


def _use_database(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
    settings: Settings = ctx.obj
    ctx.obj = settings.with_database(value)


def examples(*lines: str) -> str:
    """Return the end of a command's help: examples that run as they are."""
    head = "Example:" if len(lines) == 1 else "Examples:"
    return "\n  ".join((f"\b\n{head}", *lines))


def json_option(function: Decorated) -> Decorated:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON.")(
        function
    )


def answering(answer: Callable[..., None]) -> Callable[..., None]:
    """Turn a function of `Results` into the body of a command with STUDY and --json.

    Everything is read from one snapshot. Put it above the command's own options.
    """

    @wraps(answer)
    def command(settings: Settings, /, study: StudyRef, **wishes: Any) -> None:
        with open_results(settings, study) as results:
            answer(results, **wishes)

    # click lists options in the reverse order of their decorators.
    own = command.__dict__.pop("__click_params__", [])
    json_option(command)
    command.__dict__["__click_params__"] += own
    return click.argument("study")(click.pass_obj(command))


def overwrite_option(function: Decorated) -> Decorated:
    """Add --overwrite."""
    return click.option(
        "--overwrite",
        is_flag=True,
        help="Replace an existing file, even one that tuner did not write.",
    )(function)


def study_file_options(function: Decorated) -> Decorated:
    """Add --set, which may be repeated."""
    return click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override a value of the study file, e.g. lr=1e-3 or data.image_size=128.",
    )(function)


def crew_options(function: Decorated) -> Decorated:
    """Add --workers, --device and --threads."""
    function = click.option(
        "--threads",
        type=click.IntRange(1),
        help="CPU threads per trainer, overriding the study file; affects results.",
    )(function)
    function = click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda|cuda:N",
        help="Device to train on; auto uses all GPUs, or the CPU if there are none.",
    )(function)
    return click.option(
        "--workers",
        type=click.IntRange(1, 256),
        help="Number of workers (default: one per GPU, or one per CPU core if there is no GPU).",
    )(function)


def pin_option(function: Decorated) -> Decorated:
    """Add --pin."""
    return click.option(
        "--pin",
        is_flag=True,
        help="Pin each worker to its own share of this machine's cores.",
    )(function)


def log_format_option(function: Decorated) -> Decorated:
    """Add --log-format."""

    def use(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.obj = replace(ctx.obj, log_format=value)
            use_log_format(value)

    return click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        expose_value=False,
        callback=use,
        help="Format of log records: text, or json with one object per line (default: "
        "TUNER_LOG_FORMAT, or text).",
    )(function)


def metrics_option(function: Decorated) -> Decorated:
    """Add --metrics."""

    def use(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.obj = replace(ctx.obj, metrics=Endpoint.parse(value, "--metrics"))

    return click.option(
        "--metrics",
        metavar="[ADDRESS:]PORT",
        expose_value=False,
        callback=use,
        help="Serve each worker's metrics for Prometheus, from this port on: each worker takes "
        "the next free one (default: TUNER_METRICS, or not at all).",
    )(function)


def hook_options(function: Decorated) -> Decorated:
    """Add --webhook-file and --on-event."""

    def use_file(ctx: click.Context, _option: click.Parameter, value: Path | None) -> None:
        if value is not None:
            hooks = replace(ctx.obj.hooks, webhook_file=value.absolute())
            ctx.obj = replace(ctx.obj, hooks=hooks)

    def use_command(ctx: click.Context, _option: click.Parameter, value: str | None) -> None:
        if value is not None:
            ctx.obj = replace(ctx.obj, hooks=replace(ctx.obj.hooks, command=value))

    function = click.option(
        "--on-event",
        metavar="COMMAND",
        expose_value=False,
        callback=use_command,
        help="Run this command on the same events, with the notice as JSON on its standard "
        "input (default: TUNER_ON_EVENT).",
    )(function)
    return click.option(
        "--webhook-file",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=use_file,
        help="File with the address of a webhook, notified when a study ends or pauses on its own "
        "and when trials fail (default: TUNER_WEBHOOK_FILE, or the address in TUNER_WEBHOOK).",
    )(function)


def objectives_option(function: Decorated) -> Decorated:
    """Add --objectives."""
    return click.option(
        "--objectives",
        "objective_folders",
        type=click.Path(path_type=Path, file_okay=False),
        multiple=True,
        help="Folder to search for objectives before ./objectives and the built-in ones.",
    )(function)


class PerGpu(click.ParamType):  # type: ignore[type-arg]  # generic in later versions only
    """A number of workers, or auto."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number of workers on a GPU, or "auto"."""
        if value == "auto":
            return "auto"
        return int(click.IntRange(1, 64).convert(value, param, ctx))


def trial_numbers(
    _context: click.Context, _option: click.Parameter, texts: tuple[str, ...]
) -> tuple[int, ...]:
    """Parse trial numbers such as 12,31 from every use of the option."""
    numbers: list[int] = []
    for text in texts:
        words = text.replace(",", " ").split()
        wrong = [word for word in words if not word.isdecimal()]
        if wrong or not words:
            what = wrong[0] if wrong else text
            raise click.BadParameter(f"{what!r} is not the number of a trial, such as 12 or 12,31.")
        numbers += map(int, words)
    return tuple(numbers)


def gpu_options(function: Decorated) -> Decorated:
    """Add --devices and --per-gpu."""
    function = click.option(
        "--per-gpu",
        type=PerGpu(),
        default=1,
        show_default=True,
        metavar="K|auto",
        help="How many workers on each GPU; auto starts one and adds more if it leaves room.",
    )(function)
    return click.option(
        "--devices",
        callback=lambda _ctx, _option, text: tuple(filter(None, (text or "").split(","))),
        metavar="0,2",
        help="GPUs to use, by number or UUID, even if other processes are using them; "
        "default: all free GPUs.",
    )(function)


def engine_options(function: Decorated) -> Decorated:
    """Add --on and --fleet."""
    function = click.option(
        "--fleet",
        "engine_options",
        metavar="KEY=VALUE",
        multiple=True,
        help="Option of the engine, e.g. partition=gpu; see docs/fleet.md.",
    )(function)
    return click.option(
        "--on",
        "engine",
        default="local",
        show_default=True,
        metavar="ENGINE",
        help="Where workers run: local (this machine), or a cluster's engine; see docs/fleet.md.",
    )(function)


def read_engine_options(given: tuple[str, ...]) -> dict[str, str]:
    """Return an engine's options as texts; the engine parses their values."""
    wrong = [text for text in given if "=" not in text.strip("=")]
    if wrong:
        raise UserError(f"--fleet {wrong[0]} is not KEY=VALUE, such as partition=gpu.")
    return {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in given)}


class StudyGroup(click.Group):
    """A group whose commands also accept their study as --study NAME."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and move its study to the front."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, rest if command is None else place_study(ctx, command, rest)


def study_folders() -> list[Path]:
    """Return the folders of study files: ./studies, then the built-in ones."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "shipped" / "studies"
    shipped = installed if installed.is_dir() else package.parent / "studies"
    return list(dict.fromkeys([Path("studies").resolve(), shipped]))


def objective_folders(study_file: Path | None, paths: tuple[Path, ...] = ()) -> tuple[Path, ...]:
    """Return the folders to search for objectives before the built-in ones."""
    near = [] if study_file is None else [study_file.resolve().parent.parent / "objectives"]
    return (*(folder.resolve() for folder in paths), *near, Path("objectives").resolve())


@dataclass(frozen=True)
class StudyFile:
    """A study file, and the folders to search for its objective."""

    path: Path
    folders: tuple[Path, ...]

    @classmethod
    def find(cls, ref: StudyRef, paths: tuple[Path, ...] = ()) -> "StudyFile":
        """Find a study's file by its name or path; `paths` come before the usual folders."""
        from tuner.spec.load import find

        path = find(ref, study_folders())
        return cls(path, objective_folders(path, paths))

    def read(self, overrides: tuple[str, ...] = ()) -> "Spec":
        """Read and check the file."""
        from tuner.spec.load import load

        here = tuple(_from_here(text) for text in overrides)
        return load(self.path, here, _declared(self.folders))

    def engine_options(self, engine: str) -> Mapping[str, Any]:
        """Return the table [fleet.ENGINE]; a table of an unknown engine is an error."""
        from tuner.fleet.engines import ENGINES
        from tuner.spec.document import read

        tables = read(self.path).get("fleet", {})
        if not isinstance(tables, dict):
            raise UserError(f"{self.path}: fleet is no table; expected [fleet.{engine}].")
        for name, table in tables.items():
            if name not in ENGINES:
                raise UserError(
                    f"{self.path}: [fleet.{name}]: there is no engine {name!r}."
                    f"{meant(name, ENGINES)} Engines: {', '.join(ENGINES)}."
                )
            if not isinstance(table, dict):
                raise UserError(f"{self.path}: fleet.{name} is no table; expected [fleet.{name}].")
        found: dict[str, Any] = tables.get(engine, {})
        return found


def check_spec(
    document: Mapping[str, Any], overrides: tuple[str, ...], paths: tuple[Path, ...] = ()
) -> "Spec":
    """Check a study that is not in a file; its relative paths start in the current folder."""
    from tuner.spec.load import check

    here = tuple(_from_here(text) for text in overrides)
    name = Path("the study")
    return check(document, here, _declared(objective_folders(None, paths)), name)


def _declared(folders: tuple[Path, ...]) -> "Declared":
    from tuner.train.objective import find

    return lambda objective, _folder: find(objective, folders).objective.declarations()


def _from_here(text: str) -> str:
    """Make a typed path start in the current folder; in a file, it starts at the file."""
    key, equals, written = text.partition("=")
    path = written.strip().strip("\"'")
    listed = path.startswith(("[", "{"))
    if key.strip() not in PATHS or not equals or not path or listed or "://" in path:
        return text
    return f"{key.strip()}={Path(path).expanduser().absolute()}"


@contextmanager
def open_database(
    settings: Settings,
    *,
    wait_seconds: float = 0.0,
    create: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator["Database"]:
    """Open the database and check that it can be used; wait for a server that does not respond.

    An embedded database that does not exist is created only with `create`. `meanwhile` is called
    while an embedded server starts.
    """
    from tuner.store import schema
    from tuner.store.database import Database

    with Database.open(settings, create=create, meanwhile=meanwhile) as database:
        _await(database, wait_seconds)
        schema.ensure(database)
        try:
            yield database
        except UnknownStudyError as error:
            where = _where(settings, database)
            raise UnknownStudyError(f"{error}\nThe database is {where}.") from None
        _remember_names(settings, database)


def _remember_names(settings: Settings, database: "Database") -> None:
    """Store the names of all studies for shell completion; it costs one statement."""
    from sqlalchemy.exc import DBAPIError

    from tuner.cli.completion import remember_names
    from tuner.store import studies

    # Only a convenience: a command that has done its work must not fail because of it.
    with suppress(DBAPIError), database.transaction() as connection:
        remember_names(settings, studies.names(connection))


@contextmanager
def open_results(settings: Settings, study: StudyRef) -> Iterator["Results"]:
    """Open the results of a stored study in one snapshot."""
    from tuner.results import Results

    with open_database(settings) as database, database.snapshot() as connection:
        yield Results.of(connection, study)


def tell_home(settings: Settings, *, makes: bool = False) -> None:
    """Say where the home is, if that is not obvious; `makes` says that it is created now."""
    from tuner.home import exposure

    home = settings.home
    if not home.is_dir():
        if makes:
            echo(f"Creating a folder for studies, logs and results: {home}", err=True)
    elif home.parent != Path.cwd():
        echo(f"Studies, logs and results are in {home}.", err=True)
    warning = exposure(home)
    if warning:
        echo(f"Warning: {warning}", err=True)


def _where(settings: Settings, database: "Database") -> str:
    if settings.embedded:
        return f"the embedded one in {settings.home}"
    if settings.database_url is None:
        return "the one that libpq's variables name"
    return database.address.masked


def _await(database: "Database", seconds: float) -> None:
    deadline = time.monotonic() + seconds
    told = False
    while True:
        try:
            return database.check()
        except DatabaseUnreachableError as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                echo(f"{error}\nWaiting up to {seconds:g} s for it.", err=True)
                told = True
            time.sleep(0.5)


def join_numbers(arguments: list[str]) -> list[str]:
    """Return the arguments with the numbers after --finish joined to one word.

    People write `--finish 12 31`, but an option takes one word.
    """
    numbers = re.compile(r"\d[\d,]*")
    joined: list[str] = []
    for word in arguments:
        if joined[-2:-1] == ["--finish"] and all(
            numbers.fullmatch(one) for one in (joined[-1], word)
        ):
            joined[-1] += f",{word}"
        else:
            joined.append(word)
    return joined


def place_study(parent: click.Context, command: click.Command, arguments: list[str]) -> list[str]:
    """Return the arguments with the study first, as commands expect it.

    Every command takes both NAME and --study NAME.
    """
    if not any(parameter.name == "study" for parameter in command.params):
        return arguments
    for place, word in enumerate(arguments):
        if word == "--study" and place + 1 < len(arguments):
            return [arguments[place + 1], *arguments[:place], *arguments[place + 2 :]]
        if word.startswith("--study="):
            return [word.partition("=")[2], *arguments[:place], *arguments[place + 1 :]]
    if parent.resilient_parsing and arguments[-1:] == ["--study"]:
        # During completion: the next word may be the name of a study.
        return arguments[:-1]
    return arguments

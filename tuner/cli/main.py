"""The command `tuner`: its subcommands, and the exit codes of errors."""

import importlib
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from tuner import __version__
from tuner.cli.options import add_common, examples, join_numbers, place_study
from tuner.cli.terminal import (
    ReadableFormatter,
    echo,
    open_closed_streams,
    replace_unencodable,
    report,
    use_log_format,
)
from tuner.errors import (
    EXIT_DONE,
    EXIT_MACHINE,
    EXIT_SIGINT,
    EXIT_SIGPIPE,
    EXIT_UNEXPECTED,
    EXIT_USER,
    TunerError,
)
from tuner.names import meant
from tuner.settings import from_environment

COMMANDS = {
    "launch": "launch:launch",
    "worker": "worker:worker",
    "fleet": "fleet:fleet",
    "attach": "fleet:attach",
    "run": "run:run",
    "status": "status:status",
    "studies": "status:studies",
    "table": "tables:table",
    "show": "show:show",
    "compare": "compare:compare",
    "gap": "gap:gap",
    "influence": "influence:influence",
    "diff": "diff:diff",
    "confusion": "confusion:confusion",
    "best": "best:best",
    "predict": "predict:predict",
    "export": "export:export",
    "plot": "plot:plot",
    "report": "report:report",
    "logs": "logs:logs",
    "events": "logs:events",
    "enqueue": "enqueue:enqueue",
    "queue": "queue:queue",
    "stop": "control:stop",
    "pause": "control:pause",
    "extend": "control:extend",
    "retry": "control:retry",
    "tag": "labels:tag",
    "note": "labels:note",
    "archive": "labels:archive",
    "delete": "control:delete",
    "new": "new:new",
    "validate": "validate:validate",
    "check": "check:check",
    "clean": "clean:clean",
    "dashboard": "dashboard:dashboard",
    "db": "db:db",
}
"""The module of each command, in the order of `tuner --help`."""
ALIASES = {"list": "studies", "version": "--version"}
"""Aliases that people type out of habit."""
TRAINING = ("launch", "worker", "run")
"""Commands that train: a closed output pipe interrupts them."""


class ReaderLeftError(Exception):
    """The reader of standard output closed its pipe, as `head` does."""


@contextmanager
def _closed_pipe_raised() -> Iterator[None]:
    """Let a closed pipe reach `run`; click would exit with 1."""
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderLeftError from error


class LazyGroup(click.Group):
    """A group whose commands are imported on first use."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the command line; --help prints here already."""
        with _closed_pipe_raised():
            return super().make_context(*arguments, **options)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before the subcommand, and its name."""
        return super().parse_args(ctx, [ALIASES.get(word, word) for word in args[:1]] + args[1:])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _closed_pipe_raised():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order of `tuner --help`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command and add --database and --debug."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(f"tuner.cli.{module}"), name)
        add_common(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for a misspelt one, suggest the nearest."""
        try:
            name, command, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message}{meant(args[0], COMMANDS)}", ctx) from None
        if command is not None:
            rest = place_study(ctx, command, join_numbers(rest))
        return name, command, rest


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples("tuner launch lr_sched"),
)
@click.version_option(__version__, message="tuner %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Run hyperparameter studies, and find out which differences are real.

    A study file asks a question; `launch` trains every setting, using all
    available devices and running exactly the number of trials in its budget;
    `table` shows the results. By default, studies are stored in an embedded
    PostgreSQL database in the nearest .tuner folder, searching upwards from
    the current folder (TUNER_HOME overrides this). With --database or
    TUNER_DATABASE_URL, any number of machines can work on the same study.

    Commands that take a study accept it as NAME or as --study NAME.

    Exit codes: 0 success; 1 the study ended with failed trials, or was
    stopped or paused before its end, or `predict` could not do everything;
    2 invalid input; 3 database or system error; 70 internal
    error (please report it); 130 and 143 interrupted by SIGINT and SIGTERM;
    141 output pipe closed.
    """
    settings = from_environment(os.environ)
    use_log_format(settings.log_format)
    for note in settings.home_notes:
        report(f"Note: {note}", logging.WARNING)
    ctx.obj = settings


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; no traceback unless --debug was given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    open_closed_streams()
    replace_unencodable()
    handler = logging.StreamHandler()
    handler.setFormatter(ReadableFormatter())
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    if not debug:
        logging.getLogger("alembic").setLevel(logging.WARNING)
    _unwind_on_signals()
    try:
        code = cli.main(args=given, prog_name="tuner", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        echo("Aborted.", err=True)
        return EXIT_SIGINT
    except click.ClickException as error:
        _show(error)
        return EXIT_USER
    except TunerError as error:
        return _tell(error, error.exit_code, debug=debug)
    except (ReaderLeftError, BrokenPipeError):
        return _reader_left(given)
    except KeyboardInterrupt:
        return EXIT_SIGINT
    # The last resort: an error of the database, or a bug, is reported in one line that says how to
    # see more.
    except Exception as error:  # noqa: BLE001
        return _tell_unexpected(error, debug=debug)
    return code if isinstance(code, int) else 0


def _unwind_on_signals() -> None:
    """End by an exception on SIGTERM and SIGHUP, so that half-written files are removed.

    Commands that release trials replace this handler with their own. A signal that
    the caller ignores stays ignored (nohup).
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def unwind(number: int, _frame: object) -> None:
        # A second signal ends a clean-up that hangs.
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, unwind)


def _reader_left(given: Sequence[str]) -> int:
    """End a command whose output is no longer read, as in `tuner table | head`.

    A command that only answers counts as successful. Training
    was interrupted, which its exit code says.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_SIGPIPE if given[:1] and given[0] in TRAINING else EXIT_DONE


def _show(error: click.ClickException) -> None:
    """Print a usage error, which may quote what was typed."""
    text = io.StringIO()
    error.show(file=text)
    echo(text.getvalue().rstrip("\n"), err=True)


def _tell(error: TunerError, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    report(f"Error: {error}", logging.ERROR)
    return code


def _tell_unexpected(error: Exception, *, debug: bool) -> int:
    from sqlalchemy.exc import DBAPIError

    from tuner.store.database import is_servers_trouble, server_words

    if debug:
        traceback.print_exc()
    if is_servers_trouble(error):
        report(
            f"Error: the database reported: {server_words(error)}. See `tuner db status` and the "
            "server's log.",
            logging.ERROR,
        )
        return EXIT_MACHINE
    what = server_words(error) if isinstance(error, DBAPIError) else error
    bug = "This is a bug. Run with --debug for a traceback, and please report it."
    report(f"Error: {type(error).__name__}: {what}\n{bug}", logging.ERROR)
    return EXIT_UNEXPECTED

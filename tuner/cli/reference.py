"""The command reference, generated from the help texts.

python -m tuner.cli.reference > docs/cli.md
"""

import click

from tuner.cli.main import COMMANDS, cli

WIDTH = 100

HEADER = """# Commands

Generated from the help texts (`make docs`); a test fails if it is out of date.

Exit codes: 0 success, 1 the study ended with failed trials, or was stopped or paused before its
end, or `predict` could not do everything, 2 invalid input, 3 database or system error, 70 internal
error (please report it; a worker that exits with it is replaced), 130 and 143 interrupted by SIGINT
and SIGTERM, 141 a launch, run or worker printed to a pipe that was closed.
Every command takes `--database URL` and `--debug`. Environment variables:

| variable | meaning |
|---|---|
| `TUNER_HOME` | \
folder for everything tuner stores (default: the nearest `.tuner`, searching upwards from here) |
| `TUNER_DATABASE_URL` | PostgreSQL server to use instead of the embedded one |
| `TUNER_DATABASE_PASSWORD_FILE` | file with the password, if the URL has none |
| `PGHOST`, `PGSERVICE`, … | libpq's own variables and pass file, if no URL is given |
| `TUNER_CHECKPOINTS` | \
folder or fsspec address for checkpoints, or `off` (default: in `TUNER_HOME`) |
| `TUNER_PRICE_PER_HOUR` | price of an hour of this machine's devices (default: the study's) |
| `TUNER_LEASE_SECONDS`, `TUNER_RENEW_SECONDS`, `TUNER_GRACE_SECONDS`, `TUNER_POLL_SECONDS` | \
lease duration, renewal interval, grace period and poll interval in seconds (30, 5, 12, 1) |
| `TUNER_GIVE_BACK_SECONDS` | seconds that a trial has to finish its epoch after Ctrl-C (30) |
| `TUNER_METRICS` | address and first port of workers' metrics, as `--metrics` |
| `TUNER_LOG_FORMAT` | `text` or `json`, as `--log-format` |
| `TUNER_WEBHOOK`, `TUNER_WEBHOOK_FILE` | address of a webhook, or the file with it |
| `TUNER_ON_EVENT` | command to run on events, as `--on-event` |
| `TUNER_DASHBOARD_URL` | address of your dashboard, for links in notices |
"""


def reference() -> str:
    """Return the reference of all commands as Markdown."""
    parts = [HEADER, _section("tuner", cli, None)]
    parent = click.Context(cli, info_name="tuner")
    for name in COMMANDS:
        command = cli.get_command(parent, name)
        assert command is not None
        parts += _sections(f"tuner {name}", command, parent)
    return "\n".join(parts)


def _sections(title: str, command: click.Command, parent: click.Context) -> list[str]:
    """Return the sections of a command and its subcommands."""
    parts = [_section(title, command, parent)]
    if isinstance(command, click.Group):
        group = click.Context(command, info_name=title.rsplit(maxsplit=1)[-1], parent=parent)
        for name in command.list_commands(group):
            parts += _sections(f"{title} {name}", command.commands[name], group)
    return parts


def _section(title: str, command: click.Command, parent: click.Context | None) -> str:
    context = click.Context(
        command,
        info_name=title.rsplit(maxsplit=1)[-1],
        parent=parent,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    return f"## `{title}`\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)

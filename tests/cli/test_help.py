"""The command line: help, version, and start time."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tuner.cli.main import COMMANDS, cli, run
from tuner.cli.reference import reference

ROOT = Path(__file__).resolve().parents[2]


def everything() -> list[tuple[str, ...]]:
    """Return the words of every command and subcommand."""
    context = click.Context(cli)
    words: list[tuple[str, ...]] = [()]

    def walk(path: tuple[str, ...], command: click.Command | None) -> None:
        words.append(path)
        if isinstance(command, click.Group):
            for name, below in command.commands.items():
                walk((*path, name), below)

    for name in COMMANDS:
        walk((name,), cli.get_command(context, name))
    return words


@pytest.mark.parametrize("words", everything(), ids=" ".join)
def test_every_help_ends_with_an_example(words: tuple[str, ...]) -> None:
    """The last lines of each help show a command that begins as this one does."""
    result = CliRunner().invoke(cli, [*words, "--help"], prog_name="tuner")
    assert result.exit_code == 0, result.output
    _, _, example = result.output.rpartition("Example")
    assert " ".join(("tuner", *words)) in example


@pytest.mark.parametrize("words", [w for w in everything() if w], ids=" ".join)
def test_every_command_takes_a_database(words: tuple[str, ...]) -> None:
    """Every command that does something accepts --database."""
    result = CliRunner().invoke(cli, [*words, "--help"])
    assert "Commands:" in result.output or "--database" in result.output


@pytest.mark.parametrize("words", [w for w in everything() if w], ids=" ".join)
def test_every_command_that_writes_a_file_takes_overwrite(words: tuple[str, ...]) -> None:
    """Every command that writes a named file accepts --overwrite."""
    usage = CliRunner().invoke(cli, [*words, "--help"]).output
    writes = any(word in usage for word in ("--output", "--save DIR", "--picture FILE"))
    assert ("--overwrite" in usage) is writes


def test_help_loads_neither_torch_nor_optuna() -> None:
    """`tuner --help` answers before anything large is imported."""
    code = (
        "import sys; from tuner.cli.main import run; run(['--help']); "
        "print(sorted({'torch', 'optuna', 'sqlalchemy', 'numpy', 'rich', 'pydantic'} "
        "& set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "launch" in done.stdout


def test_command_reference_is_current() -> None:
    """docs/cli.md is generated from the help texts; `make docs` updates it."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference()


def test_unknown_command_is_the_users_error(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command exits with 2 and no traceback."""
    assert run(["lanch"]) == 2
    err = capsys.readouterr().err
    assert "No such command 'lanch'. Did you mean launch or clean" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("value", ["0", "-1", "soon"])
def test_bad_setting_is_the_users_error(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that cannot be parsed is named, with the expected form."""
    monkeypatch.setenv("TUNER_LEASE_SECONDS", value)
    assert run(["studies"]) == 2
    assert "TUNER_LEASE_SECONDS" in capsys.readouterr().err

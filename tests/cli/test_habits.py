"""Aliases and other typing habits are understood."""

import subprocess
import sys

import click
import pytest

from tests.cli.conftest import Project
from tuner import __version__
from tuner.cli.main import COMMANDS, cli
from tuner.cli.options import join_numbers, place_study

WITH_STUDY = [
    name
    for name in COMMANDS
    if any(one.name == "study" for one in cli.get_command(click.Context(cli), name).params)  # type: ignore[union-attr]
]


def placed(name: str, *words: str) -> list[str]:
    """Return the arguments that a command gets."""
    context = click.Context(cli, help_option_names=["-h", "--help"])
    command = cli.get_command(context, name)
    assert command is not None
    return place_study(context, command, list(words))


@pytest.mark.parametrize("name", WITH_STUDY)
def test_a_study_is_a_plain_name_or_an_option(name: str) -> None:
    """A positional study and --study mean the same for every command that takes a study."""
    assert len(WITH_STUDY) > 15
    assert placed(name, "mine") == placed(name, "--study", "mine") == ["mine"]


@pytest.mark.parametrize(
    ("name", "words", "wanted"),
    [
        ("show", ["7", "--study", "mine"], ["mine", "7"]),
        ("diff", ["--study=mine", "other", "--json"], ["mine", "other", "--json"]),
        ("export", ["--best", "3", "--study", "mine"], ["mine", "--best", "3"]),
        ("launch", ["--set", "lr=1", "--study=mine"], ["mine", "--set", "lr=1"]),
        # click reports what is wrong.
        ("launch", ["mine", "--study", "other"], ["other", "mine"]),
        ("table", ["--study"], ["--study"]),
        ("studies", ["--json"], ["--json"]),
    ],
    ids=" ".join,
)
def test_the_study_is_put_where_a_command_expects_it(
    name: str, words: list[str], wanted: list[str]
) -> None:
    """The study is moved to where a command expects it, never in place of an option's value."""
    assert placed(name, *words) == wanted


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("mine --finish 12 31 --workers 2", "mine --finish 12,31 --workers 2"),
        ("--finish 12, 31 7 mine", "--finish 12,,31,7 mine"),
        ("mine --finish 12,31", "mine --finish 12,31"),
        ("mine --finish --workers 2", "mine --finish --workers 2"),
        ("mine --finish", "mine --finish"),
        ("mine --workers 2 3", "mine --workers 2 3"),
    ],
)
def test_numbers_after_finish_are_one_word(words: str, wanted: str) -> None:
    """Numbers after --finish may be separated by spaces."""
    assert join_numbers(words.split()) == wanted.split()


def test_both_ways_give_the_same_answer(trained_once: Project) -> None:
    """A table by --study and an export by a positional name give the same answer."""
    assert trained_once.run("table", "--study", "small") == trained_once.run("table", "small")
    plain = trained_once.run("export", "small", "--best", "1")
    assert plain == trained_once.run("export", "--study", "small", "--best", "1")


def test_list_and_version(trained_once: Project) -> None:
    """`list` and `version` work like `studies` and `--version`."""
    assert trained_once.run("list") == trained_once.run("studies")
    assert __version__ in trained_once.run("version")


def test_columns_are_picked_in_the_order_asked(trained_once: Project) -> None:
    """Columns come in the requested order, also those of --wide; a misspelt one is reported."""
    rows = trained_once.run("export", "small", "--columns", "gap, test_auc,trial").splitlines()
    assert rows[0] == "gap,test_auc,trial"
    whole = trained_once.json("export", "small", "--wide", "--format", "json")
    assert rows[1] == f"{whole[0]['gap']!r},{whole[0]['test_auc']!r},{whole[0]['trial']}"
    assert len(rows) == 1 + len(whole)
    table = trained_once.run("export", "small", "--comparisons", "--columns", "level,mean")
    assert table.startswith("level,mean\n")
    said = trained_once.run("export", "small", "--columns", "trial,val_ac", code=2)
    assert "There is no column 'val_ac' in this sheet" in said
    assert "val_acc" in said


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_a_command_that_looks_for_its_study_has_both_helps(word: str) -> None:
    """A command that accepts a positional study keeps both of its help options."""
    done = subprocess.run(
        [sys.executable, "-m", "tuner", "launch", word], capture_output=True, text=True, check=True
    )
    assert "-h, --help" in done.stdout

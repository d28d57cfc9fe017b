"""Output: data are never markup, control characters are escaped, pipes may close."""

import ast
import io
import json
import logging
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import STUDY, Project, make_project
from tests.conftest import own_database
from tuner.answers import words
from tuner.cli import terminal
from tuner.cli.console import DataConsole, PlainConsole, plain_table, print_sentences, styled
from tuner.cli.live import LiveScreen, PlainScreen, chosen_line, draw, screen_for
from tuner.cli.main import run
from tuner.records import NATS, Value, value_text
from tuner.store.address import Address
from tuner.store.overview import Best, Counts, Overview, WorkerLine
from tuner.text import file_name, storable


def test_a_closed_output_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `>&-` Python has no stream; that is no error."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert run(["--version"]) == 0
    assert run(["--no-such-option"]) == 2


ODD = "[/] [/b] [bold]x[/bold] [a-z] :smile: \x1b[31m\x9b2J\r\x07 \u202ecod.exe \udcff\ud800"
SHOWN = r"[/] [/b] [bold]x[/bold] [a-z] :smile: \x1b[31m\x9b2J\x0d\x07 \u202ecod.exe \xff\ud800"
"""The printed form of ODD."""
C1 = "".join(map(chr, range(0x80, 0xA0)))
"""Printed like the same bytes of a file name."""
COMMANDS = Path(terminal.__file__).parent
MAKES_OUTPUT = {
    *("click.echo", "click.secho", "click.confirm", "click.prompt", "print", "Console"),
    *("sys.stdout.write", "sys.stdout.buffer.write", "sys.stderr.write", "Text.from_markup"),
}


def _direct_output(module: str) -> list[str]:
    """Return where a module calls functions that write to the terminal directly."""
    tree = ast.parse((COMMANDS / module).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [f"{ast.unparse(c)}, line {c.lineno}" for c in calls if _name(c) in MAKES_OUTPUT]


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func)


@pytest.mark.parametrize(
    "module",
    sorted(path.name for path in COMMANDS.glob("*.py")),
)
def test_all_printing_goes_through_one_place(module: str) -> None:
    """Commands write to the terminal only through tuner.cli.terminal and tuner.cli.console."""
    owners = ("terminal.py", "reference.py")  # the latter writes docs/cli.md
    found = _direct_output(module)
    assert bool(found) is (module in owners), found


@given(st.text())
def test_no_character_is_left_that_a_terminal_obeys(text: str) -> None:
    """Only printable characters, tabs and line feeds are printed, in UTF-8."""
    shown = terminal.readable(text)
    left = {unicodedata.category(c) for c in shown if c not in "\t\n"}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    shown.encode()


@given(st.text(st.characters(categories=["Cc", "Zl", "Zp", "Cs"], exclude_characters=C1)))
def test_an_escape_is_written_as_in_stored_text(text: str) -> None:
    """Control characters and bytes have one escape everywhere, which can be reversed."""
    shown = terminal.readable(text)
    assert shown == terminal.readable(storable(text))
    assert file_name(shown) == text


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_ordinary_text_is_left_alone(text: str) -> None:
    """Letters of any script, brackets and backslashes are printed as they are."""
    assert terminal.readable(text) == text


def test_a_line_shows_data_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """echo prints what looks like markup, and escapes control characters."""
    terminal.echo(ODD)
    terminal.echo(ODD, err=True, bold=True, fg="red")
    said = capsys.readouterr()
    assert (said.out, said.err) == (SHOWN + "\n", SHOWN + "\n")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_reads_back_as_it_was(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has no control characters, and reads back to the same texts."""
    body = {"name": ODD, "ü–": ["\x85", "\x7f"]}
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.echo_json(body)
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    assert json.loads(text) == body
    assert terminal.readable(text) == text


def test_tables_and_sentences_show_data_as_they_are() -> None:
    """Cells, headings, titles, sentences and styled texts keep their brackets."""
    stream = io.StringIO()
    console = DataConsole(stream, width=1000)
    table = plain_table(f"title {ODD}")
    table.add_column(f"head {ODD}")
    table.add_row(f"cell {ODD}")
    table.add_row(styled(f"styled {ODD}", "bold"))
    console.print(table)
    print_sentences(console, [f"sentence {ODD}"])
    console.print(f"line {ODD}", style="dim")
    lines = [line.strip() for line in stream.getvalue().splitlines()]
    kinds = ("title", "head", "cell", "styled", "sentence", "line")
    assert lines == [f"{kind} {SHOWN}" for kind in kinds]


def test_a_column_is_as_wide_as_what_is_shown() -> None:
    """The column after an escaped text begins at the same position in every row."""
    stream = io.StringIO()
    table = plain_table()
    table.add_column("name")
    table.add_column("mark")
    for name in ("plain", "\x1b\x1b\x1b"):
        table.add_row(name, "#")
    DataConsole(stream, width=80).print(table)
    _, plain, escaped = stream.getvalue().splitlines()
    assert plain.index("#") == escaped.index("#") == len(r"\x1b\x1b\x1b") + 1


def odd_overview() -> Overview:
    """Return a study in which every text is odd."""
    line = WorkerLine(
        *(1, ODD, 7, f"device {ODD}", 0.5),
        number=3,
        seed=0,
        attempts=1,
        chosen={"kind": f"value {ODD}"},
        epoch=1,
        epochs=3,
        val_loss=0.5,
    )
    return Overview(
        title=f"title {ODD}",
        question=f"question {ODD}",
        state="paused",
        reason=f"reason {ODD}",
        metric="val_loss",
        unit=NATS,
        created=datetime.now(UTC),
        counts=Counts(4, complete=1, running=1),
        workers=(line,),
        best=Best(0, 0, {"kind": f"best {ODD}"}, 0.5, 0.9, None),
        epochs_recorded=1,
        epochs_reused=0,
        seconds_trained=1.0,
        eta_seconds=None,
        adopted=(),
    )


def test_the_live_screen_shows_data_as_they_are() -> None:
    """Title, question, reason, device, parameters and the best trial keep their brackets."""
    stream = io.StringIO()
    DataConsole(stream, width=1000).print(draw(odd_overview()))
    drawn = stream.getvalue()
    parts = ("title", "question", "reason", "device", "value", "kind=best")
    assert [part for part in parts if f"{part} {SHOWN}" not in drawn] == []
    assert terminal.readable(drawn) == drawn


def test_a_live_screen_on_a_terminal_obeys_no_data() -> None:
    """No escape sequence on the live screen comes from the study."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with screen_for(stream) as screen:
        assert isinstance(screen, LiveScreen)
        screen.show(odd_overview())
        screen.say(f"said {ODD}")
        screen.show(odd_overview())
    drawn = stream.getvalue()
    assert "\x1b[31m" not in drawn  # the study's escape; the screen's own red is never plain 31
    assert not set(drawn) & set("\x9b\x07\u202e\udcff\ud800")
    assert r"\x1b[31m" in drawn


def test_plain_lines_show_data_as_they_are() -> None:
    """Without a terminal, a launch's output is printed unchanged."""
    stream = io.StringIO()
    screen = PlainScreen(DataConsole(stream))
    screen.say(ODD)
    assert stream.getvalue() == SHOWN + "\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), (None, "–"), (1e-3, "0.001"), (8, "8"), ("[a]", "[a]")],
)
def test_a_value_is_spelt_as_in_the_study_file(value: Value | None, text: str) -> None:
    """The live screen, tables and verdicts write true and false as the file does."""
    assert value_text(value) == words.level_name(value) == text
    if value is not None:
        assert chosen_line({"key": value}) == f"key={text}"


def test_a_log_record_shows_data_as_they_are() -> None:
    """A worker's log keeps its lines, and control characters in them are escaped."""
    record = logging.LogRecord("tuner", logging.INFO, "x", 1, "lost %s\nagain", (ODD,), None)
    assert terminal.ReadableFormatter("%(message)s").format(record) == f"lost {SHOWN}\nagain"


def test_a_piped_table_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped output has the same text, without trailing spaces."""
    PlainConsole().print(f"{ODD}   ")
    assert capsys.readouterr().out == SHOWN + "\n"


ODD_CLASSES = '("[/red]", "b\\x1b[31m[bold]")'
ODD_STUDY = (
    STUDY.replace('question = "Which rate?"', r'question = "Which [/b] [rate]\u001b[31m?"')
    .replace("[space]", '[space]\nflavour = ["[/]", "[a]"]\nbatch_norm = [true, false]')
    .replace("lr = [1e-3, 1e-2]", "")
    .replace("seeds = 2", "seeds = 1")
)


@pytest.fixture(scope="module")
def odd(
    server: Address, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """Train a study whose question, classes and levels are full of brackets and escapes."""
    with own_database(server, template) as address:
        url = address.url(show_password=True)
        folder = tmp_path_factory.mktemp("odd") / "project"
        project = make_project(folder, {"TUNER_DATABASE_URL": url})
        package = folder / "objectives" / "blobs"
        declared = (package / "__init__.py").read_text()
        package.joinpath("__init__.py").write_text(
            declared.replace(
                "    parameters=[",
                '    parameters=[\n        Parameter("flavour", "choice", "[/]", "x", '
                'choices=("[/]", "[a]")),',
            )
        )
        data = (package / "data.py").read_text()
        changed = data.replace('tuple(f"class{k}" for k in range(classes))', ODD_CLASSES)
        assert changed != data
        package.joinpath("data.py").write_text(changed)
        project.write_study("small", ODD_STUDY)
        project.run("launch", "--study", "small", "--workers", "1")
        yield project


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("studies", r"Which [/b] [rate]\x1b[31m?"),
        ("status small", r"Which [/b] [rate]\x1b[31m?"),
        ("launch --study small", "[/]"),
        ("table small", "[/]"),
        ("compare small", "[/]"),
        ("compare small --trials 0 1", r"b\x1b[31m[bold]"),
        ("confusion small", r"b\x1b[31m[bold]"),
        ("gap small", "[/]"),
        ("show small 0", "flavour=[/]"),
        ("best small", "flavour=["),
        ("check small --quick", "[/red]"),
        ("run small", "flavour=[/]"),
        ("logs small", ""),
    ],
)
def test_every_command_shows_data_as_they_are(odd: Project, words: str, shown: str) -> None:
    """No command crashes on brackets, loses one, or sends an escape to the terminal."""
    out = odd.run(*words.split())
    assert shown in out
    assert terminal.readable(out) == out


def test_truth_values_are_spelt_as_in_the_file(odd: Project) -> None:
    """Tables and verdicts write true and false, never True or False."""
    told = [odd.run(*words.split()) for words in ("table small", "compare small", "show small 0")]
    assert all("true" in out for out in told)
    assert not [out for out in told if "True" in out or "False" in out]


def test_standard_output_that_only_knows_ascii_gets_replaced_characters(odd: Project) -> None:
    """With PYTHONIOENCODING=ascii, other characters are replaced in tables, curves and JSON."""
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    out = odd.run("table", "small", environ=ascii_only)
    assert "By flavour: values of a single seed" in out
    assert out.isascii()
    curves = odd.run("show", "small", "0", environ=ascii_only)
    assert "??" in curves
    assert curves.isascii()
    assert odd.run("check", "small", "--quick", environ=ascii_only).isascii()
    body = odd.run("table", "small", "--json", environ=ascii_only)
    assert json.loads(body) == odd.json("table", "small", "--json")


@pytest.mark.parametrize(
    "words",
    ["table small", "export --study small --epochs", "studies --json", "--help"],
)
def test_a_reader_that_leaves_ends_a_command_cleanly(odd: Project, words: str) -> None:
    """`tuner table | head -0` exits with 0 and prints nothing, however little was read."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", *words.split()],
        cwd=odd.folder,
        env=dict(odd.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    assert (process.wait(120), said) == (0, "")


def test_training_whose_reader_leaves_says_that_it_was_cut_short(odd: Project) -> None:
    """`tuner run | head` exits with the code of a closed pipe, not 0: it did not finish."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "run", "small"],
        cwd=odd.folder,
        env=dict(odd.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(120) == 141

"""The golden cases on the stored studies: each is a command, and a file with its output."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

EXPECTED = Path(__file__).parent / "expected"
STUDIES = Path(__file__).parent / "studies"
"""The files of the stored studies."""

ENDINGS = {"csv": "csv", "json": "json", "markdown": "md", "latex": "tex"}
"""Endings of golden files that hold an export."""


LEFT_OUT = ("--json", "--study", "-o", "--format", "csv", "json", "markdown", "latex")
"""Words that a golden file's name expresses by its ending, or omits."""


@dataclass(frozen=True)
class Case:
    """A command line, and the golden file with its output."""

    command: str
    folder: str
    """The golden file's folder: the study's name, or the subject of the case."""

    @property
    def arguments(self) -> list[str]:
        """The words after `tuner`."""
        return shlex.split(self.command)

    @property
    def output(self) -> str | None:
        """The file or folder that it writes, if any."""
        words = self.arguments
        return words[words.index("-o") + 1] if "-o" in words else None

    @property
    def long(self) -> bool:
        """Whether it takes long: it draws, or computes."""
        return self.command.startswith(("report", "plot", "influence everything"))

    @property
    def ending(self) -> str:
        """The ending of the golden file's name, by its content."""
        words = self.arguments
        if "--format" in words:
            return ENDINGS[words[words.index("--format") + 1]]
        if self.output is not None and self.output.endswith(".md"):
            return "md"
        return "json" if "--json" in words else "txt"

    @property
    def file(self) -> Path:
        """The golden file."""
        words = [word for word in self.arguments if word not in LEFT_OUT]
        name = re.sub("[^A-Za-z0-9_.@-]", "_", "-".join(word.lstrip("-") for word in words))
        return EXPECTED / self.folder / f"{name.removesuffix('.md')}.{self.ending}"


NOTEBOOK = Case("open lr_sched", "notebook")
"""The result of `tuner.open` in Python, not of a command."""


def cases() -> list[Case]:
    """Return all cases."""
    found = [Case(command, "studies") for command in ("studies", "studies --json")]
    for study in (*WHOLE, *UNUSUAL):
        found += [Case(command.format(study=study), study) for command in _of_every(study)]
    for study, commands in FURTHER.items():
        for command in filter(None, map(str.strip, commands.splitlines())):
            found.append(Case(command.format(study=study), study))
    return found


WHOLE = ("lr_sched", "everything", "digits")
"""Complete studies."""

UNUSUAL = (
    *("pruned", "one_seed", "no_test", "patients", "failed", "paused", "single"),
    *("stopped", "interrupted", "running"),
)
"""Studies in which something is missing or went wrong."""


def _of_every(study: str) -> list[str]:
    answers = ["status", "table", "compare", "gap", "influence", "best", "confusion"]
    asked = [f"{name} {{study}}{form}" for name in answers for form in ("", " --json")]
    asked += ["show {study} 0", "show {study} 0 --json"]
    asked += ["report {study} -o report.md"]
    if study in UNUSUAL:
        asked += ["events {study}", "logs {study}"]
    return asked


FURTHER = {
    "lr_sched": """
        events lr_sched --trial 3
        events lr_sched --trial 3 --json
        logs lr_sched
        table {study} --best 3
        table {study} --show classes
        table {study} --show cost
        table {study} --show slope
        compare {study} --by scheduler
        compare {study} --by scheduler --by lr --metric val_acc
        compare {study} --by lr --metric val_loss
        compare {study} --by lr --metric val_loss --json
        compare {study} --by lr --metric val_loss --reference 0.001
        compare {study} --by lr --metric gap --resolve 5
        compare {study} --metric test_auc
        compare {study} --trials 5 8
        compare {study} --trials 5 8 --json
        compare {study} everything
        compare {study} everything --json
        compare {study} 'p*d' --metric val_acc
        compare {study} 'prun*' --metric val_acc
        compare {study} everything --metric val_auc
        compare {study} running
        compare {study} paused
        compare {study} failed
        compare {study} {study}
        compare {study} 'nothing-*'
        compare {study} --trials 5 8 --split val
        gap {study} --best 3
        influence {study} --metric test_auc --metric val_loss
        confusion {study} --trial 0 --split val --at last
        best {study} --trial 0
        best {study} --ensemble
        best {study} --ensemble --json
        show {study} 41
        diff {study} --settings 1 2
        diff {study} --settings 1 2 --json
        diff {study} --settings 1 'scheduler=step lr=0.01'
        export --study {study} --format csv
        export --study {study} --format csv --best 2 --trials
        export --study {study} --wide --format csv --best 3
        export --study {study} --epochs --format csv --best 2
        export --study {study} --predictions --format csv --best 1 --trials
        export --study {study} --comparisons --format csv
        export --study {study} --comparisons --format json
        export --study {study} --comparisons --format markdown
        export --study {study} --comparisons --format latex
        export --study {study} --comparisons --metric val_loss --format markdown
        export --study {study} --format json --best 3
        export --study {study} --format markdown --best 3
        export --study {study} --format latex --best 3
        """,
    "everything": """
        events everything
        diff everything --settings 1 2
        diff everything --settings 1 40
        compare {study} --contenders
        compare {study} --contenders --json
        compare {study} --contenders --metric val_loss
        compare {study} --by scheduler --by loss
        compare {study} --metric val_loss
        influence {study} --metric val_acc
        export --study {study} --format csv
        export --study {study} --comparisons --format csv
        """,
    "digits": """
        events digits --json
        table {study} --show classes
        compare {study} --by loss --metric val_acc
        compare {study} --metric test_loss
        compare {study} --trials 0 3
        confusion {study} --trial 3
        export --study {study} --format csv --wide
        plot {study} all -o figures
        """,
    "pruned": """
        table {study} --show slope
        compare {study} --by lr
        show {study} 1
        export --study {study} --format csv
        """,
    "one_seed": """
        status one_seed@1
        compare one_seed@1
        gap one_seed@1
        table one_seed@2
        diff one_seed@1 one_seed@2
        diff one_seed@1 one_seed@2 --json
        compare {study} --metric val_loss
        export --study {study} --comparisons --format csv
        """,
    "no_test": """
        compare {study} --metric test_acc
        compare {study} --metric gap
        confusion {study} --split test
        report {study} -o report.html
        export --study {study} --format csv
        """,
    "patients": """
        compare {study} --metric val_loss
        compare {study} --trials 0 1
        export --study {study} --predictions --format csv --best 1 --trials
        export --study {study} --comparisons --format csv
        """,
    "failed": """
        show {study} 2
        logs {study} 2
        export --study {study} --format csv
        """,
    "interrupted": """
        events {study} --json
        export --study {study} --format csv
        """,
    "running": """
        events {study} --json
        """,
    "two_studies": """
        diff lr_sched everything
        diff lr_sched everything --json
        diff lr_sched digits
        diff interrupted running
        diff interrupted running --json
        """,
    "study_files": """
        validate patients
        validate lr_sched --set fixed.lr=0.1 --set search.sampler=bayes
        """,
    "errors": """
        table nothing
        table lr_schedd
        table lr_sched@2
        show lr_sched 99
        compare lr_sched --by model
        compare lr_sched --by schedule
        compare lr_sched --metric accuracy
        compare lr_sched --by lr --reference 0.5
        compare everything --by lr
        compare digits --contenders
        compare lr_sched --trials 5 99
        compare lr_sched --trials 5 5
        compare lr_sched --split val
        diff lr_sched
        diff lr_sched --settings 1 99
        influence lr_sched --metric accuracy
        confusion lr_sched --trial 99
        best paused --trial 0
        best one_seed --ensemble
        diff lr_sched lr_sched
        export --study paused --comparisons
        export --study lr_sched --epochs --wide
        plot lr_sched curve
        plot digits roc
        events lr_sched --trial 99
        logs lr_sched 99
        """,
}
"""Further cases, by the folder of their golden files."""

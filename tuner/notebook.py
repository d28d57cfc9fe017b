"""A study in a notebook: its sheets as pandas frames, and what is said of it."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tuner.answers.compare import Asked, Comparison, compare
from tuner.answers.gap import Gap, gap, sentences
from tuner.answers.influence import Influence, influence
from tuner.answers.sheets import contents
from tuner.answers.sheets.contents import Sheet
from tuner.errors import DatabaseUnreachableError, UserError
from tuner.files import contains, write_output
from tuner.report import MARK
from tuner.results.results import Results
from tuner.settings import Settings
from tuner.store import schema, studies
from tuner.store.database import Database

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, repr=False)
class Compared:
    """Settings against each other: a frame, and the verdicts in plain words."""

    frame: "DataFrame"
    """One row a level, with the columns of `tuner export --comparisons`."""
    comparisons: tuple[Comparison, ...]

    @property
    def verdict(self) -> str:
        """What is seen, factor by factor."""
        return "\n".join(
            f"{comparison.factor}: {comparison.verdict}" for comparison in self.comparisons
        )

    def __repr__(self) -> str:
        return self.verdict


@dataclass(frozen=True, repr=False)
class Gapped:
    """The gap between validation and test accuracy, with what is to be said of it."""

    found: Gap

    @property
    def verdict(self) -> str:
        """Size, whether choosing helps, luck, and cause."""
        return " ".join(sentences(self.found))

    def __repr__(self) -> str:
        return self.verdict


@dataclass(frozen=True, repr=False)
class Reported:
    """A report, shown in a notebook as the page that it is."""

    title: str
    html: str
    markdown: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it as a file, as Markdown where the name ends in .md; whole or not at all.

        An earlier HTML report is replaced, any other file only with `overwrite`.
        """
        file = Path(path)
        if file.suffix.lower() not in (".html", ".htm", ".md"):
            raise UserError(f"{file}: a report ends in .html or .md.")
        as_markdown = file.suffix.lower() == ".md"
        write_output(
            file,
            self.markdown if as_markdown else self.html,
            overwrite=overwrite,
            recognised=None if as_markdown else contains(MARK),
            remedy="replace it with overwrite=True",
        )
        return file

    def _repr_html_(self) -> str:
        # A page of its own within the notebook's: neither's style reaches the other.
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="" title="{escape(self.title)}" '
            'style="width: 100%; height: 42rem; border: 1px solid #dfe3e8"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<report of {self.title}: .save('report.html') or .save('report.md')>"


class OpenStudy:
    """A stored study, read again at each question, so that a running one is seen as it grows.

    Use it in a `with`, or let it go; the database is left either way.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        stack = ExitStack()
        self._database = stack.enter_context(Database.open(settings))
        self._leave = weakref.finalize(self, stack.close)
        try:
            schema.ensure(self._database)
            with self._database.snapshot() as connection:
                self._name = studies.find(connection, name).full_name
        except sa.exc.OperationalError as error:
            self._leave()
            said = str(error.orig).strip().splitlines()[0]
            raise DatabaseUnreachableError(f"The database cannot be reached: {said}") from None
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> "OpenStudy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tuner study {self._name}>"

    def close(self) -> None:
        """Leave the database."""
        self._leave()

    @property
    def trials(self) -> "DataFrame":
        """One row a trial, with all columns of `tuner export --wide`."""
        return self._frame(lambda results: contents.trials(results, wide=True))

    @property
    def epochs(self) -> "DataFrame":
        """One row an epoch."""
        return self._frame(contents.epochs)

    @property
    def predictions(self) -> "DataFrame":
        """One row an image that a complete trial predicted; all trials, so this may be long."""
        return self._frame(contents.predictions)

    def compare(
        self,
        by: str | Sequence[str] = (),
        *,
        metric: str | None = None,
        reference: str | None = None,
        resolve: float | None = None,
    ) -> Compared:
        """Hold the levels of the named factors, or of all, against each other."""
        names = (by,) if isinstance(by, str) else tuple(by)
        asked = Asked(reference, resolve)
        with self._results() as results:
            comparisons = compare(results, by=names, metric=metric, asked=asked)
        return Compared(_as_frame(contents.comparisons(comparisons)), tuple(comparisons))

    def gap(self) -> Gapped:
        """Measure the gap between validation and test accuracy."""
        with self._results() as results:
            return Gapped(gap(results))

    def influence(self, *metrics: str) -> list[Influence]:
        """Say how much each parameter matters."""
        with self._results() as results:
            return influence(results, metrics)

    def report(self) -> Reported:
        """Tell the whole study as one page: question, answer, figures, provenance."""
        from tuner.report.gather import gather
        from tuner.report.html import as_html
        from tuner.report.markdown import as_markdown

        with self._results() as results:
            report = gather(results)
        return Reported(report.study, as_html(report), as_markdown(report))

    @contextmanager
    def _results(self) -> Iterator[Results]:
        with self._database.snapshot() as connection:
            yield Results.of(connection, self._name)

    def _frame(self, read: "Callable[[Results], Sheet]") -> "DataFrame":
        with self._results() as results:
            return _as_frame(read(results))


def _as_frame(sheet: Sheet) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame(list(sheet.rows), columns=list(sheet.columns))

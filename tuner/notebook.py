"""A study in a notebook: its sheets as pandas frames, its verdicts, and its plots."""

import struct
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.answers.compare import Comparison, Options, compare
from tuner.answers.gap import Gap, gap, sentences
from tuner.answers.influence import Influence, influence
from tuner.answers.sheets import contents
from tuner.answers.sheets.contents import Sheet
from tuner.errors import DatabaseError, DatabaseUnreachableError, UserError
from tuner.files import contains, write_output
from tuner.pictures import GO_WITH, misplaced
from tuner.pictures import MARK as PICTURE
from tuner.records import SplitName
from tuner.report import MARK
from tuner.results import Results
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.store import schema, studies
from tuner.store.database import Database, is_outage, is_servers_trouble, server_words
from tuner.store.overview import count
from tuner.store.queue import QueuePlace, enqueue

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from tuner.pictures import Picture


@dataclass(frozen=True, repr=False)
class NotebookComparison:
    """Compared settings: a frame, and the verdicts in plain words."""

    frame: "DataFrame"
    """One row per level, with the columns of `tuner export --comparisons`."""
    comparisons: tuple[Comparison, ...]

    @property
    def verdict(self) -> str:
        """The verdict of each factor, in plain words."""
        return "\n".join(
            f"{comparison.factor}: {comparison.verdict}" for comparison in self.comparisons
        )

    def __repr__(self) -> str:
        return self.verdict


@dataclass(frozen=True, repr=False)
class NotebookGap:
    """The gap between validation and test accuracy, with its sentences."""

    found: Gap

    @property
    def verdict(self) -> str:
        """The size of the gap, whether selecting on validation helps, selection bias, and cause."""
        return " ".join(sentences(self.found))

    def __repr__(self) -> str:
        return self.verdict


@dataclass(frozen=True, repr=False)
class NotebookReport:
    """A report, shown in a notebook as a page."""

    title: str
    html: str
    markdown: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write it atomically to a file, as Markdown if the name ends in .md.

        An earlier HTML report is replaced, any other file only with `overwrite`.
        """
        file = Path(path)
        if file.suffix.lower() not in (".html", ".htm", ".md"):
            raise UserError(f"{file}: unsupported file type; use .html or .md.")
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
        # In a frame, so that the styles of the report and of the notebook do not mix.
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="" title="{escape(self.title)}" '
            'style="width: 100%; height: 42rem; border: 1px solid #dfe3e8"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<report of {self.title}: .save('report.html') or .save('report.md')>"


class NotebookPicture:
    """A plot of a study, which can be shown in a notebook, changed, and saved."""

    def __init__(self, study: str, kind: str, picture: "Picture") -> None:
        self._study, self._kind, self._picture = study, kind, picture

    @property
    def figure(self) -> "Figure":
        """The Matplotlib figure; title, note and key are added when it is shown or saved."""
        return self._picture.sheet.figure

    @property
    def title(self) -> str:
        """What the plot shows, in a sentence."""
        return self._picture.title

    @property
    def note(self) -> str:
        """The meaning of lines, bands and points."""
        return self._picture.note

    def save(self, path: str | Path, *, bare: bool = False, overwrite: bool = False) -> Path:
        """Write it atomically as .svg, .png or .pdf; `bare` omits title and note.

        An earlier picture is replaced, any other file only with `overwrite`.
        """
        from tuner.pictures import FORMATS

        file = Path(path)
        form = file.suffix.lower().removeprefix(".")
        if form not in FORMATS:
            raise UserError(f"{file}: unsupported file type; use .svg, .png or .pdf.")
        write_output(
            file,
            self._picture.render(form, bare=bare),
            overwrite=overwrite,
            recognised=contains(PICTURE),
            remedy="replace it with overwrite=True",
        )
        return file

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        content = self._picture.render("png")
        # The size is in the header of every PNG. Drawn for print, it is shown at half its size.
        width, height = struct.unpack(">II", content[16:24])
        return content, {"width": width // 2, "height": height // 2}

    def __repr__(self) -> str:
        return f"<{self._kind} of {self._study}: {self.title}; .save('{self._kind}.svg')>"


@dataclass(frozen=True)
class StoredStudy:
    """A stored study, with its numbers of trials by state."""

    name: str
    question: str
    state: str
    """open, stopped, paused or complete."""
    total: int
    ended: int
    complete: int
    pruned: int
    diverged: int
    failed: int
    running: int
    waiting: int
    paused: int
    created: datetime


def listing(settings: Settings) -> list[StoredStudy]:
    """Return the stored studies, oldest first."""
    with clear_errors(), Database.open(settings) as database:
        schema.ensure(database)
        with database.snapshot() as connection:
            counted = [(study, count(connection, study)) for study in studies.listing(connection)]
    return [
        StoredStudy(
            study.title,
            study.spec.question,
            study.state,
            ended=counts.ended,
            created=study.created,
            **asdict(counts),
        )
        for study, counts in counted
    ]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Convert errors of the database to errors of tuner, with a message of one line."""
    try:
        yield
    # Optuna wraps the driver's errors in its own, so look for the original error.
    except Exception as error:
        if is_outage(error):
            said = server_words(error)
            raise DatabaseUnreachableError(f"The database cannot be reached: {said}") from None
        if is_servers_trouble(error):
            raise DatabaseError(
                f"The database refused: {server_words(error)}. See `tuner db status`."
            ) from None
        raise


class OpenStudy:
    """A stored study, read again for each answer, so that a running one is always up to date.

    Use it in a `with` statement, or just drop it; the database is closed in both cases.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        stack = ExitStack()
        self._database = stack.enter_context(Database.open(settings))
        self._leave = weakref.finalize(self, stack.close)
        try:
            with clear_errors():
                schema.ensure(self._database)
            with clear_errors(), self._database.snapshot() as connection:
                self._ref = studies.find(connection, StudyRef.parse(name)).ref
        except BaseException:
            self._leave()
            raise

    def __enter__(self) -> "OpenStudy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tuner study {self._ref}>"

    def close(self) -> None:
        """Close the database."""
        self._leave()

    @property
    def full_name(self) -> str:
        """The name of exactly this version, such as lr@2."""
        return str(self._ref)

    @property
    def trials(self) -> "DataFrame":
        """One row per trial, with all columns of `tuner export --wide`."""
        return self._frame(lambda results: contents.trials(results, wide=True))

    @property
    def epochs(self) -> "DataFrame":
        """One row per epoch."""
        return self._frame(contents.epochs)

    @property
    def predictions(self) -> "DataFrame":
        """One row per image and complete trial; this may be long."""
        return self._frame(contents.predictions)

    def compare(
        self,
        by: str | Sequence[str] = (),
        *,
        metric: str | None = None,
        reference: str | None = None,
        resolve: float | None = None,
    ) -> NotebookComparison:
        """Compare the levels of the named factors, or of all."""
        names = (by,) if isinstance(by, str) else tuple(by)
        options = Options(reference, resolve)
        with self._results() as results:
            comparisons = compare(results, by=names, metric=metric, options=options)
        return NotebookComparison(_as_frame(contents.comparisons(comparisons)), tuple(comparisons))

    def gap(self) -> NotebookGap:
        """Measure the gap between validation and test accuracy."""
        with self._results() as results:
            return NotebookGap(gap(results))

    def influence(self, *metrics: str) -> list[Influence]:
        """Report how much each parameter matters."""
        with self._results() as results:
            return influence(results, metrics)

    def figure(
        self,
        kind: str,
        *,
        by: str | None = None,
        metric: str | None = None,
        trial: int | None = None,
        split: SplitName | None = None,
    ) -> NotebookPicture:
        """Plot the study as `tuner plot` does: curves, effects, gap, roc, confusion and others."""
        from tuner.pictures import KINDS, Subject, draw

        wishes = {"by": by, "metric": metric, "trial": trial, "split": split}
        if kind in KINDS and (wish := misplaced(kind, wishes)) is not None:
            raise UserError(
                f"{wish} goes with {', '.join(GO_WITH[wish])}; {kind} has no use of it."
            )
        with self._results() as results:
            picture = draw(kind, Subject(results, by, metric, trial, split))
        return NotebookPicture(results.title, kind, picture)

    def enqueue(self, setting: Mapping[str, Any]) -> QueuePlace:
        """Queue a setting, with a value for each varied parameter, to be trained next.

        It replaces a trial that the grid or the sampler would have chosen. A setting that has
        already been started is not trained again.
        """
        from tuner.spec.setting import plain

        with clear_errors(), self._database.transaction() as connection:
            study = studies.find(connection, self._ref)
            (place,) = enqueue(connection, study, [plain(setting)])
        return place

    def report(self) -> NotebookReport:
        """Return the whole study as one page: question, answer, figures, provenance."""
        from tuner.report.gather import gather
        from tuner.report.html import as_html
        from tuner.report.markdown import as_markdown

        with self._results() as results:
            report = gather(results)
        return NotebookReport(report.study, as_html(report), as_markdown(report))

    @contextmanager
    def _results(self) -> Iterator[Results]:
        with clear_errors(), self._database.snapshot() as connection:
            yield Results.of(connection, self._ref)

    def _frame(self, read: "Callable[[Results], Sheet]") -> "DataFrame":
        with self._results() as results:
            return _as_frame(read(results))


def _as_frame(sheet: Sheet) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame(list(sheet.rows), columns=list(sheet.columns))

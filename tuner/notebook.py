"""A study in a notebook: its sheets as pandas frames, and what is said of it."""

import struct
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.answers.compare import Asked, Comparison, compare
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
        """Size, whether choosing helps, selection bias, and cause."""
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
        # A page of its own within the notebook's: neither's style reaches the other.
        return (
            f'<iframe srcdoc="{escape(self.html)}" sandbox="" title="{escape(self.title)}" '
            'style="width: 100%; height: 42rem; border: 1px solid #dfe3e8"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<report of {self.title}: .save('report.html') or .save('report.md')>"


class Drawn:
    """A picture of a study: shown in a notebook, saved as a file, or changed before that."""

    def __init__(self, study: str, kind: str, picture: "Picture") -> None:
        self._study, self._kind, self._picture = study, kind, picture

    @property
    def figure(self) -> "Figure":
        """The Matplotlib figure; title, note and key are added when it is shown or saved."""
        return self._picture.sheet.figure

    @property
    def title(self) -> str:
        """What the picture shows, in a sentence."""
        return self._picture.title

    @property
    def note(self) -> str:
        """What lines, bands and points mean."""
        return self._picture.note

    def save(self, path: str | Path, *, bare: bool = False, overwrite: bool = False) -> Path:
        """Write it as .svg, .png or .pdf, whole or not at all; `bare` without title and note.

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
        # In the header of every PNG. It is drawn for print, and shown at half its size.
        width, height = struct.unpack(">II", content[16:24])
        return content, {"width": width // 2, "height": height // 2}

    def __repr__(self) -> str:
        return f"<{self._kind} of {self._study}: {self.title}; .save('{self._kind}.svg')>"


@dataclass(frozen=True)
class StoredStudy:
    """A stored study and how far it is; trials are counted by their state."""

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
    """Return the stored studies, the oldest first."""
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
    """Raise what the database refuses as an error of tuner's, which says it in one line."""
    try:
        yield
    # Optuna wraps the driver's errors in its own, so what it was is asked of the error itself.
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
    """A stored study, read again at each question, so that a running one is seen as it grows.

    Use it in a `with`, or let it go; the database is left either way.
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
        """Leave the database."""
        self._leave()

    @property
    def full_name(self) -> str:
        """The name that means this version only, such as lr@2."""
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
        """One row per image predicted by a complete trial; all trials, so this may be long."""
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
    ) -> Drawn:
        """Draw the study, as `tuner plot` does: curves, effects, gap, roc, confusion and others."""
        from tuner.pictures import KINDS, Subject, draw

        wishes = {"by": by, "metric": metric, "trial": trial, "split": split}
        if kind in KINDS and (wish := misplaced(kind, wishes)) is not None:
            raise UserError(
                f"{wish} goes with {', '.join(GO_WITH[wish])}; {kind} has no use of it."
            )
        with self._results() as results:
            picture = draw(kind, Subject(results, by, metric, trial, split))
        return Drawn(results.title, kind, picture)

    def enqueue(self, setting: Mapping[str, Any]) -> QueuePlace:
        """Have a setting trained before those that wait: a value for each varied parameter.

        It takes a place in the budget that the grid or the sampler would have filled. One that
        has begun already stays the trial that it is.
        """
        from tuner.spec.setting import plain

        with clear_errors(), self._database.transaction() as connection:
            study = studies.find(connection, self._ref)
            (place,) = enqueue(connection, study, [plain(setting)])
        return place

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
        with clear_errors(), self._database.snapshot() as connection:
            yield Results.of(connection, self._ref)

    def _frame(self, read: "Callable[[Results], Sheet]") -> "DataFrame":
        with self._results() as results:
            return _as_frame(read(results))


def _as_frame(sheet: Sheet) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame(list(sheet.rows), columns=list(sheet.columns))

"""A study as a report: its sections and their order."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from tuner.answers import leaderboard
from tuner.answers.compare import compare
from tuner.answers.compare import table as comparison_table
from tuner.answers.gap import gap, selection, sentences
from tuner.answers.gap import table as gap_table
from tuner.answers.influence import influence
from tuner.answers.question import answer
from tuner.answers.race import contenders, race_story
from tuner.answers.setting_comparison import with_check
from tuner.answers.settings import has_replicates, settings
from tuner.errors import UserError
from tuner.pictures import Subject, draw
from tuner.report import record
from tuner.report.document import Block, Drawing, Report, Section, Words, paragraphs
from tuner.results import Results, shown
from tuner.version import version

BEST = 10
"""The most settings, or trials, in a table."""

Tell = Callable[[str], None]
"""Called with the name of the section being made, to show progress."""


def gather(results: Results, tell: Tell = lambda _: None) -> Report:
    """Return a study's report; a section that the study does not allow says why."""
    study = results.study
    sections = []
    for title, part in _PARTS.items():
        tell(title)
        blocks = tuple(_guarded(results, part))
        if blocks:
            sections.append(Section(title, blocks))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Report(
        study=study.title,
        question=study.spec.question,
        answer=answer(results),
        glance=record.glance(results),
        sections=tuple(sections),
        made=f"tuner {version()}, {now}",
    )


Passage = Callable[[Results], Iterator[Block]]


def _guarded(results: Results, part: Passage) -> Iterator[Block]:
    try:
        yield from part(results)
    except UserError as error:
        yield Words(str(error))


def _compared(results: Results) -> Iterator[Block]:
    yield from _raced(results)
    if has_replicates(results.spec) and results.ranked:
        spec, ranked = results.spec, settings(results)
        figures = dict.fromkeys((results.metric, *shown(spec)))
        best = ranked[:BEST]
        table = leaderboard.settings(
            results.study, len(ranked), best, list(figures), varied=spec.varied
        )
        yield table.filled
    if not results.comparable:
        yield Words(
            f"{results.title} has no factor with few levels, so settings are not compared "
            "individually."
        )
        return
    for comparison in compare(results):
        yield comparison_table(comparison)
        yield Words(with_check(results, comparison, comparison.verdict))
    yield _drawing(results, "effects")


def _raced(results: Results) -> Iterator[Block]:
    story, compared = race_story(results), contenders(results)
    if story is not None:
        yield Words(" ".join(story.sentences))
    if compared is not None:
        yield comparison_table(compared)
        yield Words(with_check(results, compared, compared.verdict))


def _trained(results: Results) -> Iterator[Block]:
    for kind in ("curves", "schedules"):
        yield from _optional(results, kind)


def _gap(results: Results) -> Iterator[Block]:
    if not results.tested:
        yield Words(
            "There is no test set: validation accuracy was also used for selection, so it "
            "overestimates the accuracy on new images."
        )
        return
    yield from paragraphs(sentences(gap(results)))
    yield _drawing(results, "val-test")
    yield gap_table(gap(results), results.title, BEST)
    yield _drawing(results, "gap")


def _matters(results: Results) -> Iterator[Block]:
    yield from paragraphs([one.verdict for one in influence(results)])
    yield _drawing(results, "influence")
    if len(results.spec.varied) > 2:
        yield _drawing(results, "parallel")


def _best(results: Results) -> Iterator[Block]:
    leaders = results.ranked
    yield leaderboard.trials(results.study, leaders[:BEST], len(leaders)).filled
    if results.tested:
        yield from paragraphs([selection(gap(results))])
    for kind in ("history", "confusion", "roc", "reliability"):
        yield from _optional(results, kind)


def _optional(results: Results, kind: str) -> Iterator[Block]:
    """Yield a picture, or a sentence that says why there is none."""
    try:
        yield _drawing(results, kind)
    except UserError as error:
        yield Words(str(error))


def _drawing(results: Results, kind: str) -> Drawing:
    picture = draw(kind, Subject(results))
    return Drawing(picture, f"tuner plot {results.study.full_name} {kind}")


_PARTS: dict[str, Passage] = {
    "Settings compared": _compared,
    "Training": _trained,
    "Validation and test": _gap,
    "What matters": _matters,
    "The best trials": _best,
    "Pruned, diverged and failed": record.endings,
    "Cost": record.cost,
    "Provenance": record.provenance,
    "The study file": record.study_file,
    "How to reproduce it": record.reproduce,
    "How to read this": record.reading_aid,
}

"""A study as a report: which parts it has, in which order."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from tuner.answers import words
from tuner.answers.compare import Comparison, compare, headlines
from tuner.answers.compare import table as comparison_table
from tuner.answers.gap import choosing, gap, selection, sentences, size
from tuner.answers.influence import influence
from tuner.answers.race import Story, contenders, tell_race
from tuner.answers.setting_comparison import with_check
from tuner.answers.settings import best_sentence, has_replicates
from tuner.errors import UserError
from tuner.pictures.kinds import draw
from tuner.pictures.subject import Subject
from tuner.report import evidence, record
from tuner.report.document import Block, Drawing, Report, Section, Words, paragraphs
from tuner.results import Results
from tuner.store import identities
from tuner.version import version

Tell = Callable[[str], None]
"""Hears which part is being made, for whoever waits."""

FACTORS_MOST = 6
"""More factors than this are told by their influence, not one by one."""


def gather(results: Results, tell: Tell = lambda _: None) -> Report:
    """Put a study's report together; a part that the study does not allow says why."""
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
        answer=_answer(results),
        glance=record.glance(results),
        sections=tuple(sections),
        made=f"tuner {version()}, {now}",
    )


Part = Callable[[Results], Iterator[Block]]


def _guarded(results: Results, part: Part) -> Iterator[Block]:
    try:
        yield from part(results)
    except UserError as error:
        yield Words(str(error))


def _answer(results: Results) -> tuple[str, ...]:
    """Answer the question as far as it is answered: settings first, then the gap."""
    study = results.study
    if not any(row.complete for row in results.rows):
        return (f"Not answered yet: no trial of {study.title} is complete.",)
    said = _settings(results)
    done = sum(row.ended for row in results.rows)
    if study.state != "complete" and done < study.spec.total_trials:
        so_far = f"So far, with {done} of {study.spec.total_trials} trials ended, "
        said[0] = so_far + said[0][0].lower() + said[0][1:].replace(" so far", "", 1)
    if results.tested:
        said.append(size(gap(results)))
        said.append(choosing(gap(results)))
    changes = identities.marks(results.connection, study.study_id)
    return (*said, *(mark.sentence for mark in changes))


def _settings(results: Results) -> list[str]:
    found = []
    if 0 < len(results.comparable) <= FACTORS_MOST:
        comparisons = compare(results)
        found = headlines(comparisons)
        if found and len(comparisons) == len(found):
            # Said one by one, each is followed by what it shows on test.
            told = [one for one in comparisons if one.headline is not None]
            found = [with_check(results, one, one.headline or "") for one in told]
    story, compared = tell_race(results), contenders(results)
    if story is not None and compared is not None:
        # What was searched for is a setting; its contenders were given the seeds to tell.
        return [*_raced_for(story, compared), *found]
    if found:
        best = [best_sentence(results)] if has_replicates(results.spec) and results.ranked else []
        return [*best, *(f"By {one}" for one in found)]
    return [_best_of_all(results)]


def _raced_for(race: Story, compared: Comparison) -> list[str]:
    """Say who is left in the race between contenders, and how they stand in what is compared."""
    if race.end == "one left":
        said = [] if compared.headline is None else [_capital(compared.headline)]
        return [f"Race by {race.metric}: {race.sentences[-1]}", *said]
    left = sum(runner.dropped_after is None for runner in race.runners)
    many = words.count(len(race.runners), "contender")
    ahead = f"{words.level_name(compared.reference)} is ahead in {compared.measure.name}"
    return [
        f"No setting stands out: {left} of {many} are not told apart by {race.metric}; {ahead}."
    ]


def _best_of_all(results: Results) -> str:
    """Name the best trial, where settings cannot be told apart or there is only one."""
    spec = results.spec
    if not results.ranked:
        return f"No complete trial has a {spec.search.metric} that is a number."
    if has_replicates(spec):
        return best_sentence(results)
    best = results.ranked[0]
    chosen = [f"{name} = {words.level_name(best[name])}" for name in spec.varied]
    settings = f" with {words.listed(chosen)}" if chosen else ""
    metric = spec.search.metric
    many = words.count(len(results.ranked), "complete trial")
    said = f"The best of {many} by {metric} is trial {best['trial']}{settings}: "
    few = 0 < len(results.comparable) <= FACTORS_MOST
    alone = few and max(comparison.seeds for comparison in compare(results)) < 2
    luck = "; with one seed per setting no difference can be told from chance" if alone else ""
    return f"{said}{metric} {best.value:.4g}{luck}."


def _capital(said: str) -> str:
    return said[0].upper() + said[1:]


def _compared(results: Results) -> Iterator[Block]:
    yield from _raced(results)
    if has_replicates(results.spec) and results.ranked:
        yield evidence.ranked_settings(results)
    if not results.comparable:
        yield Words(
            f"{results.title} varies nothing in a few levels, so no settings are compared "
            "one by one."
        )
        return
    for comparison in compare(results):
        yield comparison_table(comparison)
        yield Words(with_check(results, comparison, comparison.verdict))
    yield _drawing(results, "effects")


def _raced(results: Results) -> Iterator[Block]:
    story, compared = tell_race(results), contenders(results)
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
            "There is no test set: validation accuracy was also used to choose, so it is higher "
            "than the accuracy on new images would be."
        )
        return
    yield from paragraphs(sentences(gap(results)))
    yield _drawing(results, "val-test")
    yield evidence.configurations(results)
    yield _drawing(results, "gap")


def _matters(results: Results) -> Iterator[Block]:
    yield from paragraphs([one.verdict for one in influence(results)])
    yield _drawing(results, "influence")
    if len(results.spec.varied) > 2:
        yield _drawing(results, "parallel")


def _best(results: Results) -> Iterator[Block]:
    yield evidence.leaderboard(results)
    if results.tested:
        yield from paragraphs([selection(gap(results))])
    for kind in ("history", "confusion", "roc", "reliability"):
        yield from _optional(results, kind)


def _lost(results: Results) -> Iterator[Block]:
    yield from record.endings(results)


def _optional(results: Results, kind: str) -> Iterator[Block]:
    """Yield a picture, or the sentence that says why there is none."""
    try:
        yield _drawing(results, kind)
    except UserError as error:
        yield Words(str(error))


def _drawing(results: Results, kind: str) -> Drawing:
    picture = draw(kind, Subject(results))
    return Drawing(picture, f"tuner plot {results.study.full_name} {kind}")


_PARTS: dict[str, Part] = {
    "Settings compared": _compared,
    "Training": _trained,
    "Validation and test": _gap,
    "What matters": _matters,
    "The best trials": _best,
    "Pruned, diverged and failed": _lost,
    "Cost": record.cost,
    "Provenance": record.provenance,
    "The study file": record.study_file,
    "How to reproduce it": record.reproduce,
    "How to read this": record.reading_aid,
}

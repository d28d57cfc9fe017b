"""A study as a report: which parts it has, in which order."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from tuner import __version__
from tuner.answers import words
from tuner.answers.compare import Comparison, headlines
from tuner.answers.gap_words import choosing, luck, sentences, size
from tuner.answers.race import Story
from tuner.answers.reading import Reading
from tuner.errors import UserError
from tuner.pictures.kinds import draw
from tuner.pictures.subject import Subject
from tuner.report import evidence, record
from tuner.report.document import Block, Drawing, Report, Section, Words, paragraphs
from tuner.store import identities

Tell = Callable[[str], None]
"""Hears which part is being made, for whoever waits."""

FACTORS_MOST = 6
"""More factors than this are told by their influence, not one by one."""


def gather(reading: Reading, tell: Tell = lambda _: None) -> Report:
    """Put a study's report together; a part that the study does not allow says why."""
    study = reading.study
    sections = []
    for title, part in _PARTS.items():
        tell(title)
        blocks = tuple(_guarded(reading, part))
        if blocks:
            sections.append(Section(title, blocks))
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Report(
        study=study.title,
        question=study.spec.question,
        answer=_answer(reading),
        glance=record.glance(reading),
        sections=tuple(sections),
        made=f"tuner {__version__}, {now}",
    )


Part = Callable[[Reading], Iterator[Block]]


def _guarded(reading: Reading, part: Part) -> Iterator[Block]:
    try:
        yield from part(reading)
    except UserError as error:
        yield Words(str(error))


def _answer(reading: Reading) -> tuple[str, ...]:
    """Answer the question as far as it is answered: settings first, then the gap."""
    study = reading.study
    if not any(row.complete for row in reading.rows):
        return (f"Not answered yet: no trial of {study.title} is complete.",)
    said = _settings(reading)
    done = sum(row.ended for row in reading.rows)
    if study.state != "complete" and done < study.spec.total_trials:
        so_far = f"So far, with {done} of {study.spec.total_trials} trials ended, "
        said[0] = so_far + said[0][0].lower() + said[0][1:]
    if reading.tested:
        said.append(size(reading.gap))
        said.append(choosing(reading.gap))
    changes = identities.marks(reading.connection, study.study_id)
    return (*said, *(mark.sentence for mark in changes))


def _settings(reading: Reading) -> list[str]:
    found = []
    if 0 < len(reading.factors) <= FACTORS_MOST:
        found = headlines(reading.compared())
    if reading.race is not None and reading.contenders is not None:
        # What was searched for is a setting; its contenders were given the seeds to tell.
        return [*_raced_for(reading.race, reading.contenders), *found]
    if found:
        return [f"By {one}" for one in found]
    return [_best_of_all(reading)]


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


def _best_of_all(reading: Reading) -> str:
    """Name the best trial, where settings cannot be told apart or there is only one."""
    spec = reading.study.spec
    if not reading.leaders:
        return f"No complete trial has a {spec.search.metric} that is a number."
    best = reading.leaders[0]
    chosen = [f"{name} = {words.level_name(best[name])}" for name in spec.varied]
    settings = f" with {words.listed(chosen)}" if chosen else ""
    metric = spec.search.metric
    many = words.count(len(reading.leaders), "complete trial")
    said = f"The best of {many} by {metric} is trial {best['trial']}{settings}: "
    few = 0 < len(reading.factors) <= FACTORS_MOST
    alone = few and max(comparison.seeds for comparison in reading.compared()) < 2
    luck = "; with one seed per setting no difference can be told from chance" if alone else ""
    return f"{said}{metric} {best.value:.4g}{luck}."


def _capital(said: str) -> str:
    return said[0].upper() + said[1:]


def _compared(reading: Reading) -> Iterator[Block]:
    yield from _raced(reading)
    if not reading.factors:
        yield Words(
            f"{reading.study.title} varies nothing in a few levels, so no settings are compared "
            "one by one."
        )
        return
    for comparison in reading.compared():
        yield evidence.comparison(comparison)
        yield Words(comparison.verdict)
    yield _drawing(reading, "effects")


def _raced(reading: Reading) -> Iterator[Block]:
    if reading.race is not None:
        yield Words(" ".join(reading.race.sentences))
    if reading.contenders is not None:
        yield evidence.comparison(reading.contenders)
        yield Words(reading.contenders.verdict)


def _trained(reading: Reading) -> Iterator[Block]:
    for kind in ("curves", "schedules"):
        yield from _optional(reading, kind)


def _gap(reading: Reading) -> Iterator[Block]:
    if not reading.tested:
        yield Words(
            "There is no test set: validation accuracy was also used to choose, so it is higher "
            "than the accuracy on new images would be."
        )
        return
    yield from paragraphs(sentences(reading.gap))
    yield _drawing(reading, "val-test")
    yield evidence.configurations(reading)
    yield _drawing(reading, "gap")


def _matters(reading: Reading) -> Iterator[Block]:
    yield from paragraphs([influence.verdict for influence in reading.influence])
    yield _drawing(reading, "influence")
    if len(reading.study.spec.varied) > 2:
        yield _drawing(reading, "parallel")


def _best(reading: Reading) -> Iterator[Block]:
    yield evidence.leaderboard(reading)
    if reading.tested:
        yield from paragraphs([luck(reading.gap)])
    for kind in ("history", "confusion", "roc", "reliability"):
        yield from _optional(reading, kind)


def _lost(reading: Reading) -> Iterator[Block]:
    yield from record.endings(reading)


def _optional(reading: Reading, kind: str) -> Iterator[Block]:
    """Yield a picture, or the sentence that says why there is none."""
    try:
        yield _drawing(reading, kind)
    except UserError as error:
        yield Words(str(error))


def _drawing(reading: Reading, kind: str) -> Drawing:
    picture = draw(kind, Subject(reading))
    return Drawing(picture, f"tuner plot {reading.study.full_name} {kind}")


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

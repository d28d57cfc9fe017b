"""The answer to a study's question so far, in a few sentences."""

from tuner.answers import words
from tuner.answers.compare import Comparison, compare, headlines
from tuner.answers.gap import choosing, gap, size
from tuner.answers.race import Story, contenders, race_story
from tuner.answers.setting_comparison import with_check
from tuner.answers.settings import best_sentence, has_replicates
from tuner.results import Results, once
from tuner.store import identities

__all__ = ["FACTORS_MOST", "answer"]

FACTORS_MOST = 6
"""If more factors vary, influence ranks them instead of comparing each."""


@once
def answer(results: Results) -> tuple[str, ...]:
    """Answer the question of the study: which setting is best, and then the gap."""
    study = results.study
    if not any(row.complete for row in results.rows):
        return (f"Not answered yet: no trial of {study.title} is complete.",)
    said = _settings(results)
    done = sum(row.ended for row in results.rows)
    if study.state != "complete" and done < study.spec.total_trials:
        so_far = f"With {done} of {study.spec.total_trials} trials ended so far, "
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
            # Each comparison is followed by its result on test.
            told = [comparison for comparison in comparisons if comparison.headline is not None]
            found = [with_check(results, one, one.headline or "") for one in told]
    story, compared = race_story(results), contenders(results)
    if story is not None and compared is not None:
        # A race compares settings: its contenders have the seeds to distinguish them.
        return [*_raced_for(story, compared), *found]
    if found:
        best = [best_sentence(results)] if has_replicates(results.spec) and results.ranked else []
        return [*best, *(f"By {one}" for one in found)]
    return [_best_of_all(results)]


def _raced_for(race: Story, compared: Comparison) -> list[str]:
    """Say who is left in the race, and how they differ in the compared metric."""
    if race.end == "one left":
        headline = compared.headline
        said = [] if headline is None else [headline[0].upper() + headline[1:]]
        return [f"Race by {race.metric}: {race.sentences[-1]}", *said]
    left = sum(runner.dropped_after is None for runner in race.runners)
    many = words.count(len(race.runners), "contender")
    ahead = f"{words.level_name(compared.reference)} has the best {compared.measure.name}"
    which = f"the {many}" if left == len(race.runners) else f"{left} of {many}"
    alike = f"{which} do not differ significantly in {race.metric}"
    return [f"No setting stands out: {alike} ({ahead})."]


def _best_of_all(results: Results) -> str:
    """Name the best trial if settings are not distinguishable or there is only one."""
    spec = results.spec
    if not results.ranked:
        return f"No complete trial has a finite {spec.search.metric}."
    if has_replicates(spec):
        return best_sentence(results)
    best = results.ranked[0]
    chosen = [f"{name} = {words.level_name(best[name])}" for name in spec.varied]
    settings = f" with {words.listed(chosen)}" if chosen else ""
    metric = spec.search.metric
    count = len(results.ranked)
    many = "only complete trial" if count == 1 else f"best of {count:,} complete trials by {metric}"
    said = f"The {many} is trial {best['trial']}{settings}: "
    few = 0 < len(results.comparable) <= FACTORS_MOST
    alone = few and max(comparison.seeds for comparison in compare(results)) < 2
    luck = "; with one seed per setting, chance cannot be ruled out" if alone else ""
    return f"{said}{metric} {words.figure(results.measures[metric].unit, best.value)}{luck}."

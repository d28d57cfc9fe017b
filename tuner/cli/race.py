"""The race between contenders, at the end of a launch and in `tuner status`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.studies import Study


def race_lines(database: "Database", study: "Study") -> list[str]:
    """Say how a study's race went and what more seeds would buy; nothing where there is none."""
    if study.spec.replicates.of != "top":
        return []  # As most studies, and what tells races takes long to load.
    from tuner.answers.race import compare_contenders, tell_race
    from tuner.results import Results

    with database.snapshot() as connection:
        results = Results(connection, study)
        story = tell_race(results)
        if story is None:
            return []
        lines = list(story.sentences)
        if story.end == "budget":
            comparison = compare_contenders(results, metric=story.metric)
            lines += [] if comparison.summary is None else [comparison.summary]
    return lines

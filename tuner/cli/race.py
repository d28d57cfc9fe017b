"""The race between contenders, as printed by a launch and by `tuner status`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.studies import Study


def race_lines(database: "Database", study: "Study") -> list[str]:
    """Say how a study's race went; empty if it has none."""
    if study.spec.replicates.of != "top":
        return []  # Most studies have no race, and the modules for it take long to load.
    from tuner.answers.race import compare_contenders, race_story
    from tuner.results import Results

    with database.snapshot() as connection:
        results = Results(connection, study)
        story = race_story(results)
        if story is None:
            return []
        lines = list(story.sentences)
        if story.end == "budget":
            comparison = compare_contenders(results, metric=story.metric)
            lines += [] if comparison.summary is None else [comparison.summary]
    return lines

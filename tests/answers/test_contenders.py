"""Races as read from a study: the evidence of a look, the story, the comparison."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers import gap, leaderboard
from tuner.answers.compare import Comparison, compare
from tuner.answers.race import Story, compare_contenders, race_story
from tuner.answers.settings import best_sentence, settings
from tuner.answers.winner import Winner, sentences, winner
from tuner.errors import UserError
from tuner.records import Value
from tuner.results import Results, contender_names, judge_look, read_race
from tuner.spec.space import Choice
from tuner.spec.study import Replicates, Spec
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.ledger.looks import Decided, Look, Race
from tuner.store.races import insert_decision

RATES = (0.1, 0.01, 0.001, 0.0001)
TRUTH = images()
ACCURACY = {0.1: 0.60, 0.01: 0.93, 0.001: 0.92, 0.0001: 0.55}
"""Accuracies by learning rate; the worst does not get into the race."""
Begun = Callable[[int, int], bool]


def raced(seeds: int = 8, top: int = 3, **search: Any) -> Spec:
    """Return a study of four learning rates, some of which race on validation accuracy."""
    search = {"metric": "val_acc", **search}
    spec = make_spec("wide", dimensions=(Choice("lr", RATES),), **search)
    return replace(spec, replicates=Replicates(seeds, "top", top))


def store(
    database: Database,
    spec: Spec,
    rounds: int = 2,
    *,
    state: Callable[[float, int], str] = lambda _rate, _seed: "COMPLETE",
    given: Callable[[float, int], bool] = lambda _rate, _seed: True,
    accuracy: Mapping[float, float] = ACCURACY,
) -> Bench:
    """Store the exploration and this many rounds of the three best."""
    chance = np.random.default_rng(3)

    def tell(chosen: dict[str, Value], seed: int) -> Told | None:
        rate = float(chosen["lr"])
        if seed and (rate == RATES[-1] or not given(rate, seed)):
            return None
        became = state(rate, seed)
        if became != "COMPLETE":
            return Told(became, val_loss=2.0)
        return Told(
            logs={
                split: hits(chance.random(len(labels)) < accuracy[rate], labels)
                for split, labels in TRUTH.labels.items()
            }
        )

    return fabricate(database, spec, tell, data={"data-0": TRUTH}, seeds=rounds + 1)


def race_of(bench: Bench) -> Race:
    """Return the state of the race."""
    with bench.database.transaction() as connection:
        found = read_race(Results(connection, bench.study))
    assert found is not None
    return found


def due(bench: Bench) -> Look:
    """Return the look that is due."""
    found = race_of(bench).look()
    assert found is not None
    return found


def look_at(bench: Bench, *, keep: bool = True) -> Decided:
    """Decide the look that is due as a worker does, and store it."""
    with bench.database.transaction() as connection:
        decided = judge_look(Results(connection, bench.study), due(bench))
        if keep:
            insert_decision(connection, bench.study.study_id, decided)
    return decided


def look_on(bench: Bench) -> list[Decided]:
    """Decide all looks that the stored trials allow."""
    found = []
    while (at := race_of(bench).look()) is not None and at.rounds <= len(race_of(bench).seeds[1]):
        found.append(look_at(bench))
    return found


def story_of(bench: Bench) -> Story:
    """Return the story of the race."""
    with bench.database.transaction() as connection:
        found = race_story(Results(connection, bench.study))
    assert found is not None
    return found


def compared(bench: Bench, **more: Any) -> Comparison:
    """Compare the contenders."""
    with bench.database.transaction() as connection:
        return compare_contenders(Results(connection, bench.study), **more)


def test_a_look_drops_who_is_much_worse_on_the_stored_predictions(database: Database) -> None:
    """30 points behind on 200 images, a contender is dropped; one point behind, it stays."""
    bench = store(database, raced(), rounds=3)
    assert race_of(bench).contenders[-1] == 0, "the third best under seed 0"
    first, decided = look_on(bench)
    assert (first.look.rounds, decided.look.rounds) == (2, 3)
    assert first.dropped == (), "two seeds say little about seeds"
    assert decided.dropped == (0,)
    assert (decided.seen["metric"], decided.seen["at"], decided.seen["images"]) == (
        "val_acc",
        "best",
        200,
    )
    held = {one["configuration"]: one for one in decided.seen["held"]}
    assert held[0]["difference"]["high"] < -0.1
    assert (held[0]["pairs"], held[0]["left_out"]) == (3, 0)
    assert race_of(bench).racing == tuple(one for one in race_of(bench).contenders if one)


def of_patients(bench: Bench, count: int) -> None:
    """Assign the study's images to patients, with equal numbers of images."""
    with bench.database.transaction() as connection:
        patients = [f"p{at % count}" for at in range(200)]
        connection.execute(sa.update(t.label).values(patients=patients))


def test_a_look_is_judged_by_patient(database: Database) -> None:
    """A look over patients is stored as such; one image per patient equals a look by image."""
    bench = store(database, raced())
    before = look_at(bench, keep=False).seen
    of_patients(bench, 200)
    single = look_at(bench, keep=False).seen
    assert single == {**before, "patients": 200}
    of_patients(bench, 40)
    seen = look_at(bench, keep=False).seen
    assert (seen["images"], seen["patients"]) == (200, 40)
    assert seen["held"][0]["difference"] != before["held"][0]["difference"]


def test_nobody_is_dropped_by_few_patients(database: Database) -> None:
    """A contender 30 points behind on 200 images of 8 patients stays, and the reason is given."""
    bench = store(database, raced(), rounds=3)
    of_patients(bench, 8)
    assert [one.dropped for one in look_on(bench)] == [(), ()]
    assert (
        "8 validation patients are too few to eliminate a contender." in story_of(bench).sentences
    )


def test_two_workers_see_the_same(database: Database) -> None:
    """A look is a function of stored data: two workers get the same result, bit for bit."""
    bench = store(database, raced())
    assert look_at(bench, keep=False) == look_at(bench, keep=False)


def test_seed_0_and_later_seeds_are_not_looked_at(database: Database) -> None:
    """The seed that chose the contenders does not count, nor do rounds after the look's."""
    bench = store(database, raced(), rounds=4)
    assert due(bench).rounds == 2
    before = look_at(bench, keep=False)
    assert [held["pairs"] for held in before.seen["held"]] == [2, 2]
    outside = t.trial.c.seed.notin_([1, 2])
    with database.transaction() as connection:
        of_these = sa.select(t.trial.c.trial_id).where(outside)
        connection.execute(sa.delete(t.prediction).where(t.prediction.c.trial_id.in_(of_these)))
    assert look_at(bench, keep=False) == before


@pytest.mark.parametrize("state", ["FAILED", "PRUNED", "DIVERGED"])
def test_a_failed_or_diverged_trial_costs_its_pair(database: Database, state: str) -> None:
    """A failed or diverged trial's pair is left out and counted; one pair is not judged."""
    bench = store(
        database,
        raced(),
        state=lambda rate, seed: state if (rate, seed) == (0.1, 2) else "COMPLETE",
    )
    decided = look_at(bench)
    held = {one["configuration"]: one for one in decided.seen["held"]}
    assert (held[0]["pairs"], held[0]["left_out"], held[0]["difference"]) == (1, 1, None)
    assert decided.dropped == ()
    (told,) = [one for one in story_of(bench).runners if one.configuration == 0]
    assert (told.seeds, told.missing, told.dropped_after) == (1, 1, None)


def test_seeds_with_images_of_their_own_are_judged_by_their_figures(database: Database) -> None:
    """If divisions have different validation images, the interval is over seeds alone."""
    chance = np.random.default_rng(3)
    data = {
        f"data-{at}": Images(TRUTH.labels, {"val": tuple(f"{at}-{n}" for n in range(200))})
        for at in range(3)
    }

    def tell(chosen: dict[str, Value], seed: int) -> Told | None:
        rate = float(chosen["lr"])
        if seed and rate == RATES[-1]:
            return None
        logs = {
            split: hits(chance.random(200) < ACCURACY[rate], labels)
            for split, labels in TRUTH.labels.items()
        }
        return Told(logs=logs, fingerprint=f"data-{seed % 3}")

    bench = fabricate(database, raced(), tell, data=data, seeds=5)
    found = look_on(bench)
    assert [one.seen["images"] for one in found] == [0, 0, 0]
    assert [0 in one.dropped for one in found].count(True) == 1


def test_a_loss_is_raced_downwards(database: Database) -> None:
    """In a race by validation loss the larger loss is worse."""
    bench = store(database, raced(metric="val_loss"), rounds=4)
    assert [one for past in look_on(bench) for one in past.dropped] == [0]


def test_a_study_without_contenders_has_no_race(database: Database) -> None:
    """With `of = "all"`, or during exploration, no race is shown, and compare says why."""
    plain = fabricate(
        database,
        make_spec("plain", seeds=2),
        lambda *_: Told(val_loss=1.0, fingerprint="none"),
        data={"none": TRUTH},
    )
    exploring = store(
        database, raced(), rounds=0, state=lambda rate, _: "RUNNING" if rate == 0.1 else "COMPLETE"
    )
    with database.transaction() as connection:
        assert race_story(Results(connection, plain.study)) is None
        assert race_story(Results(connection, exploring.study)) is None
        # Until contenders have further seeds, settings are ranked and shown under seed 0.
        found = settings(Results(connection, exploring.study))
        title = leaderboard.settings(
            exploring.study, len(found), found, ("val_acc",), varied=("lr",)
        ).title
        assert title.endswith("values of a single seed; no intervals")
        assert " over 1 seed." in best_sentence(Results(connection, exploring.study))
    with pytest.raises(UserError, match="of = "):
        compared(plain)
    with pytest.raises(UserError, match="no additional seeds yet"):
        compared(exploring)


def test_the_story_says_who_left_on_what_evidence_and_what_was_saved(database: Database) -> None:
    """When one contender is left, the story gives seeds, differences and saved trials."""
    bench = store(database, raced(), rounds=6, accuracy={**ACCURACY, 0.001: 0.6})
    last = look_on(bench)[-1].look.rounds
    told = story_of(bench)
    assert (told.end, told.room, told.spent, told.saved) == ("one left", 21, 18, 3)
    text = " ".join(told.sentences)
    for one in told.runners:
        after = f"{one.dropped_after} additional seeds"
        left = f"{one.name} was eliminated after {after}: worse than lr=0.01 by"
        assert (left in text) == (one.name != "lr=0.01")
    assert last == max(one.dropped_after or 0 for one in told.runners)
    assert "lr=0.01 won the race; 3 of 21 trials were not needed." in text
    worse = next(one for one in told.runners if one.name == "lr=0.001")
    assert (worse.against, worse.seeds) == ("lr=0.01", 6)
    assert worse.difference is not None
    assert worse.difference.high < 0


def test_a_race_that_runs_is_told_as_running(database: Database) -> None:
    """Between looks the story says that the race is running: no winner, nothing saved."""
    bench = store(database, raced(), rounds=4)
    look_on(bench)
    told = story_of(bench)
    assert (told.end, told.saved) == (None, 0)
    assert told.sentences[-1] == (
        "2 contenders are in the race; 12 of 21 additional trials have been assigned."
    )


def test_a_race_that_the_budget_ended_says_so(database: Database) -> None:
    """Two equal contenders use up the budget; the story says that no round fits any more."""
    even = {0.1: 0.9, 0.01: 0.9, 0.001: 0.9, 0.0001: 0.5}
    bench = store(database, raced(seeds=5), rounds=4, accuracy=even)
    told = story_of(bench)
    assert (told.end, told.saved) == ("budget", 0)
    assert "still tied when the budget ran out; 12 of 12 trials" in told.sentences[-1]


def test_images_that_end_a_race_are_told(database: Database) -> None:
    """A race that ends because of images recommends more images and counts saved trials."""
    bench = store(database, raced())
    at = due(bench)
    seen = {"metric": "val_acc", "level": 0.01, "best": 1, "images": 200, "held": []}
    with database.transaction() as connection:
        insert_decision(connection, bench.study.study_id, Decided(at, (), "images", seen))
    told = story_of(bench)
    assert told.end == "images"
    assert "Only more images, not more seeds, could separate them" in told.sentences[-1]
    assert told.saved == 15


def test_contenders_are_compared_over_the_further_seeds(database: Database) -> None:
    """Contenders in the race are compared with the best; why others were dropped is said."""
    bench = store(database, raced(), rounds=7, given=lambda rate, seed: rate != 0.1 or seed < 4)
    assert [one.dropped for one in look_on(bench)[:2]] == [(), (0,)]
    found = compared(bench)
    assert (found.factor, found.measure.name, found.seeds) == ("contender", "val_acc", 7)
    assert {row.standing.level: row.n for row in found.rows} == {
        "lr=0.01": 7,
        "lr=0.001": 7,
        "lr=0.1": 0,
    }
    assert "lr=0.1 was eliminated after 3 additional seeds" in found.verdict
    assert "these intervals do not account for that" in found.verdict
    assert found.left_out == 0


def test_with_one_left_the_field_of_the_last_look_is_compared(database: Database) -> None:
    """With one setting left, the contenders of the last look are compared."""
    bench = store(database, raced(), rounds=6, accuracy={**ACCURACY, 0.001: 0.6})
    last = look_on(bench)[-1]
    assert len(race_of(bench).racing) == 1
    shown = {row.standing.level for row in compared(bench, metric="val_acc").rows if row.n}
    called = {0: "lr=0.1", 1: "lr=0.01", 2: "lr=0.001"}
    assert shown == {called[one] for one in last.look.racing}


def test_a_contender_that_failed_often_does_not_silence_the_others(database: Database) -> None:
    """A contender that failed often is set aside; the others are compared over all their seeds."""
    bench = store(
        database,
        raced(),
        rounds=5,
        state=lambda rate, seed: "FAILED" if rate == 0.1 and seed > 1 else "COMPLETE",
    )
    found = compared(bench)
    assert found.seeds == 5
    assert {row.standing.level for row in found.rows if row.n} == {"lr=0.01", "lr=0.001"}


def test_names_are_the_values_in_which_contenders_differ(database: Database) -> None:
    """Names leave out what all contenders share; equal settings are told apart by configuration."""
    spec = make_spec(
        "named",
        dimensions=(Choice("lr", (0.1, 0.01)), Choice("optimizer", ("adam",))),
    )
    spec = replace(spec, replicates=Replicates(4, "top", 2))
    alike: list[dict[str, Value]] = [
        {"lr": 0.1, "optimizer": "adam"},
        {"lr": 0.01, "optimizer": "adam"},
        {"lr": 0.01, "optimizer": "adam"},
    ]
    bench = fabricate(database, spec, lambda *_: Told(val_loss=1.0), configurations=alike, seeds=1)
    with database.transaction() as connection:
        results = Results(connection, bench.study)
        assert len(results.rows) == 3
    assert contender_names(results, (0, 1)) == {0: "lr=0.1", 1: "lr=0.01"}
    assert contender_names(results, (0, 1, 2)) == {0: "lr=0.1", 1: "lr=0.01 #1", 2: "lr=0.01 #2"}
    assert contender_names(results, (1, 2)) == {1: "#1", 2: "#2"}


def test_factors_are_compared_as_they_were_explored(database: Database) -> None:
    """Only contenders have further seeds, so factor levels are compared under seed 0."""
    bench = store(database, raced(), rounds=4)
    with database.transaction() as connection:
        (found,) = compare(Results(connection, bench.study), by=("lr",))
    assert [(row.standing.trials, row.n) for row in found.rows] == [(1, 1)] * 4
    assert found.seeds == 1
    assert "--contenders" in found.verdict


def told(bench: Bench) -> tuple[str, str]:
    """Return the sentences of `gap` and of `best`."""
    with bench.database.transaction() as connection:
        results = Results(connection, bench.study)
        return " ".join(gap.sentences(gap.gap(results))), " ".join(sentences(winner(results)))


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_winner_is_chosen_among_contenders(database: Database, rounds: int) -> None:
    """Settings without an additional seed are not its rivals, after the first round either."""
    over_gap, over_best = told(store(database, raced(seeds=3), rounds))
    assert (
        "picked as the best of 3 contenders" in over_gap or "picked from 3 contenders" in over_gap
    )
    assert "the best of 3 contenders so far by mean val_acc" in over_best
    assert "the best of 4" not in over_best
    if rounds == 1:
        assert "the only complete additional seed so far" in over_best
        assert "has only one completed additional seed" in over_best
    else:
        assert "over 2 additional seeds (95% interval over seeds" in over_best


def test_one_contender_alone_is_called_so(database: Database) -> None:
    """If the other contenders have no additional seed yet, it is the best of nobody."""
    spec = raced()
    bench = store(database, spec, 2, given=lambda rate, _seed: rate == RATES[1])
    _, over_best = told(bench)
    assert "the only contender with a complete additional seed so far, with a mean val_acc of" in (
        over_best
    )
    with database.transaction() as connection:
        said = best_sentence(Results(connection, bench.study))
    assert said.startswith("The only contender with a complete additional seed so far is lr=0.01")


def told_gap(bench: Bench, seed: int | None) -> tuple[Winner, str]:
    """Describe the best setting's network, and return it with its sentence on the gap."""
    with bench.database.transaction() as connection:
        found = winner(Results(connection, bench.study), None, seed)
    (said,) = [one for one in sentences(found) if "minus test" in one]
    return found, said


@pytest.mark.parametrize("seed", [None, 0])
def test_a_contenders_gap_is_over_the_seeds_of_its_other_figures(
    database: Database, seed: int | None
) -> None:
    """It is over the additional seeds, whichever of the setting's networks is described."""
    found, said = told_gap(store(database, raced(), rounds=3), seed)
    assert found.setting is not None
    assert found.setting_gap is not None
    apart = [row["val_acc"] - row["test_acc"] for row in found.setting.seeds]
    assert len(apart) == 3
    assert found.setting_gap.value == pytest.approx(np.mean(apart))
    assert said.endswith("for its setting, over its additional seeds.")


@pytest.mark.parametrize(("seed", "both"), [(None, False), (0, True)])
def test_a_gap_over_one_additional_seed_is_told_once(
    database: Database, seed: int | None, both: bool
) -> None:
    """Of the network with that seed, the setting's gap is the same figure."""
    said = told_gap(store(database, raced(seeds=3), rounds=1), seed)[1]
    assert ("for its setting" in said) is both

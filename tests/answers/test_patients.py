"""Answers of studies whose data name patients: the patient is the unit, and the text says so."""

from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.answers.compare import Comparison, Options, compare
from tuner.answers.diff import Diff, diff
from tuner.answers.gap import Gap, bias_of_best, gap, sentences
from tuner.answers.influence import Influence, influence
from tuner.answers.pair import Pair, pair
from tuner.answers.trial import one_trial
from tuner.records import Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.store import tables as t
from tuner.store.database import Database

KINDS = ("cosine", "exponential", "step")
USUAL = Options()


def by_patient(
    database: Database,
    data: Images,
    *,
    seeds: int = 5,
    prefer: float = 1.0,
    name: str = "sched",
    fingerprint: str = "data-0",
) -> Bench:
    """Store a study whose schedules are right on different patients, and equally often."""
    spec = make_spec(name, dimensions=(Choice("scheduler", KINDS),), seeds=seeds)
    chance = np.random.default_rng(3)
    people = {
        split: np.unique(data.patients[split], return_inverse=True)[1]
        if data.patients
        else np.arange(len(labels)) // 5
        for split, labels in data.labels.items()
    }
    liked = {
        kind: {split: chance.normal(1.5, prefer, 1000)[of] for split, of in people.items()}
        for kind in KINDS
    }

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        logits = liked[str(chosen["scheduler"])]
        return Told(
            logs={
                split: hits(chance.random(len(labels)) < 1 / (1 + np.exp(-logits[split])), labels)
                for split, labels in data.labels.items()
            },
            fingerprint=fingerprint,
        )

    return fabricate(database, spec, tell, data={fingerprint: data})


def forget(bench: Bench, fingerprint: str | None = None) -> None:
    """Remove the patients from the stored data."""
    with bench.database.transaction() as connection:
        query = sa.update(t.label).values(patients=[])
        if fingerprint is not None:
            query = query.where(t.label.c.fingerprint == fingerprint)
        connection.execute(query)


def gap_of(bench: Bench) -> Gap:
    """Measure the gap."""
    with bench.database.transaction() as connection:
        return gap(Results(connection, bench.study))


def influence_of(bench: Bench) -> Influence:
    """Measure the influence on test accuracy."""
    with bench.database.transaction() as connection:
        (found,) = influence(Results(connection, bench.study), ("test_acc",))
    return found


def between(one: Bench, other: Bench) -> Diff:
    """Compare two studies."""
    with one.database.transaction() as connection:
        return diff(Results(connection, one.study), Results(connection, other.study))


def compared(bench: Bench, options: Options = USUAL) -> Comparison:
    """Compare the schedules."""
    with bench.database.transaction() as connection:
        (found,) = compare(
            Results(connection, bench.study), by=("scheduler",), metric="test_acc", options=options
        )
    return found


def two(bench: Bench, one: int = 0, other: int = 1) -> Pair:
    """Compare two trials on test."""
    with bench.database.transaction() as connection:
        return pair(Results(connection, bench.study), (one, other), "test")


def widths(found: Comparison) -> list[float]:
    """Return how wide the differences' intervals are."""
    return [row.against.difference.half_width for row in found.rows if row.against is not None]


def test_settings_are_compared_by_patient(database: Database) -> None:
    """With 400 images of 80 patients intervals are wider than by image."""
    bench = by_patient(database, images(400, 400, each=5), prefer=1.5)
    found = compared(bench)
    assert (found.images, found.patients, found.too_few) == (400, 80, False)
    assert "the variation between seeds and between test patients" in found.verdict
    forget(bench)
    by_image = compared(bench)
    assert by_image.patients == 0
    assert "between seeds and between test images" in by_image.verdict
    for wide, narrow in zip(widths(found), widths(by_image), strict=True):
        assert wide > 1.2 * narrow


def test_one_image_a_patient_is_the_answer_by_image(database: Database) -> None:
    """With one image per patient the figures equal those by image, to the last bit."""
    bench = by_patient(database, images(200, 200, each=1))
    by_person = compared(bench), two(bench)
    forget(bench)
    by_image = compared(bench), two(bench)
    assert [(row.mean, row.against) for row in by_person[0].rows] == [
        (row.mean, row.against) for row in by_image[0].rows
    ]
    assert by_person[0].patients == 200
    for name in ("one", "other", "nll", "auc_difference", "auc_p"):
        assert getattr(by_person[1], name) == getattr(by_image[1], name)
    apart = replace(by_person[1].discordance, patients=0)
    assert apart == by_image[1].discordance


def test_labels_stored_before_patients_are_judged_by_image_and_it_is_said(
    database: Database,
) -> None:
    """Labels stored without patients are judged by image, and the verdict says so."""
    bench = by_patient(database, Images(images().labels, patients=None))
    found = compared(bench)
    assert found.patients == 0
    assert "not yet stored with these labels" in found.verdict
    assert "not yet stored with these labels" in two(bench).verdict
    forget(bench)
    assert "stored before" not in compared(bench).verdict
    assert "stored before" not in two(bench).verdict


def test_few_patients_give_no_verdict(database: Database) -> None:
    """With 200 images of 8 patients nothing is called different, and the reason is given."""
    data = images(200, 200, each=25)
    spec = make_spec("sched", dimensions=(Choice("scheduler", KINDS),), seeds=5)
    good = {"cosine": 0.95, "exponential": 0.9, "step": 0.2}
    chance = np.random.default_rng(0)

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        share = good[str(chosen["scheduler"])]
        return Told(
            logs={
                split: hits(chance.random(len(labels)) < share, labels)
                for split, labels in data.labels.items()
            }
        )

    bench = fabricate(database, spec, tell, data={"data-0": data})
    found = compared(bench)
    assert (found.patients, found.too_few) == (8, True)
    assert not any(row.differs for row in found.rows)
    assert found.headline is None
    assert found.summary is not None
    assert found.summary.startswith("scheduler: 8 patients are too few to judge by")
    assert found.plan is None
    assert "8 patients are too few to judge by" in found.verdict
    apart = two(bench, 0, 2)
    assert not apart.differs
    assert "8 patients are too few to judge by" in apart.verdict


def test_a_giant_patient_is_named(database: Database) -> None:
    """If one of 101 patients has half of the images, intervals allow for it, and this is said."""
    labels = images().labels
    people = tuple("giant" if at < 100 else f"p{at}" for at in range(200))
    bench = by_patient(database, Images(labels, patients={"val": people, "test": people}))
    found = compared(bench)
    assert found.patients == 101
    assert not any(row.differs for row in found.rows)
    assert "One patient has 50% of the images" in found.verdict
    assert "One patient has 50% of the images" in two(bench).verdict


def test_more_patients_are_planned_not_more_images(database: Database) -> None:
    """If more seeds cannot help, the plan asks for more patients."""
    found = compared(by_patient(database, images(200, 200, each=5)), Options(resolve=0.5))
    assert found.plan is not None
    assert found.plan.patients is not None
    assert found.plan.images == pytest.approx(5 * found.plan.patients, abs=5)
    assert "with more seeds alone; you would need about" in found.verdict
    assert "seeds (there are 40 patients now)" in found.verdict


def test_two_trials_are_told_apart_by_patient(database: Database) -> None:
    """Two trials are compared by an exact test over patients, with wider intervals."""
    bench = by_patient(database, images(400, 400, each=5), prefer=2.0)
    found = two(bench)
    assert (found.images, found.patients) == (400, 80)
    assert "exact test over patients" in found.verdict
    assert "patients like these" in found.verdict
    forget(bench)
    by_image = two(bench)
    assert "McNemar, exact" in by_image.verdict
    pairs = (
        (found.one.accuracy, by_image.one.accuracy),
        (found.discordance.difference, by_image.discordance.difference),
        (found.nll, by_image.nll),
    )
    for wide, narrow in pairs:
        assert wide.value == pytest.approx(narrow.value)
        assert wide.half_width > 1.1 * narrow.half_width
    assert found.discordance.p_value > by_image.discordance.p_value


def test_the_gap_is_measured_by_patient(database: Database) -> None:
    """The gaps of a study, a setting and a trial, overfitting and the words are by patient."""
    bench = by_patient(database, images(300, 400, each=5), prefer=2.0)
    found = gap_of(bench)
    assert (found.val_patients, found.test_patients) == (60, 80)
    said = " ".join(sentences(found))
    assert (
        "300 images from 60 patients on validation and 400 images from 80 patients on test" in said
    )
    forget(bench)
    by_image = gap_of(bench)
    assert "300 validation and 400 test images" in " ".join(sentences(by_image))
    assert found.fitted is not None
    assert by_image.fitted is not None
    pairs = [
        (found.gap, by_image.gap),
        (found.fitted, by_image.fitted),
        (found.val_acc, by_image.val_acc),
        (found.trials[0].gap, by_image.trials[0].gap),
        *((a.gap, b.gap) for a, b in zip(found.settings, by_image.settings, strict=True)),
    ]
    for wide, narrow in pairs:
        assert wide.value == pytest.approx(narrow.value)
        assert wide.half_width > 1.1 * narrow.half_width


def test_a_gap_with_one_image_a_patient_is_the_gap_by_image(database: Database) -> None:
    """With one image per patient the gap equals that by image, to the last bit."""
    bench = by_patient(database, images(200, 200, each=1))
    found = gap_of(bench)
    forget(bench)
    by_image = gap_of(bench)
    for name in (
        "gap",
        "val_acc",
        "test_acc",
        "fitted",
        "settings",
        "trials",
        "selection_bias",
        "cause",
    ):
        assert getattr(found, name) == getattr(by_image, name), name


def test_a_gap_over_few_patients_is_not_judged(database: Database) -> None:
    """A gap of 20 points over 8 test patients gets no cause."""
    data = images(200, 200, each=5)
    assert data.patients is not None
    few = replace(data, patients={**data.patients, "test": tuple(f"p{n % 8}" for n in range(200))})
    chance = np.random.default_rng(0)
    spec = make_spec("sched", dimensions=(Choice("scheduler", KINDS),), seeds=3)

    def tell(_chosen: dict[str, Value], _seed: int) -> Told:
        return Told(
            logs={
                split: hits(chance.random(200) < share, data.labels[split])
                for split, share in (("val", 0.95), ("test", 0.7))
            }
        )

    found = gap_of(fabricate(database, spec, tell, data={"data-0": few}))
    assert found.cause == "too few patients"
    said = " ".join(sentences(found))
    assert said.startswith("Too few patients to judge the gap")
    assert "8 patients are too few to judge by" in said
    assert "is below" not in said


def test_influence_resamples_patients(database: Database) -> None:
    """By patient, less spread is explained: patients favour schedules by chance."""
    bench = by_patient(database, images(400, 400, each=20), prefer=2.0)
    found = influence_of(bench)
    assert (found.images, found.patients) == (400, 20)
    forget(bench)
    by_image = influence_of(bench)
    assert (by_image.images, by_image.patients) == (400, 0)
    assert found.spread is not None
    assert by_image.spread is not None
    assert found.spread < by_image.spread


def test_luck_of_the_winner_is_over_patients(database: Database) -> None:
    """Selection bias is larger by patient: the images of a patient are right or wrong together."""
    bench = by_patient(database, images(400, 400, each=20), prefer=2.0)

    def luck() -> float:
        with bench.database.transaction() as connection:
            found = bias_of_best(Results(connection, bench.study))
        assert found is not None
        return found.value

    known = luck()
    forget(bench)
    assert known > 1.1 * luck()


def test_two_studies_are_held_against_each_other_by_patient(database: Database) -> None:
    """Studies are compared by patient, even if only one of them has patients stored."""
    data = images(400, 400, each=5)
    one = by_patient(database, data, prefer=2.0, name="one", fingerprint="data-0")
    other = by_patient(database, data, prefer=2.0, name="two", fingerprint="data-1")
    found = between(one, other).shared
    assert found is not None
    assert (found.images, found.patients) == (400, 80)
    assert "400 images from 80 patients" in between(one, other).verdict
    forget(one, "data-0")
    again = between(one, other).shared
    assert again is not None
    assert (again.patients, again.difference) == (80, found.difference)
    assert between(other, one).shared is not None
    assert between(other, one).shared.patients == 80  # type: ignore[union-attr]
    forget(one)
    by_image = between(one, other).shared
    assert by_image is not None
    assert by_image.patients == 0


def test_a_trial_is_shown_by_patient(database: Database) -> None:
    """A trial's accuracy, AUC and gap have intervals over patients."""
    bench = by_patient(database, images(400, 400, each=5), prefer=2.0)

    def shown() -> tuple[float, ...]:
        with bench.database.transaction() as connection:
            found = one_trial(Results(connection, bench.study), 0)
        assert found.gap is not None
        area = found.splits[1].auc
        assert area is not None
        widths = (found.splits[1].accuracy.half_width, area.half_width, found.gap.half_width)
        return (found.splits[1].patients, *widths)

    known = shown()
    forget(bench)
    by_image = shown()
    assert (known[0], by_image[0]) == (80, 0)
    assert all(wide > 1.1 * narrow for wide, narrow in zip(known[1:], by_image[1:], strict=True))

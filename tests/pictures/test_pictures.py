"""Pictures: what is drawn, what is left out, and the title."""

import io
import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.answers.fabricate import Images, Told, fabricate, hits, images
from tests.store.specs import Bench, make_spec
from tuner.errors import UserError
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.kinds import KINDS, draw
from tuner.pictures.subject import Subject
from tuner.records import Value
from tuner.results import Results
from tuner.spec.space import Choice
from tuner.statistics.auc import placements, roc
from tuner.store.database import Database

TRUTH = images(120, 100)
SCHEDULERS = ("step", "exponential", "cosine")
LETTERS = Choice("scheduler", SCHEDULERS), Choice("lr", (1e-4, 1e-2))
Tell = Callable[[dict[str, Value], int], Told]


def accurate(chance: Callable[[dict[str, Value]], float], test: float = 0.15) -> Tell:
    """Return trials with this accuracy on validation, and a lower one on test."""
    random = np.random.default_rng(4)

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        logs = {}
        for split, labels in TRUTH.labels.items():
            share = chance(chosen) - (test if split == "test" else 0)
            logs[split] = hits(random.random(len(labels)) < share, labels)
        return Told(logs=logs, epochs=6)

    return tell


def study(database: Database, tell: Tell, *, seeds: int = 3, data: Images = TRUTH) -> Bench:
    """Store a study of three schedulers by two learning rates."""
    spec = make_spec("drawn", dimensions=LETTERS, seeds=seeds, epochs=6)
    return fabricate(database, spec, tell, data={"data-0": data})


def drawn(bench: Bench, kind: str, **wishes: object) -> Picture:
    """Draw one picture of a study."""
    with bench.database.transaction() as connection:
        return draw(kind, Subject(Results(connection, bench.study), **wishes))  # type: ignore[arg-type]


def told(bench: Bench, kind: str, **wishes: object) -> str:
    """Return the error if a picture cannot be drawn."""
    with pytest.raises(UserError) as caught:
        drawn(bench, kind, **wishes)
    return str(caught.value)


@pytest.fixture
def plain(database: Database) -> Bench:
    """Return a study in which step is much worse than the others."""
    return study(database, accurate(lambda at: 0.6 if at["scheduler"] == "step" else 0.95))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_every_format(plain: Bench, kind: str) -> None:
    """Each kind has a title, comes in three formats, and is reproducible."""
    picture = drawn(plain, kind)
    assert 15 < len(picture.title) < 250
    assert "None" not in picture.title + picture.note
    vectors = picture.render("svg")
    assert vectors.startswith(b"<?xml")
    assert drawn(plain, kind).render("svg") == vectors
    assert drawn(plain, kind).render("pdf").startswith(b"%PDF")
    pixels = np.asarray(Image.open(io.BytesIO(drawn(plain, kind).render("png"))).convert("L"))
    assert pixels.shape[1] > 800
    # Something is drawn, and nothing is cut off at the sides.
    assert pixels.std() > 5
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, -2:] == 255).all()


def test_titles_say_what_is_seen(plain: Bench) -> None:
    """The worse level is named; the gap has its size; the best trial its accuracy."""
    assert "step is significantly worse" in drawn(plain, "effects", by="scheduler").title
    assert "Test accuracy is 16.7 points below validation" in drawn(plain, "val-test").title
    assert "scheduler matters more than lr" in drawn(plain, "influence").title
    assert "classifies" in drawn(plain, "confusion").title


def test_levels_are_told_apart_without_colour(plain: Bench) -> None:
    """Curves of different levels differ in their markers, for twelve levels and more."""
    sheet = drawn(plain, "curves", by="scheduler").sheet
    markers = {line.get_marker() for line in sheet.axes[1].lines}
    assert len(markers) == 3
    styles = {(canvas.marker(at), canvas.dash(at)) for at in range(12)}
    assert len(styles) == 12


def test_a_mean_does_not_run_over_survivors(database: Database) -> None:
    """A mean line ends where its first trial ended; stopped trials are marked, and in no mean."""
    right = accurate(lambda _: 0.9)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        whole = right(chosen, seed)
        if chosen["scheduler"] == "step" and seed == 1:
            return Told(state="PRUNED", epochs=2, val_loss=0.9)
        if chosen["scheduler"] == "cosine" and seed == 2:
            return Told(logs=whole.logs, epochs=4)
        return whole

    picture = drawn(study(database, tell), "curves", by="scheduler")
    lines = {label.split(" ")[0].strip(","): artist for artist, label in picture.sheet.key}
    assert set(lines) == set(SCHEDULERS)
    validation = picture.sheet.axes[1]
    lengths: dict[object, list[int]] = {}
    for line in validation.lines:
        lengths.setdefault(line.get_color(), []).append(len(np.asarray(line.get_xdata())))
    by_name = {name: lengths[artist.get_color()] for name, artist in lines.items()}  # type: ignore[attr-defined]
    assert max(by_name["cosine"]) == 4
    assert max(by_name["exponential"]) == 6
    # Step: its mean over seeds 0 and 2, and two pruned trials of two epochs with a cross each.
    assert sorted(by_name["step"]) == [1, 1, 2, 2, 6]
    assert any("2 of 6 stopped" in label for _, label in picture.sheet.key)
    assert "left out of the means" in picture.note


def test_a_level_that_was_pruned_throughout_is_named(database: Database) -> None:
    """A level that was always pruned has no mean and no interval, but its row says so."""
    right = accurate(lambda _: 0.9)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "step":
            return Told(state="PRUNED", epochs=2, val_loss=0.9)
        return right(chosen, seed)

    bench = study(database, tell)
    axis = drawn(bench, "effects", by="scheduler").sheet.axes[0]
    assert any("pruned throughout (6 of 6)" in text.get_text() for text in axis.texts)
    assert "pruned" in drawn(bench, "history").sheet.key[2][1]


def test_diverged_trials_are_drawn_apart_from_pruned_ones(database: Database) -> None:
    """A level that always diverged is named; a NaN loss is drawn at the bottom."""
    right = accurate(lambda _: 0.9)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "step":
            return Told(state="DIVERGED", epochs=2, val_loss=math.nan)
        return right(chosen, seed)

    bench = study(database, tell)
    axis = drawn(bench, "effects", by="scheduler").sheet.axes[0]
    assert any("diverged throughout (6 of 6)" in text.get_text() for text in axis.texts)
    history = drawn(bench, "history").sheet
    assert history.key[2][1] == "diverged (6)"
    (line,) = [one for one in history.axes[0].lines if one.get_label() == "diverged (6)"]
    assert np.isfinite(np.array(line.get_ydata(), dtype=np.float64)).all()


def test_one_seed_gives_no_verdict(database: Database) -> None:
    """The title says that there is no verdict, and where the lowest loss was."""
    bench = study(database, accurate(lambda _: 0.9), seeds=1)
    assert "one seed" in drawn(bench, "effects").title
    assert "no verdict" in drawn(bench, "curves").title


def test_what_cannot_be_drawn_is_told(database: Database) -> None:
    """Nothing complete, no test set, an unknown factor, kind or metric: one sentence each."""
    empty = study(database, lambda *_: Told(state="RUNNING", epochs=0))
    assert "No trial of drawn is complete yet" in told(empty, "history")
    assert "no curves" in told(empty, "curves")


def test_a_study_without_test_set(database: Database) -> None:
    """The gap cannot be drawn, and predictions are those on validation."""
    only = Images({"val": TRUTH.labels["val"]})
    bench = study(
        database,
        lambda *_: Told(logs={"val": hits(np.arange(120) % 9 > 0, only.labels["val"])}),
        data=only,
    )
    assert "has no test set" in told(bench, "gap")
    assert "validation images" in drawn(bench, "confusion").title
    assert "validation loss" in drawn(bench, "effects").sheet.axes[-1].get_xlabel()


def test_wrong_names_are_answered(plain: Bench) -> None:
    """A misspelt kind or factor is refused with the existing ones."""
    assert "Did you mean curves" in told(plain, "curve")
    assert "varies scheduler, lr" in told(plain, "curves", by="depth")
    assert "val_loss, test_acc, gap" in told(plain, "influence", metric="seconds")
    assert "has no trial 99" in told(plain, "roc", trial=99)


def test_formulas_in_names_are_only_text(database: Database) -> None:
    """Dollars and backslashes in a class's name are drawn literally."""
    truth = Images(TRUTH.labels, classes=("$\\frac{a}", "b_$^"))
    bench = study(database, accurate(lambda _: 0.8), data=truth)
    assert drawn(bench, "confusion").render("svg")
    assert "b_$^" in drawn(bench, "roc").title


def test_several_classes_have_a_curve_each(database: Database) -> None:
    """Three classes: three ROC curves with their own areas, the weakest in the title."""
    labels = np.arange(90) % 3
    truth = Images({"val": labels, "test": labels}, classes=("red", "green", "blue"))
    random = np.random.default_rng(3)

    def tell(*_: object) -> Told:
        scores = random.normal(size=(90, 3)) + 2.0 * np.eye(3)[labels] * np.array([1, 1, 0.1])
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        return Told(logs=dict.fromkeys(("val", "test"), logs.astype(np.float32)))

    picture = drawn(study(database, tell, data=truth), "roc")
    assert [label.split(":")[0] for _, label in picture.sheet.key] == ["red", "green", "blue"]
    assert "lowest AUC 0.83 (class blue)" in picture.title


def test_the_area_under_the_drawn_curve_is_the_area() -> None:
    """The trapezoids under the ROC curve sum to the Mann-Whitney area, ties included."""
    random = np.random.default_rng(2)
    scores = random.integers(0, 6, 200).astype(float)
    truth = random.random(200) < 0.2 + scores / 10
    false, true = roc(scores, truth)
    placed = placements(scores, truth)
    assert placed is not None
    assert np.trapezoid(true, false) == pytest.approx(placed.area)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_one_setting_alone_can_be_drawn(database: Database) -> None:
    """A study that varies nothing has curves, history and predictions; no parallel coordinates."""
    spec = make_spec("alone", dimensions=(), seeds=2, epochs=6)
    bench = fabricate(
        database, spec, accurate(lambda _: 0.9), data={"data-0": TRUTH}, configurations=[{}]
    )
    assert "lowest" in drawn(bench, "curves").title
    assert drawn(bench, "history").title
    assert "varies nothing" in told(bench, "parallel")
    assert len(drawn(bench, "gap").sheet.axes[0].get_yticklabels()) == 1


def test_a_picture_is_the_same_when_rendered_again(plain: Bench) -> None:
    """Title, note and key are added to each file once, in any order of requests."""
    picture = drawn(plain, "curves")

    def shape() -> tuple[bytes, int]:
        content = picture.render("svg")
        head = re.search(rb"<svg[^>]*>", content)
        assert head is not None
        return head[0], content.count(b'<g id="text_')

    first = shape()
    picture.render("pdf", bare=True)
    assert shape() == first


def test_every_level_has_its_schedule(plain: Bench) -> None:
    """Levels with equal learning rates are all in the key, and the title says so."""
    picture = drawn(plain, "schedules")
    assert [label for _, label in picture.sheet.key] == [f"scheduler = {one}" for one in SCHEDULERS]
    assert "was 0.001 throughout" in picture.title


def test_several_seeds_are_not_called_one(database: Database) -> None:
    """With three seeds of one setting the title does not speak of one seed."""
    spec = make_spec("alone", dimensions=(), seeds=3, epochs=6)
    bench = fabricate(
        database, spec, accurate(lambda _: 0.9), data={"data-0": TRUTH}, configurations=[{}]
    )
    assert "one seed" not in drawn(bench, "curves").title

"""The shift probe finds another machine, and is not fooled by chance or by class shares."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.train.sources.image_files import chest
from tuner.check import probe as module
from tuner.check.probe import features, probe
from tuner.train.objective import Data, Split


def drawn(tmp_path: Path, shift: float) -> Data:
    """Draw a phantom whose test images are shifted by this much."""
    return chest(tmp_path, image_size=64, train_images=400, val_images=200, shift=shift)


def part(data: Data, places: np.ndarray) -> Split:
    """Return some of the training images as a split."""
    train = data.train
    return Split(train.images[places], train.labels[places], tuple(train.ids[i] for i in places))


def test_another_machine_is_told(tmp_path: Path) -> None:
    """At shift 1 training and test images are distinguished; training and validation are not."""
    data = drawn(tmp_path, 1.0)
    assert data.test is not None
    found = probe(("train", data.train), ("test", data.test))
    same = probe(("train", data.train), ("val", data.val))
    assert found is not None
    assert same is not None
    assert found.tells_apart
    assert found.auc > 0.95
    assert found.low <= found.auc <= found.high
    assert same.low < 0.5 < same.high


def test_the_interval_covers_chance_where_there_is_no_difference(tmp_path: Path) -> None:
    """Over 60 random divisions of one distribution, nearly all intervals cover 0.5."""
    data = drawn(tmp_path, 0.0)
    order = np.random.default_rng(0)
    missed = 0
    for _ in range(60):
        places = order.permutation(400)
        found = probe(("a", part(data, places[:250])), ("b", part(data, places[250:])))
        assert found is not None
        missed += not found.low <= 0.5 <= found.high
    # 5% of 60 are 3; more than 9 happen once in a thousand runs if the interval is right.
    assert missed <= 9


def people(count: int, each: int, seed: int = 0) -> Split:
    """Draw several nearly equal pictures of each of this many people."""
    random = np.random.default_rng(seed)
    faces = random.integers(40, 200, (count, 16, 16))
    images = np.repeat(faces, each, axis=0) + random.integers(0, 9, (count * each, 16, 16))
    ids = tuple(str(at) for at in range(count * each))
    labels = np.repeat(np.arange(count, dtype=np.int64) % 2, each)
    return Split(
        images.astype(np.uint8), labels, ids, tuple(f"p{at // each}" for at in range(len(ids)))
    )


def shared_out(whole: Split, chosen: np.ndarray, *, named: bool) -> tuple[Split, Split]:
    """Divide people into two splits, with or without their names."""
    parts = []
    for mine in (chosen, ~chosen):
        places = np.flatnonzero(mine[[int(name[1:]) for name in whole.patients]])
        patients = tuple(whole.patients[at] for at in places) if named else ()
        names = tuple(whole.ids[at] for at in places)
        parts.append(Split(whole.images[places], whole.labels[places], names, patients))
    return parts[0], parts[1]


def test_people_who_are_known_again_are_no_shift() -> None:
    """People recognised by their pictures are a shift by image, and rarely by patient."""
    random = np.random.default_rng(1)
    told = {True: 0, False: 0}
    for seed in range(20):
        whole = people(80, 5, seed)
        chosen = random.permutation(80) < 40
        for named in told:
            first, second = shared_out(whole, chosen, named=named)
            found = probe(("a", first), ("b", second))
            assert found is not None
            assert found.patients == ((40, 40) if named else None)
            told[named] += found.tells_apart
    assert told[False] > 15
    # One-sided error of 95% intervals: 1 in 40 is expected, 4 in 20 happen once in a thousand.
    assert told[True] <= 3


def test_one_picture_a_person_is_probed_as_images_are() -> None:
    """With one picture per person the probe gives the same figures with and without names."""
    whole = people(200, 1)
    chosen = np.random.default_rng(2).permutation(200) < 100
    by_person, by_image = (
        probe(*zip("ab", shared_out(whole, chosen, named=named), strict=True))
        for named in (True, False)
    )
    assert by_person is not None
    assert by_image is not None
    assert (by_person.auc, by_person.low, by_person.high) == (
        *(by_image.auc, by_image.low, by_image.high),
    )


def test_few_people_are_not_probed() -> None:
    """Many pictures of five people are not probed."""
    first, second = shared_out(people(5, 40), np.arange(5) < 3, named=True)
    assert probe(("a", first), ("b", second)) is None


def test_another_mix_of_classes_is_no_shift(tmp_path: Path) -> None:
    """Splits of one distribution with very different class shares are not distinguished."""
    data = drawn(tmp_path, 0.0)
    by_class = [np.flatnonzero(data.train.labels == label) for label in (0, 1)]
    first = np.concatenate([by_class[0][:150], by_class[1][:40]])
    second = np.concatenate([by_class[0][150:190], by_class[1][40:190]])
    found = probe(("a", part(data, first)), ("b", part(data, second)))
    assert found is not None
    assert found.low < 0.55


def test_the_area_agrees_with_another_computation() -> None:
    """With ties, the area equals scikit-learn's."""
    random = np.random.default_rng(1)
    ours, theirs = random.integers(0, 6, 40).astype(float), random.integers(1, 7, 30).astype(float)
    cell = module._area(ours, theirs)
    labels = np.repeat([0, 1], [40, 30])
    assert cell.auc == pytest.approx(roc_auc_score(labels, np.concatenate([ours, theirs])))
    assert 0 < cell.variance < 0.01


def test_delong_s_variance_is_what_repetition_shows() -> None:
    """Over 2,000 draws the mean DeLong variance equals the variance of the areas."""
    random = np.random.default_rng(2)
    cells = [module._area(random.normal(0, 1, 40), random.normal(1, 1, 30)) for _ in range(2000)]
    observed = np.var([cell.auc for cell in cells])
    assert np.mean([cell.variance for cell in cells]) == pytest.approx(observed, rel=0.1)


def test_too_few_images_say_nothing() -> None:
    """With a handful of images there is no figure."""
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)
    split = Split(images, np.array([0, 1, 0, 1]), tuple("abcd"))
    assert probe(("a", split), ("b", split)) is None


def test_features_take_any_form_of_image() -> None:
    """Colour, oblong and float images have finite features."""
    random = np.random.default_rng(0)
    for images in (
        random.integers(0, 256, (3, 3, 40, 28), dtype=np.uint8),
        random.normal(0, 1, (3, 9, 9)).astype(np.float32),
        np.zeros((3, 64, 64), dtype=np.uint8),
    ):
        assert np.isfinite(features(images)).all()

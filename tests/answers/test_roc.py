"""ROC curves of a trial: which classes have one, and the remark on the rest."""

import numpy as np

from tuner.answers.roc import roc_curves
from tuner.results import Predicted


def predicted(classes: int, missing: int) -> Predicted:
    """Return predictions for images of all classes but the last ones."""
    labels = np.tile(np.arange(classes - missing), 8)
    generator = np.random.default_rng(1)
    scores = generator.standard_normal((len(labels), classes)) + 2 * np.eye(classes)[labels]
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    names = tuple(f"class {label}" for label in range(classes))
    ids = tuple(map(str, range(len(labels))))
    return Predicted(0, "test", "best", 1, names, ids, labels, logs.astype(np.float32))


def test_classes_without_an_area_are_told_from_those_that_are_left_out() -> None:
    """A class without an AUC is named as such; the eight others are all shown, not "the lowest"."""
    found = roc_curves(predicted(9, 1), most=8)
    assert found is not None
    assert len(found.curves) == 8
    assert "lowest" not in found.remark
    assert "1 of 9 classes has no AUC" in found.remark


def test_curves_that_are_left_out_are_told() -> None:
    """If there are too many curves, the lowest are shown, and the remark says so."""
    found = roc_curves(predicted(9, 0), most=3)
    assert found is not None
    lowest = sorted(one.area.value for one in found.curves)
    every = roc_curves(predicted(9, 0))
    assert every is not None
    assert lowest == sorted(one.area.value for one in every.curves)[:3]
    assert "Of 9 classes the 3 with the lowest AUC are shown." in found.remark
    assert "no AUC" not in found.remark

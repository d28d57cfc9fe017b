"""A workbench caches data and refuses, before training, what cannot be trained."""

import math
from pathlib import Path

import pytest

from tests.train.blobs import DATA, DECLARATIONS, MODELS, Blobs, blob_job, write_objective
from tuner.errors import DataError, MachineError, ObjectiveError, UserError
from tuner.train.device import open_device
from tuner.train.workbench import KEPT, Workbench


def bench(folder: Path) -> Workbench:
    """Return a workbench that looks for objectives in one folder."""
    return Workbench("cpu", 1, folder / "cache", [folder], lambda *_: None)


def test_data_are_prepared_once_for_trials_that_share_them(blobs: Blobs) -> None:
    """A second trial, or a question about its data, loads nothing; another data key does."""
    workbench = blobs.workbench()
    workbench.begin(blob_job())
    workbench.begin(blob_job(seed=1, lr=0.5))
    workbench.dataset(blob_job())
    assert blobs.loads() == 1
    workbench.begin(blob_job(data={"contrast": 10.0}))
    assert blobs.loads() == 2


def test_only_the_most_recently_used_data_are_kept(blobs: Blobs) -> None:
    """Memory is bounded: the least recently used data are dropped first."""
    workbench = blobs.workbench()
    for contrast in range(KEPT):
        workbench.dataset(blob_job(data={"contrast": contrast}))
    workbench.dataset(blob_job(data={"contrast": 0}))
    workbench.dataset(blob_job(data={"contrast": KEPT}))
    loads = blobs.loads()
    workbench.dataset(blob_job(data={"contrast": 0}))
    assert blobs.loads() == loads
    workbench.dataset(blob_job(data={"contrast": 1}))
    assert blobs.loads() == loads + 1


def test_the_setup_says_what_was_built(blobs: Blobs) -> None:
    """Parameters are counted from the layers, and choices are noted with reasons."""
    setup = blobs.workbench().begin(blob_job(loss="bce")).setup
    assert setup.parameter_count == (36 * 8 + 8) + 2 * 8 + (8 + 1)
    assert setup.device == "cpu"
    assert setup.data_fingerprint.startswith("blobs-")
    assert {"torch", "threads", "precision", "cpu"} <= set(setup.notes)


def test_equal_seeds_begin_with_equal_weights_whatever_ran_before(blobs: Blobs) -> None:
    """The initial weights depend only on the seed."""
    workbench = blobs.workbench()
    first = workbench.begin(blob_job(seed=3))
    list(first.epochs(lambda: None))
    again = workbench.begin(blob_job(seed=3, lr=0.7, optimizer="sgd"))
    other = workbench.begin(blob_job(seed=4))
    assert first.setup.initial_weights == again.setup.initial_weights
    assert first.setup.initial_weights != other.setup.initial_weights


def test_the_metric_must_be_defined(tmp_path: Path) -> None:
    """An area under the curve requires every class among the validation images."""
    one_class = DATA.replace("% data", "* 0 % data")
    write_objective(tmp_path / "blobs", DECLARATIONS, one_class, MODELS)
    with pytest.raises(DataError, match=r"val_auc cannot be the metric: .* class1"):
        bench(tmp_path).begin(blob_job(metric="val_auc"))
    epoch = next(bench(tmp_path).begin(blob_job()).epochs(lambda: None))
    assert math.isnan(epoch.val_auc)


def test_a_model_that_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    """Wrong outputs and a model that fails on an image are the objective's faults."""
    wrong = MODELS.replace("nn.Linear(hidden, outputs)", "nn.Linear(hidden, 7)")
    write_objective(tmp_path / "a" / "blobs", DECLARATIONS, DATA, wrong)
    with pytest.raises(ObjectiveError, match=r"outputs of shape \(1, 7\).*needs \(1, 2\)"):
        bench(tmp_path / "a").begin(blob_job())
    failing = MODELS.replace("channels * height * width", "5")
    write_objective(tmp_path / "b" / "blobs", DECLARATIONS, DATA, failing)
    with pytest.raises(ObjectiveError, match=r"fails on an image of shape \(1, 6, 6\): "):
        bench(tmp_path / "b").begin(blob_job())


def test_data_without_a_test_split_give_results_without_test_figures(tmp_path: Path) -> None:
    """Without a test split there are no test figures, no gap and no test predictions."""
    untested = DATA.replace("Data(*splits,", "Data(*splits[:2], None,")
    write_objective(tmp_path / "blobs", DECLARATIONS, untested, MODELS)
    run = bench(tmp_path).begin(blob_job())
    list(run.epochs(lambda: None))
    result = run.result()
    assert (result.best.test_loss, result.best.test_acc, result.best.gap) == (None, None, None)
    assert {prediction.split for prediction in result.predictions} == {"val"}


def test_bce_on_three_classes_is_refused(blobs: Blobs) -> None:
    """The error suggests ce, and ce trains."""
    three = {"classes": 3}
    with pytest.raises(UserError, match="use loss = 'ce'"):
        blobs.workbench().begin(blob_job(loss="bce", data=three))
    epochs = list(blobs.workbench().begin(blob_job(loss="ce", data=three)).epochs(lambda: None))
    assert len(epochs) == 3


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ("tpu", UserError, "'tpu' is not a device"),
        ("cuda:77", MachineError, "device cuda:77 is not usable here"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    device: str, error: type[Exception], message: str
) -> None:
    """A misspelt device is the user's error, a missing one the machine's."""
    with pytest.raises(error, match=message):
        open_device(device, 1)

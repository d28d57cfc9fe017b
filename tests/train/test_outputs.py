"""A softmax or a sigmoid before the loss is noticed, wherever it is applied."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.train.blobs import DATA, DECLARATIONS, MODELS, blob_job, write_objective
from tuner.train.outputs import squashed
from tuner.train.workbench import Workbench

LAYER = nn.Linear(4, 2)
CASES: Mapping[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "raw": (LAYER, ""),
    "between 0 and 1": (lambda x: LAYER(x) * 0 + 0.5, ""),
    "module": (nn.Sequential(LAYER, nn.Softmax(dim=1)), "a softmax"),
    "function": (lambda x: LAYER(x).softmax(1), "a softmax"),
    "reshaped": (lambda x: LAYER(x).softmax(1).reshape(-1, 2, 1).squeeze(2), "a softmax"),
    "sigmoid": (lambda x: torch.sigmoid(LAYER(x)), "a sigmoid"),
    "gate": (lambda x: LAYER(x) * torch.sigmoid(LAYER(x)), ""),
    "log softmax": (lambda x: LAYER(x).log_softmax(1), ""),
    "frozen": (lambda x: LAYER(x).detach(), ""),
}


@pytest.mark.parametrize("case", CASES)
def test_what_outputs_come_out_of_is_known(case: str) -> None:
    """It is recognised by the graph, not by values: logits between 0 and 1 are accepted."""
    model, what = CASES[case]
    assert squashed(model(torch.ones(1, 4))) == what


def test_the_trainer_notes_it(tmp_path: Path) -> None:
    """The note is in the trial's setup, with what to do; a plain model has none."""
    squashing = MODELS.replace("def build(", "def plain(") + (
        "\n\ndef build(parameters, inputs, outputs):\n"
        "    return nn.Sequential(plain(parameters, inputs, outputs), nn.Softmax(dim=1))\n"
    )
    for place, models in (("plain", MODELS), ("squashing", squashing)):
        write_objective(tmp_path / place / "blobs", DECLARATIONS, DATA, models)
        bench = Workbench("cpu", 1, tmp_path / "cache", [tmp_path / place], lambda *_: None)
        notes = bench.begin(blob_job()).setup.notes
        assert ("output" in notes) == (place == "squashing")
    assert notes["output"].startswith(
        "the model ends in a softmax, but loss = 'ce' expects raw outputs (logits)"
    )

"""A small objective, and a valid study for the tests to break."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import ObjectiveError
from tuner.spec.load import load
from tuner.spec.parameters import SHARED, Declarations, Parameter, by_name
from tuner.spec.study import Spec

DECLARATIONS = Declarations(
    parameters={
        **by_name(
            [
                Parameter("model", "choice", "ann", "network", choices=("ann", "cnn")),
                Parameter("depth", "int", 3, "hidden blocks", low=1, high=50),
                Parameter("width", "int", 64, "units of a layer", low=1, high=65536),
                Parameter("dropout", "float", 0.3, "share dropped", low=0.0, high=0.99),
                Parameter("batch_norm", "bool", True, "normalise layers"),
            ]
        ),
        **SHARED,
    },
    data=by_name(
        [
            Parameter("source", "choice", "phantom", "origin", choices=("phantom", "npy")),
            Parameter("image_size", "int", 64, "pixels a side", low=8, high=1024),
            Parameter("shift", "float", 1.0, "difference of the test set", low=0.0, high=1.0),
            Parameter("path", "text", "", "folder of the images"),
        ]
    ),
)

STUDY = """
[study]
name = "small"
question = "Which?"
objective = "chest_xray"
"""

GRID = '[budget]\ntrials = "grid"\n'
TPE = '[budget]\ntrials = 20\n[search]\nsampler = "tpe"\n'
RATES = "[space]\nlr = [1e-4, 1e-3]\n"

Read = Callable[..., Spec]


def declared(objective: str, _folder: Path) -> Declarations:
    """Stand in for the search for objectives: there is one."""
    if objective != "chest_xray":
        raise ObjectiveError(f"There is no objective {objective!r}; there is chest_xray.")
    return DECLARATIONS


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a text as a study file and load it."""

    def run(text: str, overrides: Sequence[str] = ()) -> Spec:
        path = tmp_path / "small.toml"
        path.write_text(text, "utf-8")
        return load(path, overrides, declared)

    return run


def parsed(text: str) -> dict[str, Any]:
    """Return a TOML text as a document."""
    return tomllib.loads(text)

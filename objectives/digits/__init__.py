"""Handwritten digits: real images of ten classes, 8×8 pixels, that come with scikit-learn."""

from dataclasses import replace

from tuner.spec.parameters import Parameter
from tuner.train.networks.declared import PARAMETERS
from tuner.train.objective import Objective
from tuner.train.sources.declared import SPLITTING

ANN = ("depth", "width", "dropout", "batch_norm")
"""The shared networks' parameters for the ann; the other networks need larger images."""

VAL_FRACTION = 0.25
"""Share of the images outside the test set: a fifth of all, as many as the test set has."""

OBJECTIVE = Objective(
    parameters=[
        Parameter(
            "model",
            "choice",
            "ann",
            "the kind of network; small_cnn has two convolutions and one pooling",
            choices=("ann", "small_cnn"),
        ),
        *(parameter for parameter in PARAMETERS if parameter.name in ANN),
    ],
    data=[
        replace(key, default=VAL_FRACTION) if key.name == "val_fraction" else key
        for key in SPLITTING
    ],
)
"""What a digits study may set beside the shared trainer's parameters."""

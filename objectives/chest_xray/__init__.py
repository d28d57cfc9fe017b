"""Pneumonia on chest radiographs: normal (0) or pneumonia (1), one grey channel."""

from tuner.spec.parameters import Parameter
from tuner.train.networks.declared import PARAMETERS
from tuner.train.objective import Objective
from tuner.train.sources.declared import KEYS, KINDS

OBJECTIVE = Objective(
    parameters=PARAMETERS,
    data=[
        Parameter(
            "source",
            "choice",
            "phantom",
            "where the images come from: made here (phantom), or read from path",
            choices=("phantom", *KINDS),
        ),
        *KEYS,
        Parameter(
            "image_size",
            "int",
            0,
            "height and width in pixels; 0 leaves images as they are found, and draws 64",
            low=0,
            high=4096,
        ),
        Parameter(
            "shift",
            "float",
            1.0,
            "how much the test images' machine differs: 0 not at all, 1 as between hospitals",
            low=0.0,
            high=1.0,
        ),
        Parameter("seed", "int", 0, "seed of the generated images, not of a training", low=0),
        Parameter("train_images", "int", 1600, "images to generate to train on", low=2),
        Parameter("val_images", "int", 400, "images to generate to validate on", low=2),
        Parameter("test_images", "int", 400, "images to generate to test on", low=2),
    ],
)
"""What a chest_xray study may set beside the shared trainer's parameters."""

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
            "height and width in pixels; 0 keeps the original size (64 for generated images)",
            low=0,
            high=4096,
        ),
        Parameter(
            "shift",
            "float",
            1.0,
            "how different the scanner of the test images is: 0 not at all, 1 as between hospitals",
            low=0.0,
            high=1.0,
        ),
        Parameter("seed", "int", 0, "seed of the generated images (not of training)", low=0),
        Parameter("train_images", "int", 1600, "training images to generate", low=2),
        Parameter("val_images", "int", 400, "validation images to generate", low=2),
        Parameter("test_images", "int", 400, "test images to generate", low=2),
    ],
)
"""What a chest_xray study may set beside the shared trainer's parameters."""

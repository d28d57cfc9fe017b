"""Pneumonia on chest radiographs: normal (0) or pneumonia (1), one grey channel."""

from tuner.spec.parameters import Parameter
from tuner.train.objective import Objective

OBJECTIVE = Objective(
    parameters=[
        Parameter("model", "choice", "ann", "the kind of network", choices=("ann",)),
        Parameter("depth", "int", 3, "hidden blocks of the network", low=1, high=50),
        Parameter("width", "int", 64, "units of each hidden layer", low=1, high=65536),
        Parameter(
            "dropout", "float", 0.3, "share of units dropped in each block", low=0.0, high=0.99
        ),
        Parameter("batch_norm", "bool", True, "normalise each hidden layer over the batch"),
    ],
    data=[
        Parameter(
            "source", "choice", "phantom", "where the images come from", choices=("phantom",)
        ),
        Parameter("image_size", "int", 64, "height and width in pixels", low=32, high=256),
        Parameter(
            "shift",
            "float",
            1.0,
            "how much the test images' machine differs: 0 not at all, 1 as between hospitals",
            low=0.0,
            high=1.0,
        ),
        Parameter("seed", "int", 0, "seed of the generated images, not of a training", low=0),
        Parameter("train_images", "int", 1600, "images to train on", low=2),
        Parameter("val_images", "int", 400, "images to validate on", low=2),
        Parameter("test_images", "int", 400, "images to test on", low=2),
    ],
)
"""What a chest_xray study may set beside the shared trainer's parameters."""

"""The keys of the shared data sources under [data]; declared without numpy or torch."""

from tuner.spec.parameters import Parameter

KINDS = ("npy", "folder", "npz", "manifest")

SPLITTING = (
    Parameter(
        "val_fraction",
        "float",
        0.2,
        "fraction of the training images used for validation if the source has no validation split",
        above=0.0,
        high=0.9,
    ),
    Parameter(
        "folds",
        "int",
        0,
        "number of folds, one of which is used for validation instead of val_fraction; 0 for none",
        low=0,
        high=1000,
    ),
    Parameter(
        "split_seed",
        "int",
        0,
        "seed of the train/validation split; with folds, it selects the fold",
        low=0,
    ),
)
"""Keys of every source whose training images are split into training and validation."""

SHAPING = (
    Parameter(
        "fit",
        "choice",
        "stretch",
        "how images with a different aspect ratio are brought to the common size: stretched, "
        "padded with black, or cropped to the centre",
        choices=("stretch", "pad", "crop"),
    ),
    Parameter(
        "depths",
        "choice",
        "same",
        "images of different bit depths: same refuses them, range scales each by the range of its "
        "type, window uses the values unchanged with one window for all",
        choices=("same", "range", "window"),
    ),
)
"""Keys of every source whose images may be of different sizes and depths."""

KEYS = (
    Parameter("path", "text", "", "folder or file with the images"),
    *SPLITTING,
    *SHAPING,
    Parameter("skip_unreadable", "bool", False, "skip images that cannot be read, and count them"),
)
"""Keys of the sources in `sources.load`; an objective adds `source` and `image_size`."""

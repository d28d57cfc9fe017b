"""The keys of the shared data sources under [data]; declared without numpy or torch."""

from tuner.spec.parameters import Parameter

KINDS = ("npy", "folder", "npz", "manifest")

SPLITTING = (
    Parameter(
        "val_fraction",
        "float",
        0.2,
        "share of the training images that validates, where the source has no validation split",
        above=0.0,
        high=0.9,
    ),
    Parameter(
        "folds",
        "int",
        0,
        "validate on one of this many equal parts in place of val_fraction; 0 does not",
        low=0,
        high=1000,
    ),
    Parameter(
        "split_seed",
        "int",
        0,
        "seed of the division into training and validation; with folds it chooses the part",
        low=0,
    ),
)
"""Keys of every source whose training images are split into training and validation."""

SHAPING = (
    Parameter(
        "fit",
        "choice",
        "stretch",
        "how an image of other proportions comes to the common size: stretched, padded with "
        "black, or cropped to its middle",
        choices=("stretch", "pad", "crop"),
    ),
    Parameter(
        "depths",
        "choice",
        "same",
        "images of different depths: same refuses them, range scales each by the range of its own "
        "type, window takes all values as they are and windows them alike",
        choices=("same", "range", "window"),
    ),
)
"""Keys of every source whose images may be of different sizes and depths."""

KEYS = (
    Parameter("path", "text", "", "folder or file that holds the images"),
    *SPLITTING,
    *SHAPING,
    Parameter(
        "skip_unreadable", "bool", False, "leave out images that cannot be read, and count them"
    ),
)
"""Keys of the sources in `sources.load`; an objective adds `source` and `image_size`."""

"""tuner: hyperparameter studies that keep their budget, lose nothing and say what is real."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("tuner")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

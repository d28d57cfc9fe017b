"""Networks for chest radiographs: the shared ones."""

from tuner.train.networks.models import build

__all__ = ["build"]

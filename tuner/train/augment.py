"""Augmentation of training images, on whole batches, with a separate draw for each image.

torchvision's transforms draw once per batch, so all its images would be rotated by
the same angle; here every image has its own. At strength 1 an image is rotated by up
to 10°, shifted by up to 10% of its sides, scaled by up to 10%, flipped left to right
half of the time, and given up to 20% more or less contrast and noise with a tenth of
the images' standard deviation. That is mild, because position and orientation of an
organ are part of a radiograph. It takes 60 ms per epoch of 1,600 images of 64×64 on
one core.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from tuner.train.seeds import derive

ANGLE = math.radians(10)
MOVE = 0.1
"""Share of a side."""
SCALE = 0.1
CONTRAST = 0.2
NOISE = 0.1
"""In standard deviations of the training pixels, which are 1 after standardisation."""


class Augmentation:
    """Changes batches of standardised images; its draws are a function of seed and epoch."""

    def __init__(self, strength: float, device: torch.device) -> None:
        self._strength = strength
        self._device = device
        self.generator = torch.Generator(device)

    def begin(self, seed: int, epoch: int) -> None:
        """Seed the draws of an epoch, independently of earlier draws."""
        self.generator.manual_seed(derive(seed, "augment", epoch))

    def change(self, images: Tensor) -> Tensor:
        """Return changed copies of a batch (n, channels, height, width)."""
        grid = functional.affine_grid(self._maps(images), list(images.shape), align_corners=False)
        moved = functional.grid_sample(
            images, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        contrast = 1 + self._within(len(images), CONTRAST)
        noise = torch.randn(images.shape, generator=self.generator, device=self._device)
        return moved * contrast[:, None, None, None] + noise * (NOISE * self._strength)

    def _maps(self, images: Tensor) -> Tensor:
        """Return the affine map of each image, (n, 2, 3), in coordinates from -1 to 1."""
        count, (height, width) = len(images), images.shape[-2:]
        angle, scale = self._within(count, ANGLE), 1 + self._within(count, SCALE)
        flip = 1 - 2 * (self._uniform(count) < self._strength / 2).float()
        cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
        # Rotate in pixels: on an oblong image, the units of the two coordinates differ.
        across = torch.stack((cosine * flip, -sine * height / width), dim=1)
        down = torch.stack((sine * flip * width / height, cosine), dim=1)
        # In these coordinates a side is 2 long.
        moves = torch.stack([self._within(count, 2 * MOVE) for _ in range(2)], dim=1)
        return torch.cat((torch.stack((across, down), dim=1), moves[:, :, None]), dim=2)

    def _within(self, count: int, bound: float) -> Tensor:
        return (2 * self._uniform(count) - 1) * (bound * self._strength)

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, device=self._device)

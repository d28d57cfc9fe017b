"""Augmentation: small, drawn per image, and a function of seed and epoch."""

from itertools import islice

import torch

from tests.train.blobs import Blobs, blob_job, nothing, untimed
from tuner.train.augment import Augmentation

CPU = torch.device("cpu")


def change(strength: float, images: torch.Tensor, seed: int = 0, epoch: int = 1) -> torch.Tensor:
    """Return a batch, augmented as the first batch of an epoch."""
    augmentation = Augmentation(strength, CPU)
    augmentation.begin(seed, epoch)
    return augmentation.change(images)


def discs(count: int = 64) -> torch.Tensor:
    """Return equal smooth images with a bright spot above and to the left of the middle."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    spot = torch.exp(-((x - 20) ** 2 + (y - 18) ** 2) / 50)
    return spot.expand(count, 1, 48, 64).contiguous()


def centres(images: torch.Tensor) -> torch.Tensor:
    """Return each image's centre of brightness, (n, 2) as x and y."""
    weights = images.clamp_min(0.3) - 0.3
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    total = weights.sum((1, 2, 3))
    across, down = ((weights * axis).sum((1, 2, 3)) / total for axis in (x, y))
    return torch.stack((across, down), dim=1)


def test_what_is_drawn_depends_on_seed_and_epoch_alone() -> None:
    """The same epoch draws the same, whatever was drawn before; another epoch does not."""
    images = discs()
    first = change(1.0, images)
    used = Augmentation(1.0, CPU)
    used.begin(5, 9)
    used.change(images)
    used.begin(0, 1)
    assert torch.equal(used.change(images), first)
    assert not torch.equal(change(1.0, images, epoch=2), first)
    assert not torch.equal(change(1.0, images, seed=1), first)


def test_every_image_is_changed_in_its_own_way() -> None:
    """Equal images of a batch become different, and the batch itself is unchanged."""
    images = discs()
    before = images.clone()
    changed = change(1.0, images)
    assert torch.equal(images, before)
    spread = centres(changed).std(dim=0)
    assert (spread > 1).all()


def test_changes_are_small() -> None:
    """At strength 1 a spot stays within the limits of angle, shift and scale; half are flipped."""
    found = centres(change(1.0, discs(400)))
    flipped = found[:, 0] > 32
    assert 0.4 < flipped.float().mean() < 0.6
    across = torch.where(flipped, 63 - found[:, 0], found[:, 0])
    # From the middle (31.5, 23.5), 12.7 pixels away: 10° and 10% of it, and 10% of the sides.
    assert ((across - 20).abs() < 0.1 * 64 + 3.6).all()
    assert ((found[:, 1] - 18).abs() < 0.1 * 48 + 3.6).all()


def test_turning_keeps_circles_round() -> None:
    """An oblong image is rotated in pixels, without distortion."""
    changed = change(1.0, discs(200))
    weights = (changed.clamp_min(0.3) - 0.3).squeeze(1)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    middle = centres(changed)
    wide = (weights * (x - middle[:, 0, None, None]) ** 2).sum((1, 2))
    high = (weights * (y - middle[:, 1, None, None]) ** 2).sum((1, 2))
    assert 0.9 < (wide / high).median() < 1.1


def test_the_strength_is_in_proportion() -> None:
    """Half the strength moves half as far, and almost none changes almost nothing."""
    images = discs(400)

    def spread(strength: float) -> float:
        return float(centres(change(strength, images))[:, 1].std())

    assert 1.6 < spread(1.0) / spread(0.5) < 2.4
    faint = change(1e-4, images)
    assert torch.allclose(faint, images, atol=1e-2)


def test_training_alone_is_changed(blobs: Blobs) -> None:
    """Another strength gives other weights; strength 0 gives those without augmentation."""
    bench = blobs.workbench()
    curves = [
        [untimed(epoch) for epoch in islice(bench.begin(blob_job(**more)).epochs(nothing), 2)]  # type: ignore[arg-type]
        for more in ({}, {"augment": 0.0}, {"augment": 0.5})
    ]
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]

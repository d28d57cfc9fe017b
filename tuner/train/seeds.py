"""Where every random number of a training comes from: the trial's seed and the epoch.

Nothing random is carried from one epoch to the next, so a training resumed
after any epoch draws what an uninterrupted one would have drawn.
"""

import hashlib

import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """Return a 63-bit seed for one purpose in one epoch; the same in every process."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def permutation(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order in which an epoch visits the training images, made on the CPU."""
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def seed_initialisation(seed: int) -> None:
    """Make what the model draws while it is built a function of the seed."""
    torch.manual_seed(derive(seed, "init"))


def of_epoch(seed: int, epoch: int) -> int:
    """Return the seed of what the model draws while it is trained for an epoch (dropout)."""
    return derive(seed, "epoch", epoch)

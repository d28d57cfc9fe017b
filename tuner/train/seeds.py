"""Seeds for all random numbers of a training, derived from the trial's seed and the epoch.

No random state is carried from one epoch to the next, so a training resumed after
any epoch draws the same numbers as an uninterrupted one.
"""

import hashlib

import torch


def derive(seed: int, purpose: str, epoch: int = 0) -> int:
    """Return a 63-bit seed for a purpose and an epoch, the same in every process."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def permutation(count: int, seed: int, epoch: int) -> torch.Tensor:
    """Return the order of the training images in an epoch, drawn on the CPU."""
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


def seed_initialisation(seed: int) -> None:
    """Seed the generators that a model's initialisation draws from."""
    torch.manual_seed(derive(seed, "init"))


def of_epoch(seed: int, epoch: int) -> int:
    """Return the seed of what the model draws in an epoch of training (dropout)."""
    return derive(seed, "epoch", epoch)

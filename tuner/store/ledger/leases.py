"""The words of the ledger: a lease, and the answers a worker gets when it asks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.records import Value
from tuner.store.ledger.race import Look

StudyState = Literal["open", "stopped", "paused", "complete"]


@dataclass(frozen=True)
class Lease:
    """The right to train one trial, until another token is given out for it."""

    trial_id: int
    number: int
    configuration: int
    seed: int
    chosen: Mapping[str, Value]
    token: int
    stored_epochs: int
    """How much of the curve is stored already, by earlier attempts."""
    expected_epochs: int = 0
    """First epochs that peers have trained, so that a checkpoint of them is to be expected."""
    alone: bool = False
    """Whether it must be trained alone: its last attempt came to nothing, and if this one does
    too, it must be clear whose fault that is."""


@dataclass(frozen=True)
class Claimed:
    """Here is a trial: train it."""

    lease: Lease
    adopted: bool


@dataclass(frozen=True)
class Wait:
    """Nothing to train now, but the study has not ended: ask again."""

    reason: str


@dataclass(frozen=True)
class Ended:
    """The study takes no more work: it is complete, stopped, or paused by the brake."""

    state: StudyState
    reason: str


@dataclass(frozen=True)
class NeedsProposal:
    """The next configuration is for a learning sampler to choose: propose, then claim again."""

    configuration: int


@dataclass(frozen=True)
class NeedsLook:
    """Contenders are to be compared with each other: decide, store that, then claim again."""

    look: Look


@dataclass(frozen=True)
class Company:
    """What a worker trains already, when it asks for a trial to train beside."""

    held: Sequence[Lease]
    fits: Callable[[Mapping[str, Value], int], bool]
    """Whether a trial of this configuration, under this seed, could be trained with them."""


Answer = Claimed | Wait | Ended | NeedsProposal | NeedsLook


@dataclass(frozen=True)
class Proposal:
    """A learning sampler's parameters for one configuration."""

    configuration: int
    chosen: Mapping[str, Value]


@dataclass(frozen=True)
class Recorded:
    """What became of a batch of epochs: where the trial is to stop, if it is."""

    stop_epoch: int | None = None
    diverged: bool = False


@dataclass(frozen=True)
class Renewed:
    """Which leases are not the worker's any more, and what the study wants of its workers."""

    study_state: StudyState
    hours_left: float | None
    lost: tuple[Lease, ...] = ()


class LeaseLostError(Exception):
    """Another token was given out for the trial: its holder writes nothing more.

    An answer, not a failure; the supervisor drops the trial and takes another.
    """


Verdict = Literal["again", "failed", "paused"]
"""After a failed attempt: the trial is tried again, failed for good, or the study is paused."""

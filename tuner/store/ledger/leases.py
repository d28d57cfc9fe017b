"""The ledger's data types: a lease, and the answers to a worker's claim."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tuner.records import Value
from tuner.store.ledger.looks import Look

StudyState = Literal["open", "stopped", "paused", "spent", "complete"]
"""Spent: the budget's hours, money or epochs are used up, and trials may be left."""


@dataclass(frozen=True)
class Lease:
    """The right to train one trial, valid until another token is issued for it."""

    trial_id: int
    number: int
    configuration: int
    seed: int
    chosen: Mapping[str, Value]
    token: int
    stored_epochs: int
    """How many epochs earlier attempts have stored."""
    expected_epochs: int = 0
    """How many first epochs peers have trained, whose checkpoint should appear soon."""
    alone: bool = False
    """Whether it must be trained alone: its last attempt failed or was interrupted, and if that
    happens again, it must be clear that this trial is the cause."""
    until: int | None = None
    """The epoch at which to pause it; None to train it to its end."""


@dataclass(frozen=True)
class Claimed:
    """A trial to train."""

    lease: Lease
    adopted: bool


@dataclass(frozen=True)
class Wait:
    """There is nothing to train now, but the study has not ended: ask again later."""

    reason: str
    workers: int = 1
    """How many workers of the study are alive; with more of them, each should ask less often."""


@dataclass(frozen=True)
class Ended:
    """The study gives out no more work: it is complete, stopped, paused, or its budget is spent."""

    state: StudyState
    reason: str


@dataclass(frozen=True)
class NeedsProposal:
    """A learning sampler chooses the next configuration: propose one, then claim again."""

    configuration: int


@dataclass(frozen=True)
class NeedsLook:
    """The contenders must be compared: decide, store the decision, then claim again."""

    look: Look


@dataclass(frozen=True)
class Company:
    """The trials of a worker that asks for another one to train beside them."""

    held: Sequence[Lease]
    fits: Callable[[Mapping[str, Value], int], bool]
    """Whether a trial of this configuration and seed could be trained with them."""


Answer = Claimed | Wait | Ended | NeedsProposal | NeedsLook


@dataclass(frozen=True)
class Proposal:
    """A learning sampler's parameters for one configuration, or for whichever is next."""

    configuration: int | None
    chosen: Mapping[str, Value]


@dataclass(frozen=True)
class Recorded:
    """The result of recording epochs: where the trial must stop, if it must."""

    stop_epoch: int | None = None
    diverged: bool = False
    stored: int = field(default=0, compare=False)
    """How many epochs were new; a trainer that resumes sends earlier ones again."""


@dataclass(frozen=True)
class Renewed:
    """Which leases the worker has lost, and the state of the study."""

    study_state: StudyState
    lost: tuple[Lease, ...] = ()
    spent: str = ""
    """Why the study may spend no more, if it may not."""


class LeaseLostError(Exception):
    """Another token was issued for the trial, so this holder must not write any more.

    This is an answer, not a failure: the supervisor drops the trial and claims another.
    """


Sequel = Literal["again", "failed", "paused"]
"""After a failed attempt: the trial is tried again or fails for good, or the study is paused."""

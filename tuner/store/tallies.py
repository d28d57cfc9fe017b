"""What a worker counts while it is on a study, as its renewals store it.

Only sums: each worker's row has its own, and what all workers of a study counted is their sum,
which never falls while the study exists.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

CLAIM_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Seconds: upper bounds of the claims' buckets. Stored counts are by place, so these must stay."""


@dataclass
class Tally:
    """One worker's counts since it joined; other threads read them meanwhile."""

    epochs: int = 0
    """Epochs that it trained and stored, also those that were trained again."""
    retries: int = 0
    """Transactions that were tried again because the database was away or refused them."""
    lost: int = 0
    """Leases that another worker had taken over."""
    claims: list[int] = field(default_factory=lambda: [0] * (len(CLAIM_BOUNDS) + 1))
    """How many claims were answered within each bound, and above the last."""
    claim_seconds: float = 0.0
    """How long all claims took, tries in vain included."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def retried(self) -> None:
        """Count a transaction that is tried again, by the main loop or by the renewal thread."""
        with self._lock:
            self.retries += 1

    def claimed(self, seconds: float) -> None:
        """Count a claim that was answered after so many seconds."""
        self.claims[bisect_left(CLAIM_BOUNDS, seconds)] += 1
        self.claim_seconds += seconds

    def to_json(self) -> dict[str, Any]:
        """Return it as the worker's row keeps it."""
        return {
            "epochs": self.epochs,
            "retries": self.retries,
            "lost": self.lost,
            "claims": list(self.claims),
            "claim_seconds": round(self.claim_seconds, 6),
        }

    def __add__(self, other: "Tally") -> "Tally":
        """Return what both counted."""
        return Tally(
            self.epochs + other.epochs,
            self.retries + other.retries,
            self.lost + other.lost,
            [one + more for one, more in zip(self.claims, other.claims, strict=True)],
            self.claim_seconds + other.claim_seconds,
        )

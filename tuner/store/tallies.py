"""A worker's counters for one study, as its renewals store them.

They are all sums: each worker's row has its own, and a study's counters are the sums over its
workers, which never fall while the study exists.
"""

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

CLAIM_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the claims' buckets in seconds. Counts are stored by index, so never change
them."""


@dataclass
class Tally:
    """One worker's counters since it joined; other threads may read them at any time."""

    epochs: int = 0
    """Epochs that it trained and stored, including repeated ones."""
    retries: int = 0
    """Transactions retried because the database was away or refused them."""
    lost: int = 0
    """Leases lost to another worker."""
    claims: list[int] = field(default_factory=lambda: [0] * (len(CLAIM_BOUNDS) + 1))
    """Claims by how long they took: within each bound, and above the last."""
    claim_seconds: float = 0.0
    """Duration of all claims together, including failed tries."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def retried(self) -> None:
        """Count a transaction that the main loop or the renewal thread retries."""
        with self._lock:
            self.retries += 1

    def claimed(self, seconds: float) -> None:
        """Count a claim that took this many seconds."""
        self.claims[bisect_left(CLAIM_BOUNDS, seconds)] += 1
        self.claim_seconds += seconds

    def to_json(self) -> dict[str, Any]:
        """Return it as stored in the worker's row."""
        return {
            "epochs": self.epochs,
            "retries": self.retries,
            "lost": self.lost,
            "claims": list(self.claims),
            "claim_seconds": round(self.claim_seconds, 6),
        }

    def __add__(self, other: "Tally") -> "Tally":
        """Return the sums of two workers' counters."""
        return Tally(
            self.epochs + other.epochs,
            self.retries + other.retries,
            self.lost + other.lost,
            [one + more for one, more in zip(self.claims, other.claims, strict=True)],
            self.claim_seconds + other.claim_seconds,
        )

"""The setting that every competitor gets: which trials of which network, and their numbers.

Each competitor is a separate program, `python -m benchmarks.peers.loop SETTING-AS-JSON`, and prints
its trials' results as JSON, so that none can win by doing less. No library is imported here: each
competitor imports what it needs, and that time counts.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SCHEDULES = ("constant", "cosine", "step")
CLASSES = ("healthy", "ill")
COUNTS = {"": 800, "val_": 200, "test_": 200}
"""Images of each class: 1,600 to train on, 400 to validate, 400 to test."""
RATE, BATCH, WIDTH, DROPOUT = 1e-3, 32, 64, 0.2


@dataclass(frozen=True)
class Setting:
    """One study: three schedules under some seeds."""

    folder: str
    """The folder of the arrays, in which a competitor may write."""
    model: str
    size: int
    seeds: int
    epochs: int
    schedules: Sequence[str] = SCHEDULES
    limit: int | None = None
    """How many of the trials are trained, if not all."""

    @classmethod
    def given(cls) -> "Setting":
        """Read this program's setting."""
        return cls(**json.loads(sys.argv[1]))

    def text(self) -> str:
        """Return the text that `given` reads."""
        return json.dumps(asdict(self))

    def trials(self) -> list[tuple[str, int]]:
        """Return every schedule under every seed, seed by seed, or the first of them."""
        pairs = [(name, seed) for seed in range(self.seeds) for name in self.schedules]
        return pairs[: self.limit]


def tell(results: Sequence[dict[str, Any]]) -> None:
    """Print the trials' results: schedule, seed, accuracies at the best epoch, start time."""
    print(json.dumps({"trials": list(results)}))

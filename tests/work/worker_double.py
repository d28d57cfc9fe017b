"""The real `tuner worker` command, with a trainer double in the trainer's place.

worker_double.py BEHAVIOUR FOLDER ARGUMENTS OF TUNER...
"""

import functools
import sys

from tuner import forkserver
from tuner.cli.main import run
from tuner.forkserver import Program
from tuner.work import worker

DOUBLE = "tests.work.trainer_double"


def main(arguments: list[str]) -> int:
    """Run the command line with another trainer."""
    behaviour, folder, *words = arguments
    trainer = Program(DOUBLE, "tuner trainer", (behaviour, folder))
    worker.Orders = functools.partial(worker.Orders, trainer=trainer)  # type: ignore[misc,assignment]
    return run(words)


if __name__ == "__main__":
    # The process that forks trainers, with torch, is not needed.
    forkserver.AVAILABLE = False
    code = main(sys.argv[1:])
    # The supervisor never loads torch: it would cost 1.4 s and 200 MB a worker.
    assert "torch" not in sys.modules, "the supervisor has loaded torch"
    # It would take a quarter of a second more to start, for statistics that only a race needs.
    assert "scipy" not in sys.modules, "the supervisor has loaded scipy"
    sys.exit(code)

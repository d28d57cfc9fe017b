"""Which tests are long: measured, and kept in tests/long.txt, which `make test-fast` leaves out.

make durations      # the whole suite, then this
pytest --durations=0 --durations-min=0.05 | python -m tests.harness.durations
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

LIST = Path(__file__).resolve().parents[1] / "long.txt"
LONG_SECONDS = 0.3
"""The duration of a test with its setup; for a parametrised test, of its longest case."""
LINE = re.compile(r"^([0-9.]+)s (?:setup|call|teardown) +(\S+::\S.*)$")


def long_tests() -> frozenset[str]:
    """Return the long tests, as `path::name`."""
    return frozenset(line for line in LIST.read_text().splitlines() if not line.startswith("#"))


def measured(report: Iterable[str]) -> list[str]:
    """Return the long tests of a pytest report, in order."""
    seconds: dict[str, float] = defaultdict(float)
    for line in report:
        if (found := LINE.match(line.strip())) is not None:
            seconds[found[2]] += float(found[1])
    return sorted({test.split("[")[0] for test, took in seconds.items() if took > LONG_SECONDS})


def write(tests: Iterable[str]) -> None:
    """Write the list."""
    head = f"# Tests of more than {LONG_SECONDS} s, as measured by `make durations`.\n"
    LIST.write_text(head + "".join(f"{test}\n" for test in tests))


if __name__ == "__main__":
    write(measured(sys.stdin))

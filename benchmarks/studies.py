"""How long every shipped study takes, from an empty folder, one after another.

    python -m benchmarks.studies [NAME ...] [--home FOLDER] [--set KEY=VALUE]

Prints a line a study and leaves each one's tables in FOLDER/results. The
durations in the study files are measured by this. Figures depend on the
machine, so nothing else should run on it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDIES = Path(__file__).parents[1] / "studies"
VIEWS = ("figures", "cost", "slope", "classes")


def main() -> int:
    """Launch the studies and print their durations; return 1 if any of them failed."""
    names = sorted(path.stem for path in STUDIES.glob("*.toml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=names, metavar="NAME")
    parser.add_argument("--home", type=Path, help="folder to work in; by default one that is new")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    home = given.home or Path(tempfile.mkdtemp(prefix="tuner-studies-"))
    print(f"{os.cpu_count()} cores; everything is kept in {home}", flush=True)
    codes = [measure(name, home, given.set) for name in given.names]
    return int(any(codes))


def measure(name: str, home: Path, overrides: list[str]) -> int:
    """Launch one study in the home and print its duration."""
    (home / "results").mkdir(parents=True, exist_ok=True)
    settings = [part for text in overrides for part in ("--set", text)]
    started = time.perf_counter()
    done = run(home, "launch", "--study", name, *settings)
    seconds = time.perf_counter() - started
    print(f"{name:14s} exit {done.returncode}  {seconds:7.1f} s", flush=True)
    (home / "results" / f"{name}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    for view in VIEWS:
        shown = run(home, "table", name, "--show", view).stdout
        (home / "results" / f"{name}.{view}.txt").write_text(shown, encoding="utf-8")
    return done.returncode


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tuner` in the home, its output kept."""
    return subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=home,
        env={**os.environ, "COLUMNS": "140"},
        capture_output=True,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())

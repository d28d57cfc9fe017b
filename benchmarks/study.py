"""A whole study, start included: the notebook loop, Optuna, Lightning, Ray Tune and tuner.

    python -m benchmarks.study --case ann-64 --repetitions 3
    python -m benchmarks.study --only loop tuner

Every competitor trains three schedules under some seeds on the same images, as a
program of its own in an empty folder. They take turns, so that whatever else
the machine does hits all alike.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.peers.setting import Setting, write_images

REPOSITORY = Path(__file__).resolve().parents[1]
PEERS: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    "loop": ("notebook loop", "loop", ()),
    "optuna": ("Optuna and SQLite", "optuna_study", ("optuna",)),
    "lightning": ("Lightning and Optuna", "lightning_study", ("lightning",)),
    "ray": ("Ray Tune", "ray_study", ("ray",)),
    "tuner": ("tuner", "tuner_study", ()),
}
"""What each is called, its module, and the packages it needs."""
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ann-64": ("ANN 64², 15 × 30 epochs", {"model": "ann", "size": 64, "seeds": 5, "epochs": 30}),
    "ann-256-short": (
        "ANN 256², 15 × 4 epochs",
        {"model": "ann", "size": 256, "seeds": 5, "epochs": 4},
    ),
    "ann-256": (
        "ANN 256², 15 × 30 epochs",
        {"model": "ann", "size": 256, "seeds": 5, "epochs": 30},
    ),
    "cnn-64": ("CNN 64², 6 × 10 epochs", {"model": "cnn", "size": 64, "seeds": 2, "epochs": 10}),
}


@dataclass
class Taken:
    """What one competitor took in one case."""

    seconds: list[float] = field(default_factory=list)
    val: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)


def main() -> None:
    """Run what the command line asks for; print a table, and write figures if asked."""
    options = _options()
    found: dict[str, dict[str, Taken]] = {}
    for case in options.case:
        title, given = CASES[case]
        found[case] = taken = {name: Taken() for name in options.only}
        for turn in range(options.repetitions):
            for name in options.only:
                _run(name, given, taken[name])
                print(
                    f"{title}, turn {turn + 1}: {name} {taken[name].seconds[-1]:.1f} s", flush=True
                )
    for line in table(found):
        print(line)
    if options.output:
        body = {case: {n: vars(t) for n, t in taken.items()} for case, taken in found.items()}
        options.output.write_text(json.dumps(body, indent=1) + "\n")


def table(found: Mapping[str, Mapping[str, Taken]]) -> list[str]:
    """Return the medians as a Markdown table, with how many times the notebook loop each is."""
    lines = []
    for case, taken in found.items():
        lines += ["", f"**{CASES[case][0]}**", ""]
        lines += ["| | s, median (least to most) | against the loop | val, test accuracy |"]
        lines += ["|---|---|---|---|"]
        for name, one in taken.items():
            median = statistics.median(one.seconds)
            spread = f"{min(one.seconds):.1f} to {max(one.seconds):.1f}"
            times = statistics.median(taken["loop"].seconds) / median if "loop" in taken else None
            ratio = "" if times is None else f"{times:.2f}"
            accuracies = f"{statistics.fmean(one.val):.3f}, {statistics.fmean(one.test):.3f}"
            lines.append(f"| {PEERS[name][0]} | {median:.1f} ({spread}) | {ratio} | {accuracies} |")
    return lines


def _run(name: str, given: Mapping[str, Any], taken: Taken) -> None:
    """Let a competitor run in an empty folder, and note its seconds and accuracies."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        setting = Setting(folder=folder, **given)
        write_images(Path(folder) / "images", setting.size)
        command = [sys.executable, "-m", f"benchmarks.peers.{PEERS[name][1]}", setting.text()]
        started = time.monotonic()
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    trials: Sequence[Mapping[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])["trials"]
    expected = len(list(setting.trials()))
    if len(trials) != expected:
        raise SystemExit(f"{name} trained {len(trials)} trials of {expected}")
    taken.seconds.append(seconds)
    taken.val.append(statistics.fmean(one["val"] for one in trials))
    taken.test.append(statistics.fmean(one["test"] for one in trials))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    for name in options.only:
        missing = [package for package in PEERS[name][2] if find_spec(package) is None]
        if missing:
            parser.error(f"{name} needs {', '.join(missing)}: pip install 'tuner[bench]'")
    return options


if __name__ == "__main__":
    main()

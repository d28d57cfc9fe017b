"""A whole study, start included: the notebook loop, Optuna, Lightning, Ray Tune and tuner.

    python -m benchmarks.study --case ann-64 --repetitions 3
    python -m benchmarks.study --case ann-64 --only loop tuner --epochs 2 --trials 2
    python -m benchmarks.study --record               # what docs/benchmarks.md shows

Every competitor trains three schedules under some seeds on the same images, as a program of its own
in an empty folder. They take turns, so that other load on the machine affects all alike.

tuner always trains the whole study. In the long cases a slow competitor trains the
first few of its trials only (FIRST below), and its seconds are scaled: those before
its first trial count once, the rest for each round of trials. A round is one trial,
or as many as there are cores for Ray Tune, which trains this many at a time. The
tables say which figures were scaled, and from how many trials.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.peers.setting import Setting
from benchmarks.peers.task import write_images

REPOSITORY = Path(__file__).resolve().parents[1]
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Competitor:
    """One way to run the study."""

    title: str
    module: str
    packages: tuple[str, ...] = ()
    abreast: int = 1
    """How many trials it trains at a time."""


@dataclass(frozen=True)
class Case:
    """One study."""

    title: str
    model: str
    size: int
    seeds: int
    epochs: int
    first: Mapping[str, int]
    """How many of its trials a slow competitor trains; the others train all."""
    targets: Mapping[str, float]
    """tuner's target speed-up over the others on two cores."""
    repetitions: int = 1

    @property
    def trials(self) -> int:
        """How many there are: three schedules under each seed."""
        return 3 * self.seeds


COMPETITORS: Mapping[str, Competitor] = {
    "loop": Competitor("notebook loop", "loop"),
    "optuna": Competitor("Optuna and SQLite", "optuna_study", ("optuna",)),
    "lightning": Competitor("Lightning and Optuna", "lightning_study", ("lightning",)),
    "ray": Competitor("Ray Tune", "ray_study", ("ray",), abreast=CORES),
    "tuner": Competitor("tuner", "tuner_study"),
}
CASES: Mapping[str, Case] = {
    "ann-64": Case(
        "ANN 64×64, 15 trials of 30 epochs",
        *("ann", 64, 5, 30),
        first={"optuna": 3, "lightning": 3, "ray": 4},
        targets={"loop": 4, "ray": 4, "lightning": 5},
        repetitions=2,
    ),
    "ann-256-short": Case(
        "ANN 256×256, 15 trials of 4 epochs",
        *("ann", 256, 5, 4),
        first={"loop": 6, "optuna": 3, "lightning": 3, "ray": 4},
        targets={"loop": 1.5},
    ),
    "ann-256": Case(
        "ANN 256×256, 15 trials of 30 epochs",
        *("ann", 256, 5, 30),
        first={"loop": 2, "optuna": 1, "lightning": 1, "ray": 2},
        targets={"loop": 3},
    ),
    "cnn-64": Case(
        "CNN 64×64, 6 trials of 10 epochs",
        *("cnn", 64, 2, 10),
        first={"loop": 2, "optuna": 1, "lightning": 1, "ray": 2},
        targets={"loop": 3},
    ),
}


def main() -> None:
    """Run what the command line asks for."""
    options = _options()
    figures: dict[str, Any] = {}
    for name in options.case:
        case = CASES[name]
        runs: dict[str, list[dict[str, Any]]] = {one: [] for one in options.only}
        for turn, one in product(range(options.repetitions or case.repetitions), options.only):
            runs[one].append(_run(one, case, options))
            seconds = runs[one][-1]["seconds"]
            record.progress(f"{case.title}, turn {turn + 1}: {one} {seconds:.1f} s")
        figures[name] = {"trials": case.trials, "runs": runs}
    record.finish(options, "study", figures, list(lines(figures)))


def _run(name: str, case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """Run a competitor in an empty folder; return its seconds and its trials."""
    first = options.trials or case.first.get(name)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        epochs = options.epochs or case.epochs
        limit = None if name == "tuner" else first
        setting = Setting(folder, case.model, case.size, case.seeds, epochs, limit=limit)
        write_images(Path(folder) / "images", setting.size)
        command = [sys.executable, "-m", f"benchmarks.peers.{COMPETITORS[name].module}"]
        started = time.time()
        done = subprocess.run(
            [*command, setting.text()], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        seconds = time.time() - started
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    trials: Sequence[dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])["trials"]
    expected = len(setting.trials())
    if len(trials) != expected:
        raise SystemExit(f"{name} trained {len(trials)} trials of {expected}")
    # tuner does not report when its first trial began; it is never scaled.
    began = min((one["began"] - started for one in trials if "began" in one), default=None)
    kept = [{k: v for k, v in one.items() if k != "began"} for one in trials]
    return {"seconds": seconds, "began": began, "trials": kept}


def scaled(run: Mapping[str, Any], trials: int, abreast: int) -> float:
    """Return the seconds of the whole study, extrapolated from its first trials."""
    trained = len(run["trials"])
    if trained == trials:
        return float(run["seconds"])
    rounds = math.ceil(trials / abreast) / math.ceil(trained / abreast)
    return float(run["began"] + (run["seconds"] - run["began"]) * rounds)


def seconds_of(figures: Mapping[str, Any], case: str, name: str) -> list[float]:
    """Return a competitor's seconds for the whole study, in each repetition."""
    of_case = figures[case]
    abreast = COMPETITORS[name].abreast
    return [scaled(run, of_case["trials"], abreast) for run in of_case["runs"][name]]


def times(figures: Mapping[str, Any], case: str, name: str, reference: str = "loop") -> float:
    """Return a competitor's speed-up over the reference, by medians."""
    mine, theirs = (statistics.median(seconds_of(figures, case, one)) for one in (name, reference))
    return theirs / mine


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the medians of every case as a Markdown table."""
    for case, of_case in figures.items():
        yield from ("", f"**{CASES[case].title}**", "")
        yield "| | seconds (all turns) | loop's / its | accuracy, validation and test | trained |"
        yield "|---|---|---|---|---|"
        for name, runs in of_case["runs"].items():
            if not runs:
                continue
            seconds = seconds_of(figures, case, name)
            text = f"{statistics.median(seconds):.0f}"
            if len(seconds) > 1:
                text += f" ({', '.join(f'{one:.0f}' for one in sorted(seconds))})"
            ratio = f"{times(figures, case, name):.2f}" if of_case["runs"].get("loop") else "–"
            trained, trials = len(runs[0]["trials"]), of_case["trials"]
            part = "all" if trained == trials else f"{trained} of {trials}, scaled"
            accuracies = " and ".join(f"{_mean(runs, part):.3f}" for part in ("val", "test"))
            yield f"| {COMPETITORS[name].title} | {text} | {ratio} | {accuracies} | {part} |"
        yield ""
        yield _compared(of_case["runs"])
        yield from _against_targets(figures, case)


def _against_targets(figures: Mapping[str, Any], case: str) -> Iterator[str]:
    """List the targets of a case that are met."""
    runs = figures[case]["runs"]
    for name, target in CASES[case].targets.items():
        if runs.get(name) and runs.get("tuner"):
            reached = times(figures, case, "tuner", name)
            verdict = "met" if reached >= target else "missed"
            title = COMPETITORS[name].title
            yield f"Target: {target:g} times as fast as {title}; reached: {reached:.1f}, {verdict}."


def _compared(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """List competitors whose test accuracies differ from the loop's, on the trials of both."""
    different, too_few = [], []
    loop = _accuracies(runs.get("loop", ()))
    for name, own in runs.items():
        if name == "loop" or not loop or not own:
            continue
        theirs = _accuracies(own)
        apart = np.array([theirs[one] - loop[one] for one in theirs if one in loop])
        title = COMPETITORS[name].title
        if len(apart) < 3:
            too_few.append(title)
        elif abs(apart.mean()) > 3 * apart.std(ddof=1) / len(apart) ** 0.5:
            different.append(f"{title} ({100 * apart.mean():+.1f} points)")
    if not loop:
        return "Accuracies were not compared: the loop did not run."
    words = "Test accuracies of the same trials, compared with the loop's: "
    words += f"different for {', '.join(different)}" if different else "no difference seen"
    if too_few:
        words += f" (fewer than three trials in common: {', '.join(too_few)})"
    return f"{words}."


def _accuracies(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], float]:
    """Return each trial's test accuracy, the mean over repetitions."""
    found: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        for one in run["trials"]:
            found.setdefault((one["schedule"], one["seed"]), []).append(one["test"])
    return {trial: statistics.fmean(values) for trial, values in found.items()}


def _mean(runs: Sequence[Mapping[str, Any]], part: str) -> float:
    return statistics.fmean(one[part] for run in runs for one in run["trials"])


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", nargs="+", choices=COMPETITORS, default=list(COMPETITORS))
    parser.add_argument("--repetitions", type=int, help="turns of each case")
    parser.add_argument("--epochs", type=int, help="in place of the case's, to try it out")
    parser.add_argument("--trials", type=int, help="how many trials all but tuner train")
    options = parser.parse_args()
    for name in options.only:
        missing = [one for one in COMPETITORS[name].packages if find_spec(one) is None]
        if missing:
            parser.error(f"{name} needs {', '.join(missing)}: pip install 'tuner[bench]'")
    if options.record and (options.epochs or options.trials):
        parser.error("--epochs and --trials only try the programs out: nothing is recorded")
    return options


if __name__ == "__main__":
    main()

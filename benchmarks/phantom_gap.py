"""The gap between validation and test that the phantom's `shift` makes, and its contact sheet.

    python benchmarks/phantom_gap.py --shifts 0 0.5 1 --seeds 5
    python benchmarks/phantom_gap.py --sheet docs/phantom.png

Report C's network (three blocks of 64, dropout 0.3) learns with Adam at 1e-3,
constant, in batches of 32 for 30 epochs; figures are means and standard
deviations over training seeds. Training and validation images are the same at
every shift, so only the test columns move.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from objectives.chest_xray.phantom import Series, is_subtle, radiograph
from tuner.records import Figures, Job, Value
from tuner.train.objective import find
from tuner.train.workbench import Workbench

REPOSITORY = Path(__file__).resolve().parents[1]
COLUMNS = ("val_acc", "test_acc", "val_loss", "test_loss")
CELL = 128
"""Height and width of a picture on the contact sheet."""


def main() -> None:
    """Draw the contact sheet if one is asked for, or else measure the gap."""
    options = _options()
    if options.sheet is not None:
        _draw_sheet(options.sheet)
    else:
        _measure(options.shifts, options.seeds, options.image_size, options.phantom_seed)


def _measure(shifts: Sequence[float], seeds: int, size: int, phantom_seed: int) -> None:
    print(f"{platform.machine()}, torch {torch.__version__}, numpy {np.__version__}, {size} px")
    print("| shift | epoch | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        bench = Workbench(
            "cpu", 1, Path(cache), [REPOSITORY / "objectives"], progress=lambda *_: None
        )
        for shift in shifts:
            data = {"image_size": size, "shift": shift, "seed": phantom_seed}
            results = [_train(bench, data, seed) for seed in range(seeds)]
            for moment, column in zip(("best", "last"), zip(*results, strict=True), strict=True):
                print(f"| {shift:g} | {moment} | " + " | ".join(_cells(column)) + " |")
    print(f"{time.perf_counter() - started:.0f} s for {len(shifts) * seeds} runs")


def _train(bench: Workbench, data: Mapping[str, Value], seed: int) -> tuple[Figures, Figures]:
    declared = find("chest_xray", [REPOSITORY / "objectives"]).objective.declarations()
    defaults = {name: parameter.default for name, parameter in declared.parameters.items()}
    keys = {name: parameter.default for name, parameter in declared.data.items()}
    run = bench.begin(
        Job("chest_xray", {**defaults, "loss": "bce"}, data={**keys, **data}, seed=seed)
    )
    for _ in run.epochs(lambda: None):
        pass
    result = run.result()
    return result.best, result.last


def _cells(figures: Sequence[Figures]) -> list[str]:
    cells = []
    for column in COLUMNS:
        values = [float(getattr(each, column)) for each in figures]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
    return cells


def _draw_sheet(path: Path) -> None:
    """Write the contact sheet: the rows and columns that docs/phantom.md describes."""
    plain = [index for index in range(1, 80, 2) if not is_subtle(index)]
    subtle = [index for index in range(80) if is_subtle(index)]
    rows = [
        np.hstack([_row("train", indices, 256, 0.0), _row("train", indices, 64, 0.0)])
        for indices in ([0, 2, 4, 6], plain[:4], subtle[:4])
    ]
    patients = [0, 4, 8, 12, *plain[2:5], subtle[0]]
    rows += [_row("test", patients, 256, shift) for shift in (0.0, 0.5, 1.0)]
    Image.fromarray(np.vstack(rows)).save(path, optimize=True)


def _row(split: str, indices: Sequence[int], size: int, shift: float) -> NDArray[np.uint8]:
    series = Series(seed=0, split=split, count=0, size=size, shift=shift)
    pictures = (Image.fromarray(radiograph(series, index)) for index in indices)
    smooth = Image.Resampling.BOX if size > CELL else Image.Resampling.NEAREST
    return np.hstack([np.asarray(each.resize((CELL, CELL), smooth)) for each in pictures])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shifts", type=float, nargs="+", default=[0.0, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=5, help="training seeds for each shift")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--phantom-seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write the contact sheet to this PNG file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

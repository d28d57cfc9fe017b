"""The chart of whole studies: how long each competitor takes, from the recorded figures.

python -m benchmarks.chart                        # docs/benchmarks.svg
python -m benchmarks.chart --record FILE -o FILE.png
python -m benchmarks.chart --json                 # the bars' lengths
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import record
from benchmarks.study import CASES, COMPETITORS, seconds_of, times

CHART = record.RECORD.with_suffix(".svg")
OWN, OTHER, INK, FAINT = "#1f6f8b", "#c3c9cf", "#22272b", "#6b747c"
ORDER = ("tuner", "loop", "optuna", "lightning", "ray")


def main() -> None:
    """Draw the recorded figures."""
    options = _options()
    section = record.read(options.record)["study"]
    if options.json:
        print(json.dumps(bars(section["figures"])))
        return
    draw(section, options.output)


def bars(figures: Mapping[str, Any]) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every competitor that ran, case by case."""
    return {
        case: {name: seconds_of(figures, case, name) for name in ORDER if of_case["runs"].get(name)}
        for case, of_case in figures.items()
    }


def draw(section: Mapping[str, Any], path: Path) -> None:
    """Draw one panel per case: a bar per competitor, with its seconds and its multiple of tuner's.

    Each panel has its own scale from 0: compare bars within a panel, not across panels.
    """
    figures, machine = section["figures"], section["machine"]
    lengths = bars(figures)
    # The same figures give the same file: no date, and no random ids. Text is drawn as paths,
    # because the page that shows the picture may lack the font.
    style: dict[Any, Any] = {"svg.hashsalt": "benchmarks", "svg.fonttype": "path"}
    style |= {"font.size": 9, "font.family": "DejaVu Sans"}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.2, 0.62 + 1.55 * ((len(lengths) + 1) // 2)))
        FigureCanvasAgg(figure)
        columns = min(2, len(lengths))
        axes = figure.subplots(-(-len(lengths) // columns), columns, squeeze=False)
        for place, one in enumerate(axes.flat):
            if place >= len(lengths):
                one.set_axis_off()
                continue
            case = list(lengths)[place]
            _panel(one, figures, case, lengths[case])
        fast = " to ".join(f"{one:.1f}" for one in span(figures))
        figure.suptitle(
            f"Complete studies, including start-up, on {machine['cores']} cores: "
            f"tuner is {fast} times as fast as a notebook loop",
            x=0.012,
            ha="left",
            fontsize=10.5,
            color=INK,
            fontweight="bold",
        )
        figure.tight_layout(rect=(0, 0, 1, 0.99), w_pad=2.0, h_pad=1.4)
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, dpi=150, metadata=metadata)


def span(figures: Mapping[str, Any], reference: str = "loop") -> list[float]:
    """Return tuner's smallest and largest speed-up; one figure if they agree."""
    both = [case for case, one in figures.items() if one["runs"].get(reference)]
    ratios = sorted(times(figures, case, "tuner", reference) for case in both)
    ends = [ratios[0], ratios[-1]]
    return ends if f"{ends[0]:.1f}" != f"{ends[1]:.1f}" else ends[:1]


def _panel(
    axes: Axes, figures: Mapping[str, Any], case: str, seconds: Mapping[str, list[float]]
) -> None:
    names = list(seconds)
    medians = [statistics.median(seconds[name]) for name in names]
    colours = [OWN if name == "tuner" else OTHER for name in names]
    axes.barh(range(len(names)), medians, color=colours, height=0.72)
    for place, (name, median) in enumerate(zip(names, medians, strict=True)):
        text = f"{median:,.0f} s"
        if name != "tuner" and "tuner" in seconds:
            text += f"   {times(figures, case, 'tuner', name):.1f} ×"
        bold = "bold" if name == "tuner" else "normal"
        axes.annotate(
            text,
            (median, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=INK,
            fontweight=bold,
        )
    axes.set_yticks(range(len(names)), [COMPETITORS[name].title for name in names])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xticks([])
    axes.set_xlim(0, 1.28 * max(medians))
    axes.invert_yaxis()
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_color(OTHER)
    axes.set_title(CASES[case].title, loc="left", fontsize=9, color=FAINT)


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.set_defaults(record=record.RECORD)
    parser.add_argument("-o", "--output", type=Path, default=CHART, help="an SVG or PNG file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

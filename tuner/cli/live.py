"""The live screen of a study, redrawn in place; plain lines without a terminal."""

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import IO, Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.answers.forecast import budget_words, forecast
from tuner.cli.console import DataConsole, notebook_display, styled
from tuner.cli.terminal import readable
from tuner.records import SHARE, Unit, Value, value_text
from tuner.store.overview import Best, Overview, WorkerLine

NOTEBOOK_COLUMNS = 110
NEXT_SHOWN = 3
"""The most queued settings that are shown."""
LINE_SECONDS = 10.0
"""The interval of plain lines while no trial ends."""


class Screen(Protocol):
    """Where a launch is shown."""

    def show(self, overview: Overview) -> None:
        """Show the current state of a study."""

    def say(self, text: str) -> None:
        """Show a message once."""


@contextmanager
def screen_for(stream: IO[str]) -> Iterator[Screen]:
    """Give a live screen on a terminal or in a notebook, and plain lines elsewhere."""
    if (display := notebook_display()) is not None:
        yield NotebookScreen(display)
        return
    console = DataConsole(stream)
    if not console.is_terminal:
        yield PlainScreen(console)
        return
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        yield LiveScreen(live)


class LiveScreen:
    """A view of the study that is redrawn in place."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._said = ""

    def show(self, overview: Overview) -> None:
        """Redraw the view."""
        picture = draw(overview)
        if self._said:
            picture = Group(picture, styled(self._said, "yellow"))
        self._live.update(picture)

    def say(self, text: str) -> None:
        """Add a message below the view."""
        self._said = text


class NotebookScreen:
    """A view of the study below a notebook's cell, redrawn in place."""

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None
        self._overview: Overview | None = None
        self._shown = self._said = ""

    def show(self, overview: Overview) -> None:
        """Redraw the view if something changed."""
        self._overview = overview
        text = io.StringIO()
        console = DataConsole(text, width=NOTEBOOK_COLUMNS, force_terminal=False)
        console.print(draw(overview))
        shown = f"<pre>{escape(text.getvalue())}{escape(self._said)}</pre>"
        if self._handle is None:
            self._handle = self._display({"text/html": shown}, raw=True, display_id=True)
        elif shown != self._shown:
            self._handle.update({"text/html": shown}, raw=True)
        self._shown = shown

    def say(self, text: str) -> None:
        """Add a message below the view."""
        self._said = text
        if self._overview is not None:
            self.show(self._overview)


class PlainScreen:
    """Plain lines: one whenever a trial ends, and one at intervals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._at_rest = -1
        self._written = 0.0

    def show(self, overview: Overview) -> None:
        """Print a line if there is something new."""
        now = time.monotonic()
        if overview.counts.at_rest == self._at_rest and now - self._written < LINE_SECONDS:
            return
        self._at_rest, self._written = overview.counts.at_rest, now
        self._console.print(plain_line(overview), soft_wrap=True)

    def say(self, text: str) -> None:
        """Print the message."""
        self._console.print(text, soft_wrap=True)


def draw(overview: Overview) -> RenderableType:
    """Draw a study: its progress bar, one line per worker, and the best trial so far."""
    parts: list[RenderableType] = [
        Text.assemble(
            (readable(overview.title), "bold"), "  ", (readable(overview.question), "italic")
        ),
        _bar(overview),
        Text(counts_line(overview)),
    ]
    if overview.workers:
        parts.append(_workers(overview))
    if overview.best is not None:
        parts.append(
            styled(
                f"best{'' if overview.state == 'complete' else ' so far'}  "
                + best_line(overview.best, overview.metric, overview.unit),
                "green",
            )
        )
    if overview.queued:
        parts.append(styled(queue_line(overview.queued)))
    if (budget := budget_words(overview)) is not None:
        parts.append(Text(f"spent   {budget.spent}"))
        parts += [Text(f"needed  {budget.needed}")] * bool(budget.needed)
        parts += [styled(budget.short, "yellow")] * bool(budget.short)
    if overview.reason:
        parts.append(styled(f"{overview.state}: {overview.reason}", "yellow"))
    return Group(*parts)


def queue_line(queued: Sequence[Mapping[str, Value]]) -> str:
    """Say how many settings are queued, and which are next."""
    settings = "1 setting" if len(queued) == 1 else f"{len(queued)} settings"
    following = ", then ".join(chosen_line(setting) for setting in queued[:NEXT_SHOWN])
    more = f", and {len(queued) - NEXT_SHOWN} more" if len(queued) > NEXT_SHOWN else ""
    return f"queued  {settings}; next {following}{more}"


def plain_line(overview: Overview) -> str:
    """Summarise the state of a study in one line."""
    counts = overview.counts
    text = f"{counts.at_rest}/{counts.total} trials  {counts_line(overview)}"
    if overview.best is not None:
        text += f"  best {_briefly(overview.best, overview.metric, overview.unit)}"
    if (budget := budget_words(overview)) is not None:
        text += f"  spent {budget.spent}"
        text += f"  {budget.short}" if budget.short else ""
    for line in overview.workers:
        if sending(line):
            text += f"  trial {line.number}: {sending(line)}"
    return text


def _briefly(best: Best, metric: str, unit: Unit) -> str:
    from tuner.answers.words import figure

    if best.mean is None:
        return f"{metric} {figure(unit, best.value)} (trial {best.number})"
    seeds = "1 seed" if best.seeds == 1 else f"{best.seeds} seeds"
    return f"{metric} {figure(unit, best.mean['value'])} ({chosen_line(best.chosen)}, {seeds})"


def counts_line(overview: Overview) -> str:
    """Say how many trials are in each state."""
    counts = overview.counts
    parts = [
        f"{counts.complete} complete",
        f"{counts.pruned} pruned",
        *([f"{counts.diverged} diverged"] if counts.diverged else []),
        f"{counts.failed} failed",
        f"{counts.running} running",
    ]
    if counts.paused:
        parts.append(f"{counts.paused} paused")
    if counts.waiting:
        parts.append(f"{counts.waiting} waiting for a worker")
    if overview.eta_seconds is not None and counts.ended < counts.total and not overview.over:
        parts.append(f"about {duration(overview.eta_seconds)} left{_between(overview)}")
    return " · ".join(parts)


def _between(overview: Overview) -> str:
    """Return the prediction interval of the remaining time, once it is known."""
    future = forecast(overview)
    guess = None if future is None else future.seconds
    if guess is None or guess.low is None or guess.high is None:
        return ""
    return f" ({duration(guess.low)} to {duration(guess.high)})"


def epochs_line(overview: Overview) -> str:
    """Say how many epochs were trained, and how many were reused."""
    reused = f", {overview.epochs_reused:,} reused" if overview.epochs_reused else ""
    return f"{overview.epochs_recorded:,} epochs trained{reused}"


def best_line(best: Best, metric: str, unit: Unit) -> str:
    """Describe the best trial, or the best setting by its means over seeds."""
    from tuner.answers.words import figure

    if best.mean is not None:
        seeds = "1 seed" if best.seeds == 1 else f"mean of {best.seeds} seeds"
        value, val_acc = best.mean["value"], best.mean["val_acc"]
        test_acc = best.mean["test_acc"]
        which, what = "", f"({seeds})  {chosen_line(best.chosen)}"
    else:
        value, val_acc, test_acc = best.value, best.val_acc, best.test_acc
        which, what = f"trial {best.number}", f"{chosen_line(best.chosen)} seed={best.seed}"
    accuracies = {"val_acc": val_acc, "test_acc": test_acc}
    shown = [f"{metric} {figure(unit, value)}"] + [
        f"{name} {figure(SHARE, accuracy)}"
        for name, accuracy in accuracies.items()
        if accuracy is not None and name != metric
    ]
    return "  ".join(part for part in (which, *shown, what) if part)


def chosen_line(chosen: Mapping[str, Value]) -> str:
    """Format parameters as name=value."""
    return " ".join(f"{name}={value_text(value)}" for name, value in chosen.items())


def duration(seconds: float) -> str:
    """Format a duration for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def _bar(overview: Overview) -> RenderableType:
    counts = overview.counts
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        ProgressBar(total=max(counts.total, 1), completed=counts.at_rest, width=40),
        Text(f"{counts.at_rest}/{counts.total} trials"),
        Text(epochs_line(overview), style="dim"),
    )
    return grid


def _workers(overview: Overview) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("worker", "trial", "parameters", "epoch", "val loss", "epochs/s"):
        table.add_column(name, justify="left" if name == "parameters" else "right", no_wrap=True)
    held = Counter(line.worker_id for line in overview.workers)
    shown = 0
    for line in overview.workers:
        # A worker with several trials says so in its first line; the others follow below it.
        first, shown = line.worker_id != shown, line.worker_id
        many = held[line.worker_id]
        together = f", {many} at a time" if many > 1 else ""
        worker = f"{line.worker_id} {line.device}{together}" if first else ""
        table.add_row(worker, *_cells(line))
    return table


def sending(line: WorkerLine) -> str:
    """Say how much of a large result is stored; "" if none is being sent."""
    if line.bytes_sent is None or not line.bytes_to_send:
        return ""
    return f"storing {line.bytes_sent / 1e6:.0f} of {line.bytes_to_send / 1e6:.0f} MB"


def _cells(line: WorkerLine) -> list[str]:
    if line.number is None or line.chosen is None:
        return ["–", "waiting", "", "", ""]
    return [
        str(line.number),
        f"{chosen_line(line.chosen)} seed={line.seed}",
        f"{line.epoch}/{line.epochs} {sending(line)}".rstrip(),
        "" if line.val_loss is None else f"{line.val_loss:.4f}",
        "" if line.epochs_per_second is None else f"{line.epochs_per_second:.1f}",
    ]

"""Time to an answer: epochs trained until the best setting is known with the same certainty.

    python -m benchmarks.answer
    python -m benchmarks.answer --seeds 2 --epochs 2 4 --ways whole racing   # tries it out

One question on synthetic radiographs of 32×32 (1,600 to train on), fully connected
networks: which of 24 settings (6 learning rates, 2 schedules, 2 lengths) has the lowest
validation loss? It is answered four times by `tuner launch` in an empty folder, with
one more of these switched on each time:

- whole: every setting under five seeds
- pruning: trials below the median of the others at the same epoch are stopped
- reuse: epochs that settings have in common are trained once (the checkpoint tree)
- racing: every setting under one seed; the best six race over further seeds

*As surely*: all four are judged by the same test, over the seeds that follow the first (which
chooses the contenders of a race): which settings are distinguished from the best, at 95% for all
comparisons together? A way is as sure as the first if its best setting is that of the first, or is
not distinguished from it there, and if it leaves no more settings in question. A setting that was
pruned, or that left the race, is no longer in question.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import record
from tuner.results import MEASURES, Evidence, Results
from tuner.settings import Settings
from tuner.spec.study_ref import StudyRef
from tuner.statistics.multiple_comparisons import against_best
from tuner.store import studies
from tuner.store import tables as t
from tuner.store.database import Database

REPOSITORY = Path(__file__).resolve().parents[1]
WAYS = ("whole", "pruning", "reuse", "racing")
TITLES = {
    "whole": "every setting, every seed",
    "pruning": "and pruning",
    "reuse": "and reuse",
    "racing": "and racing",
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
STUDY = """
[study]
name = "answer"
question = "Which setting has the lowest validation loss?"
objective = "chest_xray"

[budget]
trials = {trials}

[search]
sampler = "grid"
metric = "val_loss"
pruner = "{pruner}"

{options}

[replicates]
seeds = {seeds}
{replicates}

[checkpoints]
keep = "{keep}"
{location}

[space]
lr = {rates}
scheduler = ["constant", "step"]
epochs = {epochs}

[fixed]
model = "ann"
batch_size = 32
step_size = {step}
decay = 0.1
depth = 3
width = 64
dropout = 0.3
loss = "ce"

[data]
source = "phantom"
image_size = 32
"""


def main() -> None:
    """Answer the question in each of the requested ways."""
    options = _options()
    figures: dict[str, Any] = {}
    for way in options.ways:
        figures[way] = answer(way, options.seeds, options.epochs)
        record.progress(f"{way}: {figures[way]}")
    record.finish(options, "answer", figures, list(lines(figures)))


def answer(way: str, seeds: int, epochs: list[int]) -> dict[str, Any]:
    """Launch the study in one way; return its cost and its answer."""
    # The server may still be stopping when the folder is removed.
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL may run as another user, who needs access
        (folder / "answer.toml").write_text(_study(way, seeds, epochs))
        home = folder / ".tuner"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TUNER_", "PG"))}
        command = [sys.executable, "-m", "tuner", "launch", "--study", "answer.toml"]
        started = time.monotonic()
        done = subprocess.run(
            [*command, "--objectives", str(REPOSITORY / "objectives")],
            cwd=folder,
            env=kept | {"TUNER_HOME": str(home)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        if done.returncode:
            raise SystemExit(f"the study failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        with Database.open(Settings(home)) as database, database.snapshot() as connection:
            return {"seconds": seconds, **_judged(connection)}


def _study(way: str, seeds: int, epochs: list[int]) -> str:
    stage = WAYS.index(way)
    prunes, reuses, races = (stage >= WAYS.index(one) for one in WAYS[1:])
    return STUDY.format(
        trials='"grid"',
        pruner="median" if prunes else "none",
        options="[search.pruner_options]\nwarmup = 4" if prunes else "",
        seeds=seeds,
        replicates='of = "top"\ntop = 6' if races else "",
        keep="auto" if reuses else "none",
        location="" if reuses else 'location = "off"',
        rates=list(RATES),
        epochs=epochs,
        step=max(1, epochs[0] // 2),
    )


def _judged(connection: sa.Connection) -> dict[str, Any]:
    """Count epochs, and compare all settings that are whole under every further seed."""
    study = studies.find(connection, StudyRef("answer"))
    trained, reused = connection.execute(
        sa.select(
            sa.func.count().filter(~t.epoch.c.reused), sa.func.count().filter(t.epoch.c.reused)
        )
        .select_from(t.epoch.join(t.trial, t.trial.c.trial_id == t.epoch.c.trial_id))
        .where(t.trial.c.study_id == study.study_id)
    ).one()
    states = connection.execute(
        sa.select(t.outcome.c.state, sa.func.count())
        .select_from(t.outcome.join(t.trial, t.trial.c.trial_id == t.outcome.c.trial_id))
        .group_by(t.outcome.c.state)
    ).all()
    evidence = Evidence(Results(connection, study), MEASURES["val_loss"])
    last = max(row["seed"] for row in evidence.rows)
    done = evidence.done(last)
    # A race may go on to further seeds with fewer contenders: keep those with the most seeds.
    most = max(len(one) for one in done.values())
    left = sorted(one for one, those in done.items() if len(those) == most)
    panel = evidence.panel(left, sorted(set.intersection(*(set(done[one]) for one in left))))
    assert panel is not None, "no setting is whole under the further seeds"
    verdict = against_best(panel, larger=False)
    tied = [left[one.level] for one in verdict.others if not one.differs]
    mean = panel.mean(verdict.reference)
    return {
        "trained": trained,
        "reused": reused,
        "trials": {str(state).lower(): count for state, count in states},
        "settings": study.spec.configurations,
        "best": left[verdict.reference],
        "name": _name(study.spec.grid[left[verdict.reference]]),
        "seeds": panel.seeds,
        "mean": mean.value,
        "half": (mean.high - mean.low) / 2,
        "tied": tied,
    }


def _name(chosen: Mapping[str, Any]) -> str:
    return f"{chosen['scheduler']}, rate {chosen['lr']:g}, {chosen['epochs']} epochs"


def sure(figures: Mapping[str, Any], way: str) -> str:
    """Report whether a way's answer is as certain as the first one's."""
    own, whole = figures[way], figures.get("whole")
    if whole is None or way == "whole":
        return "–"
    same = own["best"] in (whole["best"], *whole["tied"])
    if not same:
        return "no: another setting"
    if len(own["tied"]) > len(whole["tied"]):
        return "no: more in question"
    return "yes, the same setting" if own["best"] == whole["best"] else "yes, one tied with it"


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what was measured as a Markdown table."""
    yield "| | epochs trained | reused | s | best setting | val. loss | in question | as sure |"
    yield "|---" * 8 + "|"
    for way, one in figures.items():
        yield (
            f"| {TITLES[way]} | {one['trained']:,} | {one['reused']:,} | {one['seconds']:.0f} "
            f"| {one['name']} | {one['mean']:.3f} ± {one['half']:.3f} "
            f"| {len(one['tied'])} of {one['settings'] - 1} | {sure(figures, way)} |"
        )


def _options() -> argparse.Namespace:
    parser = record.parser(__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", nargs=2, type=int, default=[10, 20])
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What a storm must leave: every trial, complete curves, unchanged decisions, the same bits."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.scenes import results_of
from tests.faults.weather import Report
from tests.store.specs import Bench
from tuner.store import tables as t
from tuner.store.optuna_storage import Binding


def check_whole(report: Report, bench: Bench) -> None:
    """Record what is missing: trials, endings, epochs of curves, decisions."""
    weather, faults = report.weather, report.faults
    if sum(report.states.values()) != weather.trials or len(bench.rows(t.trial)) != weather.trials:
        faults.append(f"{len(bench.rows(t.trial))} trials, not {weather.trials}")
    if report.states["FAILED"]:
        faults.append(f"{report.states['FAILED']} trials FAILED")
    if report.events["attempt failed"]:
        why = {row.text for row in bench.rows(t.event) if row.kind in ("attempt failed", "failed")}
        attempts = report.events["attempt failed"]
        faults.append(f"{attempts} attempts were blamed on their trials: {'; '.join(sorted(why))}")
    at_rest = ("ended", "paused") if weather.budget else ("ended",)
    if any(row.state not in at_rest for row in bench.rows(t.lease)):
        faults.append("a lease has not ended")
    curves: dict[int, list[int]] = {}
    for row in bench.rows(t.epoch):
        curves.setdefault(row.trial_id, []).append(row.epoch)
    decided = {(row.trial_id, row.epoch): row.prune for row in bench.rows(t.decision)}
    for row in bench.rows(t.outcome):
        _check_trial(report, row, sorted(curves.get(row.trial_id, [])), decided)
    if report.twice > report.bound:
        faults.append(f"{report.twice} epochs were trained twice, more than {report.bound}")


def check_promoted(report: Report, bench: Bench) -> None:
    """Record faults of a study whose trials pause until its budget in epochs is spent."""
    weather, faults = report.weather, report.faults
    if report.epochs_stored != weather.budget:
        faults.append(f"{report.epochs_stored} epochs were trained, not {weather.budget}")
    if any(row.reused for row in bench.rows(t.epoch)):
        faults.append("an epoch was reused, though no two settings are equal")
    stretches: dict[int, list[tuple[int, int | None]]] = {}
    for row in sorted(bench.rows(t.stretch), key=lambda row: row.stretch_id):
        stretches.setdefault(row.trial_id, []).append((row.start, row.until))
    curves: dict[int, list[int]] = {}
    for row in bench.rows(t.epoch):
        curves.setdefault(row.trial_id, []).append(row.epoch)
    for row in bench.rows(t.lease):
        epochs = sorted(curves.get(row.trial_id, []))
        _check_stretches(report, row, epochs, stretches[row.trial_id])
    valued = {(row.trial_id, row.epoch) for row in bench.rows(t.rung)}
    passed = {(trial, start) for trial, own in stretches.items() for start, _ in own[1:]}
    if passed - valued:
        faults.append(f"no values at rungs {sorted(passed - valued)}")


def _check_stretches(
    report: Report, lease: Any, epochs: Sequence[int], own: Sequence[tuple[int, int | None]]
) -> None:
    name = f"trial {lease.trial_id} ({lease.state})"
    if list(epochs) != list(range(1, len(epochs) + 1)):
        report.faults.append(f"{name} has gaps: {epochs}")
    # Each stretch begins where the previous one ended, the first one before the first epoch.
    if [start for start, _ in own] != [0, *(until for _, until in own[:-1])]:
        report.faults.append(f"{name} has stretches {own}")
    start, until = own[-1]
    end = report.weather.epochs if until is None else until
    # The budget may have paused it on its way, at the last epoch that it was granted.
    cut = lease.granted is not None and start < lease.granted == len(epochs) < end
    if not (len(epochs) == end or (lease.state == "paused" and cut)):
        report.faults.append(f"{name} has {len(epochs)} epochs, with the last stretch {own[-1]}")


def check_equal(report: Report, bench: Bench, undisturbed: Bench) -> None:
    """Record every table in which a study differs from an undisturbed one."""
    mine, theirs = results_of(bench), results_of(undisturbed)
    for name in mine:
        if mine[name] != theirs[name]:
            differing = set(mine[name]) ^ set(theirs[name])
            report.faults.append(f"{len(differing)} rows of {name} differ: {_some(differing)}")
    differing = set(_as_optuna_sees(bench)) ^ set(_as_optuna_sees(undisturbed))
    if differing:
        report.faults.append(f"{len(differing)} trials of Optuna differ: {_some(differing)}")


def _some(rows: set[Any]) -> str:
    """Show the beginnings of two rows; a complete row has all images' predictions."""
    return "; ".join(f"{row!s:.200}" for row in sorted(rows)[:2])


def _check_trial(
    report: Report,
    row: Any,
    epochs: Sequence[int],
    decided: Mapping[tuple[int, int], bool],
) -> None:
    weather = report.weather
    name = f"trial {row.trial_id} ({row.state})"
    if list(epochs) != list(range(1, len(epochs) + 1)):
        report.faults.append(f"{name} has gaps: {epochs}")
    if row.state == "COMPLETE" and len(epochs) != weather.epochs:
        report.faults.append(f"{name} has {len(epochs)} epochs")
    if not weather.learning:
        return
    warmup = 3
    for number in epochs[warmup:]:
        pruned = row.state == "PRUNED" and number == len(epochs)
        if decided.get((row.trial_id, number)) is not pruned:
            report.faults.append(f"{name}, epoch {number}: no decision, or another")


def _as_optuna_sees(bench: Bench) -> list[tuple[str, ...]]:
    storage = Binding(bench.database).storage
    return [
        (
            f"{one.number:05d} {one.state.name} {one.value!r}",
            repr(sorted(one.params.items())),
            repr(sorted(one.intermediate_values.items())),
        )
        for one in storage.get_all_trials(bench.study.study_id)
    ]

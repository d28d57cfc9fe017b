"""What a storm must leave: every trial, whole curves, kept decisions, and the same bits."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.faults.scenes import results_of
from tests.faults.weather import Report
from tests.store.specs import Bench
from tuner.store import tables as t
from tuner.store.optuna_storage import Binding


def check_whole(report: Report, bench: Bench) -> None:
    """Note what is missing: trials, ends, epochs of curves, decisions."""
    weather, faults = report.weather, report.faults
    if sum(report.states.values()) != weather.trials or len(bench.rows(t.trial)) != weather.trials:
        faults.append(f"{len(bench.rows(t.trial))} trials, not {weather.trials}")
    if report.states["FAILED"]:
        faults.append(f"{report.states['FAILED']} trials FAILED")
    if report.events["attempt failed"]:
        why = {row.text for row in bench.rows(t.event) if row.kind in ("attempt failed", "failed")}
        attempts = report.events["attempt failed"]
        faults.append(f"{attempts} attempts were blamed on their trials: {'; '.join(sorted(why))}")
    if any(row.state != "ended" for row in bench.rows(t.lease)):
        faults.append("a lease has not ended")
    curves: dict[int, list[int]] = {}
    for row in bench.rows(t.epoch):
        curves.setdefault(row.trial_id, []).append(row.epoch)
    decided = {(row.trial_id, row.epoch): row.prune for row in bench.rows(t.decision)}
    for row in bench.rows(t.outcome):
        _check_trial(report, row, sorted(curves.get(row.trial_id, [])), decided)
    if report.twice > report.bound:
        faults.append(f"{report.twice} epochs were trained twice, more than {report.bound}")


def check_equal(report: Report, bench: Bench, undisturbed: Bench) -> None:
    """Record every table in which a study differs from an undisturbed one."""
    mine, theirs = results_of(bench), results_of(undisturbed)
    for name in mine:
        if mine[name] != theirs[name]:
            differing = set(mine[name]) ^ set(theirs[name])
            report.faults.append(f"{len(differing)} rows of {name} differ: {sorted(differing)[:2]}")
    differing = set(_as_optuna_sees(bench)) ^ set(_as_optuna_sees(undisturbed))
    if differing:
        report.faults.append(f"{len(differing)} trials of Optuna differ: {sorted(differing)[:2]}")


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

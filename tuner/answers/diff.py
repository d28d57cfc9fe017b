"""Compares two studies: their files, the environment of their launch, and their results."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, ClassVar

import numpy as np

from tuner.answers import words
from tuner.answers.compare import measure_named
from tuner.answers.table import Table
from tuner.errors import UserError
from tuner.results import (
    Design,
    Level,
    Measure,
    Results,
    Source,
    TrialRow,
    by_number,
    column_of,
    has_figure,
    sample,
)
from tuner.spec import identity
from tuner.spec.identity import Change
from tuner.statistics import Clusters, Interval, Panel, too_few
from tuner.store.studies import Study

__all__ = ["Diff", "changes_table", "diff", "results_table"]

NAMES = ("study.name", "study.question")
"""Keys that always differ between studies, so their differences are not listed."""


@dataclass(frozen=True)
class Side:
    """One of the two studies."""

    study: str
    trials: int
    complete: int
    mean: float | None
    """Mean of the compared figure over all complete trials."""
    best: int | None
    """The best trial by the study's own metric."""
    best_figure: float | None


@dataclass(frozen=True)
class Shared:
    """The settings that both studies have, compared pairwise."""

    settings: int
    seeds: int
    images: int
    """0 if the two studies were not measured on the same images."""
    clusters: tuple[Clusters, ...]
    """The patients of each split; empty if the data name none."""
    patients_unknown: bool
    """Whether one study's labels were stored by a version that did not store patients."""
    difference: Interval
    """The second study minus the first, over seeds and images."""
    p_value: float

    JSON: ClassVar = (
        "settings",
        "n=seeds",
        "images",
        "patients",
        "difference",
        "p=p_value",
        "differs",
    )

    @property
    def differs(self) -> bool:
        """Whether the difference is significant."""
        return self.seeds > 1 and self.p_value < 0.05 and not too_few(self.clusters)

    @property
    def patients(self) -> int:
        """The number of patients; 0 if the data name none."""
        return sum(clusters.patients for clusters in self.clusters)


@dataclass(frozen=True)
class Diff:
    """What differs between two studies."""

    sides: tuple[Side, Side]
    changes: tuple[Change, ...]
    """Differences of the files: the first study's value, then the second's."""
    surroundings: tuple[Change, ...]
    """Differences of the versions and code that launched them."""
    measure: Measure
    matched_by: tuple[str, ...]
    """The parameters that both studies vary; settings are matched by them."""
    shared: Shared | None

    JSON: ClassVar = (
        "studies=sides",
        "metric=measure.name",
        "changes",
        "surroundings",
        "matched_by",
        "shared",
        "verdict",
    )

    @property
    def objectives_differ(self) -> bool:
        """Whether the objectives differ, so that results cannot be compared."""
        return any(change.key == "study.objective" for change in self.changes)

    @property
    def verdict(self) -> str:
        """How the shared settings compare, in plain words."""
        if self.shared is None or not self.shared.images:
            return self._result
        unknown = self.shared.patients_unknown
        return " ".join(
            [self._result, *words.patient_remarks(self.shared.clusters, unknown=unknown)]
        )

    @property
    def _result(self) -> str:
        one, other = (side.study for side in self.sides)
        if self.objectives_differ:
            return (
                f"{one} and {other} have different objectives, so their results are not compared."
            )
        if self.shared is None:
            return (
                f"{one} and {other} have no setting that is complete with the same seed in both, "
                "so their results cannot be compared."
            )
        shared, measure = self.shared, self.measure
        by = f"in {words.count(shared.settings, 'shared setting')}"
        if not self.matched_by:
            by = "over all their settings"
        about = words.count(shared.seeds, "seed")
        about += (
            f", {words.sampled(shared.images, shared.patients)}"
            if shared.images
            else ", not on the same images"
        )
        if shared.seeds < 2 and shared.difference.value == 0:
            return f"{one} and {other} have the same mean {measure.name} {by} ({about})."
        if shared.seeds < 2:
            ahead = other if (shared.difference.value > 0) == measure.larger else one
            return (
                f"{ahead} is ahead in {measure.name} {by}, but one seed cannot distinguish a "
                f"better setting from chance ({about})."
            )
        if not shared.differs:
            return (
                f"{other} and {one} are not distinguishable in {measure.name} {by}: "
                f"{words.difference(measure.unit, shared.difference)} ({about})."
            )
        word = "better" if (shared.difference.value > 0) == measure.larger else "worse"
        return (
            f"{other} is {word} than {one} in {measure.name} {by}, by "
            f"{words.amount(measure.unit, shared.difference)} ({about})."
        )


def diff(results: Results, others: Results, metric: str | None = None) -> Diff:
    """Compare two studies."""
    one, other = results.study, others.study
    if one.study_id == other.study_id:
        if one.versions == 1:
            raise UserError(f"{one.title} cannot be compared with itself; specify two studies.")
        raise UserError(
            f"{one.title} cannot be compared with itself: {one.name} means the newest of its "
            f"{one.versions} versions. Specify two of them, as in `tuner diff {one.name}@1 "
            f"{one.name}@2`."
        )
    tested = results.tested or others.tested
    measure = _measure(results, others, metric or ("test_acc" if tested else "val_acc"))
    names = tuple(name for name in one.spec.varied if name in other.spec.varied)
    changes = identity.compare(one.spec, other.spec).changes
    return Diff(
        sides=(_side(results, measure), _side(others, measure)),
        changes=tuple(change for change in changes if change.key not in NAMES),
        surroundings=_surroundings(one, other),
        measure=measure,
        matched_by=names,
        shared=(
            _shared((results, others), measure, names)
            if one.spec.objective == other.spec.objective
            else None
        ),
    )


# Its tables


def changes_table(diff: Diff, changes: Sequence[Change], title: str) -> Table:
    """Return changes with the value of each study."""
    names = (side.study for side in diff.sides)
    rows = (
        (change.key, _cell(change, change.stored), _cell(change, change.given))
        for change in changes
    )
    head = ("", *names)
    every = range(len(head))
    return Table(head, tuple(rows), title, left=every, wrapped=every)


def results_table(diff: Diff) -> Table:
    """Return how far each study came, and its figures."""
    measure = diff.measure
    head = ("study", "complete", f"mean {measure.name}", "best trial", f"its {measure.name}")
    rows = (
        (
            side.study,
            f"{side.complete}/{side.trials}",
            words.figure(measure.unit, side.mean),
            "–" if side.best is None else str(side.best),
            words.figure(measure.unit, side.best_figure),
        )
        for side in diff.sides
    )
    heads = tuple(name.replace("_", " ") for name in head)
    return Table(heads, tuple(rows), "Results", left=(0,))


def _cell(change: Change, value: object) -> str:
    """Format a value of a file or of the environment for people, without JSON's brackets."""
    if value is None:
        return "–"
    if change.key == "launched" and isinstance(value, str):
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M} UTC"
    if isinstance(value, dict) and "when" in value:
        return _dimension(value)
    return value if isinstance(value, str) else _json(value)


def _dimension(value: dict[str, Any]) -> str:
    """Format a dimension: its values, or its range with step, scale and condition."""
    if "values" in value:
        parts = [", ".join(map(str, value["values"]))]
    else:
        parts = [f"{value['low']} to {value['high']}"]
        parts += [f"step {value['step']}"] if value.get("step") else []
        parts += ["log"] if value.get("log") else []
    parts += [f"when {name} is {_json(one)}" for name, one in value["when"].items()]
    return "; ".join(parts)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# The comparison


def _measure(results: Results, others: Results, name: str) -> Measure:
    """Return a measure that both studies have, with the same direction and unit."""
    mine, theirs = measure_named(results, name), measure_named(others, name)
    if mine != theirs:
        raise UserError(
            f"{name} is not the same metric in {results.title} and {others.title}: its direction "
            "or unit differs."
        )
    return mine


def _side(results: Results, measure: Measure) -> Side:
    rows = results.rows_with(column_of(measure, results.at))
    known = [
        value
        for row in rows
        if row.complete and (value := _figure(results, row, measure)) is not None
    ]
    by_trial = by_number(rows)
    best = results.ranked[0]["trial"] if results.ranked else None
    return Side(
        study=results.title,
        trials=len(rows),
        complete=sum(row.complete for row in rows),
        mean=float(np.mean(known)) if known else None,
        best=best,
        best_figure=None if best is None else _figure(results, by_trial[best], measure),
    )


def _figure(results: Results, row: TrialRow, measure: Measure) -> float | None:
    value = row[column_of(measure, results.at)]
    return None if value is None else float(value)


def _surroundings(study: Study, other: Study) -> tuple[Change, ...]:
    before, after = _flat(study.provenance), _flat(other.provenance)
    return tuple(
        Change(key, before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    )


def _flat(provenance: Any, above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in dict(provenance).items():
        name = f"{above}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def _shared(
    studies: tuple[Results, Results], measure: Measure, names: Sequence[str]
) -> Shared | None:
    places = [
        _places([row for row in of.rows if has_figure(row, measure, of.at)], names)
        for of in studies
    ]
    both = [place for place in places[0] if place in places[1]]
    if not both:
        return None
    seeds = sorted({seed for seed, _ in both})
    panels = []
    sources = [Source(study, measure) for study in studies]
    same_images = bool(sources[0].ids()) and sources[0].ids() == sources[1].ids()
    if same_images:
        _share_patients(*sources)
    for of, mine, source in zip(studies, places, sources, strict=True):
        units = tuple(
            tuple(number for place in both if place[0] == seed for number in mine[place])
            for seed in seeds
        )
        design = Design("study", (), (of.title,), True, (units,), 0)
        found = sample(of, design, measure, source)
        if found is None or not isinstance(found.panel, Panel):
            return None
        panels.append(found.panel)
    same = panels[0].images > 0 and panels[1].images > 0 and same_images
    panel = _stacked(panels, images=same)
    apart = panel.difference(1, 0)
    return Shared(
        settings=len({values for _, values in both}),
        seeds=len(seeds),
        images=panel.images,
        clusters=panel.clusters,
        patients_unknown=any(source.patients_unknown for source in sources),
        difference=apart.interval(),
        p_value=apart.p_value(),
    )


def _share_patients(one: Source, other: Source) -> None:
    """Copy stored patients to the study that has none, if the images are the same."""
    for source, giver in ((one, other), (other, one)):
        for key, truth in source.truths.items():
            if not truth.patients:
                named = (
                    given.patients for given in giver.truths.values() if given.ids == truth.ids
                )
                source.truths[key] = replace(truth, patients=next(named, truth.patients))


def _stacked(panels: Sequence[Panel], *, images: bool) -> Panel:
    if images:
        pairs = zip(panels[0].blocks, panels[1].blocks, strict=True)
        blocks = tuple(np.concatenate(pair) for pair in pairs)
        return replace(panels[0], blocks=blocks)
    means = np.concatenate([panel.by_seed for panel in panels])
    return Panel((means[:, :, None],), counts_images=False)


def _places(
    rows: Sequence[TrialRow], names: Sequence[str]
) -> dict[tuple[int, tuple[Level, ...]], list[int]]:
    found: dict[tuple[int, tuple[Level, ...]], list[int]] = defaultdict(list)
    for row in rows:
        found[row["seed"], tuple(row[name] for name in names)].append(row["trial"])
    return found

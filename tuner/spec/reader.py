"""Reads a document into a `Spec`, section by section, continuing after every fault."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.errors import ObjectiveError
from tuner.names import nearest, suggest
from tuner.records import READY, Metric
from tuner.spec.dimensions import SpaceReader, check_conditions
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.keys import read_section
from tuner.spec.parameters import UNFOUND, Declarations
from tuner.spec.plan import Plan, check_plan
from tuner.spec.search import ALLOCATORS, PRUNERS, SAMPLERS, read_options
from tuner.spec.space import Dimension, Space
from tuner.spec.study import (
    CHOOSABLE,
    DATA,
    OBJECTIVE,
    SECTIONS,
    SPLIT_SEED,
    Budget,
    Checkpoints,
    Heading,
    Limits,
    Replicates,
    Search,
    Spec,
)
from tuner.spec.values import ValueReader, defaults

TABLES = (*SECTIONS, "space", "fixed", "data", "fleet")
"""All sections of a study file. [fleet.ENGINE] says where workers run. It is no part of the study,
because no result depends on it; the engine reads it (`tuner/fleet/options.py`)."""

SLIP = 0.75
"""Names more similar to a shared parameter than this may be typos; an objective's rarely are."""

Declared = Callable[[str, Path], Declarations]
"""Finds an objective's declarations, given its name and the folder of the study file."""


class Reader:
    """Reads one document; its faults are collected in `faults`."""

    def __init__(
        self,
        document: Mapping[str, Any],
        origins: Mapping[KeyPath, str],
        overrides: tuple[str, ...],
        path: Path,
    ) -> None:
        self.faults = Faults(document, origins)
        self._document = document
        self._overrides = overrides
        self._folder = path.absolute().parent

    def read(self, declared: Declared) -> Spec | None:
        """Return the study, or None if there are faults."""
        for name in self._document:
            if name not in TABLES:
                self.faults.unknown((name,), "section", TABLES)
        heading = read_section(Heading, "study", self._document, self.faults)
        declarations = self._declarations(declared)
        dimensions = SpaceReader(declarations, self.faults).read(self._table("space"))
        plan = Plan(
            read_section(Budget, "budget", self._document, self.faults),
            read_section(Replicates, "replicates", self._document, self.faults),
            self._search(declarations),
            self._space(dimensions),
            dimensions,
            may_be_empty=bool(self._overrides),
        )
        limits = read_section(Limits, "limits", self._document, self.faults)
        checkpoints = read_section(Checkpoints, "checkpoints", self._document, self.faults)
        values = ValueReader(declarations, self._keys("space"), self.faults)
        fixed = values.read("fixed", self._table("fixed"))
        data = values.read("data", self._table("data"))
        check_plan(plan, self.faults)
        self._check_splits(plan.replicates, declarations)
        if not declarations.whole:
            self._tell_unchecked(declarations)
        if self.faults:
            return None
        assert heading is not None
        assert plan.budget is not None
        assert plan.search is not None
        assert plan.replicates is not None
        assert plan.space is not None
        assert limits is not None
        assert checkpoints is not None
        always = {dimension.name for dimension in plan.space.dimensions if not dimension.when}
        always_data = {name.removeprefix(DATA) for name in always}
        return Spec(
            name=heading.name,
            question=heading.question.strip(),
            objective=heading.objective,
            budget=plan.budget,
            limits=limits,
            checkpoints=checkpoints,
            search=plan.search,
            replicates=plan.replicates,
            space=plan.space,
            fixed=fixed,
            data=data,
            defaults=defaults(declarations.parameters, {*fixed, *always}),
            data_defaults=defaults(declarations.data, {*data, *always_data}),
            overrides=self._overrides,
            metrics=_metrics(plan.search, declarations),
            folder=str(self._folder),
        )

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self._document.get(name, {})
        if isinstance(table, dict):
            return table
        self.faults.add((name,), f"expected a table, got {show(table)}")
        return {}

    def _tell_unchecked(self, declarations: Declarations) -> None:
        """Report which keys could not be checked, and which of them look like typos.

        Without the objective's declarations a typo is only a guess, so it is put as a question.
        """
        names = [
            f"{section}.{name}"
            for section in ("space", "fixed", "data")
            for name in self._keys(section)
            if section == "data" or name not in declarations.parameters
        ]
        if names:
            more = f"Without the objective these were not checked: {', '.join(names)}"
            near = [
                f"{meant[0]} for {section}.{written}"
                for section in ("space", "fixed")
                for written in self._keys(section)
                if written not in declarations.parameters
                and (meant := nearest(written, declarations.parameters, most=1, cutoff=SLIP))
            ]
            if near:
                asked = f"Did you mean {', '.join(near)}, unless your objective declares it?"
                more = f"{asked} {more}"
            self.faults.extend(("study", "objective"), more)

    def _declarations(self, declared: Declared) -> Declarations:
        """Return the objective's declarations, even if other keys of [study] are wrong."""
        study = self._document.get("study")
        name = study.get("objective") if isinstance(study, dict) else None
        if not isinstance(name, str) or not re.fullmatch(OBJECTIVE, name):
            return UNFOUND
        try:
            return declared(name, self._folder)
        except ObjectiveError as error:
            self.faults.add(("study", "objective"), str(error).removesuffix("."))
            return UNFOUND

    def _check_splits(self, replicates: Replicates | None, declarations: Declarations) -> None:
        """Report splits that the objective cannot make, or that the space varies as well."""
        if replicates is None or not declarations.whole or replicates.splits == 1:
            return
        path = ("replicates", "splits")
        if SPLIT_SEED not in declarations.data:
            self.faults.add(
                path,
                f"this objective has only one split into training and validation (no {SPLIT_SEED})",
            )
        if DATA + SPLIT_SEED in self._keys("space"):
            self.faults.add(path, f"{DATA}{SPLIT_SEED} varies in [space] already; leave one out")

    def _search(self, declarations: Declarations) -> Search | None:
        search = read_section(Search, "search", self._document, self.faults)
        if search is None or not self._check_metric(search.metric, declarations):
            return None
        path = ("search", "sampler_options")
        sampler_options = read_options(
            SAMPLERS[search.sampler], search.sampler_options, path, self.faults
        )
        path = ("search", "pruner_options")
        pruner_options = read_options(
            PRUNERS[search.pruner], search.pruner_options, path, self.faults
        )
        path = ("search", "allocator_options")
        allocator_options = read_options(
            ALLOCATORS[search.allocator], search.allocator_options, path, self.faults
        )
        if sampler_options is None or pruner_options is None or allocator_options is None:
            return None
        return replace(
            search,
            # In the order in which they are declared, without repetitions.
            metrics=tuple(name for name in READY if name in search.metrics),
            sampler_options=sampler_options,
            pruner_options=pruner_options,
            allocator_options=allocator_options,
        )

    def _check_metric(self, metric: str, declarations: Declarations) -> bool:
        """Report a metric that is neither built in, nor ready, nor the objective's own."""
        names = [*CHOOSABLE, *(f"val_{name}" for name in declarations.metrics)]
        if metric in names:
            return True
        # Without the objective its metrics are unknown; the missing objective is a fault already.
        if declarations.whole or not metric.startswith("val_"):
            near = suggest(metric, names)
            hint = f"; {near}" if near.startswith("did you mean") else ""
            words = f"expected one of {', '.join(names)}, got {show(metric)}{hint}"
            self.faults.add(("search", "metric"), words)
        return False

    def _space(self, read: tuple[Dimension, ...]) -> Space | None:
        """Return the space if none of its dimensions and conditions has a fault."""
        written = self._keys("space")
        fixed = {*self._keys("fixed"), *(DATA + key for key in self._keys("data"))}
        sound = check_conditions(read, written, fixed, self.faults)
        return Space(read) if sound and len(read) == len(written) else None

    def _keys(self, section: str) -> tuple[str, ...]:
        table = self._document.get(section)
        return tuple(table) if isinstance(table, dict) else ()


def _metrics(search: Search, declarations: Declarations) -> tuple[Metric, ...]:
    """Return the objective's own metrics, then the ready ones that the file names."""
    named = {*search.metrics, search.metric.removeprefix("val_")}
    ready = [metric for name, metric in READY.items() if name in named]
    return (*declarations.metrics.values(), *ready)

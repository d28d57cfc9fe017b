"""Reads a document into a `Spec`, section by section, continuing after every fault."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.errors import ObjectiveError
from tuner.names import nearest
from tuner.records import Value
from tuner.spec.conditions import check_conditions
from tuner.spec.dimensions import SpaceReader
from tuner.spec.faults import Faults, KeyPath, show
from tuner.spec.form import Model, read_section
from tuner.spec.options import read_options
from tuner.spec.parameters import UNFOUND, Declarations
from tuner.spec.plan import Plan, check_plan
from tuner.spec.quantities import parse_bytes, parse_seconds
from tuner.spec.search import PRUNERS, SAMPLERS
from tuner.spec.sections import (
    OBJECTIVE,
    BudgetSection,
    CheckpointsSection,
    LimitsSection,
    ReplicatesSection,
    SearchSection,
    StudyFile,
    StudySection,
)
from tuner.spec.space import Dimension, Space
from tuner.spec.study import (
    DATA,
    SPLIT_SEED,
    Budget,
    Checkpoints,
    Limits,
    Replicates,
    Search,
    Spec,
)
from tuner.spec.values import ValueReader, defaults

SLIP = 0.75
"""Similarity to a shared parameter above which a name may be a typo; an objective's rarely are."""

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
            if name not in StudyFile.model_fields:
                self.faults.unknown((name,), "section", StudyFile.model_fields)
        study = self._section("study", StudySection)
        declarations = self._declarations(declared)
        dimensions = SpaceReader(declarations, self.faults).read(self._table("space"))
        plan = Plan(
            self._budget(),
            self._replicates(),
            self._search(),
            self._space(dimensions),
            dimensions,
            may_be_empty=bool(self._overrides),
        )
        limits, checkpoints = self._limits(), self._checkpoints()
        values = ValueReader(declarations, self._keys("space"), self.faults)
        fixed = values.read("fixed", self._table("fixed"))
        data = values.read("data", self._table("data"))
        check_plan(plan, self.faults)
        self._check_splits(plan.replicates, declarations)
        if not declarations.whole:
            self._tell_unchecked(declarations)
        if self.faults:
            return None
        assert study is not None
        assert limits is not None
        assert checkpoints is not None
        spec = self._spec(study, declarations, plan, limits=limits, fixed=fixed, data=data)
        return replace(spec, checkpoints=checkpoints)

    def _spec(
        self,
        study: StudySection,
        declarations: Declarations,
        plan: Plan,
        *,
        limits: Limits,
        fixed: Mapping[str, Value],
        data: Mapping[str, Value],
    ) -> Spec:
        assert plan.budget is not None
        assert plan.search is not None
        assert plan.replicates is not None
        assert plan.space is not None
        always = {dimension.name for dimension in plan.space.dimensions if not dimension.when}
        return Spec(
            name=study.name,
            question=study.question.strip(),
            objective=study.objective,
            budget=plan.budget,
            limits=limits,
            search=plan.search,
            replicates=plan.replicates,
            space=plan.space,
            fixed=fixed,
            data=data,
            defaults=defaults(declarations.parameters, {*fixed, *always}),
            data_defaults=defaults(
                declarations.data, {*data, *(name.removeprefix(DATA) for name in always)}
            ),
            overrides=self._overrides,
            folder=str(self._folder),
        )

    def _section(self, name: str, model: type[Model]) -> Model | None:
        """Read a section; a missing one is read as empty if that is allowed."""
        required = StudyFile.model_fields[name].is_required()
        if required and name not in self._document:
            keys = [key for key, field in model.model_fields.items() if field.is_required()]
            self.faults.add((name,), f"this section is missing; it needs {', '.join(keys)}")
            return None
        return read_section(model, self._document.get(name, {}), (name,), self.faults)

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self._document.get(name, {})
        if isinstance(table, dict):
            return table
        self.faults.add((name,), f"expected a table, got {show(table)}")
        return {}

    def _tell_unchecked(self, declarations: Declarations) -> None:
        """Report which keys could not be checked, and which of them look like typos.

        The objective's declarations are not known, so a typo is only a question.
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

    def _budget(self) -> Budget | None:
        section = self._section("budget", BudgetSection)
        return None if section is None else Budget(section.trials, section.hours)

    def _limits(self) -> Limits | None:
        section = self._section("limits", LimitsSection)
        if section is None:
            return None
        return Limits(
            silence_seconds=parse_seconds(section.silence),
            attempts=section.attempts,
            memory_bytes=None if section.memory is None else parse_bytes(section.memory),
            threads=section.threads,
        )

    def _checkpoints(self) -> Checkpoints | None:
        section = self._section("checkpoints", CheckpointsSection)
        if section is None:
            return None
        limit = parse_bytes(section.limit)
        return Checkpoints(section.location, section.every, section.keep, limit)

    def _replicates(self) -> Replicates | None:
        section = self._section("replicates", ReplicatesSection)
        if section is None:
            return None
        return Replicates(section.seeds, section.of, section.top, section.splits)

    def _check_splits(self, replicates: Replicates | None, declarations: Declarations) -> None:
        """Report splits that the objective cannot make, or that the space varies as well."""
        if replicates is None or not declarations.whole or replicates.splits == 1:
            return
        path = ("replicates", "splits")
        if SPLIT_SEED not in declarations.data:
            self.faults.add(path, f"the objective divides its data in one way: no {SPLIT_SEED}")
        if DATA + SPLIT_SEED in self._keys("space"):
            self.faults.add(path, f"{DATA}{SPLIT_SEED} varies in [space] already; leave one out")

    def _search(self) -> Search | None:
        section = self._section("search", SearchSection)
        if section is None:
            return None
        sampler, pruner = SAMPLERS[section.sampler], PRUNERS[section.pruner]
        path = ("search", "sampler_options")
        sampler_options = read_options(sampler, section.sampler_options, path, self.faults)
        path = ("search", "pruner_options")
        pruner_options = read_options(pruner, section.pruner_options, path, self.faults)
        if sampler_options is None or pruner_options is None:
            return None
        return Search(
            sampler=section.sampler,
            pruner=section.pruner,
            metric=section.metric,
            at=section.at,
            seed=section.seed,
            sampler_options=sampler_options,
            pruner_options=pruner_options,
            pack=section.pack,
        )

    def _space(self, read: tuple[Dimension, ...]) -> Space | None:
        """Return the space if none of its dimensions and conditions has a fault."""
        written = self._keys("space")
        held = {*self._keys("fixed"), *(DATA + key for key in self._keys("data"))}
        sound = check_conditions(read, written, held, self.faults)
        return Space(read) if sound and len(read) == len(written) else None

    def _keys(self, section: str) -> tuple[str, ...]:
        table = self._document.get(section)
        return tuple(table) if isinstance(table, dict) else ()

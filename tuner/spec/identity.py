"""The identity of a study: a canonical form, its hash, and differences in words.

The path of the data counts as written, wherever the file is. Declared defaults and
the `--set` texts do not count, only the resulting values do.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tuner.records import Value
from tuner.spec.space import Choice, Dimension, When
from tuner.spec.study import Replicates, Spec
from tuner.text import masked

HARMLESS = (
    "study.question",
    "budget.hours",
    "limits.silence_seconds",
    "limits.attempts",
    "limits.memory_bytes",
    "checkpoints.location",
    "checkpoints.every",
    "checkpoints.keep",
    "checkpoints.limit_bytes",
    "search.pack",
)
"""Keys that may change in a running study, because no trial's figures depend on them.

In packs by torch.func the last digits depend on `search.pack`; checkpoints of trials with and
without packs are kept apart, so that no curve mixes the two.
"""

GROWING = ("budget.trials", "replicates.seeds")
"""Keys that may only increase."""


@dataclass(frozen=True)
class Change:
    """A key whose value differs; None means not written."""

    key: str
    stored: Any
    given: Any

    def __str__(self) -> str:
        """Return the change as one line."""
        return masked(f"{self.key}: stored {_words(self.stored)}, given {_words(self.given)}")


@dataclass(frozen=True)
class Difference:
    """How a given study differs from the stored one."""

    changes: tuple[Change, ...]
    extends: bool
    """Whether the given study only adds trials or seeds, or changes keys that affect no result."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.changes


def canonical(spec: Spec) -> dict[str, Any]:
    """Return the identity of a study as JSON, independent of order and number format."""
    search, replicates = spec.search, spec.replicates
    return {
        "study": {"name": spec.name, "question": spec.question, "objective": spec.objective},
        "budget": {"trials": spec.budget.trials, "hours": _number(spec.budget.hours)},
        "limits": {
            "silence_seconds": _number(spec.limits.silence_seconds),
            "attempts": spec.limits.attempts,
            "memory_bytes": spec.limits.memory_bytes,
            "threads": spec.limits.threads,
        },
        "checkpoints": asdict(spec.checkpoints),
        "search": {
            "sampler": search.sampler,
            "pruner": search.pruner,
            "metric": search.metric,
            "at": search.at,
            "seed": search.seed,
            "sampler_options": _values(search.sampler_options),
            "pruner_options": _values(search.pruner_options),
            # Left out if it was not set, as in studies stored before packs existed.
            **({} if search.pack == "auto" else {"pack": search.pack}),
        },
        "replicates": _replicates(replicates),
        "space": {dimension.name: _dimension(dimension) for dimension in spec.space.dimensions},
        "fixed": _values(spec.fixed),
        "data": _values(spec.data),
    }


def fingerprint(spec: Spec) -> str:
    """Return the hash of the study's identity, equal for equivalent files."""
    text = json.dumps(canonical(spec), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def compare(spec: Spec, given: Spec) -> Difference:
    """Return every key that differs, and whether the given study extends the stored one."""
    before, after = _flat(canonical(spec)), _flat(canonical(given))
    changes = tuple(
        Change(key, before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    )
    return Difference(changes, bool(changes) and _extends(spec, given, changes))


def extended(spec: Spec, given: Spec) -> Spec:
    """Return the extended study: the stored settings with the given extent."""
    return replace(
        spec,
        question=given.question,
        budget=given.budget,
        limits=given.limits,
        checkpoints=given.checkpoints,
        search=replace(spec.search, pack=given.search.pack),
        replicates=given.replicates,
        overrides=given.overrides,
    )


def _extends(spec: Spec, given: Spec, changes: tuple[Change, ...]) -> bool:
    growing = [change.key for change in changes if change.key not in HARMLESS]
    if not growing:
        return True
    if any(key not in GROWING for key in growing):
        return False
    return (
        # More seeds out of an unchanged budget would remove explored configurations.
        given.total_trials >= spec.total_trials
        and given.configurations >= spec.configurations
        and given.replicates.seeds >= spec.replicates.seeds
    )


def _replicates(replicates: Replicates) -> dict[str, Any]:
    form = {"seeds": replicates.seeds, "of": replicates.of, "top": replicates.top}
    # Left out if it is 1, so that studies stored before splits existed keep their identity.
    return form if replicates.splits == 1 else {**form, "splits": replicates.splits}


def _dimension(dimension: Dimension) -> dict[str, Any]:
    if isinstance(dimension, Choice):
        form: dict[str, Any] = {"values": [_number(value) for value in dimension.values]}
    else:
        ends = {"low": dimension.low, "high": dimension.high, "step": dimension.step}
        form = {**{key: _number(end) for key, end in ends.items()}, "log": dimension.log}
    return {**form, "when": _when(dimension.when)}


def _when(when: When) -> dict[str, Any]:
    return {
        parent: sorted((_number(value) for value in accepted), key=json.dumps)
        for parent, accepted in when.items()
    }


def _values(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> Any:
    """Return 1.0 as 1, because a database may return either for the other."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flat(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return one entry per key of the file; a dimension of the space is one entry."""
    flat: dict[str, Any] = {}
    for section, keys in form.items():
        for key, value in keys.items():
            if key.endswith("_options"):
                flat |= {f"{section}.{key}.{name}": inner for name, inner in value.items()}
            else:
                flat[f"{section}.{key}"] = value
    return flat


def _words(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        shown = {key: inner for key, inner in value.items() if inner not in ({}, None, False)}
        return "{ " + ", ".join(f"{key} = {_words(inner)}" for key, inner in shown.items()) + " }"
    return json.dumps(value, ensure_ascii=False)

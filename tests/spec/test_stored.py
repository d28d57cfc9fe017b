"""Stored studies keep their meaning: how they are read, and their identity.

`stored.json` holds studies as this or an earlier tuner stored them. It is data: only add to it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tuner.spec.identity import canonical, fingerprint
from tuner.spec.study import Spec

PINNED: list[dict[str, Any]] = json.loads((Path(__file__).parent / "stored.json").read_text())


@pytest.mark.parametrize("pinned", PINNED, ids=lambda pinned: pinned["study"])
def test_a_stored_study_keeps_its_identity(pinned: dict[str, Any]) -> None:
    """A key added later changes neither canonical form nor hash of older studies."""
    spec = Spec.from_json(pinned["stored"])
    form = canonical(spec)
    assert form == pinned["canonical"]
    assert list(form) == list(pinned["canonical"])
    assert fingerprint(spec) == pinned["fingerprint"]


@pytest.mark.parametrize("pinned", PINNED, ids=lambda pinned: pinned["study"])
def test_a_stored_study_is_stored_again_as_it_was(pinned: dict[str, Any]) -> None:
    """Every key that was stored comes back with its value, so that an older tuner can read it."""
    again = json.loads(json.dumps(Spec.from_json(pinned["stored"]).to_json()))
    assert part(again, pinned["stored"]) == pinned["stored"]


@pytest.mark.parametrize("section", ["search.pack", "replicates.splits", "checkpoints"])
def test_a_study_stored_before_a_key_existed_has_its_default(section: str) -> None:
    """A study stored before a key existed has the identity of the same file read today."""
    pinned = next(each for each in PINNED if each["study"] == "shipped lr_sched")
    *path, key = section.split(".")
    older = json.loads(json.dumps(pinned["stored"]))
    del (older[path[0]] if path else older)[key]
    assert fingerprint(Spec.from_json(older)) == pinned["fingerprint"]


def part(form: Any, of: Any) -> Any:
    """Return a form, without keys that another form lacks."""
    if isinstance(form, dict) and isinstance(of, dict):
        return {key: part(value, of[key]) for key, value in form.items() if key in of}
    if isinstance(form, list) and isinstance(of, list) and len(form) == len(of):
        return [part(*pair) for pair in zip(form, of, strict=True)]
    return form

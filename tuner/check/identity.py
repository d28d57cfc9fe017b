"""Identifies the code and data with which a study would be trained now, in a child process.

Normally it works without torch: it follows the objective's imports and loads only its
data. With `whole` it also loads the objective's models, as a trainer does, and so sees
imports that happen only when they run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tuner.questions import Body, Checker, Progress, serve
from tuner.records import DataIdentity, Identity, Value
from tuner.train import code
from tuner.train.identity import content, data_identity, identity
from tuner.train.objective import find


def identify(
    objective: str,
    data: Sequence[Mapping[str, Value]],
    checker: Checker,
    *,
    whole: bool,
) -> list[Identity]:
    """Return the identity that trials would have now, for each set of [data] keys."""
    work = {
        "objective": objective,
        "data": [dict(keys) for keys in data],
        "whole": whole,
    }
    found = checker.ask("tuner.check.identity", work)
    return [Identity(**{**one, "data": DataIdentity(**one["data"])}) for one in found["identities"]]


def _work(body: Body, progress: Progress) -> Body:
    found = find(body["objective"], [Path(folder) for folder in body["folders"]])
    loaded = []
    for keys in body["data"]:
        data = found.load_data(keys, Path(body["cache"]), progress)
        loaded.append(data_identity(data, keys, content(data)))
    runs = found.code() if body["whole"] else code.identify(found.name, found.folder)
    return {"identities": [asdict(identity(runs, data)) for data in loaded]}


def main(_arguments: Sequence[str]) -> int:
    """Do the work that standard input describes."""
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))

"""Imports an objective's data and models in a child process, to see whether that works."""

from collections.abc import Sequence
from pathlib import Path

from tuner.questions import Body, Progress, ask, paths, serve
from tuner.spec.study import Spec
from tuner.train.objective import find


def check_code(spec: Spec, folders: Sequence[Path]) -> None:
    """Raise an ObjectiveError if the objective's modules cannot be imported as they are.

    They import torch and are other people's code, so they run in a process without the password.
    """
    work = {"objective": spec.objective, "folders": paths(folders)}
    ask("tuner.check.code", work, lambda *_: None, "imported the objective")


def _work(body: Body, _progress: Progress) -> Body:
    found = find(body["objective"], [Path(folder) for folder in body["folders"]])
    found.check_modules()
    return {}


def main(_arguments: Sequence[str]) -> int:
    """Do the work that standard input describes."""
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))

"""Loads an objective and builds its model as a trainer would, and prints which code that was.

    code_process.py PLACE [STEP ...]

A step `edit:FILE:FROM:TO` changes a file below PLACE; `begin:HIDDEN` builds a model, after
which one line of JSON comes. torch is loaded only if the objective does it.
"""

import json
import sys
from pathlib import Path

from tuner.train.objective import find, source_fingerprint


def main(place: Path, steps: list[str]) -> None:
    """Take the steps one after another."""
    for step in steps:
        what, *of = step.split(":")
        if what == "edit":
            path = place / of[0]
            path.write_text(path.read_text().replace(of[1], of[2]))
            continue
        found = find("blobs", [place / "objectives"])
        found.build_model({"hidden": int(of[0])}, (1, 6, 6), 2)
        code = found.code()
        told: dict[str, object] = {"files": dict(code.files), "packages": dict(code.packages)}
        told |= {"doubts": code.doubts, "key": source_fingerprint(found)}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

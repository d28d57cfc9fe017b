"""A child that answers a question, forked into the folder and module path of its parent."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tuner.forkserver import ForkedProcess, ForkServer, Program
from tuner.processes import Streams


class Here(ForkServer):
    """A server whose forks run in this process's current folder, as an executed child would."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server

    def fork(
        self, program: Program, environment: Mapping[str, str], streams: Streams
    ) -> ForkedProcess:
        """Fork a program into the current folder."""
        words = (str(Path.cwd()), program.module, *program.arguments)
        inside = replace(program, module=__name__, arguments=words)
        return self._server.fork(inside, environment, streams)


def searched(environment: Mapping[str, str]) -> list[str]:
    """Return the folders that PYTHONPATH names."""
    return [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]


def enter(folder: str) -> None:
    """Be in a folder, with the module path of the environment, as an executed child would be."""
    sys.path[:0] = [one for one in searched(os.environ) if one not in sys.path]
    os.chdir(folder)


def main(arguments: Sequence[str]) -> int:
    """Run the program, in a fork."""
    folder, module, *words = arguments
    enter(folder)
    code: int = importlib.import_module(module).main(words)
    return code

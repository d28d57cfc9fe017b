"""Runs a module of this package as a program.

    python -P .../tuner/start.py MODULE ARGUMENTS...

See `tuner.processes`, which builds that command.
"""

import importlib.util
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Load the package that contains this file, not another of its name, and run the module."""
    init = Path(__file__).resolve().with_name("__init__.py")
    spec = importlib.util.spec_from_file_location("tuner", init)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["tuner"] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

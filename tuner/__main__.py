"""The command `tuner`."""

import os
import sys


def main() -> None:
    """Run the command line."""
    from tuner.cli.main import run
    from tuner.ending import leave

    leave(run())


def _leave_out_this_folder() -> None:
    """Remove the working folder from the import path, where `python -m tuner` put it.

    A `numpy.py` there is the user's experiment, not what we mean to import. If this package
    itself is in that folder, the entry stays, because that is how we were found.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    if not sys.flags.safe_path and sys.path[0] != ours:
        del sys.path[0]


if __name__ == "__main__":
    _leave_out_this_folder()
    main()

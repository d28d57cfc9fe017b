"""The command `tuner`."""

import os
import sys


def main() -> None:
    """Run the command line."""
    from tuner.cli.main import run

    sys.exit(run())


def _leave_out_this_folder() -> None:
    """Take the folder one stands in off the path of imports, where `python -m tuner` put it.

    A `numpy.py` lying there is somebody's experiment, not what we import. In the
    folder that this package lies in it stays: there it is how we were found.
    """
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    if not sys.flags.safe_path and sys.path[0] != ours:
        del sys.path[0]


if __name__ == "__main__":
    _leave_out_this_folder()
    main()

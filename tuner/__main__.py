"""The command `tuner`."""

import sys


def main() -> None:
    """Run the command line."""
    from tuner.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()

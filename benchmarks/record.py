"""The recorded figures: docs/benchmarks.json, from which tables and chart are made.

Every benchmark takes `--json` (print figures, not tables) and `--record` (keep them
there, with the machine, the versions and the command). `python -m benchmarks.tables`
then renders docs/benchmarks.md, the chart and the README's lines from the record.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORD = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.json"
PACKAGES = ("torch", "optuna", "lightning", "ray")


def parser(text: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help is a module's docstring, with `--json` and `--record`."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", action="store_true", help="print the figures as JSON, no tables")
    made.add_argument(
        "--record",
        nargs="?",
        type=Path,
        const=RECORD,
        metavar="FILE",
        help="keep the figures in FILE (docs/benchmarks.json)",
    )
    return made


def finish(
    options: argparse.Namespace,
    section: str,
    figures: Mapping[str, Any],
    lines: Sequence[str],
    after: str | None = None,
) -> None:
    """Print the measurements, as tables or as JSON, and record them on request.

    If figures of an earlier command are among them, name that command as `after`.
    """
    print(json.dumps(figures) if options.json else "\n".join(lines), flush=True)
    if options.record is not None:
        write(options.record, section, figures, after)


def progress(text: str) -> None:
    """Report progress on standard error; standard output is for the figures."""
    print(text, file=sys.stderr, flush=True)


def read(path: Path = RECORD) -> dict[str, Any]:
    """Return all recorded sections; an empty record if there are none yet."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write(path: Path, section: str, figures: Mapping[str, Any], after: str | None = None) -> None:
    """Replace one section of the record; the others stay."""
    body = read(path)
    command = " ".join(["python -m", f"benchmarks.{section}", *_arguments()])
    if after is not None:
        command = f"{after}; {command}"
    body[section] = {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": command,
        "machine": machine(),
        "figures": figures,
    }
    text = json.dumps(dict(sorted(body.items())), indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def machine() -> dict[str, str | int]:
    """Describe the machine and versions, on which the figures depend."""
    found: dict[str, str | int] = {
        "cores": os.cpu_count() or 1,
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _arguments() -> list[str]:
    kept = [word for word in sys.argv[1:] if word not in ("--json", "--record")]
    return [word for word in kept if not word.startswith("/")]

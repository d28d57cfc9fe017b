"""Vendored scripts are pinned, unchanged, licensed, and small."""

import gzip
import hashlib
from pathlib import Path

import pytest

from tuner.dashboard.assets import FOLDER

VENDOR = FOLDER / "vendor"
AXE = Path(__file__).parent / "axe"
"""A tool of the tests; no page loads it."""
COMPRESSED_MOST = 100_000


def scripts() -> list[Path]:
    """Return all scripts that a page loads."""
    return sorted(FOLDER.rglob("*.js"))


@pytest.mark.parametrize(
    ("folder", "ours"), [(VENDOR, {"SHA256SUMS", "VERSIONS"}), (AXE, {"SHA256SUMS"})]
)
def test_vendored_files_are_those_of_their_releases(folder: Path, ours: set[str]) -> None:
    """Every vendored file has the checksum of its release."""
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    pairs = [line.split("  ", 1) for line in lines if not line.startswith("#")]
    sums = {name: expected for expected, name in pairs}
    files = {path.name for path in folder.iterdir()} - ours
    assert files == set(sums)
    for name, expected in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected, name


def test_each_library_has_its_licence_and_version() -> None:
    """Each vendored library has its licence and names its release."""
    versions = (VENDOR / "VERSIONS").read_text()
    for library in ("htmx", "uPlot"):
        assert (VENDOR / f"{library}.LICENSE").stat().st_size > 100
        assert library in versions


def test_all_scripts_are_small_and_need_no_eval() -> None:
    """All scripts together are below 100 kB compressed; ours build no code from text."""
    total = sum(len(gzip.compress(path.read_bytes(), 9)) for path in scripts())
    assert 0 < total < COMPRESSED_MOST
    for path in scripts():
        if path.parent != VENDOR:
            text = path.read_text()
            assert "eval(" not in text
            assert "innerHTML" not in text
            assert "http://" not in text
            assert "https://" not in text

"""A study written back as a file means the same study."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.spec.conftest import STUDY, TPE, Read
from tuner.cli import options
from tuner.spec.identity import compare, fingerprint
from tuner.spec.quantities import parse_bytes, parse_seconds, write_bytes, write_seconds
from tuner.spec.study_ref import StudyRef
from tuner.spec.writing import as_toml

SHIPPED = sorted(path for path in (Path(__file__).parents[2] / "studies").glob("*.toml"))
EVERYTHING = (
    STUDY
    + TPE
    + '[limits]\nsilence = "90.5s"\nattempts = 5\nmemory = "3GB"\nthreads = 2\n'
    + '[checkpoints]\nlocation = "s3://bucket/a \\"b\\""\nevery = 3\nkeep = "last"\nlimit = "7MB"\n'
    + "[replicates]\nseeds = 2\n"
    + '[space]\nlr = { low = 1e-5, high = 1e-1, log = true }\nscheduler = ["step", "cosine"]\n'
    + 'step_size = { values = [5, 6], when = { scheduler = ["step", "cosine"] } }\n'
    + '"data.image_size" = [32, 64]\n'
    + "[fixed]\ndropout = 0\nepochs = 3\n"
)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_survives_being_written(path: Path, tmp_path: Path) -> None:
    """Read, written and read again: not one key differs."""
    spec = options.StudyFile.find(StudyRef.parse(str(path))).read()
    file = tmp_path / "studies" / path.name
    file.parent.mkdir()
    file.write_text(as_toml(spec))
    again = options.StudyFile.find(StudyRef.parse(str(file))).read()
    assert compare(spec, again).changes == ()
    assert fingerprint(again) == fingerprint(spec)


@pytest.mark.parametrize(
    "override",
    [
        'study.question=A "quoted"\\n question – with ümlauts\x7f',
        "lr=[1e-3, 2]",
        "budget.hours=2.5",
    ],
)
def test_every_section_survives_being_written(read: Read, override: str) -> None:
    """Durations, sizes, conditions, data keys that vary, signs in texts."""
    spec = read(EVERYTHING, [override])
    written = as_toml(spec)
    assert compare(spec, read(written)).changes == ()
    # An override is in the written file, and need not be repeated.
    assert read(written).overrides == ()


@given(st.integers(1, 2**50))
def test_every_size_is_written_as_what_it_is(size: int) -> None:
    """A size is written exactly, also if no unit divides it."""
    assert parse_bytes(write_bytes(size)) == size


@given(st.integers(1, 10**6), st.sampled_from((1.0, 0.5, 0.25, 60.0)))
def test_every_duration_is_written_as_what_it_is(count: int, unit: float) -> None:
    """A duration is written exactly, from minutes to parts of a second."""
    assert parse_seconds(write_seconds(count * unit)) == count * unit

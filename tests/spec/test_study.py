"""A study's trials, and its conversion to JSON and back."""

import json
from pathlib import Path

import pytest

from tests.spec.conftest import GRID, RATES, STUDY, TPE, Read
from tuner.errors import DatabaseError, DatabaseNewerError
from tuner.spec.study import Limits, Spec

WHOLE = (
    STUDY
    + TPE
    + 'pruner = "asha"\nmetric = "val_auc"\nat = "last"\nseed = 4\n'
    + "[search.pruner_options]\nmin_resource = 2\n"
    + '[limits]\nsilence = "1.5m"\nmemory = "2GiB"\nthreads = 2\nattempts = 5\n'
    + "[replicates]\nseeds = 2\n"
    + '[space]\nscheduler = ["cosine", "step"]\nlr = { low = 1e-4, high = 1, log = true }\n'
    + 'step_size = { low = 10, high = 20, step = 10, when = { scheduler = "step" } }\n'
    + '"data.shift" = [0, 1]\n'
    + "[fixed]\ndropout = 0\nepochs = 3\n"
    + '[data]\npath = "images"\n'
)


def test_every_section_arrives(read: Read) -> None:
    """Each section of the file arrives in the study, in the study's units."""
    spec = read(WHOLE)
    assert spec.limits == Limits(90.0, 5, 2 * 2**30, 2)
    assert (spec.search.metric, spec.search.at, spec.search.seed) == ("val_auc", "last", 4)
    assert spec.varied == ("scheduler", "lr", "step_size", "data.shift")
    assert spec.fixed_names == ("dropout", "epochs")
    assert (spec.total_trials, spec.configurations) == (20, 10)


def test_options_are_complete(read: Read) -> None:
    """Defaults of the sampler and the pruner are resolved when the file is read."""
    search = read(WHOLE).search
    assert search.pruner_options["reduction_factor"] == 4
    assert search.sampler_options["n_startup_trials"] == 10
    assert search.pruner_options["min_resource"] == 2


def test_an_option_without_default_stays_absent(read: Read) -> None:
    """An option without default stays absent."""
    text = STUDY + TPE + 'pruner = "threshold"\npruner_options = { upper = 1 }\n' + RATES
    options = read(text).search.pruner_options
    assert options == {"upper": 1.0, "warmup": 0, "interval": 1}


def test_whole_numbers_become_floats_where_the_parameter_is_one(read: Read) -> None:
    """1 and 1.0 are the same value of a float parameter, wherever it is set."""
    spec = read(WHOLE)
    scheduler, lr, step_size, shift = spec.space.dimensions
    assert repr(spec.fixed["dropout"]) == "0.0"
    assert repr(spec.fixed["epochs"]) == "3"
    assert repr(shift) == "Choice(name='data.shift', values=(0.0, 1.0), when={})"
    assert "high=1.0" in repr(lr)
    assert "low=10, high=20" in repr(step_size)
    assert scheduler.when == {}


def test_a_job_has_every_parameter(read: Read) -> None:
    """Chosen values override fixed ones, and those override defaults; data keys go to data."""
    job = read(WHOLE).job({"scheduler": "step", "lr": 0.5, "data.shift": 0.0}, seed=7)
    assert job.parameters["scheduler"] == "step"
    assert job.parameters["lr"] == 0.5
    assert job.parameters["dropout"] == 0.0
    assert job.parameters["optimizer"] == "adam"
    assert job.parameters["step_size"] == 10, "an inactive dimension has its declared default"
    assert job.data["shift"] == 0.0
    assert job.data["source"] == "phantom"
    assert (job.seed, job.metric, job.objective) == (7, "val_auc", "chest_xray")
    assert not [name for name in job.parameters if name.startswith("data.")]


def test_a_relative_path_starts_at_the_study_file(read: Read, tmp_path: Path) -> None:
    """The folder in which a worker starts does not matter; addresses and absolute paths stay."""
    assert read(WHOLE).job({}, 0).data["path"] == str(tmp_path / "images")
    for path in ("/images", "s3://bucket/images"):
        spec = read(STUDY + GRID + RATES + f'[data]\npath = "{path}"\n')
        assert spec.job({}, 0).data["path"] == path
    assert read(STUDY + GRID + RATES).job({}, 0).data["path"] == ""


def test_a_study_survives_json_whole(read: Read) -> None:
    """A worker on another machine restores the same study without the file."""
    spec = read(WHOLE, ["budget.trials=40"])
    again = Spec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.overrides == ("budget.trials=40",)
    assert repr(again) == repr(spec), "ints stay ints and floats floats"


def test_a_newer_form_is_refused(read: Read) -> None:
    """A study stored by a newer tuner is refused."""
    with pytest.raises(DatabaseNewerError, match=r"format 99.*Upgrade"):
        Spec.from_json({**read(WHOLE).to_json(), "format": 99})


def test_a_damaged_form_is_told() -> None:
    """A damaged stored study is reported as a fault of the database."""
    with pytest.raises(DatabaseError, match="stored study cannot be read"):
        Spec.from_json({"format": 1, "name": "small"})


def counted(head: str, replicates: str = "") -> str:
    """Return a study of 2 × 3 combinations."""
    return f"{STUDY}{head}[space]\nlr = [1, 2]\ndepth = [1, 2, 3]\n{replicates}"


@pytest.mark.parametrize(
    ("text", "total", "configurations"),
    [
        (counted(GRID), 6, 6),
        (counted(GRID, "[replicates]\nseeds = 5\n"), 30, 6),
        (counted("[budget]\ntrials = 4\n", "[replicates]\nseeds = 2\n"), 4, 2),
        (counted("[budget]\ntrials = 30\n", "[replicates]\nseeds = 5\n"), 30, 6),
        (counted(GRID, '[replicates]\nof = "top"\ntop = 2\nseeds = 5\n'), 14, 6),
        (counted(TPE, '[replicates]\nof = "top"\ntop = 2\nseeds = 5\n'), 20, 12),
        (counted(TPE, "[replicates]\nseeds = 4\n"), 20, 5),
        (STUDY + GRID + "[replicates]\nseeds = 5\n", 5, 1),
    ],
)
def test_trials_and_configurations_are_counted(
    read: Read, text: str, total: int, configurations: int
) -> None:
    """Seeds multiply configurations; with `top` only the contenders are replicated."""
    spec = read(text)
    assert (spec.total_trials, spec.configurations) == (total, configurations)

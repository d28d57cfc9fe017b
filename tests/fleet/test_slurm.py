"""Pilots on a real Slurm: whatever happens to their elements, the study ends exact."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.faults.proof import assert_as_undisturbed, assert_whole, kinds
from tests.faults.scenery import Scene, Sizes
from tests.harness.processes import until
from tests.harness.slurm import LONGEST_ARRAY, Cluster
from tests.store.specs import Bench
from tests.train.blobs import PAUSE
from tuner.errors import MachineError, UserError
from tuner.fleet import slurm
from tuner.fleet.contract import Crew
from tuner.fleet.replacements import Replacements
from tuner.fleet.slurm import ENGINE, NO_ACCIDENTS, SlurmFleet, read_seconds
from tuner.fleet.slurm_script import SharedFiles, SlurmOptions, pilot_script, probe_script
from tuner.settings import Settings
from tuner.store import tables as t

EXPECTED = Path(__file__).parent / "expected"
SIZES = Sizes(rates=(1e-3, 1e-2), seeds=2, epochs=40, attempts=1)
"""One attempt only: no action of Slurm may count as a fault of the trial."""
LONG = Sizes(rates=(1e-3, 1e-2), seeds=2, epochs=2000, attempts=1)
OPTIONS = SlurmOptions(
    partition="gpu",
    account="lab",
    constraint="a100|h100",
    time=3 * 3600.0,
    gpus="a100:1",
    cpus=4,
    memory="16G",
    setup=("module load cuda/12.4",),
    container="apptainer exec --nv tuner.sif",
    options=("--exclude=n[3-4]", "--comment=a study of rates"),
)
PLACE = SharedFiles(
    "/home/ada/.tuner",
    "/home/ada/.tuner/fleet/lr@1-0a1b",
    "/home/ada/.tuner/fleet/lr@1-0a1b/password",
    "lab",
)


class Fleets:
    """Fleets on the tests' cluster, each ended with its test."""

    def __init__(self, scene: Scene, cluster: Cluster) -> None:
        self.scene = scene
        self.cluster = cluster
        self.made: list[SlurmFleet] = []

    def start(
        self, workers: int, limits: Replacements = NO_ACCIDENTS, **options: Any
    ) -> SlurmFleet:
        """Start a fleet on the scene's study."""
        crew = Crew(
            "small@1",
            workers=workers,
            device="cpu",
            folders=(self.scene.blobs.folder,),
            options=ENGINE.options(options),
        )
        made = ENGINE.fleet(self.scene.settings, crew)
        fleet = SlurmFleet(self.scene.settings, crew, made.handle(), limits)
        self.made.append(fleet)
        fleet.start()
        return fleet

    def elements(self, fleet: SlurmFleet) -> dict[str, str]:
        """Return the state of each element by its name."""
        jobs = ",".join(map(str, fleet.handle()["jobs"]))
        words = ("squeue", "--noheader", "--array", "--states=all", f"--jobs={jobs}")
        out = self.cluster.run(*words, "--format=%F_%K %T")
        return dict(line.split() for line in out.splitlines())

    def restarts(self, fleet: SlurmFleet) -> int:
        """Return how often the elements were requeued in total."""
        words = ("scontrol", "--oneliner", "show", "job")
        shown = [self.cluster.run(*words, str(job)) for job in fleet.handle()["jobs"]]
        return sum(map(int, re.findall(r" Restarts=(\d+)", "".join(shown))))

    def finish(self, fleet: SlurmFleet) -> None:
        """Wait until no element is left, and check that none has given up."""
        until(lambda: fleet.running() == 0, "no element is left", seconds=240)
        assert fleet.failures() == [], self.said(fleet)

    def said(self, fleet: SlurmFleet) -> str:
        """Return the pilots' output."""
        logs = sorted(Path(fleet.handle()["folder"]).glob("*.log"))
        return "\n".join(f"{log.name}\n{log.read_text()}" for log in logs)


@pytest.fixture
def fleets(
    settings: Settings,
    scene: Scene,
    cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Fleets]:
    """Return a scene, and fleets on the cluster, ended with the test."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PAUSE, "0.02")
    monkeypatch.setattr(slurm, "LOOK_SECONDS", 0.5)
    fleets = Fleets(scene, cluster)
    yield fleets
    cluster.clear()


def epochs(bench: Bench, count: int) -> None:
    """Wait until this many epochs are stored."""
    until(lambda: len(bench.rows(t.epoch)) >= count, f"{count} epochs", seconds=120)


@pytest.mark.parametrize("kind", ["pilot", "probe"])
def test_scripts_are_as_they_were(kind: str) -> None:
    """The batch scripts are a function of the options; review any change of them."""
    arguments = ("lr@1", "--device", "auto")
    environment = {"TUNER_DATABASE_URL": "postgresql://ada@db.lab/tuner"}
    write = {"pilot": pilot_script, "probe": probe_script}[kind]
    text = write("lr@1", arguments, OPTIONS, environment, PLACE)
    expected = EXPECTED / f"slurm-{kind}.sh"
    if os.environ.get("GOLDEN") == "write":
        expected.write_text(text)
    assert text == expected.read_text()
    checked = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=True)
    assert checked.stderr == ""


def test_a_study_is_trained_to_its_end_and_shows_no_password(fleets: Fleets) -> None:
    """Workers beyond the maximal array size get several arrays; all end with the study."""
    bench = fleets.scene.launch(SIZES)
    fleet = fleets.start(LONGEST_ARRAY + 1)
    assert len(fleet.handle()["jobs"]) == 2
    epochs(bench, 1)
    folder = Path(fleet.handle()["folder"])
    secret = (folder / "password").read_text().strip()
    assert (folder / "password").stat().st_mode & 0o777 == 0o600
    shown = fleets.cluster.run("scontrol", "show", "job", "--details")
    assert "tuner-small@1" in shown
    processes = Path("/proc").glob("[0-9]*/cmdline")
    lines = [one.read_bytes().decode(errors="replace") for one in processes if one.exists()]
    assert any("--lifetime" in line for line in lines)
    for text in (shown, (folder / "pilot.sh").read_text(), json.dumps(fleet.handle()), *lines):
        assert secret not in text
    fleets.finish(fleet)
    assert set(fleets.elements(fleet).values()) == {"COMPLETED"}
    assert_whole(bench)
    # The fleet was not closed: the last of its elements has removed the password.
    assert not (folder / "password").exists()


def test_preempted_pilots_give_their_trials_back_and_return(fleets: Fleets) -> None:
    """A job in a higher partition takes both nodes; preempted elements continue after it, exact."""
    bench = fleets.scene.launch(SIZES)
    fleet = fleets.start(1)
    epochs(bench, 8)
    fleets.cluster.run(
        "sbatch", "--partition=high", "--nodes=2", "--ntasks=8", "--output=/dev/null",
        "--wrap=sleep 1",
    )  # fmt: skip
    until(lambda: "PENDING" in fleets.elements(fleet).values(), "an element was preempted")
    fleets.finish(fleet)
    assert fleets.restarts(fleet) >= 1
    assert kinds(bench)["lost"] == 0, fleets.said(fleet)
    assert_whole(bench)
    assert_as_undisturbed(bench, fleets.scene.blobs)


def test_a_time_limit_in_the_middle_of_a_trial_costs_nothing(
    fleets: Fleets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial longer than the time limit is trained in parts by elements that are requeued."""
    monkeypatch.setenv(PAUSE, "0.1")
    bench = fleets.scene.launch(Sizes(rates=(1e-3,), epochs=40, attempts=1))
    fleet = fleets.start(1, time="1m", signal="30s")
    fleets.finish(fleet)
    assert fleets.restarts(fleet) >= 1
    assert kinds(bench)["lost"] == 0, fleets.said(fleet)
    assert_whole(bench)
    assert_as_undisturbed(bench, fleets.scene.blobs)


def test_a_cancelled_element_stays_away_and_a_lost_node_is_left(fleets: Fleets) -> None:
    """scancel ends an element for good; a dead node's elements run on another node."""
    bench = fleets.scene.launch(SIZES)
    fleet = fleets.start(2)
    until(lambda: len(bench.rows(t.worker)) == 2, "both work", seconds=120)
    epochs(bench, 4)
    names = sorted(fleets.elements(fleet))
    fleets.cluster.run("scancel", names[0])
    until(lambda: fleet.running() == 1, "the cancelled element is gone")
    where = ("squeue", "--noheader", f"--jobs={names[1]}", "--format=%N")
    fleets.cluster.node(fleets.cluster.run(*where).strip(), "down")
    fleets.finish(fleet)
    assert fleets.elements(fleet)[names[0]] == "CANCELLED"
    assert_whole(bench)
    assert_as_undisturbed(bench, fleets.scene.blobs)


def test_a_drained_node_is_left_at_the_end_of_a_lifetime(fleets: Fleets) -> None:
    """An element on a drained node continues; requeued, it runs on another node."""
    bench = fleets.scene.launch(Sizes(rates=(1e-3,), epochs=80, attempts=1))
    fleet = fleets.start(1)
    epochs(bench, 4)
    (name,) = fleets.elements(fleet)
    where = ("squeue", "--noheader", f"--jobs={name}", "--format=%N")
    node = fleets.cluster.run(*where).strip()
    fleets.cluster.node(node, "drain")
    before = len(bench.rows(t.epoch))
    epochs(bench, before + 4)
    fleets.cluster.run("scancel", "--batch", "--signal=TERM", name)
    until(lambda: fleets.cluster.run(*where).strip() not in ("", node), "it runs elsewhere")
    fleets.finish(fleet)
    assert_whole(bench)
    assert_as_undisturbed(bench, fleets.scene.blobs)


def test_a_fleet_is_scaled_and_stopped_from_elsewhere(fleets: Fleets) -> None:
    """Another process scales a fleet by its handle, and stops it with every trial given back."""
    bench = fleets.scene.launch(LONG)
    started = fleets.start(1)
    epochs(bench, 2)
    handle = json.loads(json.dumps(started.handle()))
    fleet = ENGINE.again(fleets.scene.settings, started._crew, handle)
    fleet.scale(2)
    until(lambda: fleet.running() == 2, "two are there")
    fleet.scale(1)
    until(lambda: fleet.running() == 1, "one is left")
    fleet.ask_to_stop()
    until(lambda: fleet.running() == 0, "none is left")
    assert bench.state() == "open"
    assert {row.state for row in bench.rows(t.lease)} <= {"released", "ended"}
    assert kinds(bench)["lost"] == 0


def test_pilots_that_die_young_are_given_up(fleets: Fleets) -> None:
    """A command that crashes at once is tried a few times, and then reported."""
    limits = Replacements(limit=2)
    fleet = fleets.start(1, limits, command="sh -c 'echo no tuner here; exit 9' --")
    until(lambda: fleet.running() == 0, "it was given up")
    said = "\n".join(fleet.failures())
    assert "no tuner here" in said
    assert "with exit code 9" in said
    assert fleets.restarts(fleet) == 1


def test_elements_that_will_never_start_are_told(fleets: Fleets) -> None:
    """A time limit above the partition's is reported, not waited for."""
    fleet = fleets.start(1, partition="short", time="2h")
    until(lambda: fleet.running() == 1 and bool(fleet.failures()), "it was told")
    assert fleet.failures()[0].startswith("Slurm does not start 1 of the workers: PartitionTime")


def test_what_slurm_refuses_is_told_in_its_words(fleets: Fleets) -> None:
    """A partition that does not exist is a MachineError with sbatch's message."""
    with pytest.raises(MachineError, match="invalid partition"):
        fleets.start(1, partition="nowhere")


def test_a_machine_without_slurm_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without sbatch the message says where to launch."""
    monkeypatch.setenv("PATH", "/nowhere")
    fleet = ENGINE.fleet(settings, Crew("small@1"))
    with pytest.raises(UserError, match="login node"):
        fleet.start()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"partitoin": "gpu"}, "partitoin: there is no such option; did you mean partition?"),
        ({"time": "soon"}, 'time: expected a duration such as "90s"'),
        ({"time": "4m", "signal": "3m"}, "signal must leave at least half"),
        ({"cpus": "many"}, "cpus: Input should be a valid integer"),
    ],
)
def test_options_that_make_no_sense_are_told(given: Mapping[str, Any], words: str) -> None:
    """A misspelt or impossible option is a UserError that names it."""
    with pytest.raises(UserError, match=re.escape(words)):
        ENGINE.options(given)


def test_options_are_read_from_text_as_from_a_file() -> None:
    """Options given as text mean the same as in TOML."""
    text = {"gpus": "1", "time": "90m", "options": "--exclude=n1 '--comment=a b'"}
    toml = {"gpus": 1, "time": "90m", "options": ["--exclude=n1", "--comment=a b"]}
    assert ENGINE.options(text) == ENGINE.options(toml)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:05", 5), ("12:34", 754), ("1:02:03", 3723), ("2-01:00:00", 176400), ("INVALID", 0)],
)
def test_times_of_squeue_are_read(text: str, seconds: float) -> None:
    """squeue's times are MM:SS, HH:MM:SS and with days."""
    assert read_seconds(text) == seconds

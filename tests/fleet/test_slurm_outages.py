"""A Slurm that misbehaves, simulated by stand-ins for its commands."""

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.store.specs import Bench, make_spec
from tuner import home as home_folder
from tuner.errors import MachineError, UserError
from tuner.fleet import tending
from tuner.fleet.contract import Crew
from tuner.fleet.slurm import ENGINE, SlurmFleet
from tuner.fleet.slurm_script import SharedFiles, SlurmOptions, pilot_script
from tuner.fleet.tending import TendedFleet
from tuner.settings import Settings, Timing
from tuner.store import fleets
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.fleets import Launcher

AWAY = 'echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1'
Commands = Callable[..., Path]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Return a function that replaces Slurm's commands by shell lines and logs each call."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(**lines: str) -> Path:
        for name, line in lines.items():
            (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >>{calls}\n{line}\n')
            (folder / name).chmod(0o755)
        return calls

    put(squeue=AWAY, scancel=AWAY, scontrol=AWAY, sbatch=AWAY)
    return put


def again(tmp_path: Path, **handle: object) -> SlurmFleet:
    """Return a fleet of one array, as found by another process."""
    (tmp_path / "password").write_text("secret\n")
    body = {"folder": str(tmp_path), "jobs": [5], "leaving": [], "left": [], "accidents": 0}
    settings = Settings(home=tmp_path, timing=Timing(give_back=0.1))
    fleet = ENGINE.again(settings, Crew("lr@1"), {**body, "messages": [], **handle})
    assert isinstance(fleet, SlurmFleet)
    return fleet


def test_a_controller_that_is_away_ends_no_fleet(commands: Commands, tmp_path: Path) -> None:
    """Without any answer yet this is an error; otherwise the last answer counts."""
    with pytest.raises(MachineError, match="controller does not answer"):
        again(tmp_path).running()
    commands(squeue="echo '5|0|RUNNING|1:00|None'")
    fleet = again(tmp_path)
    assert fleet.running() == 1
    commands(squeue=AWAY)
    fleet._looked = float("-inf")
    assert fleet.running() == 1


def test_another_cluster_or_person_is_refused(commands: Commands, tmp_path: Path) -> None:
    """Job numbers of another cluster or user are refused: nothing is counted or cancelled."""
    calls = commands(
        scontrol="echo 'ClusterName             = here'",
        squeue='echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1',
    )
    with pytest.raises(UserError, match="login node of there"):
        again(tmp_path, cluster="there").ask_to_stop()
    with pytest.raises(UserError, match="user with number"):
        again(tmp_path, cluster="here", user=os.geteuid() + 1).ask_to_stop()
    assert "scancel" not in calls.read_text()
    assert again(tmp_path, cluster="here", user=os.geteuid()).running() == 0


def test_arrays_that_were_submitted_stay_in_the_handle(commands: Commands, tmp_path: Path) -> None:
    """If the second array and cancelling the first both fail, the first stays in the handle."""
    commands(
        scontrol="echo 'ClusterName = here'",
        squeue="echo '5|0|RUNNING|1:00|None'",
        sbatch=f"[ ! -e {tmp_path}/one ] || exit 1; touch {tmp_path}/one; echo 6",
    )
    (tmp_path / "pilot.sh").write_text("")
    settings = Settings(home=tmp_path)
    crew = Crew("lr@1", options={"array_limit": 2})
    fleet = ENGINE.again(settings, crew, again(tmp_path).handle())
    with pytest.raises(MachineError, match="sbatch"):
        fleet.scale(4)
    assert fleet.handle()["jobs"] == [5, 6]


def test_passwords_of_fleets_that_ended_unseen_are_removed(
    commands: Commands, tmp_path: Path
) -> None:
    """The next launch removes passwords of ended fleets, not of running, unknown or other ones."""
    shown = {"gone": "2|0|CANCELLED|1:00|None", "works": "3|0|RUNNING|1:00|None"}
    for name, cluster, job in (("gone", "here", 2), ("works", "here", 3), ("far", "there", 4)):
        home_folder.make_folder(tmp_path / "fleet" / name)
        (tmp_path / "fleet" / name / "password").write_text("secret\n")
        (tmp_path / "fleet" / name / f"jobs-{cluster}").write_text(f"{job}\n")
    commands(scontrol="echo 'ClusterName = here'", sbatch="echo no >&2; exit 1")
    launch = ENGINE.fleet(Settings(home=tmp_path), Crew("lr@1", options={"array_limit": 2}))
    with pytest.raises(MachineError, match="sbatch"):
        launch.start()

    def kept() -> list[str]:
        return sorted(one.parent.name for one in (tmp_path / "fleet").glob("*/password"))

    assert kept() == ["far", "gone", "works"], "Slurm does not answer"
    answer = f"[[ $* = *=2* ]] && echo '{shown['gone']}' || echo '{shown['works']}'"
    commands(squeue=answer)
    with pytest.raises(MachineError, match="sbatch"):
        launch.start()
    assert kept() == ["far", "works"]


# Like squeue: an element is shown only under the requested states.
FINISH = """[[ $* = *--states=* ]] || {{ echo RUNNING; exit; }}
printf '{others}\\n' | while read -r name state; do
    [[ $* = *[=,]$state[,\\ ]* ]] && echo "$name $state"
done
true"""


@pytest.mark.parametrize(
    ("others", "is_last", "asks"),
    [
        ("5_2 R", True, 1),
        ("5_10 R\\n5_2 R", False, 10),
        ("4_7 R\\n5_2 R", False, 1),
        ("5_10 CF\\n5_2 R", False, 10),
        ("4_7 CG\\n5_2 R", False, 10),
    ],
)
def test_the_last_element_removes_the_password(
    commands: Commands, tmp_path: Path, others: str, is_last: bool, asks: int
) -> None:
    """Of elements that end together only the first by number waits for the others.

    Nodes that are booting (CF) and preempted elements (CG) count among them.
    """
    finish = FINISH.format(others=others)
    calls = commands(squeue=finish, scontrol="", sleep="exit 0", worker="exit 0")
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "jobs-lab").write_text("4\n5\n")
    place = SharedFiles(str(tmp_path), str(tmp_path), str(tmp_path / "password"), "lab")
    options = SlurmOptions(command="worker", container="env")
    assert run_pilot(pilot_script("lr@1", (), options, {}, place)) == 0
    assert (tmp_path / "password").exists() is not is_last
    asked = [line for line in calls.read_text().splitlines() if line.startswith("squeue")]
    assert "--jobs=4,5 " in asked[0]
    assert len(asked) == asks


def run_pilot(script: str) -> int:
    """Run the script of a pilot as element 2 of array 5; return its exit code."""
    around = {"SLURM_JOB_ID": "5", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(["bash", "-c", script], env={**os.environ, **around}, check=False)
    return done.returncode


@pytest.mark.parametrize("setup", [(), ("set -eu",)])
def test_a_pilot_requeues_itself_alone(
    commands: Commands, tmp_path: Path, setup: tuple[str, ...]
) -> None:
    """The element with the array's own number is queried and requeued by its index."""
    one = '[[ "$*" = *5_2* ]] && echo RUNNING || printf "RUNNING\\nRUNNING\\n"'
    calls = commands(squeue=one, scontrol="", worker="kill -USR2 $PPID; sleep 0.2; exit 143")
    options = SlurmOptions(command="worker", container="env", setup=setup)
    script = pilot_script("lr@1", (), options, {}, SharedFiles(str(tmp_path), str(tmp_path), None))
    assert run_pilot(script) == 0
    told = calls.read_text().splitlines()
    assert told[0].endswith(f"--place {tmp_path.name}/5_2")
    assert told[-1] == "scontrol requeue 5_2"


def test_a_worker_may_use_the_time_before_the_limit(tmp_path: Path) -> None:
    """It gets all of it but the time for handing its trial back, unless the user sets that."""
    place = SharedFiles(str(tmp_path), "/home/a%j/fleet", None)
    script = pilot_script("lr@1", (), SlurmOptions(), {}, place)
    assert "export TUNER_GIVE_BACK_SECONDS=105\n" in script
    assert "--output=/home/a%%j/fleet/%A_%a.log" in script
    own = {"TUNER_GIVE_BACK_SECONDS": "7"}
    assert "SECONDS=7\n" in pilot_script("lr@1", (), SlurmOptions(), own, place)


@pytest.mark.parametrize("name", ["cpus", "at_most", "array_limit"])
def test_negative_numbers_are_refused(name: str) -> None:
    """Negative numbers of workers are refused: an empty array would do nothing."""
    with pytest.raises(UserError, match=f"{name} must not be negative"):
        ENGINE.options({name: "-1"})


def test_a_fleet_that_cannot_start_has_ended(
    commands: Commands, settings: Settings, database: Database
) -> None:
    """If Slurm refuses the array the fleet is stored as ended, with Slurm's message."""
    commands(sbatch='echo "invalid partition specified: gpu" >&2; exit 1')
    bench = Bench.launch(database, make_spec())
    crew = Crew("small@1", ("cpu",))
    tended = TendedFleet(settings, database, bench.study, ENGINE, ENGINE.fleet(settings, crew))
    with pytest.raises(MachineError, match="invalid partition"):
        tended.start_crew(crew)
    with database.transaction() as connection:
        assert fleets.of_study(connection, bench.study) == []
        (fleet,) = fleets.of_study(connection, bench.study, ended=True)
    assert "sbatch" in fleet.reason
    assert fleet.handle["jobs"] == []


def test_a_fleet_that_was_asked_to_stop_is_given_no_more_workers(
    commands: Commands, settings: Settings, database: Database, tmp_path: Path
) -> None:
    """A stopped fleet cannot be scaled, on a cluster or here: it would run on unnoticed."""
    calls = commands(
        scontrol="echo 'ClusterName = here'",
        squeue="echo '5|0|RUNNING|1:00|None'",
        scancel="",
        sbatch="echo 6",
    )
    bench = Bench.launch(database, make_spec())
    handles = {"slurm": again(tmp_path, user=os.geteuid()).handle(), "local": {}}
    for engine, handle in handles.items():
        with database.transaction() as connection:
            launcher = Launcher("elsewhere", 7, "ann@elsewhere")
            crew = Crew("small@1", ("cpu",)).to_json()
            number = fleets.begin(
                connection, bench.study, engine, crew, handle, workers=1, launcher=launcher
            )
            stored = fleets.find(connection, number)
        assert stored is not None
        tending.stop(settings, database, stored, now=False)
        with pytest.raises(UserError, match="was asked to stop, so it is given no more workers"):
            tending.scale(settings, database, stored, 4)
    assert "sbatch" not in calls.read_text()
    with database.transaction() as connection:
        kept = fleets.of_study(connection, bench.study)
    assert [(one.workers, one.asked) for one in kept] == [(1, "stop"), (1, "stop")]


def test_workers_that_were_started_before_an_error_are_found_again(
    commands: Commands, settings: Settings, database: Database, tmp_path: Path
) -> None:
    """If scaling fails at the second array, the first one is in the stored handle."""
    commands(
        scontrol="echo 'ClusterName = here'",
        squeue="echo '5|0|RUNNING|1:00|None'",
        sbatch=f"[ ! -e {tmp_path}/one ] || exit 1; touch {tmp_path}/one; echo 6",
    )
    (tmp_path / "pilot.sh").write_text("")
    bench = Bench.launch(database, make_spec())
    crew = Crew("small@1", options={"array_limit": 2})
    with database.transaction() as connection:
        handle = again(tmp_path, user=os.geteuid()).handle()
        launcher = Launcher("elsewhere", 7, "ann@elsewhere")
        fleets.begin(
            connection, bench.study, "slurm", crew.to_json(), handle, workers=1, launcher=launcher
        )
        connection.execute(sa.update(t.fleet).values(seen=t.fleet.c.seen - timedelta(hours=1)))
        (stored,) = fleets.of_study(connection, bench.study)
    with pytest.raises(MachineError, match="sbatch"):
        tending.scale(settings, database, stored, 4)
    with database.transaction() as connection:
        (kept,) = fleets.of_study(connection, bench.study)
    assert kept.handle["jobs"] == [5, 6]
    assert kept.workers == 1
    # Otherwise `tuner fleet forget` would have to wait after every look at a lost cluster.
    assert kept.seen == stored.seen

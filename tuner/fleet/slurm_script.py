"""The batch scripts of Slurm fleets, as pure functions."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from pydantic import ConfigDict

from tuner.fleet.contract import epoch_seconds
from tuner.fleet.options import STRICT, Lines, Seconds, Text, Words
from tuner.fleet.replacements import YOUNG_SECONDS
from tuner.processes import python
from tuner.settings import GIVE_BACK

PREEMPTED_SECONDS = 15
"""How long an epoch may continue after a preemption; Slurm kills after KillWait, 30 s."""

ALIVE = "PD,R,S,CG,CF,RS,SI,SO,ST,RQ,RH,RD,RF,SE"
"""All states that squeue can select and from which an element may still run. R does not include
elements whose node is booting (CF), nor PD those preempted and being killed (CG)."""


@dataclass(frozen=True)
class SlurmOptions:
    """The keys of [fleet.slurm]."""

    __pydantic_config__ = ConfigDict(**STRICT)

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: Seconds = 4 * 3600.0
    """The time limit of an element; it requeues itself for as long as the study is open."""
    signal: Seconds = 120.0
    """How long before the time limit a worker is asked to leave."""
    gpus: Text = ""
    """GPUs of an element in the notation of --gres: 1, or a100:1."""
    cpus: int = 0
    """CPUs of an element; 0 means as many as its trainer has threads."""
    memory: str = ""
    at_most: int = 0
    """How many elements may run at once; 0 means all."""
    array_limit: int = 0
    """The longest array to submit; 0 means the site's MaxArraySize."""
    setup: Lines = ()
    """Lines of shell before the worker, such as `module load cuda`."""
    container: str = ""
    """Prefix that runs a command in a container: `apptainer exec --nv tuner.sif`."""
    command: str = ""
    """The command `tuner` on the nodes; by default this Python, or `tuner` in a container."""
    options: Words = ()
    """Further options of sbatch."""

    def __post_init__(self) -> None:
        """Refuse times that leave a worker no time to work."""
        if self.time < 60:
            raise ValueError("time must be at least 1m, Slurm's shortest time limit")
        if not 0 < self.signal <= self.time / 2:
            raise ValueError("signal must leave at least half of the time limit for work")
        for name in ("cpus", "at_most", "array_limit"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    @property
    def lifetime(self) -> int:
        """Seconds after which a worker leaves by itself, well before it is asked to."""
        return int(self.time - 1.5 * self.signal)

    @property
    def give_back(self) -> float:
        """How long a worker that was asked to leave may take to finish its epoch, in seconds."""
        return epoch_seconds(self.signal)


@dataclass(frozen=True)
class SharedFiles:
    """The paths of a fleet's files, on a file system that the nodes share with the launcher."""

    home: str
    folder: str
    password_file: str | None
    cluster: str = ""

    @property
    def jobs_file(self) -> str:
        """The file with the numbers of the fleet's arrays, one per line."""
        return f"{self.folder}/jobs-{self.cluster}"


def tuner_command(options: SlurmOptions) -> str:
    """Return the command for `tuner` on a node, quoted for the shell."""
    inside = "tuner" if options.container else shlex.join(python("tuner.__main__"))
    return f"{options.container} {options.command or inside}".strip()


def pilot_script(
    study: str,
    arguments: tuple[str, ...],
    options: SlurmOptions,
    environment: Mapping[str, str],
    place: SharedFiles,
) -> str:
    """Return the script of an array: each element runs one worker, and requeues itself."""
    head = _head(f"tuner-{study}", "%A_%a.log", options, place)
    head += ["#SBATCH --requeue", f"#SBATCH --signal=B:USR2@{math.ceil(options.signal)}"]
    words = ("worker", *arguments, "--lifetime", f"{options.lifetime}s", "--place")
    fleet = shlex.quote(PurePath(place.folder).name)
    worker = f'{tuner_command(options)} {shlex.join(words)} {fleet}/"$element"'
    body = _PILOT.replace("@WORKER@", worker).replace("@LIFETIME@", str(options.lifetime))
    body = body.replace("@YOUNG@", f"{YOUNG_SECONDS:.0f}")
    body = body.replace("@PREEMPTED@", str(PREEMPTED_SECONDS))
    body = body.replace("@FINISH@", _finish(place))
    # TUNER_GIVE_BACK_SECONDS in the environment takes precedence.
    variables = {GIVE_BACK: f"{options.give_back:g}", **environment}
    return "\n".join([*head, "", *_before(options, variables, place), "", body])


def probe_script(
    study: str,
    arguments: tuple[str, ...],
    options: SlurmOptions,
    environment: Mapping[str, str],
    place: SharedFiles,
) -> str:
    """Return the script of a job that runs the probe and writes its answer to a file."""
    head = _head(f"tuner-probe-{study}", "probe-%j.log", options, place)
    words = ("worker", *arguments, "--probe", "--json")
    # Only the worker's output is JSON; other output, as of modules, goes to the log.
    lines = [
        *_before(options, environment, place),
        f"answer={shlex.quote(place.folder)}/probe-$SLURM_JOB_ID.json",
        f'{tuner_command(options)} {shlex.join(words)} >"$answer.part"',
        # Renamed, so that the waiting process sees only a complete file.
        'mv "$answer.part" "$answer"',
        "",
    ]
    return "\n".join([*head, "", *lines])


def _head(name: str, log: str, options: SlurmOptions, place: SharedFiles) -> list[str]:
    wanted = [
        f"--job-name={name}",
        # sbatch would interpret a % in the folder's name as a pattern.
        f"--output={place.folder.replace('%', '%%')}/{log}",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={max(1, options.cpus)}",
        # Slurm counts whole minutes, so round up.
        f"--time={math.ceil(options.time / 60)}",
    ]
    optional = {
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gres": options.gpus and f"gpu:{options.gpus}",
        "mem": options.memory,
    }
    wanted += [f"--{key}={value}" for key, value in optional.items() if value]
    return ["#!/bin/bash", *(f"#SBATCH {_quoted(word)}" for word in (*wanted, *options.options))]


def _before(options: SlurmOptions, environment: Mapping[str, str], place: SharedFiles) -> list[str]:
    variables = {"TUNER_HOME": place.home, **environment}
    if place.password_file is not None:
        variables["TUNER_DATABASE_PASSWORD_FILE"] = place.password_file
    exports = [f"export {key}={shlex.quote(value)}" for key, value in sorted(variables.items())]
    return [*exports, *options.setup]


def _finish(place: SharedFiles) -> str:
    """Return the shell function with which the last element of a fleet removes the password."""
    if place.password_file is None:
        return "finish() { :; }"
    finish = _FINISH.replace("@PASSWORD@", shlex.quote(place.password_file))
    return finish.replace("@JOBS@", shlex.quote(place.jobs_file)).replace("@ALIVE@", ALIVE)


def _quoted(word: str) -> str:
    """Quote a word for an #SBATCH line."""
    return '"' + word.replace('"', '\\"') + '"' if set(word) & set(" \t#'\"") else word


_FINISH = """\
finish() {
    # The last element of the fleet removes the password. Of those that end together the first by
    # number stays a moment for the others; where that is not enough, `tuner` does it later.
    local jobs others first
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        jobs=$(paste -sd, @JOBS@) || return
        # A Slurm that does not answer has said nothing about the others.
        others=$(squeue --noheader --array --jobs="$jobs" --states=@ALIVE@ --format='%F_%K %t') ||
            return
        if [ "${others% *}" = "$element" ]; then
            rm -f @PASSWORD@
            return
        fi
        # One that is completing ends for good, or was preempted and comes back: it may hold up the
        # removal, but leaves it to us.
        first=$(grep -v ' CG$' <<<"$others" | sort -t_ -k1,1n -k2,2n | head -n 1)
        [ "${first% *}" = "$element" ] || return
        sleep 1
    done
}"""

_PILOT = """\
# The lines above are the site's; below, commands may fail and the script goes on.
set +eu
worker='' asked='' interrupted=''
# Not SLURM_JOB_ID: the last element to start has the array's own, which means all elements.
element="${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"

leave() {
    interrupted=1
    [ -z "$worker" ] || kill -s "$1" "$worker" 2>/dev/null
}
# The time limit is near: there is time to finish the epoch. Bash lets background jobs ignore INT,
# so the worker gets TERM for everything.
trap 'asked=${asked:-requeue}; leave TERM' USR2
# Slurm takes the place away and kills soon: a second request does not wait for the epoch.
trap 'asked=${asked:-requeue}; leave TERM; (sleep @PREEMPTED@; leave HUP) &' TERM
# `tuner fleet stop` and `scale`: politely by INT, at once by USR1, which the worker hears as two.
trap 'asked=stop; leave TERM' INT
trap 'asked=stop; leave TERM; leave HUP' USR1

requeue() {
    # Someone may have cancelled this element meanwhile, who does not want it back.
    if [ "$(squeue --noheader --jobs="$element" --format=%T)" = RUNNING ]; then
        echo "Requeued: $1."
        scontrol requeue "$element" || exit 75
        exit 0
    fi
}

if [ -z "$asked" ]; then
    @WORKER@ &
    worker=$!
    # A signal between the test and the line above found no worker to pass it on to.
    [ -z "$asked" ] || kill -s TERM "$worker"
fi
code=''
while [ -z "$code" ]; do
    interrupted=''
    wait $worker
    code=$?
    # A trapped signal ends `wait` early; the worker's own code is still to come.
    [ -z "$interrupted" ] || code=''
done

@FINISH@

[ "$asked" != stop ] || { finish; exit 0; }
[ "$asked" != requeue ] || requeue 'its place was taken or its time is over'
case $code in
0) # A worker ends when its study has ended, or at the end of its lifetime.
    [ $SECONDS -lt @LIFETIME@ ] || requeue 'its lifetime is over'
    finish ;;
1 | 2 | 3) finish ;; # It said why; the next one would meet the same.
70) ;; # A fault of ours: `tuner` tries a few times.
*) # Killed or crashed. Those that die young are left to `tuner`, which gives up after a few.
    [ $SECONDS -lt @YOUNG@ ] || requeue "its worker died with code $code" ;;
esac
exit $code
"""

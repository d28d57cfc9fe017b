"""A throw-away Slurm: munge, a controller and two nodes on this machine, in a separate folder.

Debian's packages slurm-wlm and munge suffice; nothing of theirs needs to run or be configured. The
daemons need root, and write only to their folder.
"""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.processes import until

REQUIRED = "TUNER_TEST_SLURM"
"""Set to `required`, tests on Slurm may not be skipped."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
NODES = ("n1", "n2")
LONGEST_ARRAY = 2
"""MaxArraySize of this site: a small one, so that fleets are split."""

CONFIGURATION = """\
ClusterName=tuner
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until the credentials of its last start have expired: two minutes by default.
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
KillWait=10
MaxArraySize={array}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF
PartitionName=short Nodes=ALL PriorityTier=1 MaxTime=30
"""


@dataclass(frozen=True)
class Cluster:
    """A running Slurm; its commands find it by SLURM_CONF."""

    folder: Path
    daemons: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variable that points commands and jobs to it."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *words: str) -> str:
        """Run one of its commands and return the output."""
        done = subprocess.run(
            words,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, name: str, *words: str) -> None:
        """Start a daemon under a name."""
        with (self.folder / "daemons.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                words,
                env={**os.environ, **self.environment, "PATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )

    def restart_controller(self) -> None:
        """kill -9 the controller and start it again; it reads its saved state."""
        self.daemons["slurmctld"].kill()
        self.daemons["slurmctld"].wait()
        self.start("slurmctld", "slurmctld", "-D", "-i")

    def node(self, name: str, state: str) -> None:
        """Set the state of a node: drain, down or resume."""
        reason = [] if state == "resume" else ["Reason=test"]
        self.run("scontrol", "update", f"NodeName={name}", f"State={state}", *reason)

    def clear(self) -> None:
        """Cancel every job, and return every node to service."""
        self.run("scancel", "--user=root")
        until(lambda: not self.run("squeue", "--noheader").strip(), "no job is left")
        for name in NODES:
            with contextlib.suppress(AssertionError):  # the node is busy
                self.node(name, "resume")


def why_not() -> str | None:
    """Return why Slurm cannot run here, or None."""
    if missing := [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]:
        return f"no {', '.join(missing)} here (apt-get install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    return None


@contextmanager
def run_cluster() -> Iterator[Cluster]:
    """Start a cluster, and stop it at the end with all that runs on it."""
    with tempfile.TemporaryDirectory(prefix="tuner-slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        cluster = Cluster(folder)
        try:
            _start(cluster)
            yield cluster
            with contextlib.suppress(AssertionError):
                cluster.run("scancel", "--user=root")
                until(lambda: not cluster.run("squeue", "--noheader").strip(), "no job is left")
        finally:
            daemons = list(cluster.daemons.values())
            for daemon in reversed(daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in daemons:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    daemon.wait(10)
                daemon.kill()
                daemon.wait()


def _start(cluster: Cluster) -> None:
    folder = cluster.folder
    for name in ("munge", "state", *NODES):
        (folder / name).mkdir(mode=0o755)
    (folder / "munge" / "key").write_bytes(secrets.token_bytes(128))
    (folder / "munge" / "key").chmod(0o600)
    port, *ports = _free_ports(1 + len(NODES))
    host = socket.gethostname().split(".")[0]
    nodes = "\n".join(
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs=4"
        for name, own in zip(NODES, ports, strict=True)
    )
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(host=host, port=port, folder=folder, nodes=nodes, array=LONGEST_ARRAY)
    )
    munge = folder / "munge"
    files = [f"--{one}-file={munge / one}" for one in ("key", "pid", "log", "seed")]
    # --force: the folder is below a world-writable one.
    cluster.start(
        "munged", "munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files
    )
    until((munge / "socket").exists, "munged answers")
    cluster.start("slurmctld", "slurmctld", "-D", "-i", "-c")
    for name in NODES:
        cluster.start(name, "slurmd", "-D", "-c", "-N", name)

    def idle() -> bool:
        shown = subprocess.run(
            ["sinfo", "--noheader", "--partition=low", "--format=%T %D"],
            env={**os.environ, **cluster.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return shown.stdout.split() == ["idle", str(len(NODES))]

    until(idle, "every node is idle")


def _path() -> str:
    """The path with the daemons' folders, which a user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]

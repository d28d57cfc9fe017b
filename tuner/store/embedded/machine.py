"""The identity of this machine, among others that share its files."""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """One boot of one machine."""

    host: str
    machine_id: str
    boot_id: str

    @property
    def name(self) -> str:
        """The host's name for people."""
        return self.host or "an unknown machine"

    def shares_locks_with(self, machine: "Machine") -> bool:
        """Whether the two machines see each other's flocks.

        One boot is one kernel, whatever its containers are called. After a reboot a machine
        has lost all its processes, and their locks with them.
        """
        if self.boot_id and self.boot_id == machine.boot_id:
            return True
        return (self.host, self.machine_id) == (machine.host, machine.machine_id)

    def to_json(self) -> str:
        """Return the machine as JSON for `from_json`."""
        return json.dumps(asdict(self))


UNKNOWN = Machine("", "", "")


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    return Machine(
        host=platform.node(),
        machine_id=_line(Path("/etc/machine-id")),
        boot_id=_line(Path("/proc/sys/kernel/random/boot_id")),
    )


def from_json(text: str) -> Machine:
    """Parse a machine; an invalid text gives an unknown one, which shares no locks."""
    try:
        facts = json.loads(text)
        return Machine(**{name: str(facts[name]) for name in ("host", "machine_id", "boot_id")})
    except (ValueError, KeyError, TypeError):
        return UNKNOWN


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

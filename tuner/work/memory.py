"""The kernel's count of processes that it killed for lack of memory."""

from pathlib import Path

ROOT = Path("/")


def memory_kills(root: Path = ROOT) -> int:
    """Return how many processes the kernel's OOM killer has killed.

    In this process's control group if that counts them, else on the whole machine; 0 if
    neither is readable (macOS).
    """
    for path, name in _counters(root):
        count = _count(path, name)
        if count is not None:
            return count
    return 0


def _counters(root: Path) -> list[tuple[Path, str]]:
    groups = _read(root / "proc/self/cgroup")
    below = root / "sys/fs/cgroup"
    places: list[tuple[Path, str]] = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        # A container sees its own group as the root of the mount, whatever the path says.
        for folder in (path.strip("/"), ""):
            if not controllers:
                places.append((below / folder / "memory.events", "oom_kill"))
            elif "memory" in controllers.split(","):
                places.append((below / "memory" / folder / "memory.oom_control", "oom_kill"))
    return [*places, (root / "proc/vmstat", "oom_kill")]


def _count(path: Path, name: str) -> int | None:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

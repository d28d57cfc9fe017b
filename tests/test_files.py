"""Files named by users: written completely or not at all, and never over a user's work."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tuner.errors import MachineError, UserError
from tuner.files import begins_with, check_output, contains, open_special, whole_file, write_output


def test_file_appears_whole(tmp_path: Path) -> None:
    """The file has the text, its folder is created, and nothing else is left there."""
    path = tmp_path / "new" / "best.csv"
    assert write_output(path, "a,ü\n") is False
    assert path.read_text(encoding="utf-8") == "a,ü\n"
    assert list(path.parent.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """A failed write gives the reason and changes nothing."""
    path = tmp_path / "out.csv"
    path.mkdir()
    with pytest.raises(MachineError, match=r"out\.csv cannot be written: Is a directory"):
        write_output(path, "a")
    below = tmp_path / "file"
    below.write_text("mine")
    with pytest.raises(MachineError, match="cannot be written: Not a directory"):
        write_output(below / "out.csv", "a")
    assert below.read_text() == "mine"
    assert sorted(tmp_path.iterdir()) == [below, path]


def test_somebodys_file_is_kept(tmp_path: Path) -> None:
    """A file not written by tuner is refused, with the way to replace it, and then replaced."""
    path = tmp_path / "notes.csv"
    path.write_text("patient,finding\n")
    recognised = begins_with("trial,seed\n")
    with pytest.raises(UserError, match=r"notes\.csv exists already.*--overwrite"):
        write_output(path, "trial,seed\n0,1\n", recognised=recognised)
    assert path.read_text() == "patient,finding\n"
    assert write_output(path, "trial,seed\n0,1\n", overwrite=True) is True
    assert path.read_text() == "trial,seed\n0,1\n"


def test_an_earlier_output_is_replaced_and_said(tmp_path: Path) -> None:
    """tuner's own output, and an empty file, may be replaced."""
    table, page, empty = tmp_path / "a.csv", tmp_path / "a.html", tmp_path / "empty"
    table.write_text("trial,seed\n0,1\n")
    page.write_text("<html>by tuner</html>")
    empty.touch()
    assert write_output(table, "new", recognised=begins_with("trial,seed\n")) is True
    assert write_output(page, "new", recognised=contains("by tuner")) is True
    assert write_output(empty, "new") is False
    assert [file.read_text() for file in (table, page, empty)] == ["new"] * 3


def test_permissions_are_kept(tmp_path: Path) -> None:
    """A replaced file keeps its permissions."""
    path = tmp_path / "private.csv"
    path.write_text("old")
    path.chmod(0o640)
    write_output(path, "new", overwrite=True)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_is_kept(tmp_path: Path) -> None:
    """A user's file replaced by root still belongs to the user."""
    path = tmp_path / "theirs.csv"
    path.write_text("old")
    os.chown(path, 1234, 1235)
    write_output(path, "new", overwrite=True)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


@pytest.mark.parametrize("target", ["there.csv", "folder/there.csv", "missing.csv"])
def test_a_link_stays_a_link(tmp_path: Path, target: str) -> None:
    """The target of a symbolic link is written, whether it exists or not."""
    (tmp_path / "folder").mkdir()
    for there in ("there.csv", "folder/there.csv"):
        (tmp_path / there).write_text("old")
    link = tmp_path / "link.csv"
    link.symlink_to(target)
    write_output(link, "new", overwrite=True)
    assert link.is_symlink()
    assert (tmp_path / target).read_text() == "new"
    assert not list(tmp_path.rglob(".tuner-*"))


def test_a_linked_file_is_somebodys_too(tmp_path: Path) -> None:
    """A file behind a link is protected like any other."""
    (tmp_path / "work.txt").write_text("mine")
    (tmp_path / "link").symlink_to("work.txt")
    with pytest.raises(UserError, match="exists already"):
        write_output(tmp_path / "link", "new")
    assert (tmp_path / "work.txt").read_text() == "mine"


def test_a_fifo_is_written_through(tmp_path: Path) -> None:
    """A reader at a FIFO gets everything, and the FIFO remains."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    content = b"x" * 300_000
    assert write_output(fifo, content) is False
    reader.join(60)
    assert got == [content]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_device_is_written_through() -> None:
    """Output to a terminal's device arrives there, and the device remains."""
    ours, theirs = os.openpty()
    device = Path(os.ttyname(theirs))
    write_output(device, "new\n")
    assert os.read(ours, 100) == b"new\r\n"
    assert stat.S_ISCHR(device.stat().st_mode)
    os.close(ours)
    os.close(theirs)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make devices")
@pytest.mark.parametrize(("kind", "number"), [(stat.S_IFCHR, (1, 3)), (stat.S_IFBLK, (7, 250))])
def test_root_destroys_no_device(tmp_path: Path, kind: int, number: tuple[int, int]) -> None:
    """Even for root /dev/null stays /dev/null, and a disk is refused."""
    device = tmp_path / "device"
    try:
        os.mknod(device, kind | 0o666, os.makedev(*number))
    except PermissionError:
        pytest.skip("no device can be made here")
    try:
        write_output(device, "new", overwrite=True)
    except UserError as error:
        assert kind == stat.S_IFBLK
        assert "is a disk" in str(error)  # noqa: PT017  # the other kind raises nothing
    except MachineError as error:
        # A container may create devices without being able to open them.
        assert "not permitted" in str(error)  # noqa: PT017
    assert stat.S_IFMT(device.stat().st_mode) == kind


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_path_goes_on_where_it_is(tmp_path: Path, name: str) -> None:
    """`-o /dev/stdout >> file` appends, as printing does, and does not replace the file."""
    log = tmp_path / "log"
    log.write_text("before\n")
    inode = log.stat().st_ino
    code = f"""
from pathlib import Path
from tuner.files import write_output
write_output(Path({name!r}), "new\\n")
print("after")
"""
    with log.open("ab") as stream:
        subprocess.run([sys.executable, "-c", code], stdout=stream, check=True)
    assert log.read_text() == "before\nnew\nafter\n"
    assert log.stat().st_ino == inode


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    """A file created by another program during the computation is not replaced."""
    path = tmp_path / "out.csv"
    assert check_output(path, overwrite=False) is False

    def be_late() -> None:
        with whole_file(path, replace=False) as draft:
            draft.write_text("new")
            path.write_text("theirs")

    with pytest.raises(UserError, match="created by another program"):
        be_late()
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    """If writing the draft fails, the earlier file is unchanged and the draft is removed."""
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fail() -> None:
        with whole_file(path, replace=True) as draft:
            draft.write_text("half")
            raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_regular_file_is_not_special(tmp_path: Path) -> None:
    """Existing files and free names are written to a draft, not directly."""
    (tmp_path / "file").touch()
    for name in ("file", "free"):
        with open_special(tmp_path / name) as special:
            assert special is None

"""A saved folder appears complete or not at all, whatever happens in between."""

from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.winner import document
from tuner.winner.folder import written_whole


def fill(folder: Path, text: str) -> None:
    """Write all files of a saved model."""
    for name in document.FILES:
        (folder / name).write_text(text)


def texts(folder: Path) -> set[str]:
    """Return the contents of a folder's files."""
    return {one.read_text() for one in folder.iterdir()}


def test_it_appears_whole(tmp_path: Path) -> None:
    """There is nothing before the end, everything after it, and no leftovers."""
    target = tmp_path / "deep" / "model"
    with written_whole(target, overwrite=False) as folder:
        fill(folder, "new")
        assert not target.exists()
    assert texts(target) == {"new"}
    assert [one.name for one in target.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_what_fails_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    """After an error or Ctrl-C half-way the former model is unchanged, with no leftovers."""
    target = tmp_path / "model"
    target.mkdir()
    fill(target, "old")

    def break_off() -> None:
        with written_whole(target, overwrite=True) as folder:
            (folder / document.NAME).write_text("half")
            raise error

    with pytest.raises(type(error)):
        break_off()
    assert texts(target) == {"old"}
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_a_saved_model_is_replaced_when_asked(tmp_path: Path) -> None:
    """With overwrite the new model is complete, and the old one gone."""
    target = tmp_path / "model"
    target.mkdir()
    fill(target, "old")
    with pytest.raises(UserError, match="--overwrite"), written_whole(target, overwrite=False):
        pass
    with written_whole(target, overwrite=True) as folder:
        fill(folder, "new")
    assert texts(target) == {"new"}
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_files_that_come_meanwhile_are_kept(tmp_path: Path) -> None:
    """Training takes long: files created there in the meantime are not lost."""
    target = tmp_path / "model"
    target.mkdir()

    def be_slow() -> None:
        with written_whole(target, overwrite=True) as folder:
            fill(folder, "new")
            (target / "notes.txt").write_text("mine")

    with pytest.raises(UserError, match=r"not a saved model \(notes\.txt\)"):
        be_slow()
    assert texts(target) == {"mine"}


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    """A file, and a link to a folder, are not replaced."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("mine")
    link.symlink_to(tmp_path)
    for target in (file, link):
        with (
            pytest.raises(UserError, match="is not a folder"),
            written_whole(target, overwrite=True),
        ):
            pass
    assert file.read_text() == "mine"

"""`tuner plot`: files, folders, and refusals."""

import pytest

from tests.cli.conftest import Project
from tuner.cli.plot import SHOWN
from tuner.pictures import GO_WITH
from tuner.pictures.kinds import KINDS


def test_a_picture_is_written_and_its_title_said(trained_once: Project) -> None:
    """The file has the requested name, or the study's and the kind's; its title is printed."""
    said = trained_once.run("plot", "small", "curves", "--by", "lr", "-o", "out/one.pdf")
    assert (trained_once.folder / "out/one.pdf").read_bytes().startswith(b"%PDF")
    assert "lr" in said
    assert "out/one.pdf" in said
    trained_once.run("plot", "small", "roc", "--trial", "1", "--split", "val")
    assert (trained_once.folder / "small-roc.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_a_picture_is_drawn_again_and_others_are_kept(trained_once: Project, ending: str) -> None:
    """tuner's own picture is replaced with a message; another file only with --overwrite."""
    file = trained_once.folder / f"again.{ending}"
    ask = ("plot", "small", "history", "-o", file.name)
    assert "replaced" not in trained_once.run(*ask)
    assert f"{file.name} (replaced)" in trained_once.run(*ask)
    file.write_text("a drawing of mine")
    assert "exists already" in trained_once.run(*ask, code=2)
    assert file.read_text() == "a drawing of mine"
    assert "(replaced)" in trained_once.run(*ask, "--overwrite")


def test_all_pictures_come_into_a_folder(trained_once: Project) -> None:
    """Pictures that the study does not allow are named; the others are in the folder."""
    said = trained_once.run("plot", "small", "all", "-o", "figures")
    made = {file.stem for file in (trained_once.folder / "figures").iterdir()}
    assert {"curves", "effects", "val-test", "gap", "history", "confusion", "roc"} <= made
    missing = {kind for kind in ("influence", "parallel") if kind not in made}
    assert all(f"Skipped {kind}: " in said for kind in missing)


def test_what_does_not_fit_is_refused_before_drawing(trained_once: Project) -> None:
    """An unknown ending, a folder as a file and an option unknown to the kind are refused."""
    for options, words in (
        (("curves", "-o", "x.jpg"), "use .svg, .png, .pdf"),
        (("curves", "-o", "."), "is a folder"),
        (("all", "-o", "x.svg"), "specify a folder"),
        (("history", "--by", "lr"), "not to history"),
        (("curves", "--by", "depth"), "does not vary 'depth'"),
        (("curv",), "curv"),
    ):
        assert words in trained_once.run("plot", "small", *options, code=2)
    assert not (trained_once.folder / "x.jpg").exists()
    assert not (trained_once.folder / "x.svg").exists()


def test_help_names_every_kind_that_can_be_drawn() -> None:
    """The list in `--help`, shown without Matplotlib, equals the kinds that can be drawn."""
    assert list(SHOWN) == list(KINDS)
    assert {kind for kinds in GO_WITH.values() for kind in kinds} <= set(KINDS)

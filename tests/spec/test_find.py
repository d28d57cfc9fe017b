"""A study file is found by name in given folders, or by its path."""

from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.spec.document import named_by
from tuner.spec.load import find
from tuner.spec.study_ref import StudyRef


def test_a_name_is_looked_for_in_the_folders_in_order(tmp_path: Path) -> None:
    """The first folder that has it wins."""
    for folder in ("own", "shipped"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lr_sched.toml").touch()
    (tmp_path / "shipped" / "depth.toml").touch()
    folders = [tmp_path / "own", tmp_path / "shipped"]
    assert find(StudyRef.parse("lr_sched"), folders) == tmp_path / "own" / "lr_sched.toml"
    assert find(StudyRef.parse("depth"), folders) == tmp_path / "shipped" / "depth.toml"


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    """Anything that ends in .toml is a path; a missing file is reported when it is read."""
    assert find(StudyRef.parse("some/where.toml"), [tmp_path]) == Path("some/where.toml")


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    """The message names near studies, the folders searched, and that paths are possible."""
    (tmp_path / "lr_sched.toml").touch()
    with pytest.raises(UserError) as raised:
        find(StudyRef.parse("lr_shced"), [tmp_path, tmp_path / "none"])
    message = str(raised.value)
    assert "no study 'lr_shced'; did you mean lr_sched?" in message
    assert str(tmp_path) in message
    assert str(tmp_path / "none") in message


def test_a_name_like_no_other_gets_the_list(tmp_path: Path) -> None:
    """If no name is near, all are listed."""
    with pytest.raises(UserError, match=r"none was found.*in no folder"):
        find(StudyRef.parse("digits"), [])
    (tmp_path / "lr_sched.toml").touch()
    with pytest.raises(UserError, match="available: lr_sched"):
        find(StudyRef.parse("zzz"), [tmp_path])


def test_a_file_names_its_study(tmp_path: Path) -> None:
    """A study is named by its [study] name if that is readable, else by its file."""
    path = tmp_path / "mine.toml"
    assert named_by(path) == "mine"
    path.write_text('[study]\nname = "yours"\n[space]\nlr = 7\n')
    assert named_by(path) == "yours"
    for broken in ("[study", "study = 1", "[study]\nname = 3"):
        path.write_text(broken)
        assert named_by(path) == "mine"


def test_a_name_leads_out_of_no_folder(tmp_path: Path) -> None:
    """A name with path separators finds nothing."""
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.toml").touch()
    with pytest.raises(UserError, match="no study"):
        find(StudyRef.parse("../secret"), [tmp_path / "in"])


@pytest.mark.parametrize("text", ["lr", "lr@2", "some/where.toml", "a@b/lr.toml"])
def test_what_is_typed_for_a_study_is_parsed_once(text: str) -> None:
    """A name, a version or a path is shown again as it was typed."""
    ref = StudyRef.parse(text)
    assert str(ref) == text
    expected = {"lr": ("lr", None), "lr@2": ("lr", 2), "some/where.toml": ("where", None)}
    assert (ref.name, ref.version) == expected.get(text, ("lr", None))
    assert (ref.path is not None) is text.endswith(".toml")


@pytest.mark.parametrize("text", ["lr@two", "lr@2@3", "lr@-1", "lr@²"])
def test_a_version_is_a_number(text: str) -> None:
    """A bad version after @ is reported before the database is asked."""
    with pytest.raises(UserError, match=r"the version after @ must be a number, as in lr@2"):
        StudyRef.parse(text)

"""Text that cannot be stored is escaped, reversibly for names."""

from hypothesis import example, given
from hypothesis import strategies as st

from tuner.text import file_name, storable, storable_json, storable_name, storable_names

ANY = st.text(st.characters()) | st.text(st.sampled_from("\\xu0ed8\x00\udce9\ud800a"))


@given(name=ANY)
@example("caf\udce9.png")
@example("\\\udce9")
@example("\\\\xe9")
@example("\ud83d\ude00")
def test_a_name_is_storable_and_comes_back(name: str) -> None:
    """Any name can be encoded, has no NUL, and can be restored."""
    stored = storable_name(name)
    assert "\x00" not in stored.encode().decode()
    assert file_name(stored) == name


def test_escapes_can_be_read() -> None:
    """A file name's byte is shown as that byte; ordinary names are unchanged."""
    assert storable_name("caf\udce9.png") == r"caf\xe9.png"
    assert storable_name("café/\\a b.png") == "café/\\a b.png"
    assert storable("a\x00b \ud800") == r"a\x00b \ud800"


def test_two_names_stay_two() -> None:
    """A name with the escape's own letters is distinguished from one with that byte."""
    names = [r"caf\xe9.png", "caf\udce9.png"]
    assert storable_names(names) == (r"caf\\xe9.png", r"caf\xe9.png")
    assert storable_names(names[:1]) == (names[0],)


def test_json_is_made_storable_throughout() -> None:
    """Texts in lists, values and keys are made storable; other values are unchanged."""
    given = {"a\x00": ["\udce9", 1, None, {"b": "c"}]}
    assert storable_json(given) == {r"a\x00": [r"\xe9", 1, None, {"b": "c"}]}

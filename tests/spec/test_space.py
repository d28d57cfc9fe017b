"""The space: values, conditions, order and the grid."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.spec.space import LARGEST_GRID, Choice, Range, Space

SCHEDULER = Choice("scheduler", ("cosine", "step", "exponential"))
STEP_SIZE = Range("step_size", 10, 20, step=10, integer=True, when={"scheduler": ("step",)})


def test_the_first_dimension_varies_slowest() -> None:
    """In a grid the first dimension varies slowest, like the first column of a table."""
    space = Space((Choice("a", (1, 2)), Choice("b", ("x", "y"))))
    assert [tuple(point.values()) for point in space.grid()] == [
        (1, "x"),
        (1, "y"),
        (2, "x"),
        (2, "y"),
    ]


def test_a_condition_expands_only_where_it_holds() -> None:
    """An inactive parameter is absent, and makes no combinations."""
    grid = Space((SCHEDULER, STEP_SIZE)).grid()
    assert grid == (
        {"scheduler": "cosine"},
        {"scheduler": "step", "step_size": 10},
        {"scheduler": "step", "step_size": 20},
        {"scheduler": "exponential"},
    )


def test_a_child_may_come_before_its_parent_in_the_file() -> None:
    """The grid's order is that of the file, even if a child comes before its parent."""
    space = Space((STEP_SIZE, SCHEDULER))
    assert [dimension.name for dimension in space.ordered()] == ["scheduler", "step_size"]
    assert space.names == ("step_size", "scheduler")
    assert space.grid() == (
        {"scheduler": "cosine"},
        {"scheduler": "exponential"},
        {"step_size": 10, "scheduler": "step"},
        {"step_size": 20, "scheduler": "step"},
    )


def test_conditions_chain() -> None:
    """A child of an inactive parent is inactive."""
    child = Choice("width", (1,), when={"step_size": (20,)})
    space = Space((SCHEDULER, STEP_SIZE, child))
    assert [point for point in space.grid() if "width" in point] == [
        {"scheduler": "step", "step_size": 20, "width": 1}
    ]
    assert not space.is_active(child, {"scheduler": "step"})
    assert space.is_active(child, {"step_size": 20})


def test_any_of_several_values_satisfies_a_condition() -> None:
    """A list in a condition means any of them; several names must all hold."""
    decay = Choice("decay", (0.1,), when={"scheduler": ("step", "exponential"), "lr": (1.0,)})
    space = Space((SCHEDULER, decay))
    assert space.is_active(decay, {"scheduler": "exponential", "lr": 1.0})
    assert not space.is_active(decay, {"scheduler": "exponential", "lr": 0.1})
    assert not space.is_active(decay, {"scheduler": "cosine", "lr": 1.0})


def test_steps_are_as_written_not_as_floats_add_up() -> None:
    """Three steps of 0.1 are 0.3, and whole numbers stay whole."""
    assert Range("dropout", 0.0, 0.6, step=0.1).values == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    values = Range("depth", 1, 5, step=2, integer=True).values
    assert values == (1, 3, 5)
    assert all(isinstance(value, int) for value in values)
    assert Range("lr", 1e-5, 1e-1, log=True).count is None


def test_a_huge_grid_is_counted_only_so_far() -> None:
    """Counting stops one past the limit, so that no file can fill the memory."""
    wide = Range("width", 1, 100_000, step=1, integer=True)
    assert Space((wide, Choice("a", (1, 2)))).size() == LARGEST_GRID + 1


def test_an_empty_space_has_one_combination() -> None:
    """A study that varies only seeds is a grid of one."""
    assert Space().grid() == ({},)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True), max_size=4))
def test_a_grid_without_conditions_is_the_product(lists: list[list[int]]) -> None:
    """Its size is the product, no point repeats, and it is in the order of the lists."""
    space = Space(tuple(Choice(f"p{i}", tuple(values)) for i, values in enumerate(lists)))
    points = [tuple(map(int, point.values())) for point in space.grid()]
    expected = 1
    for values in lists:
        expected *= len(values)
    assert len(points) == len(set(points)) == expected == space.size()
    ranks = [tuple(values.index(v) for values, v in zip(lists, p, strict=True)) for p in points]
    assert ranks == sorted(ranks)


def test_a_circle_is_our_own_mistake_here() -> None:
    """The reader refuses cycles; a space with one built by hand fails an assertion."""
    circle = Space((Choice("a", (1,), {"b": (1,)}), Choice("b", (1,), {"a": (1,)})))
    with pytest.raises(AssertionError, match="circle: a, b"):
        circle.ordered()

"""A table of texts for people; the terminal, HTML and Markdown show the same texts."""

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Table"]


@dataclass(frozen=True)
class Table:
    """Rows of texts under column heads."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    left: Collection[int] = ()
    """The positions of columns of words; a terminal right-aligns all others."""
    setting: Collection[int] = ()
    """The positions of columns whose values together name a row's setting."""
    wrapped: Collection[int] = ()
    """The positions of columns of long texts, which may wrap."""

    @property
    def folded(self) -> "Table":
        """The table with settings in one column, for a terminal too narrow for one per parameter.

        A setting is named by the values in which rows differ, to three significant digits.
        """
        telling = [place for place in self.setting if len({row[place] for row in self.rows}) > 1]
        named = telling or list(self.setting)
        others = [place for place in range(len(self.head)) if place not in self.setting]
        head = (*(self.head[place] for place in others), "setting")
        rows = [
            (
                *(row[place] for place in others),
                " ".join(
                    f"{self.head[place]}={_short(row[place])}"
                    for place in named
                    if row[place] != "–"
                ),
            )
            for row in self.rows
        ]
        last = len(others)
        return Table(head, tuple(rows), self.title, left=(last,), wrapped=(last,))

    @property
    def turned(self) -> "Table":
        """The table transposed, for rows that are too wide for a terminal."""
        head = ("", *(row[0] for row in self.rows))
        rows = zip(self.head[1:], *(row[1:] for row in self.rows), strict=True)
        return Table(head, tuple(rows), self.title, left=(0,))

    def without(self, columns: Collection[int]) -> "Table":
        """Return the table without the columns at these positions."""
        kept = [place for place in range(len(self.head)) if place not in columns]
        return Table(
            tuple(self.head[place] for place in kept),
            tuple(tuple(row[place] for place in kept) for row in self.rows),
            self.title,
            left=[at for at, place in enumerate(kept) if place in self.left],
        )

    @property
    def filled(self) -> "Table":
        """The table without empty columns."""
        return self.without(
            [place for place in range(len(self.head)) if all(r[place] == "–" for r in self.rows)]
        )

    @property
    def figures(self) -> tuple[bool, ...]:
        """Which columns hold only figures, judging by their cells."""
        if not self.rows:
            return (False,) * len(self.head)
        return tuple(all(map(_is_figure, column)) for column in zip(*self.rows, strict=True))


def _short(value: str) -> str:
    try:
        return value if value.lstrip("-").isdigit() else f"{float(value):.3g}"
    except ValueError:
        return value


def _is_figure(cell: str) -> bool:
    return not cell or cell[0].isdigit() or cell[0] in "−+<–"

"""The table of a study's trials: filtered, sorted and paginated by PostgreSQL."""

from dataclasses import dataclass
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from tuner.dashboard import rendering
from tuner.dashboard.desk import Desk
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import BUILT_IN
from tuner.results import FURTHER, TrialRow, page, read_query, trial_columns, trial_rows
from tuner.store.studies import Study

SIZE, SIZE_MOST = 50, 500


@dataclass(frozen=True)
class TrialsPage:
    """One page of trials."""

    study: str
    query: str
    sort: str
    columns: tuple[str, ...]
    all_columns: tuple[str, ...]
    rows: tuple[TrialRow, ...]
    total: int
    after: str
    """Where the next page starts; "" on the last one."""
    error: str
    """Why the conditions could not be parsed."""
    picked: tuple[int, ...]
    pinned: tuple[str, ...] = ()
    """Columns that stay on the left while the others scroll; the first ones of `columns`."""
    largest_first: frozenset[str] = frozenset()
    """Columns that are sorted from the largest first, because larger is better."""

    JSON: ClassVar = ("study", "query", "sort", "total", "after", "error", "trials=cells")

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The shown cells of each row, for programs."""
        return [{name: row[name] for name in self.columns} for row in self.rows]

    def pinning(self, column: str) -> str:
        """Return the pinned columns after a click on a column's pin."""
        if column in self.pinned:
            return ",".join(name for name in self.pinned if name != column)
        return ",".join([*self.pinned, column])

    def next_sort(self, column: str) -> str:
        """Return the order after a click on a column's head."""
        down = column in self.largest_first
        first, second = (f"-{column}", column) if down else (column, f"-{column}")
        return second if self.sort == first else first

    def arrow(self, column: str) -> str:
        """Return the direction in which a column is sorted, for its head and for screen readers."""
        if self.sort.removeprefix("-") != column:
            return "none"
        return "descending" if self.sort.startswith("-") else "ascending"


def trials_page(request: Request) -> Response:
    """Return one page of a study's trials."""
    desk: Desk = request.app.state.desk
    study = desk.study(request.path_params["name"])
    asked = request.query_params
    every = (*trial_columns(study.spec), *FURTHER)
    shown = _shown(study, asked.get("columns", ""), every)
    pins = dict.fromkeys(name for name in asked.get("pin", "").split(",") if name in shown)
    pinned = tuple(name for name in pins if name != "trial")
    shown = ("trial", *pinned, *(name for name in shown if name not in (*pinned, "trial")))
    sort = asked.get("sort") or "trial"
    query, after = asked.get("q", "").strip(), asked.get("after", "")
    size = _size(asked.get("size"))
    picked = _picked(asked.get("pick", ""))
    further = any(name in FURTHER for name in shown)

    def read(connection: Any, query: str = query, after: str = after) -> Any:
        found = page(connection, study, read_query(query), sort=sort, after=after, size=size)
        rows = trial_rows(connection, study, found.numbers, further=further)
        by_number = {row["trial"]: row for row in rows}
        return found, tuple(by_number[number] for number in found.numbers)

    error = ""
    question = ("trials", query, sort, after, size, further)
    try:
        found, rows = desk.read(question, read, study)
    except UserError as refused:
        if not query:
            raise
        # The typed text stays in its field, with the error, above an empty table.
        error, rows, found = str(refused), (), None
    data = TrialsPage(
        study=study.title,
        query=query,
        sort=sort,
        columns=shown,
        all_columns=every,
        rows=rows,
        total=0 if found is None else found.total,
        after="" if found is None else found.after,
        error=error,
        picked=picked,
        pinned=pinned,
        largest_first=frozenset(
            f"val_{metric.name}"
            for metric in (*BUILT_IN, *study.spec.metrics)
            if metric.better == "higher"
        ),
    )
    return rendering.page(request, "trials", data, study=study)


def _shown(study: Study, wanted: str, every: tuple[str, ...]) -> tuple[str, ...]:
    if not wanted:
        metric = study.spec.search.metric
        own = (f"{of}_{one.name}" for one in study.spec.metrics for of in ("val", "test"))
        usual = dict.fromkeys(
            ("trial", "state", "seed", *study.spec.varied, metric, *own, "val_acc", "test_acc",
             "gap", "best_epoch", "epochs_run", "seconds")
        )  # fmt: skip
        return tuple(name for name in usual if name in every)
    names = tuple(dict.fromkeys(name for name in wanted.split(",") if name))
    for name in names:
        if name not in every:
            raise UserError(f"{study.title} has no column {name!r}.{meant(name, every)}")
    return names if "trial" in names else ("trial", *names)


def _size(wanted: str | None) -> int:
    if wanted is None:
        return SIZE
    size = rendering.number_in(wanted)
    if size is None or not 1 <= size <= SIZE_MOST:
        raise UserError(f"A page has 1 to {SIZE_MOST} rows, not {wanted!r}.")
    return size


def _picked(wanted: str) -> tuple[int, ...]:
    numbers = (rendering.number_in(one) for one in wanted.split(","))
    return tuple(dict.fromkeys(number for number in numbers if number is not None))

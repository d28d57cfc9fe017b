"""What a reader chose to see of a study, from the address; it applies to all charts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from tuner.dashboard.rendering import number_in
from tuner.errors import UserError
from tuner.names import meant
from tuner.records import METRICS
from tuner.results import Condition, Results, check_columns, read_query
from tuner.store.studies import Study

BOARD, BOARD_MOST = 20, 500
"""Rows of the leaderboard."""
CURVES = {
    "val_loss": "validation loss (nats)",
    "train_nll": "training loss (nats)",
    "val_acc": "validation accuracy",
    "train_acc": "training accuracy",
}


@dataclass(frozen=True)
class View:
    """The choices of a study's page."""

    conditions: tuple[Condition, ...]
    """Filters on trials; settings are shown if one of their trials is."""
    group: str
    """What lines of curves represent: settings, or the levels of a factor."""
    curve: str
    stopped: bool
    """Whether pruned, diverged and failed trials are shown."""
    top: int
    """Rows of the leaderboard."""

    @classmethod
    def of(cls, request: Request, study: Study, *, filtered: bool = True) -> "View":
        """Parse the choices in an address, with or without its conditions."""
        asked = request.query_params
        conditions = read_query(asked.get("q", "")) if filtered else ()
        check_columns(study, conditions)
        return cls(
            conditions=conditions,
            group=chosen("group", asked.get("group"), groups(study)),
            curve=chosen("curve", asked.get("curve"), tuple(curve_kinds(study))),
            stopped=chosen("stopped", asked.get("stopped"), ("shown", "hidden")) == "shown",
            top=min(BOARD_MOST, number_in(asked.get("top", "")) or BOARD),
        )

    @classmethod
    def first(cls, study: Study) -> "View":
        """Return what is shown before anything is chosen."""
        return cls((), groups(study)[0], next(iter(curve_kinds(study))), stopped=True, top=BOARD)

    @property
    def filtered(self) -> bool:
        """Whether only some trials are shown."""
        return bool(self.conditions)

    def numbers(self, results: Results) -> frozenset[int]:
        """Return the numbers of the shown trials."""
        rows = results.where(self.conditions)
        return frozenset(row["trial"] for row in rows if self.stopped or not row.lost)


def groups(study: Study) -> tuple[str, ...]:
    """Return what lines of curves can represent: settings, or the levels of a factor."""
    factors = tuple(study.spec.varied)
    return ("setting", *factors) if len(factors) != 1 else (*factors, "setting")


def curve_kinds(study: Study) -> Mapping[str, str]:
    """Return the figures with curves, with their names, the study's metric first.

    If the metric has no curve, as with AUC, the loss is first.
    """
    metric = study.spec.search.metric
    first = {}
    if metric in CURVES or metric not in METRICS:
        first[metric] = CURVES.get(metric, metric)
    return first | {name: said for name, said in CURVES.items() if name not in first}


def chosen(name: str, wanted: str | None, choices: Sequence[str]) -> str:
    """Return the wanted choice, or the first one by default."""
    wanted = wanted or choices[0]
    if wanted not in choices:
        raise UserError(
            f"{wanted!r} is not a {name} of this study; it has {', '.join(choices)}."
            f"{meant(wanted, choices)}"
        )
    return wanted

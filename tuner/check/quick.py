"""Examines a study's data in a child process, which loads them as a trainer would."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuner.check.feasibility import check_data, remarks
from tuner.questions import Body, Checker, Progress, Question, serve
from tuner.records import Metric, SplitName, Value
from tuner.spec.study import Spec

MOST = 4
"""At most this many configurations of [data] are examined."""


@dataclass(frozen=True)
class Examined:
    """One examined configuration of [data]: the findings as JSON, and as sentences."""

    body: Mapping[str, Any]
    warnings: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """The source's notes on how it read the data."""
        return tuple(self.body["notes"])


def configurations(spec: Spec) -> list[dict[str, Value]]:
    """Return the distinct configurations of [data] that the study's first seed trains on."""
    found: list[dict[str, Value]] = []
    chosen = spec.grid if spec.search.sampler == "grid" else ({},)
    for one in chosen:
        data = dict(spec.job(one, seed=0).data)
        if data not in found:
            found.append(data)
        if len(found) == MOST:
            break
    return found


def examine_data(
    spec: Spec,
    data: Mapping[str, Value],
    checker: Checker,
    *,
    quick: bool,
) -> Examined:
    """Load and examine one configuration of [data]; raise if it is wrong.

    Also raises if settings of the study cannot be trained on such data.
    """
    with begin(spec, data, checker, quick=quick) as question:
        return examined(spec, question, checker.progress)


def begin(spec: Spec, data: Mapping[str, Value], checker: Checker, *, quick: bool) -> Question:
    """Start loading and examining one configuration of [data]."""
    work = {
        "objective": spec.objective,
        "data": dict(data),
        "quick": quick,
        "metric": spec.search.metric,
        "metrics": [asdict(metric) for metric in spec.metrics],
    }
    return checker.begin("tuner.check.quick", work)


def loaded(spec: Spec, question: Question, progress: Progress) -> tuple[str, ...]:
    """Wait until the data are loaded and return the source's notes, or raise if they are wrong.

    Later findings never prevent a study from being trained.
    """
    found = question.part(progress)
    check_data(spec, found["contents"])
    return tuple(found["notes"])


def examined(spec: Spec, question: Question, progress: Progress) -> Examined:
    """Return the findings, or raise if the data are wrong."""
    found = question.answer(progress)
    contents = found["examination"]["contents"]
    check_data(spec, contents)
    return Examined(found["examination"], (*found["warnings"], *remarks(spec, contents)))


def _work(body: Body, progress: Progress) -> Generator[Body, None, Body]:
    # Imported in the child only; the caller just reads the findings.
    from tuner.check.examination import contents_of, examine
    from tuner.check.findings import warnings
    from tuner.train.objective import Split, find
    from tuner.train.own_metrics import OwnMetrics, Truth, check_metric

    found = find(body["objective"], [Path(folder) for folder in body["folders"]])
    data = found.load_data(body["data"], Path(body["cache"]), progress)
    # A metric that fails, or is undefined on these data, is found before the launch.
    metrics = tuple(Metric(**metric) for metric in body["metrics"])
    own = OwnMetrics(found, metrics)
    splits: list[tuple[SplitName, Split | None]] = [("val", data.val), ("test", data.test)]
    truths = [
        Truth(name, split.labels, split.patients, data.classes)
        for name, split in splits
        if split is not None
    ]
    for truth in truths:
        own.try_out(truth)
    check_metric(body["metric"], metrics, truths[0])
    contents = contents_of(data)
    plain = {name: asdict(split) for name, split in contents.items()}
    yield {"contents": plain, "notes": data.notes}
    progress("examining images", 0, 1)
    examination = examine(data, body["data"], quick=body["quick"], contents=contents)
    return {"examination": examination.to_json(), "warnings": warnings(examination)}


def main(_arguments: Sequence[str]) -> int:
    """Do the work that standard input describes."""
    return serve(_work)


if __name__ == "__main__":
    raise SystemExit(main([]))

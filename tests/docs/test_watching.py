"""docs/watching.md and the Grafana board use only existing metrics and labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tuner.dashboard.pages.metrics import as_page
from tuner.exposition import MetricsPage
from tuner.settings import Timing
from tuner.store.address import Address
from tuner.store.database import Database
from tuner.store.ledger.workers import Post
from tuner.store.tallies import Tally
from tuner.store.totals import EVENTS, GpuLoad, StudyTotals, Totals
from tuner.work.load import Load
from tuner.work.monitor import Monitor
from tuner.work.renewal import Renewal

DOCS = Path(__file__).parents[2] / "docs"
SELECTOR = re.compile(r"\b(tuner_\w+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\b(?:by|on) \(([^)]*)\)")
ADDED = {"instance", "job"}
"""Labels that Prometheus adds to what it scrapes."""


def labels_of(page: MetricsPage) -> dict[str, set[str]]:
    """Return the labels of every sample's name."""
    return {
        sample.name: set(sample.labels) for family in page.collect() for sample in family.samples
    }


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Return all metrics of both pages, each with its labels."""
    study = StudyTotals(
        *("lr@1", "open", {"complete": 1}, 3, 1, 0, dict.fromkeys(EVENTS, 0), 1.0, Tally()),
        claiming=True,
    )
    whole = Totals({"open": 1}, (study,), {("host", "cuda:0"): GpuLoad(0.5, 1, 2)})
    monitor = Monitor()
    renewal = Renewal(Database(Address({"host": "/nowhere"})), Post(1, 1), Timing())
    renewal.load = Load(1, 1.0, 0.5, 1, 2)
    with monitor.on("lr@1", "cuda:0", renewal):
        return labels_of(as_page(whole)) | labels_of(monitor.page())


def unknown(query: str, known: dict[str, set[str]]) -> Iterator[str]:
    """Yield the names in a query that do not exist."""
    names = SELECTOR.findall(query)
    if not names:
        yield f"no metric in {query}"
    for name, conditions in names:
        if name not in known:
            yield name
        asked = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", conditions))
        yield from (f"{name}: {label}" for label in asked - known.get(name, set()) - ADDED)
    there = set().union(*(known.get(name, set()) for name, _ in names)) | ADDED
    for listed in GROUPED.findall(query):
        yield from set(filter(None, re.split(r"[,\s]+", listed))) - there


def test_every_query_of_the_board_finds_its_metrics(known: dict[str, set[str]]) -> None:
    """Each panel has a query with existing names and labels, and its own place."""
    board = json.loads((DOCS / "grafana.json").read_text(encoding="utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 15
    assert [(query, list(unknown(query, known))) for query in queries] == [
        (query, []) for query in queries
    ]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    (variable,) = [one for one in board["templating"]["list"] if one["type"] == "query"]
    asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert asked is not None
    assert asked[2] in known[asked[1]]


def test_a_query_of_something_else_is_found(known: dict[str, set[str]]) -> None:
    """A query with an unknown name is found, so the test above can fail."""
    assert list(unknown("sum by (host) (rate(tuner_epochs_total[5m]))", known)) == [
        "tuner_epochs_total",
        "host",
    ]
    assert list(unknown('tuner_workers{host="a"}', known)) == ["tuner_workers: host"]


def test_the_page_names_metrics_that_there_are(known: dict[str, set[str]]) -> None:
    """The page's table lists all metrics, and its alerts use only those."""
    page = (DOCS / "watching.md").read_text(encoding="utf-8")
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in known}
    assert set(re.findall(r"^\| `(tuner_\w+)", page, re.MULTILINE)) == families
    blocks = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    rules = [
        rule for block in blocks for group in block.get("groups", ()) for rule in group["rules"]
    ]
    assert len(rules) >= 3
    for rule in rules:
        assert list(unknown(rule["expr"], known)) == [], rule

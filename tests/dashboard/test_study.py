"""The study's page: its evidence equals the answers, and one filter applies to all of it."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from tests.answers.fabricate import Told, fabricate, hits, images
from tests.dashboard.conftest import LOCAL, app_for
from tests.dashboard.test_pages import INLINE
from tests.harness.processes import until
from tests.store.specs import (
    DATASET,
    SETUP,
    Bench,
    claim_trial,
    finish,
    make_curve,
    make_result,
    make_spec,
)
from tuner.answers.compare import Options, compare, table
from tuner.answers.gap import gap
from tuner.answers.influence import influence
from tuner.answers.plain import plain
from tuner.answers.settings import settings
from tuner.dashboard.desk import Desk
from tuner.dashboard.drawing import Axis
from tuner.dashboard.pages.evidence import matching, val_test
from tuner.dashboard.pages.parallel import BEST, CHOSEN_MOST, thinned
from tuner.dashboard.pages.view import View
from tuner.dashboard.rendering import environment
from tuner.dashboard.shelf import FAILED
from tuner.records import Metric, Value
from tuner.results import Results
from tuner.spec.study_ref import StudyRef
from tuner.store import tables as t
from tuner.store.database import Database
from tuner.store.spending import Used

PARTS = ("answer", "now", "view", "choices", "comparisons", "val_test", "influence", "leaderboard")


def ready(pages: TestClient, path: str) -> Any:
    """Request data until they have been computed."""
    found: list[Any] = []

    def ask() -> bool:
        answer = pages.get(path)
        if answer.status_code == 200:
            found.append(answer.json())
        return answer.status_code != 202

    until(ask, path)
    return found[-1]


def part(pages: TestClient, path: str, name: str) -> str:
    """Request a part of a page until it has been computed."""
    texts: list[str] = []

    def ask() -> bool:
        texts.append(pages.get(f"{path}{'&' if '?' in path else '?'}part={name}").text)
        return "Computing …" not in texts[-1] and "Comparing …" not in texts[-1]

    until(ask, name)
    return texts[-1]


def whole(pages: TestClient, path: str) -> dict[str, Any]:
    """Request a study's page as JSON until all of it has been computed."""
    found: list[dict[str, Any]] = []

    def ask() -> bool:
        found.append(pages.get(path).json())
        return None not in found[-1].values()

    until(ask, path)
    return found[-1]


def test_the_evidence_is_that_of_the_answers(pages: TestClient, stored: Database) -> None:
    """Gap, influence and leaderboard are those of the commands, and the pictures show them."""
    body = whole(pages, "/studies/lr_sched.json")
    with stored.snapshot() as connection:
        results = Results.of(connection, StudyRef("lr_sched"))
        said = json.loads(json.dumps(plain((gap(results), influence(results)))))
        best = [one.median_trial for one in settings(results)]
    assert body["val_test"]["gap"] == said[0]
    assert [one["influence"] for one in body["influence"]["pictures"]] == said[1]
    assert [row["trial"] for row in body["leaderboard"]["rows"]] == best
    picture = part(pages, "/studies/lr_sched", "val_test")
    # A point for each of nine settings; those that differ significantly have another shape.
    apart = [one["gap"]["low"] > 0 for one in said[0]["settings"]]
    assert picture.count('class="ring"') == 1
    assert picture.count("l5.5-5.5 5.5 5.5-5.5 5.5z") == sum(apart)
    assert picture.count("<a href=") == len(apart)
    shares = part(pages, "/studies/lr_sched", "influence")
    assert said[1][0]["verdict"] in shares
    assert shares.count("<rect") >= len(said[1][0]["parts"])


@pytest.mark.parametrize("study", ["single", "failed", "paused", "no_test", "one_seed@1"])
def test_every_part_of_a_poor_study(pages: TestClient, study: str) -> None:
    """In a study without test set, seeds or trials each part says what is missing."""
    for name in PARTS:
        text = part(pages, f"/studies/{study}", name)
        assert text.strip()
        assert not INLINE.search(text)
    for data in ("curves", "parallel"):
        answer = pages.get(f"/studies/{study}/{data}.json")
        assert answer.status_code in (200, 202, 400)


def test_a_page_without_its_curves(stored: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """If curves cannot be computed, only they are missing, and their chart shows why."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("tuner.dashboard.pages.curves.setting_curves", fail)
    with TestClient(app_for(Desk(stored)), LOCAL) as app:
        until(lambda: app.get("/studies/digits/curves.json").status_code == 503, "a failure")
        assert app.get("/studies/digits/curves.json").json() == {"error": FAILED}
        page = app.get("/studies/digits")
        assert page.status_code == 200
        assert 'id="curves"' in page.text
        assert "data-drawn" not in page.text


def test_the_reference_is_marked(stored: Database) -> None:
    """In a table of levels compared with a named one, the reference is marked."""
    with stored.snapshot() as connection:
        results = Results.of(connection, StudyRef("lr_sched"))
        found = compare(results, by=("scheduler",), options=Options(reference="step"))
    written = environment.from_string("{{ ui.table(found) }}").render(found=table(found[0]))
    assert written.count('<span class="mark') == len(found[0].rows)
    assert '<span class="mark reference">reference</span>' in written


def test_one_filter_holds_for_all(pages: TestClient) -> None:
    """Conditions narrow leaderboard, curves, scatter and parallel coordinates alike."""
    asked = "q=lr>0.0001 scheduler:step,cosine"
    board = part(pages, f"/studies/lr_sched?{asked}", "leaderboard")
    assert board.count("<tr data-row") == 4
    assert "4 of 9 settings match the filter." in board
    assert part(pages, f"/studies/lr_sched?{asked}", "val_test").count("<a href=") == 4
    curves = ready(pages, f"/studies/lr_sched/curves.json?{asked}")
    assert len(curves["lines"]) == 4
    by_factor = ready(pages, f"/studies/lr_sched/curves.json?{asked}&group=lr")
    assert [line["name"] for line in by_factor["lines"]] == ["lr=0.001", "lr=0.01"]
    lines = ready(pages, f"/studies/lr_sched/parallel.json?{asked}")
    assert {line["chosen"] for line in lines["lines"]} == {True, False}
    assert "20 match the filter" in lines["note"]
    view = part(pages, f"/studies/lr_sched?{asked}", "view")
    assert "Show all" in view
    assert "trials?q=lr" in view


def test_a_brush_is_the_condition_of_the_address(pages: TestClient) -> None:
    """Each axis is brushed where the address has a condition, for levels as for numbers."""
    path = "/studies/lr_sched/parallel.json"
    asked = {"q": "lr>=0.001 scheduler:step,cosine"}
    axes = {one["name"]: one for one in pages.get(path, params=asked).json()["axes"]}
    assert axes["lr"]["log"]
    assert axes["lr"]["brush"] == [0.5, 1.0]
    assert axes["val_loss"]["brush"] is None
    places = {tick["label"]: tick["place"] for tick in axes["scheduler"]["ticks"]}
    assert axes["scheduler"]["brush"] == sorted((places["step"], places["cosine"]))


@pytest.mark.parametrize(
    ("asked", "brush"),
    [
        ("lr!=0.001", None),
        ("lr:0.001", [0.5, 0.5]),
        ("lr:0.0001,0.001", [0.0, 0.5]),
        ("lr>0.0001 lr!=0.01", [0.0, 1.0]),
    ],
)
def test_a_brush_on_numbers_is_what_conditions_leave(
    pages: TestClient, asked: str, brush: list[float] | None
) -> None:
    """A list of numbers brushes their span; one excluded number brushes nothing."""
    found = ready(pages, f"/studies/lr_sched/parallel.json?q={asked}")
    axes = {one["name"]: one for one in found["axes"]}
    assert axes["lr"]["brush"] == brush


def test_charts_of_accuracy_are_in_per_cent(pages: TestClient) -> None:
    """Values stay fractions, with the factor 100 for labels; losses have none."""
    for path, curve in (
        ("/studies/lr_sched/curves.json", "val_acc"),
        ("/studies/lr_sched/trials/0/curves.json", "accuracy"),
        ("/studies/lr_sched/compare/curves.json?trials=0,1", "accuracy"),
    ):
        sign = "&" if "?" in path else "?"
        found = ready(pages, f"{path}{sign}curve={curve}")
        assert found["scale"] == 100.0
        assert found["label"].endswith("accuracy (%)")
        assert all(value <= 1 for line in found["lines"] for value in line["mean"] if value)
    assert ready(pages, "/studies/lr_sched/curves.json?curve=val_loss")["scale"] == 1.0


def test_programs_get_figures_without_how_people_read_them(pages: TestClient) -> None:
    """The overview in JSON is that of `tuner status --json`."""
    assert "unit" not in pages.get("/studies/lr_sched.json").json()["overview"]


def test_nothing_is_said_of_a_filter_where_all_match() -> None:
    """If all settings match there is no remark on the filter, also above a thousand."""
    assert matching(1200, "1,200 settings") == ""
    assert matching(1199, "1,200 settings") == "1,199 of 1,200 settings match the filter."


def test_stopped_trials_stand_where_they_are_judged(database: Database) -> None:
    """If the last epoch decides, stopped trials are shown at their last accuracy."""
    truth = images()
    chance = np.random.default_rng(5)

    def tell(chosen: dict[str, Value], _seed: int) -> Told:
        if chosen["lr"] == 1e-2:
            return Told("PRUNED", val_loss=0.6)
        right = {
            split: hits(chance.random(len(of)) < 0.8, of) for split, of in truth.labels.items()
        }
        return Told(logs=right)

    bench = fabricate(database, make_spec(seeds=2, at="last"), tell)
    with database.transaction() as connection:
        connection.execute(
            sa.update(t.outcome)
            .where(t.outcome.c.state == "PRUNED")
            .values(best_val_acc=0.99, last_val_acc=0.3)
        )
        view = View((), "lr", "val_acc", stopped=True, top=10)
        found = val_test(Results(connection, bench.study), view)
    # The lowest of all, at the low end of the axis.
    assert [x for x, _, _ in found.stopped] == [0.03]


def test_metrics_of_a_study_are_read_as_it_declares_them(database: Database) -> None:
    """An own metric is a percentage or a number as declared, whatever its name."""
    metrics = (
        Metric("kappa", "higher", "Agreement beyond chance."),
        Metric("f1", "higher", "Of another kind.", unit="number"),
    )
    spec = replace(make_spec(metric="val_kappa"), metrics=metrics)
    bench = Bench.launch(database, spec)
    own = {"val_kappa": 0.81234, "val_f1": 12.5}
    worker = bench.worker()
    held = claim_trial(worker)
    curve = [replace(one, own=own) for one in make_curve(0.6, 0.5)]
    worker.record(held, curve)
    result = make_result(curve)
    best, last = (
        replace(figures, own=own, test_loss=None, test_acc=None)
        for figures in (result.best, result.last)
    )
    worker.complete(held, SETUP, DATASET, replace(result, best=best, last=last))
    with TestClient(app_for(Desk(database)), LOCAL) as client:
        table = client.get("/studies/small/trials?columns=val_kappa,val_f1").text
        assert ">81.2%</td>" in table
        assert ">12.5</td>" in table
        assert "81.2%" in part(client, "/studies/small", "now")
        file = client.get("/studies/small/export.md?columns=trial,val_kappa,val_f1").text
        assert file.startswith("| trial | val_kappa (%) | val_f1 |")
        until(lambda: "81.2%" in client.get("/").text, "the best of the study")
        lines = ready(client, "/studies/small/parallel.json")
        assert lines["lines"][0]["said"].endswith("val_kappa 81.2%")


def test_stopped_trials_are_hidden_everywhere_at_once(pages: TestClient) -> None:
    """Curves, scatter and parallel coordinates all show pruned trials, or none does."""
    shown, hidden = (
        (
            ready(pages, f"/studies/pruned/curves.json?stopped={how}")["strays"],
            part(pages, f"/studies/pruned?stopped={how}", "val_test").count('class="lost'),
            [
                line
                for line in ready(pages, f"/studies/pruned/parallel.json?stopped={how}")["lines"]
                if line["state"] == "pruned"
            ],
        )
        for how in ("shown", "hidden")
    )
    assert len(shown[0]) == len(shown[2]) == 17
    assert shown[1] > 0
    assert hidden == ([], 0, [])
    assert pages.get("/studies/pruned?stopped=perhaps").status_code == 400


def test_a_loss_that_spans_decades_is_logarithmic(pages: TestClient) -> None:
    """An exploding loss is drawn on a logarithmic axis; an accuracy on a linear one."""
    curves = ready(pages, "/studies/pruned/curves.json")
    assert curves["log"]
    low, high = curves["range"]
    assert 0 < low < min(min(filter(None, line["mean"])) for line in curves["lines"])
    assert high < 1e9
    assert not ready(pages, "/studies/pruned/curves.json?curve=val_acc")["log"]


def test_what_is_wrong_with_a_filter_is_told(pages: TestClient) -> None:
    """An invalid filter stays in its field with the error; JSON is refused."""
    page = pages.get("/studies/lr_sched", params={"q": "scheduller:step"})
    assert page.status_code == 200
    assert "did you mean" in page.text.lower()
    assert 'value="scheduller:step"' in page.text
    refused = pages.get("/studies/lr_sched/parallel.json", params={"q": "scheduller:step"})
    assert refused.status_code == 400
    assert "did you mean" in refused.json()["error"].lower()
    evil = '"><script>alert(1)</script>'
    assert "<script>alert" not in pages.get("/studies/lr_sched", params={"q": evil}).text


def test_no_more_lines_than_pixels() -> None:
    """Of many trials a browser gets as many lines as pixels allow, with all of the best."""
    places = np.random.default_rng(0).random((20_000, 4))
    items = list(range(len(places)))
    shown = thinned(items, places, CHOSEN_MOST)
    assert len(shown) == CHOSEN_MOST
    assert shown == sorted(shown)
    assert shown[-BEST:] == items[-BEST:]
    assert thinned(items, np.zeros((20_000, 4)), CHOSEN_MOST) == [19_999]


def test_an_axis_has_round_ticks() -> None:
    """Ticks are within the axis, 0 has no sign, and a range of one value is drawn too."""
    axis = Axis.over([-1.0, 1.0])
    assert axis is not None
    assert [text for _, text in axis.ticks()] == ["−1", "−0.5", "0", "0.5", "1"]
    assert all(0 <= place <= 1 for place, _ in axis.ticks())
    assert Axis.over([0.5]) is not None
    assert Axis.over([]) is None
    assert Axis.over([float("nan"), 1.0]) is None


def test_the_page_says_what_is_spent_and_what_fits(database: Database) -> None:
    """With half of the hours spent on one of three trials, the page says that one will not fit."""
    bench = Bench.launch(database, make_spec(hours=1.0, money=100.0, price=2.5))
    worker = bench.worker()
    worker.used = lambda: Used(1800.0, 1800.0)
    finish(worker, claim_trial(worker))
    with TestClient(app_for(Desk(database)), LOCAL) as pages:
        now = part(pages, "/studies/small", "now")
        assert "0.5 of 1 hours, cost 1.25 of 100" in now
        assert "needed: about 1.0 hours and a cost of 2.50" in now
        assert "At this pace, about 2 of 3 trials fit into the budget" in now
        worker.used = lambda: Used(3600.0, 3600.0)
        worker.give_back(claim_trial(worker), "a test")
        worker.claim(None, adopt=True)
        assert 'class="state spent"' in part(pages, "/studies/small", "now")


def test_a_page_brings_its_first_curves(pages: TestClient) -> None:
    """A page includes its computed curves; a browser that has them is not sent them again."""
    lines = ready(pages, "/studies/lr_sched/curves.json?curve=val_acc")
    page = pages.get("/studies/lr_sched?curve=val_acc").text
    sent = re.search(r'<template data-drawn="(\w+)">(.+?)</template>', page)
    assert sent is not None
    assert json.loads(sent[2]) == lines
    again = pages.get("/studies/lr_sched/curves.json?curve=val_acc", headers={"have": sent[1]})
    assert again.status_code == 204

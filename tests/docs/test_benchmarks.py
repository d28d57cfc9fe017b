"""docs/benchmarks.md and the README show the recorded figures, and scaling is right."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import chart, record, study, tables


def run(seconds: float, trials: int, began: float | None = None) -> dict[str, Any]:
    """Return a run of this many trials, whose accuracies depend only on the trial."""
    pairs = [(name, seed) for seed in range(5) for name in ("constant", "cosine", "step")]
    kept = [
        {"schedule": name, "seed": seed, "val": 0.6 + seed / 100, "test": 0.5 + seed / 100}
        for name, seed in pairs[:trials]
    ]
    return {"seconds": seconds, "began": began, "trials": kept}


@pytest.fixture
def figures() -> dict[str, Any]:
    """Return a case in which the loop trained all, and Lightning and Ray Tune a part."""
    runs = {
        "loop": [run(100.0, 15), run(120.0, 15)],
        "lightning": [run(40.0, 3, began=10.0)],
        "ray": [run(30.0, 3, began=10.0)],
        "tuner": [run(22.0, 15), run(20.0, 15), run(50.0, 15)],
    }
    return {"ann-64": {"trials": 15, "runs": runs}}


def test_the_pages_are_as_recorded() -> None:
    """The pages equal the rendered record; rendered parts are never edited by hand."""
    made = tables.parts(record.read())
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.rendered(text, made) == text, "run python -m benchmarks.tables"


def test_every_part_has_its_place() -> None:
    """Every recorded section has its marks on a page."""
    pages = "".join(page.read_text(encoding="utf-8") for page in tables.PAGES)
    for name in (*tables.LINES, "chart", "readme"):
        assert f"<!-- {name} -->\n" in pages
        assert f"\n<!-- /{name} -->" in pages


def test_the_start_counts_once_and_the_rest_for_each_round() -> None:
    """3 of 15 trials in 40 s, of which 10 before the first: 160 s, or 130 s in rounds of two."""
    part = run(40.0, 3, began=10.0)
    assert study.scaled(part, trials=15, abreast=1) == 10 + 30 * 5
    assert study.scaled(part, trials=15, abreast=2) == 10 + 30 * 8 / 2
    assert study.scaled(run(40.0, 15), trials=15, abreast=1) == 40


def test_the_table_says_what_was_scaled(figures: dict[str, Any]) -> None:
    """The table has medians over turns, ratios to the loop's, targets, and which were scaled."""
    text = "\n".join(study.lines(figures))
    assert "| notebook loop | 110 (100, 120) | 1.00 | 0.620 and 0.520 | all |" in text
    assert "| Lightning and Optuna | 160 | 0.69 | 0.600 and 0.500 | 3 of 15, scaled |" in text
    assert "| tuner | 22 (20, 22, 50) | 5.00 |" in text
    assert "Target: 4 times as fast as notebook loop; reached: 5.0, met." in text
    assert "no difference seen" in text


def test_other_accuracies_are_told(figures: dict[str, Any]) -> None:
    """A competitor whose accuracies are worse is named, with by how much."""
    worse = copy.deepcopy(figures)
    for one in worse["ann-64"]["runs"]["lightning"][0]["trials"]:
        one["test"] -= 0.1
    text = "\n".join(study.lines(worse))
    assert "different for Lightning and Optuna (-10.0 points)" in text


def test_a_record_keeps_other_sections(tmp_path: Path, figures: dict[str, Any]) -> None:
    """Recording a section keeps the others, each with its machine and command."""
    path = tmp_path / "record.json"
    record.write(path, "answer", {"whole": {}})
    record.write(path, "study", figures)
    body = json.loads(path.read_text())
    assert body["answer"]["figures"] == {"whole": {}}
    assert body["study"]["figures"] == figures
    assert body["study"]["machine"]["cores"]
    assert body["study"]["command"].startswith("python -m benchmarks.study")


def test_the_chart_is_the_same_file_for_the_same_figures(
    tmp_path: Path, figures: dict[str, Any]
) -> None:
    """The same figures give the same chart, byte for byte."""
    section = {"figures": figures, "machine": {"cores": 2}}
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    chart.draw(section, one)
    chart.draw(section, other)
    assert one.read_bytes() == other.read_bytes()

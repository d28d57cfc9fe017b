"""The schema and reference in docs/ match the code, and the shipped studies are valid."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from objectives.chest_xray import OBJECTIVE
from tests.spec.conftest import GRID, STUDY, declared, parsed
from tests.spec.test_faults import MALFORMED
from tuner.errors import UserError
from tuner.spec import reference
from tuner.spec.load import load
from tuner.spec.schema import text as schema_text
from tuner.spec.search import PRUNERS, SAMPLERS, Method
from tuner.train.objective import find

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "study-file.md"
SCHEMA = ROOT / "docs" / "study-file.schema.json"
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
FORM = Draft202012Validator(json.loads(schema_text()))


def faults(document: dict[str, Any]) -> list[str]:
    """Return the schema's faults."""
    return [error.message for error in FORM.iter_errors(document)]


def example() -> str:
    """Return the complete example of the page."""
    found = re.search(r"<!-- example -->\n```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_schema_in_docs_is_current() -> None:
    """To update it: python -m tuner.spec.schema > docs/study-file.schema.json."""
    assert SCHEMA.read_text("utf-8") == schema_text()


def test_the_tables_in_docs_are_current() -> None:
    """To update them: make docs."""
    page = PAGE.read_text("utf-8")
    tables = reference.blocks(
        reference.declarations(["objectives.chest_xray", "objectives.digits"])
    )
    assert reference.update(page, tables) == page
    assert {name for name in tables if f"<!-- begin {name} -->" not in page} == set()


def test_a_table_that_does_not_exist_is_told() -> None:
    """An unknown table name in the page is an error."""
    with pytest.raises(UserError, match="No table is named 'pruner'"):
        reference.update("<!-- begin pruner -->\n<!-- end pruner -->", {"pruners": ""})


def test_the_page_is_rewritten_in_place(tmp_path: Path) -> None:
    """The command replaces only the text between the marks."""
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- begin metrics -->\nobsolete\n<!-- end metrics -->\nb\n")
    reference.main(page, [])
    written = page.read_text()
    assert "val_loss" in written
    assert "obsolete" not in written
    assert written.startswith("a\n")
    assert written.endswith("\nb\n")


def test_the_example_of_the_page_is_a_study(tmp_path: Path) -> None:
    """The example on the page can be launched."""
    (tmp_path / "example.toml").write_text(example(), "utf-8")
    spec = load(tmp_path / "example.toml", (), lambda *_: OBJECTIVE.declarations())
    assert (spec.total_trials, spec.configurations) == (60, 12)
    assert faults(parsed(example())) == []


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_study_is_right(path: Path) -> None:
    """Every study in studies/ fits the schema and its objective, under its own name."""
    assert faults(tomllib.loads(path.read_text("utf-8"))) == []
    spec = load(path, (), lambda name, _: find(name, []).objective.declarations())
    assert spec.name == path.stem


def test_the_first_study_is_the_one_it_says() -> None:
    """lr_sched has 3 schedules × 3 learning rates × 5 seeds of 30 epochs."""
    spec = load(ROOT / "studies" / "lr_sched.toml", (), declared)
    assert (spec.total_trials, spec.configurations, spec.replicates.seeds) == (45, 9, 5)
    assert spec.fixed["epochs"] == 30


METHODS = [
    *(pytest.param("sampler", method, id=f"sampler {method.name}") for method in SAMPLERS.values()),
    *(pytest.param("pruner", method, id=f"pruner {method.name}") for method in PRUNERS.values()),
]


@pytest.mark.parametrize(("kind", "method"), METHODS)
def test_the_schema_knows_the_options_of_each_method(kind: str, method: Method) -> None:
    """A method's own options pass, another's do not, and required ones must be given."""
    document = parsed(STUDY + "[budget]\ntrials = 3\n")
    options = {name: option.default for name, option in method.options.items()}
    document["search"] = {kind: method.name, f"{kind}_options": options}
    assert faults(document) == []
    document["search"] = {kind: method.name}
    assert bool(faults(document)) is bool(method.required)
    document["search"] = {kind: method.name, f"{kind}_options": {**options, "other": 1}}
    assert "other" in str(faults(document))


SEEN_BY_THE_SCHEMA = [
    "no study",
    "no question",
    "versioned name",
    "unknown section",
    "key of budget",
    "half a trial",
    "bare duration",
    "unknown sampler",
    "unknown metric",
    "misspelt option",
    "asha without resource",
    "empty choice",
    "one value in space",
    "no upper end",
    "list in fixed",
]


@pytest.mark.parametrize("case", SEEN_BY_THE_SCHEMA)
def test_an_editor_sees_faults_of_form(case: str) -> None:
    """Faults that need neither objective nor counting are found by the schema."""
    assert faults(parsed(MALFORMED[case][0])) != []


def test_the_schema_knows_nothing_that_toml_cannot_write() -> None:
    """TOML has no null, so the schema has none."""
    assert "null" not in schema_text()
    assert faults(parsed(STUDY + GRID)) == []

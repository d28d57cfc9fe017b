"""optuna-dashboard shows our answer as a study's note, which is not stored."""

import optuna
import pytest
from optuna_dashboard import save_note
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for
from tests.harness.processes import until
from tests.store.specs import Bench, make_spec
from tuner.dashboard.desk import Desk
from tuner.store.database import Database


def note(app: TestClient, bench: Bench) -> str:
    """Return the study's note as optuna-dashboard's page gets it."""
    body: str = app.get(f"/api/studies/{bench.study.study_id}").json()["note"]["body"]
    return body


def test_a_note_has_the_question_the_answer_and_the_way_back(pages: TestClient) -> None:
    """A note has the question, our page's answer and a link; nothing is written."""
    (number,) = (
        one["study_id"]
        for one in pages.get("/api/studies").json()["study_summaries"]
        if one["study_name"] == "digits"
    )

    def ask() -> str:
        body: str = pages.get(f"/api/studies/{number}").json()["note"]["body"]
        return body.replace("\\", "")

    until(lambda: "being computed" not in ask(), "the answer is in the note")
    page = pages.get("/studies/digits.json").json()
    assert ask().startswith(f"**{page['overview']['question']}**")
    assert all(sentence in ask() for sentence in page["answer"]["sentences"])
    assert "](/studies/digits)" in ask()


def test_somebodys_own_note_stays(app: TestClient, bench: Bench) -> None:
    """A note written in optuna-dashboard is shown instead of ours."""
    study = optuna.load_study(study_name=bench.study.optuna_name, storage=bench.binding.storage)
    save_note(study, "mine")
    assert note(app, bench) == "mine"


def test_studies_of_others_and_lists_have_no_note(app: TestClient, bench: Bench) -> None:
    """A study not created by tuner has no note of ours; a list computes no answers."""
    with bench.database.transaction() as connection, bench.binding.within(connection) as storage:
        other = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "theirs")
    assert app.get(f"/api/studies/{other}").json()["note"]["body"] == ""
    assert len(app.get("/api/studies").json()["study_summaries"]) == 2


@pytest.mark.parametrize(
    "question", ["", "<script>alert(1)</script> [x](javascript:y)", "é" * 5000]
)
def test_a_question_is_text(database: Database, question: str) -> None:
    """Markup in a question is escaped; a long question is not cut."""
    spec = make_spec()
    object.__setattr__(spec, "question", question)
    bench = Bench.launch(database, spec)
    with TestClient(app_for(Desk(database)), LOCAL) as app:
        text = note(app, bench)
    assert "<script" not in text
    assert "[x](" not in text
    assert text.count("é") == question.count("é")

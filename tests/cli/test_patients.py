"""Data that name patients, from the objective to every answer, through real processes."""

from tests.cli.conftest import Project


def test_patients_come_from_the_objective_to_the_answers(project: Project) -> None:
    """Patients named by an objective are stored by a worker, and are the unit of the answers."""
    project.run("launch", "--study", "small", "--set", "data.each=2", "--workers", "1")
    (compared,) = project.json("compare", "small", "--metric", "test_acc", "--json")["comparisons"]
    assert (compared["images"], compared["patients"]) == (30, 15)
    assert "30 images from 15 patients" in compared["verdict"]
    two = project.json("compare", "small", "--trials", "0", "1", "--json")
    assert (two["images"], two["patients"]) == (30, 15)
    gap = project.json("gap", "small", "--json")
    assert (gap["val_patients"], gap["test_patients"]) == (20, 15)
    shown = project.json("show", "small", "0", "--json")
    assert shown["splits"]["val"]["patients"] == 20
    assert "40 from 20 patients" in project.run("show", "small", "0")
    assert "images from 15 patients classified correctly" in project.run("confusion", "small")
    exported = project.run("export", "--study", "small", "--predictions")
    assert ",0-0," not in exported
    assert ",1-0,1-0," in exported.replace("\r", "")
    project.run("report", "small", "-o", "report.md")
    assert "30 images from 15 patients" in (project.folder / "report.md").read_text()
    assert "too few" not in project.run("check", "small", "--quick")

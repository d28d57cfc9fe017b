"""`tuner report`: the file, and refusals."""

from tests.cli.conftest import Project


def test_a_trained_study_is_reported_in_both_formats(trained_once: Project) -> None:
    """The file has the requested name, or the study's; the answer is printed."""
    said = trained_once.run("report", "small")
    page = (trained_once.folder / "small-report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert said.startswith("The best of 2 settings by val_loss is lr=")
    assert "deterministic algorithms only" in page
    assert "small-report.html (replaced)" in trained_once.run("report", "small")
    trained_once.run("report", "small", "-o", "out/told.md")
    assert (trained_once.folder / "out/told.md").read_text().startswith("# ")


def test_a_report_that_was_written_on_is_kept(trained_once: Project) -> None:
    """A Markdown report may have been edited, so it is replaced only with --overwrite."""
    paper = trained_once.folder / "paper.md"
    paper.write_text("# My conclusions\n")
    ask = ("report", "small", "-o", "paper.md")
    assert "paper.md exists already" in trained_once.run(*ask, code=2)
    assert paper.read_text() == "# My conclusions\n"
    assert "(replaced)" in trained_once.run(*ask, "--overwrite")


def test_what_is_not_a_report_is_refused(trained_once: Project) -> None:
    """Another ending, a folder and an unknown study are refused; nothing is written."""
    assert "use .html or .md" in trained_once.run("report", "small", "-o", "x.pdf", code=2)
    assert "is a folder" in trained_once.run("report", "small", "-o", ".", code=2)
    assert "no study 'smal'" in trained_once.run("report", "smal", "-o", "x.html", code=2)
    assert not (trained_once.folder / "x.html").exists()

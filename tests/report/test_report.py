"""The report: one self-contained page that answers, escapes, and is reproducible."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from tests.answers.fabricate import Images, Told, fabricate, hits
from tests.answers.test_contenders import raced
from tests.answers.test_contenders import store as store_race
from tests.pictures.test_pictures import LETTERS, TRUTH, accurate
from tests.store.specs import Bench, make_ranged, make_spec
from tuner.answers.table import Table
from tuner.records import Value
from tuner.report.document import CodeBlock, Drawing, Report, Words
from tuner.report.gather import gather
from tuner.report.html import as_html
from tuner.report.markdown import as_markdown
from tuner.results import Results
from tuner.spec import identity
from tuner.spec.load import check
from tuner.store.database import Database


class Page(HTMLParser):
    """A parsed page: its texts and all addresses in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.alternatives: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record tags and addresses."""
        self.tags.append(tag)
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("href", "src") if name in given]
        self.alternatives += [given["alt"] or ""] if "alt" in given else []

    def handle_data(self, data: str) -> None:
        """Record texts."""
        if data.strip():
            self.texts.append(data.strip())


def reported(bench: Bench) -> Report:
    """Make a study's report."""
    with bench.database.transaction() as connection:
        return gather(Results(connection, bench.study))


def study(database: Database, question: str = "Which?", data: Images = TRUTH) -> Bench:
    """Store a study in which step is much worse than the other schedulers."""
    spec = make_spec("told", dimensions=LETTERS, seeds=3, epochs=6)
    worse = accurate(lambda at: 0.6 if at["scheduler"] == "step" else 0.95)
    return fabricate(database, replace(spec, question=question), worse, data={"data-0": data})


def blocks(report: Report) -> Iterator[object]:
    """Yield all blocks of a report."""
    for section in report.sections:
        yield from section.blocks


def said(report: Report) -> str:
    """Return all words of a report."""
    return " ".join(one.text for one in blocks(report) if isinstance(one, Words))


def test_the_answer_comes_first_and_everything_is_there(database: Database) -> None:
    """Question, answer, then tables, pictures, gap, losses, cost, provenance, file, repetition."""
    report = reported(study(database))
    assert report.question == "Which?"
    assert report.answer[0].startswith("The best of 6 settings by val_loss is ")
    assert "On test, its accuracy is" in report.answer[0]
    assert report.answer[1].startswith("By scheduler: ")
    assert "step is significantly worse" in report.answer[1]
    assert any("below validation" in one for one in report.answer)
    titles = [section.title for section in report.sections]
    assert titles[:2] == ["Settings compared", "Training"]
    for title in ("Validation and test", "What matters", "Cost", "Provenance", "The study file"):
        assert title in titles
    drawn = {one.command.split()[-1] for one in blocks(report) if isinstance(one, Drawing)}
    assert {"effects", "curves", "schedules", "val-test", "gap", "influence", "roc"} <= drawn
    tables = [one for one in blocks(report) if isinstance(one, Table)]
    assert all(len(row) == len(one.head) for one in tables for row in one.rows)


def test_the_page_needs_nothing_else(database: Database) -> None:
    """No script and no external address; every picture has a text."""
    text = as_html(reported(study(database)))
    page = Page(text)
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(one.startswith(("#", "data:image/svg+xml;base64,")) for one in page.addresses)
    assert len(page.alternatives) >= 8
    assert all(len(one) > 10 for one in page.alternatives)
    anchors = {one for one in page.addresses if one.startswith("#")}
    ids = set(re.findall(r'<section id="([^"]+)"', text))
    assert anchors == {f"#{one}" for one in ids}


NASTY = '<script>alert("1")</script> & *bold* [link](http://evil) | `code` </pre> # x'


def test_a_study_cannot_write_into_the_page(database: Database) -> None:
    """Tags, quotes and Markdown in questions and classes stay text."""
    classes = ("<img src=x onerror=1>", "b|c")
    report = reported(study(database, NASTY, Images(TRUTH.labels, classes=classes)))
    page = Page(as_html(report))
    assert "script" not in page.tags
    assert page.tags.count("img") == sum(isinstance(one, Drawing) for one in blocks(report))
    assert any(text == NASTY for text in page.texts)
    text = re.sub(r"^```.*?^```$", "", as_markdown(report), flags=re.DOTALL | re.MULTILINE)
    assert "<script>" not in text
    assert "<img" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert "\n# " not in text.removeprefix("# ")


def test_markdown_has_the_same_words_and_whole_tables(database: Database) -> None:
    """Rows have as many cells as their head; each picture is a sentence and a command."""
    report = reported(study(database))
    text = as_markdown(report)
    assert text.startswith("# Which?\n\nStudy `told`\n\n> **The best of 6 settings")
    for section in report.sections:
        assert f"\n## {section.title}\n" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines
    assert "`tuner plot told@1 curves`" in text
    for table in (one for one in blocks(report) if isinstance(one, Table)):
        assert all(line.count(" | ") == len(table.head) - 1 for line in lines
                   if line.startswith(f"| {' | '.join(table.head[:3])}"))  # fmt: skip


def test_the_study_file_in_it_is_the_study(database: Database) -> None:
    """The study file in the report has the stored study's fingerprint when read again."""
    import tomllib

    from tests.spec.conftest import declared

    bench = study(database)
    code = next(one for one in blocks(reported(bench)) if isinstance(one, CodeBlock))
    again = check(tomllib.loads(code.text), (), declared, Path("told.toml"))
    assert identity.fingerprint(again) == identity.fingerprint(bench.study.spec)


def test_a_report_shows_no_password_of_checkpoints(database: Database) -> None:
    """Neither the file nor what was set on the command line shows credentials in the address."""
    address = "ftp://me:hunter2@host/kept"
    spec = make_spec("young", dimensions=LETTERS, seeds=2)
    spec = replace(
        spec,
        checkpoints=replace(spec.checkpoints, location=address),
        overrides=(f"checkpoints.location={address}",),
    )
    report = reported(fabricate(database, spec, lambda *_: Told(state="RUNNING", epochs=2)))
    for text in (as_html(report), as_markdown(report)):
        assert "ftp://***@host/kept" in text
        assert "hunter2" not in text


def test_a_study_without_a_complete_trial_is_reported_as_such(database: Database) -> None:
    """The answer says so, empty parts give the reason, and provenance is there."""
    spec = make_spec("young", dimensions=LETTERS, seeds=2)
    bench = fabricate(database, spec, lambda *_: Told(state="RUNNING", epochs=2))
    report = reported(bench)
    assert report.answer == ("Not answered yet: no trial of young is complete.",)
    assert "12 trials running" in said(report)
    assert any(section.title == "Provenance" for section in report.sections)
    assert as_html(report)


def test_pruned_and_failed_trials_are_counted_with_their_reasons(database: Database) -> None:
    """They are counted by reason, with their epochs and numbers; diverged is not called pruned."""
    right = accurate(lambda _: 0.9)

    def tell(chosen: dict[str, Value], seed: int) -> Told:
        if chosen["scheduler"] == "step":
            return Told(state="PRUNED", epochs=2 + seed, val_loss=0.9)
        if chosen["lr"] == 1e-2 and chosen["scheduler"] == "cosine":
            return Told(state="DIVERGED", epochs=1 + seed, val_loss=math.nan)
        if chosen["lr"] == 1e-2:
            return Told(state="FAILED", epochs=0)
        return right(chosen, seed)

    spec = make_spec("lossy", dimensions=LETTERS, seeds=2, epochs=6)
    report = reported(fabricate(database, spec, tell, data={"data-0": TRUTH}))
    lost = next(
        section for section in report.sections if section.title == "Pruned, diverged and failed"
    )
    table = next(one for one in lost.blocks if isinstance(one, Table))
    assert ("pruned", "–", "4", "2 to 3", "0, 1, 6, 7") in table.rows
    assert ("failed", "–", "2", "0", "3, 9") in table.rows
    why = "a loss or the metric was not finite"
    assert ("diverged", why, "2", "1 to 2", "5, 11") in table.rows
    assert ("pruned, diverged, failed", "4, 2, 2") in report.glance


def test_a_study_without_test_set_says_what_that_means(database: Database) -> None:
    """There is no gap, and validation accuracy is not called the accuracy on new images."""
    only = Images({"val": TRUTH.labels["val"]})
    spec = make_spec("untested", dimensions=LETTERS, seeds=2)
    logs = {"val": hits(TRUTH.labels["val"] >= 0, TRUTH.labels["val"])}
    report = reported(fabricate(database, spec, lambda *_: Told(logs=logs), data={"data-0": only}))
    assert "There is no test set" in said(report)
    assert not any("gap" in name for name, _ in report.glance)
    assert "| test acc" not in as_markdown(report)


def test_a_search_over_ranges_is_answered_by_its_best(database: Database) -> None:
    """Without levels to compare, the answer is the best trial's setting, and what matters."""
    spec = make_ranged("searched", trials=8, sampler="random")
    settings: list[dict[str, Value]] = [
        {"lr": 10.0 ** -(1 + at % 5), "width": 8 * (at + 1), "optimizer": "adam"} for at in range(8)
    ]
    bench = fabricate(
        database, spec, accurate(lambda at: 0.6 + 0.03 * float(at["width"]) / 8),
        data={"data-0": TRUTH}, configurations=settings, seeds=1,
    )  # fmt: skip
    report = reported(bench)
    assert "complete trials by val_loss is trial" in report.answer[0]
    assert "width = " in report.answer[0]


def test_one_seed_is_not_a_verdict(database: Database) -> None:
    """The answer names the best and says that one seed is not enough."""
    spec = make_spec("single", dimensions=LETTERS, seeds=1)
    bench = fabricate(database, spec, accurate(lambda _: 0.9), data={"data-0": TRUTH})
    answer = reported(bench).answer[0]
    assert answer.startswith("The best of 6 complete trials by val_loss is trial")
    assert "with one seed per setting, chance cannot be ruled out" in answer


def test_a_running_study_says_how_far_it_is(database: Database) -> None:
    """The first sentence begins with the number of ended trials."""
    spec = make_spec("half", dimensions=LETTERS, seeds=3, epochs=6)
    bench = fabricate(database, spec, accurate(lambda _: 0.9), data={"data-0": TRUTH}, seeds=2)
    first = reported(bench).answer[0]
    assert first.startswith("With 12 of 18 trials ended so far, the best of 6 settings by val_loss")


def test_a_race_is_answered_by_who_is_left(database: Database) -> None:
    """Of indistinguishable contenders the answer names only the first."""
    report = reported(store_race(database, raced(), rounds=2))
    assert "no setting stands out: the 3 contenders do not differ" in report.answer[0]
    assert "has the best val_acc" in report.answer[0]
    first = report.sections[0].blocks
    assert isinstance(first[0], Words)
    assert first[0].text.startswith("Race of 3 contenders")
    assert isinstance(first[1], Table)
    assert first[1].head[0] == "contender"

"""Watching a launch: workers' logs as JSON, a webhook, a command, metrics."""

import json
import sys
from pathlib import Path

from tests.cli.conftest import Project
from tests.harness.receiver import receiving


def test_a_launch_is_told_and_logged(project: Project, tmp_path: Path) -> None:
    """A webhook and a command are each notified once, with the verdict; the URL stays hidden."""
    file, kept = tmp_path / "webhook", tmp_path / "notice.json"
    code = f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read() + chr(10))"
    with receiving() as receiver:
        file.write_text(f"{receiver.url}/s3cret\n")
        out = project.run(
            *("launch", "--study", "small", "--workers", "2", "--log-format", "json"),
            *("--webhook-file", str(file), "--on-event", f'"{sys.executable}" -c "{code}"'),
            *("--metrics", "19200"),
        )
    (body,) = receiver.bodies()
    assert (body["event"], body["study"]) == ("study_complete", "small@1")
    assert body["sentence"] == "small is complete: 4 of 4 trials ended."
    assert body["verdict"]
    (line,) = kept.read_text().splitlines()
    assert json.loads(line)["id"] == body["id"]
    logs = list((project.folder / ".tuner" / "logs").glob("worker-*.log"))
    assert len(logs) == 2
    text = [line for log in logs for line in log.read_text().splitlines()]
    records = [json.loads(line) for line in text]
    about = {(one["study"], one["trial"]) for one in records if "trial" in one}
    assert about == {("small@1", number) for number in range(4)}
    ports = {one["message"] for one in records if one["message"].startswith("metrics are at")}
    assert len(ports) == 2
    assert {one["message"] for one in records} >= {"small@1: complete."}
    assert "s3cret" not in out + "".join(text)


def test_what_cannot_be_told_is_refused_before_anything_is_created(
    project: Project, tmp_path: Path
) -> None:
    """An invalid address, command or port is refused before anything is created."""
    file = tmp_path / "webhook"
    file.write_text("s3cret\n")
    for option, value, told in (
        ("--webhook-file", str(file), "is not of the form https://HOST/PATH"),
        ("--on-event", "echo 'open", "cannot be read"),
        ("--metrics", "everywhere", "expected an IP address and a port"),
    ):
        for command in ("launch", "worker"):
            out = project.run(command, "small", option, value, code=2)
            assert told in out
            assert "s3cret" not in out
    assert not (project.folder / ".tuner").exists()
    for name, value in (("TUNER_METRICS", "x"), ("TUNER_LOG_FORMAT", "xml")):
        assert name in project.run("studies", code=2, environ={name: value})

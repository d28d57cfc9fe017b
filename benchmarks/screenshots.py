"""The dashboard's pictures in README.md and docs, of a study that is trained for them.

    python -m benchmarks.screenshots  # two minutes, and Chromium

Trains `lr_sched` in a separate folder, with the commands that a user types, and takes screenshots
of its pages in light and dark: docs/images/dashboard-*.webp, each below 60 kB.
"""

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from benchmarks.dashboard import CHROMIUM
from benchmarks.record import progress

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "images"
BYTES_MOST = 60_000
WIDTH = 1120
SCHEMES = ("light", "dark")


@dataclass(frozen=True)
class Shot:
    """A page, the height of its picture, and what must be visible."""

    name: str
    path: str
    height: int
    ready: str
    """A selector of something that is computed or read in the background."""
    at: str = "body"
    """The selector that is scrolled to the top."""


SHOTS = (
    Shot("study", "/studies/lr_sched", 1000, "#curves canvas"),
    Shot("trial", "/studies/lr_sched/trials/{best}", 1135, "#splits .images img", at=".two"),
    Shot("compare", "/studies/lr_sched/compare?settings=1,9", 740, "canvas"),
)


def main() -> None:
    """Train, serve, photograph."""
    with tempfile.TemporaryDirectory(prefix="shots-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)  # the database may run as another user, who needs access
        kept = {k: v for k, v in os.environ.items() if k.startswith(("PATH", "PYTHON", "LANG"))}
        environment = {**kept, "HOME": str(folder), "TUNER_HOME": str(folder / ".tuner")}
        progress("training lr_sched")
        _tuner(environment, "launch", "lr_sched", "--no-check")
        with subprocess.Popen(
            [sys.executable, "-m", "tuner", "dashboard", "--port", "0"],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        ) as server:  # fmt: skip
            try:
                assert server.stdout is not None
                url = server.stdout.readline().split()[0].rstrip("/")
                _photograph(url)
            finally:
                server.terminate()


def _tuner(environment: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _photograph(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{url}/studies/lr_sched")
        best = page.locator("#now a").first.inner_text().removeprefix("trial ")
        page.close()
        for shot in SHOTS:
            for scheme in SCHEMES:
                picture = _shot(browser, url + shot.path.format(best=best), shot, scheme)
                file = FOLDER / f"dashboard-{shot.name}-{scheme}.webp"
                file.write_bytes(picture)
                progress(f"{file.relative_to(ROOT)}: {len(picture):,} bytes")
        browser.close()


def _shot(browser: Browser, address: str, shot: Shot, scheme: str) -> bytes:
    dark = "dark" if scheme == "dark" else "light"
    size = {"width": WIDTH, "height": shot.height}
    page = browser.new_page(viewport=size, color_scheme=dark)  # type: ignore[arg-type]
    page.goto(address)
    expect(page.locator("#live")).to_have_text("live")
    expect(page.locator(shot.ready).first).to_be_visible(timeout=120_000)
    if page.locator(".answer.soft").count():
        expect(page.locator(".answer.soft")).to_have_count(0, timeout=120_000)
    _scroll_to(page, shot.at)
    # Images and curves that came into view.
    page.wait_for_timeout(1_500)
    taken = page.screenshot()
    page.close()
    for quality in (82, 70, 55, 40):
        out = io.BytesIO()
        Image.open(io.BytesIO(taken)).convert("RGB").save(out, "WEBP", quality=quality, method=6)
        if len(out.getvalue()) <= BYTES_MOST:
            return out.getvalue()
    raise SystemExit(f"{shot.name} cannot be made smaller than {BYTES_MOST:,} bytes")


def _scroll_to(page: Page, selector: str) -> None:
    if selector != "body":
        top = page.locator(selector).first.evaluate("one => one.getBoundingClientRect().top")
        page.evaluate("top => scrollTo(0, top - 60)", top)


if __name__ == "__main__":
    main()

"""Images on pages: those that a trial was trained on, as PNGs, or the reason why not."""

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.dashboard.conftest import LOCAL, app_for
from tests.harness.processes import until
from tuner.check import thumbnails
from tuner.check.thumbnails import SIDE, png
from tuner.dashboard.desk import Desk
from tuner.dashboard.images import (
    READING,
    Gallery,
    ImageSource,
    Pictures,
    TrialImages,
    WantedImage,
)
from tuner.questions import Checker
from tuner.records import Value
from tuner.settings import Settings
from tuner.store.database import Database
from tuner.train.objective import Data, find

KEYS: dict[str, Value] = {
    "source": "folder",
    "image_size": 0,
    "val_fraction": 0.25,
    "folds": 0,
    "split_seed": 0,
    "fit": "stretch",
    "depths": "same",
    "skip_unreadable": False,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of grey images of two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for name in ("ill", "well"):
            below = tmp_path / "scans" / part / name
            below.mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (16, 16), dtype=np.uint8)
                Image.fromarray(pixels).save(below / f"{number}.png")
    return tmp_path / "scans"


@pytest.fixture
def loaded(folder: Path, tmp_path: Path) -> Data:
    """Load the folder as a trainer does."""
    keys = {**KEYS, "path": str(folder)}
    return find("chest_xray", []).load_data(keys, tmp_path / "cache", lambda *_: None)


def images_of(folder: Path, loaded: Data) -> TrialImages:
    """Return the image source of a trial that was trained on a folder."""
    source = ImageSource("chest_xray", {**KEYS, "path": str(folder)}, loaded.fingerprint, ())
    return TrialImages(source, 7, ("lab-1",))


def wanted(loaded: Data, *places: int) -> tuple[WantedImage, ...]:
    """Return the database's description of some test images."""
    test = loaded.test
    assert test is not None
    return tuple(
        WantedImage(place, test.ids[place], loaded.classes[test.labels[place]]) for place in places
    )


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    """Open a gallery."""
    gallery = Gallery(Checker(tmp_path, (), lambda *_: None))
    yield gallery
    gallery.close()


def shown(
    gallery: Gallery, images: TrialImages, some: tuple[WantedImage, ...], *, code: bool = False
) -> Pictures:
    """Request test images until it is known whether they can be shown."""
    found = [gallery.show(images, "test", some, lambda: None, runs_code=code)]

    def known() -> bool:
        found.append(gallery.show(images, "test", some, lambda: None, runs_code=code))
        return found[-1].state != "reading"

    until(known, "the images have been read")
    return found[-1]


def test_a_picture_has_the_pixels_of_the_image(
    gallery: Gallery, folder: Path, loaded: Data
) -> None:
    """A shown image has the pixels that the trainer saw, and only requested images exist."""
    images, some = images_of(folder, loaded), wanted(loaded, 5, 0)
    assert shown(gallery, images, some) == Pictures("ready")
    assert loaded.test is not None
    for place in (5, 0):
        picture = gallery.picture(images.source, "test", place)
        assert picture is not None
        pixels = np.asarray(Image.open(io.BytesIO(picture)))
        assert np.array_equal(pixels, loaded.test.images[place])
    assert gallery.picture(images.source, "test", 1) is None


def test_another_picture_is_not_shown_under_a_label(
    gallery: Gallery, folder: Path, loaded: Data
) -> None:
    """If one pixel or one image of a folder has changed, none is shown."""
    images, some = images_of(folder, loaded), wanted(loaded, 0)
    renamed = (replace(some[0], id="test/ill/elsewhere.png"),)
    assert "not the ones" in shown(gallery, images, renamed).why
    gallery._refused.clear()
    changed = folder / "train" / "well" / "3.png"
    pixels = np.array(Image.open(changed))
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(changed)
    found = shown(gallery, images, some)
    assert found.state == "away"
    assert "not the ones" in found.why
    assert gallery.picture(images.source, "test", 0) is None


def test_a_stored_path_is_no_way_to_read_files(
    gallery: Gallery, folder: Path, loaded: Data, tmp_path: Path
) -> None:
    """A stored path to another file shows neither its pixels nor, in a message, its text."""
    secret = tmp_path / "secret.csv"
    secret.write_text("hunter2,path\n")
    for keys in ({"source": "manifest", "path": str(secret)}, {"path": str(folder.parent)}):
        images = images_of(folder, loaded)
        source = replace(images.source, data={**images.source.data, **keys})
        found = shown(gallery, replace(images, source=source), wanted(loaded, 0))
        assert found.state == "away"
        assert "hunter2" not in found.why
        gallery._refused.clear()


def test_images_of_another_machine(gallery: Gallery, folder: Path, loaded: Data) -> None:
    """If the path is missing, the message names it and the machine that trained."""
    for path in ("/no/such/folder", f"/{'long' * 2000}", "/a\0b"):
        images = images_of(Path(path), loaded)
        found = shown(gallery, images, wanted(loaded, 0))
        assert found.state == "away"
        assert path in found.why
        assert "lab-1" in found.why


def test_a_file_system_that_does_not_answer_holds_up_no_page(
    gallery: Gallery, loaded: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that does not answer blocks no page: another thread checks the path."""
    asked, answers = threading.Event(), threading.Event()

    def exists(_path: object) -> bool:
        asked.set()
        return not answers.wait(60)

    monkeypatch.setattr("tuner.dashboard.images.os.path.exists", exists)
    images = images_of(Path("/dead"), loaded)
    found = gallery.show(images, "test", wanted(loaded, 0), lambda: None, runs_code=False)
    assert found == READING
    assert asked.wait(60)
    answers.set()
    assert shown(gallery, images, wanted(loaded, 0)).state == "away"


def test_a_fingerprint_of_the_same_name_shows_no_other_studys_images(
    gallery: Gallery, loaded: Data
) -> None:
    """Images are identified by more than an objective's fingerprint, which may be reused."""
    first = ImageSource("own", {"path": "a"}, "v1", ("content of a",))
    gallery._keep(first, "test", wanted(loaded, 0), [b"PNG"])
    assert gallery.picture(first, "test", 0) == b"PNG"
    assert gallery.picture(replace(first), "test", 0) == b"PNG"
    for other in (
        replace(first, contents=("content of b",)),
        replace(first, contents=()),
        replace(first, objective="another"),
        replace(first, data={"path": "b"}),
    ):
        assert gallery.picture(other, "test", 0) is None
        images = TrialImages(other, 7, ())
        asked = gallery.show(images, "test", wanted(loaded, 0), lambda: None, runs_code=False)
        assert asked.state != "ready"


def test_stopping_does_not_wait_for_images(tmp_path: Path, loaded: Data) -> None:
    """Stopping kills the child that reads images, and ends the gallery's thread."""
    own = tmp_path / "objectives" / "own"
    own.mkdir(parents=True)
    mark = tmp_path / "imported"
    (own / "__init__.py").write_text(
        f"import time\nopen({str(mark)!r}, 'w').close()\ntime.sleep(600)\n"
    )
    gallery = Gallery(Checker(tmp_path, (own.parent,), lambda *_: None))
    images = TrialImages(ImageSource("own", {}, loaded.fingerprint, ()), 7, ())
    gallery.show(images, "test", wanted(loaded, 0), lambda: None, runs_code=True)
    until(mark.exists, "the child reads")
    gallery.close()
    (thread,) = gallery._pool._threads
    thread.join(60)
    assert not thread.is_alive()


def test_code_of_others_is_run_only_when_asked(tmp_path: Path, loaded: Data) -> None:
    """A user's objective is not even imported before an operator asks for its images."""
    own = tmp_path / "objectives" / "own"
    own.mkdir(parents=True)
    mark = tmp_path / "imported"
    (own / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    gallery = Gallery(Checker(tmp_path, (own.parent,), lambda *_: None))
    source = ImageSource("own", {}, loaded.fingerprint, ())
    images = TrialImages(source, 7, ())
    found = gallery.show(images, "test", wanted(loaded, 0), lambda: None, runs_code=False)
    assert found.state == "code"
    assert not mark.exists()
    assert shown(gallery, images, wanted(loaded, 0), code=True).state == "away"
    assert mark.exists()
    gallery.close()


def test_what_is_kept_is_bounded(folder: Path, loaded: Data, tmp_path: Path) -> None:
    """The least recently used pictures are dropped first."""
    gallery = Gallery(Checker(tmp_path, (), lambda *_: None), most=600)
    source = images_of(folder, loaded).source
    gallery._keep(source, "test", wanted(loaded, 0, 1, 2), [b"x" * 250] * 3)
    assert gallery.picture(source, "test", 0) is None
    assert gallery.picture(source, "test", 2) is not None
    gallery.close()


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1000, 300), np.uint8),
        np.linspace(-3, 9, 3 * 40 * 40, dtype=np.float32).reshape(3, 40, 40),
        np.full((1, 8, 8), 7.0, np.float32),
        np.zeros((2, 8, 8), np.uint8),
    ],
    ids=["large", "colour", "constant", "two channels"],
)
def test_a_thumbnail_is_small_and_bare(
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
) -> None:
    """Any trainable image becomes a PNG of bounded size without metadata."""
    image = Image.open(io.BytesIO(png(pixels)))
    assert image.format == "PNG"
    assert max(image.size) <= SIDE
    assert image.mode == ("RGB" if pixels.shape[0] == 3 else "L")
    assert not image.info


def test_the_work_checks_pixels_beside_a_fingerprint(
    folder: Path, loaded: Data, tmp_path: Path
) -> None:
    """If the study stored a hash of the content, the fingerprint alone is not enough."""
    work = {
        "objective": "chest_xray",
        "folders": [],
        "cache": str(tmp_path / "cache"),
        "data": {**KEYS, "path": str(folder)},
        "fingerprint": loaded.fingerprint,
        "contents": ["another"],
        "split": "test",
        "wanted": [],
    }
    assert thumbnails._work(work, lambda *_: None)["changed"]
    assert not thumbnails._work({**work, "contents": []}, lambda *_: None)["changed"]


def test_the_page_of_a_trial_shows_its_mistakes(stored: Database, settings: Settings) -> None:
    """Misclassified images come as PNGs that cannot run code; unread images are left out."""
    path = "/studies/digits/trials/3"
    with TestClient(app_for(Desk(stored, settings)), LOCAL) as app:

        def known() -> bool:
            (first, *_) = app.get(f"{path}.json").json()["predictions"]
            return bool(first["pictures"]["state"] != "reading")

        until(known, "the images have been read", 240)
        page = app.get(path).text
        (first, *_) = app.get(f"{path}.json").json()["predictions"][0]["mistakes"]
        address = f"{path}/images/test/{first['place']}.png"
        assert f'src="{address}"' in page
        picture = app.get(address)
        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in picture.headers["Content-Security-Policy"]
        assert picture.headers["Cache-Control"] == "no-store"
        assert Image.open(io.BytesIO(picture.content)).size == (8, 8)
        for other in ("images/test/99999.png", "images/train/0.png", "images/../../x.png"):
            assert app.get(f"{path}/{other}").status_code == 404
        assert (
            app.get(f"/studies/digits/trials/999/images/test/{first['place']}.png").status_code
            == 404
        )

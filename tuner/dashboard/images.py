"""Thumbnails of a study's images: read once by a child process, then kept in memory.

    page ── which images ──> Gallery: all kept? ──> their addresses
                              └─ no: a child reads them (`check/thumbnails`), pages are notified

Pictures are cached by their source: objective, keys of [data], fingerprint and content hashes.
The fingerprint alone is not enough, because an objective's author may choose it ("v1"), and two
studies could be shown each other's images. Only PNGs that we encoded are served, never files.
"""

import base64
import logging
import os
import platform
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from tuner.errors import DataError, MachineError, TunerError
from tuner.questions import Checker, LateError, Question
from tuner.records import SplitName, Value
from tuner.results import Results, TrialRow, trial_origin
from tuner.store.identities import data_fingerprints
from tuner.train.places import is_shipped

MOST_BYTES = 96 << 20
"""Total size of cached pictures; the least recently used are dropped first."""
WAITING_MOST = 8
"""The most requests that wait for the child, which handles one at a time."""
AGAIN = 60.0
"""Seconds before images that could not be read are tried again."""

SECONDS = 120.0
"""Seconds after which the child is stopped; decoded images stay in the cache."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WantedImage:
    """One image of a split, as described in the database."""

    place: int
    """Its index in the split."""
    id: str
    label: str


@dataclass(frozen=True)
class Thumbnails:
    """PNGs of the wanted images, in order, or none because the data have changed."""

    changed: bool
    images: tuple[bytes, ...]


@dataclass(frozen=True)
class ImageSource:
    """The data that a trial was trained on, and hashes to verify that they are unchanged."""

    objective: str
    data: Mapping[str, Value]
    """The keys of [data]."""
    fingerprint: str
    """As stored by the trial's trainer."""
    contents: tuple[str, ...]
    """Hashes of all data that the study was trained on under these keys; empty if not stored."""

    @property
    def key(self) -> Hashable:
        """The key of these images in the cache."""
        keys = tuple(sorted(self.data.items()))
        return self.objective, keys, self.fingerprint, tuple(sorted(self.contents))


@dataclass(frozen=True)
class Pictures:
    """Whether a page can show thumbnails, and if not, why."""

    state: Literal["ready", "reading", "code", "away"]
    """`code`: reading them runs the study's own objective, which an operator must request."""
    why: str = ""


READING = Pictures("reading", "Reading the images …")


@dataclass(frozen=True)
class TrialImages:
    """The source of one trial's images."""

    source: ImageSource
    trial: int
    hosts: tuple[str, ...]
    """The machines on which the trial was trained."""

    @classmethod
    def of(cls, results: Results, row: TrialRow) -> "TrialImages | None":
        """Return the source of a trial's images; None before a trainer has described them."""
        origin = trial_origin(results, row)
        if not origin.fingerprint:
            return None
        contents = data_fingerprints(results.connection, results.study.study_id, origin.data)
        source = ImageSource(results.spec.objective, origin.data, origin.fingerprint, contents)
        return cls(source, row["trial"], origin.hosts)


class Gallery:
    """Reads and caches thumbnails. Thread-safe."""

    def __init__(self, checker: Checker, most: int = MOST_BYTES) -> None:
        self._checker = checker
        self._most = most
        self._kept: OrderedDict[Hashable, bytes] = OrderedDict()
        """By source, split and index."""
        self._bytes = 0
        self._refused: dict[Hashable, tuple[float, str]] = {}
        self._pending: set[Hashable] = set()
        self._lock = threading.Lock()
        self._question: Question | None = None
        """The child's current request."""
        self._closed = False
        # One child at a time, because it loads all data of a study.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="images")

    def close(self) -> None:
        """Start no more requests, and end the child."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            # Under the lock of `_thumbnails`, which either finds the gallery closed or has
            # registered its child here. Otherwise the process would wait for the child to end.
            self._closed = True
            question = self._question
        if question is not None:
            question.kill()

    def picture(self, source: ImageSource, split: SplitName, place: int) -> bytes | None:
        """Return a cached picture as PNG."""
        with self._lock:
            key = (source.key, split, place)
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def show(
        self,
        images: TrialImages | None,
        split: SplitName,
        wanted: Sequence[WantedImage],
        ready: Callable[[], None],
        *,
        runs_code: bool,
    ) -> Pictures:
        """Return whether these images can be shown; if they are not cached, start reading them.

        `ready` is called when they have been read. The code of an objective that is not built in is
        run only with `runs_code`.
        """
        if images is None:
            return Pictures("away", "No trainer has described the images of this trial.")
        source = images.source
        question = (source.key, split)
        trained = f" The trial was trained on {', '.join(images.hosts)}." if images.hosts else ""
        with self._lock:
            missing = [one for one in wanted if (*question, one.place) not in self._kept]
            if not missing:
                return Pictures("ready")
            if question in self._pending:
                return READING
            moment, why = self._refused.get(question, (0.0, ""))
            if why and time.monotonic() - moment < AGAIN:
                return Pictures("away", why + trained)
        if not runs_code and not is_shipped(source.objective, self._checker.folders):
            return Pictures(
                "code",
                f"The code of the objective {source.objective} reads these images, and is run only "
                "if an operator asks for them.",
            )
        with self._lock:
            if question in self._pending:  # another page was faster
                return READING
            if len(self._pending) >= WAITING_MOST:
                return Pictures("reading", "Images of other trials are being read first …")
            self._pending.add(question)
        self._pool.submit(self._read, images, split, missing, ready)
        return READING

    def _read(
        self,
        images: TrialImages,
        split: SplitName,
        wanted: Sequence[WantedImage],
        ready: Callable[[], None],
    ) -> None:
        source, why = images.source, ""
        try:
            if not _is_there(source.data.get("path")):
                why = (
                    f"The images are not shown: the dashboard runs on {platform.node()}, where "
                    f"data.path ({source.data['path']}) does not exist or cannot be read."
                )
            elif (found := self._thumbnails(source, split, wanted)).changed:
                why = (
                    "The images are not shown: those that the study's [data] points to on "
                    f"{platform.node()} are not the ones this trial was trained on."
                )
            else:
                self._keep(source, split, wanted, found.images)
        except LateError:
            why = (
                f"Reading the images took too long and was stopped. `tuner check` on "
                f"{platform.node()} reads them once and keeps them decoded."
            )
        except TunerError as error:
            if self._closed:
                return
            # The text may quote the content of files, which not every reader may see.
            logger.warning("images of trial %s were not read: %s", images.trial, error)
            what = (
                "the data contain errors" if isinstance(error, DataError) else "reading them failed"
            )
            why = f"The images are not shown: {what}. Run `tuner check` for details."
        except Exception:
            logger.exception("images of trial %s were not read", images.trial)
            why = "The images are not shown; see the server's log."
        with self._lock:
            question = (source.key, split)
            self._refused.pop(question, None)
            if why:
                self._refused[question] = time.monotonic(), why
            self._pending.discard(question)
        ready()

    def _thumbnails(
        self, source: ImageSource, split: SplitName, wanted: Sequence[WantedImage]
    ) -> Thumbnails:
        """Return images read by a child process; its errors are raised."""
        work = {
            "objective": source.objective,
            "data": dict(source.data),
            "fingerprint": source.fingerprint,
            "contents": list(source.contents),
            "split": split,
            "wanted": [[one.place, one.id, one.label] for one in wanted],
        }
        with self._lock:
            if self._closed:
                raise MachineError("the dashboard is stopping")
            question = self._question = self._checker.begin("tuner.check.thumbnails", work)
        with question:
            try:
                found = question.answer(self._checker.progress, within=SECONDS)
            finally:
                with self._lock:
                    self._question = None
        images = tuple(base64.b64decode(text) for text in found["images"])
        return Thumbnails(bool(found["changed"]), images)

    def _keep(
        self,
        source: ImageSource,
        split: SplitName,
        wanted: Sequence[WantedImage],
        pictures: Sequence[bytes],
    ) -> None:
        with self._lock:
            for one, picture in zip(wanted, pictures, strict=True):
                key = (source.key, split, one.place)
                self._bytes += len(picture) - len(self._kept.get(key, b""))
                self._kept[key] = picture
                self._kept.move_to_end(key)
            while self._bytes > self._most:
                _, old = self._kept.popitem(last=False)
                self._bytes -= len(old)


def _is_there(path: Value | None) -> bool:
    """Return whether the path in [data] exists, if there is one.

    Called only in the gallery's thread: a file system that does not respond blocks its caller.
    """
    # Not Path.exists, which raises for another user's folder and for a name that is too long.
    return not isinstance(path, str) or not path or os.path.exists(path)  # noqa: PTH110

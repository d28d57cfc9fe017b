"""The objective contract: what a problem provides, and how it is found by name.

Nothing here loads torch, because the supervisor and the command line import it too.
An objective is a package `objectives/NAME` whose `__init__` defines

    OBJECTIVE = Objective(parameters=[...], data=[...])

and which is importable without torch. Its submodules `data` and `models` are
loaded only when a trial is trained:

    data.load(data, cache, progress) -> Data
    models.build(parameters, inputs, outputs) -> torch.nn.Module

and, if it reads files in its own way, so that new files can be predicted,

    data.read(path, data) -> pixels, (height, width) or (channels, height, width)

and, for each metric of its own that it declares (`metrics=[Metric(...)]`), a function of
that name of a split's labels and of the probabilities that were predicted,

    metrics.NAME(labels, probabilities) -> float
    metrics.NAME(labels, probabilities, patients) -> float

Losses, optimizers, schedules, epochs, batches, built-in figures and predictions belong to
the shared trainer, never to an objective. A package is loaded by its path under a private
module name, so that two objectives with the same name do not collide; inside it, modules
import each other relatively (`from . import phantom`). An objective may import a library
that is installed, on PYTHONPATH, or beside the folder `objectives`. Everything that it
imports is part of its identity (`code`).
"""

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuner.errors import ObjectiveError, TunerError
from tuner.names import meant
from tuner.records import BUILT_IN, READY, Metric, Value
from tuner.spec.parameters import SHARED, Declarations, Parameter, by_name
from tuner.train import code
from tuner.train.code import Code
from tuner.train.places import search_folders, shipped_folder

if TYPE_CHECKING:
    from torch import nn

ENTRY_POINTS = "tuner.objectives"
"""The entry-point group in which an installed package offers objectives."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much is done, and the total."""

Images = NDArray[np.uint8] | NDArray[np.float32]

METRIC_NAME = re.compile(r"(?!.*_(low|high)$)[a-z][a-z0-9_]{0,39}")
"""The columns of settings end in _low and _high."""
TAKEN = frozenset({*(metric.name for metric in BUILT_IN), *READY, "seconds", "nll", "gap", "slope"})
"""Names that a metric cannot have, because a built-in or ready figure has them."""


@dataclass(frozen=True)
class Split:
    """Images of one split, `(n, height, width)` or `(n, channels, height, width)`."""

    images: Images
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    patients: tuple[str, ...] = ()
    """The patient of each image if the source names patients, else empty. Images of one patient
    are similar, so answers are judged by patient. "" means that the patient is not known."""


@dataclass(frozen=True)
class Reading:
    """How the shared sources read images, so that new files are read in the same way."""

    depth: str
    """The pixels' type before windowing: uint8, uint16 or float32."""
    kind: str = ""
    """The kind of files, as `sources.files` names it; empty if there were none, and `mixed` if
    files of any kind are accepted (`depths`)."""
    fit: str = "stretch"
    """How images with other proportions were brought to the size: the key `fit` of [data]."""
    depths: str = "same"
    """How images of different depths were joined: the key `depths` of [data]."""
    window: tuple[float, float] | None = None
    """The values mapped to 0 and to 255; None if pixels are unchanged."""


@dataclass(frozen=True)
class Data:
    """An objective's data: three splits (test may be missing), classes, and a fingerprint."""

    train: Split
    val: Split
    test: Split | None
    classes: tuple[str, ...]
    fingerprint: str
    """Hash of the content: equal data have equal fingerprints, wherever they are stored."""
    notes: tuple[str, ...] = ()
    """What a person should know about how the data were read, as sentences: images left out,
    a window applied, a split made, a missing test set."""
    reading: Reading | None = None
    """How to read further files in the same way; None if only the objective knows."""


@dataclass(frozen=True)
class Objective:
    """What an objective lets a study set, in addition to the shared trainer's parameters."""

    parameters: Sequence[Parameter] = ()
    data: Sequence[Parameter] = field(default_factory=tuple)
    metrics: Sequence[Metric] = ()
    """Figures of its own, computed for every study of it; the functions are in its metrics.py."""

    def declarations(self) -> Declarations:
        """Return all parameters, data keys and metrics that a study of this objective may use."""
        own = by_name(self.parameters)
        return Declarations(
            parameters={**own, **SHARED},
            data=by_name(self.data),
            metrics={metric.name: metric for metric in self.metrics},
        )

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with the declared metrics."""
        declared: list[object] = list(self.metrics)
        if strange := [one for one in declared if not isinstance(one, Metric)]:
            yield f"metrics lists {strange[0]!r}; expected Metric(name, better, meaning)"
            return
        names = [metric.name for metric in self.metrics]
        columns = {f"{split}_{name}" for name in names for split in ("val", "test", "gap")}
        for name in sorted(columns & {parameter.name for parameter in self.parameters}):
            yield f"a parameter is named {name}, like the column of a metric; rename one of them"
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"metric {name!r} is declared twice"
        for metric in self.metrics:
            yield from (f"metric {metric.name!r}: {fault}" for fault in _metric_faults(metric))


def _metric_faults(metric: Metric) -> Iterator[str]:
    # The types are declared, but an objective's author may not run a type checker.
    if not METRIC_NAME.fullmatch(str(metric.name)):
        yield (
            "a name has lower-case letters, digits and _, starts with a letter, does not end in "
            "_low or _high, and has at most 40 characters"
        )
    if metric.name in TAKEN:
        yield "tuner has a metric of this name; choose another"
    if metric.better not in ("higher", "lower"):
        yield f"better is {metric.better!r}; write 'higher' or 'lower'"
    if metric.unit not in ("share", "nats", "number"):
        yield f"unit is {metric.unit!r}; write 'share' or 'number'"
    if not str(metric.meaning or "").strip():
        yield "its meaning is missing; describe it in one line"


@dataclass(frozen=True)
class FoundObjective:
    """An objective found by name: where it is, what it declares, and how to use it."""

    name: str
    folder: Path
    objective: Objective
    module: str
    """The private name under which its package is loaded in this process."""

    def load_data(self, data: Mapping[str, Value], cache: Path, progress: Progress) -> Data:
        """Return the objective's data for these [data] keys; generated data may use the cache."""
        loaded = self.call("data", "load", data, cache, progress)
        if not isinstance(loaded, Data):
            raise ObjectiveError(
                f"load() in {self.folder / 'data.py'} returned {type(loaded).__name__}; "
                "it must return tuner.train.objective.Data"
            )
        return loaded

    def build_model(
        self, parameters: Mapping[str, Value], inputs: tuple[int, int, int], outputs: int
    ) -> "nn.Module":
        """Build a new model for images of shape (channels, height, width)."""
        model: nn.Module = self.call("models", "build", parameters, inputs, outputs)
        return model

    def check_modules(self) -> None:
        """Import the submodules and raise an ObjectiveError if one lacks a required function."""
        for submodule, function in (("data", "load"), ("models", "build")):
            self._function(submodule, function)
        for metric in self.objective.metrics:
            self.metric_function(metric.name)

    def metric_function(self, name: str) -> "MetricFunction":
        """Return the function that computes one of the objective's own metrics."""
        return MetricFunction(self, name, self._function("metrics", name))

    @property
    def reads_files(self) -> bool:
        """Whether the objective has its own function for reading a file."""
        return hasattr(self._submodule("data"), "read")

    def read_file(self, path: Path, data: Mapping[str, Value]) -> NDArray[Any]:
        """Return a file's pixels as the objective's own `read` returns them."""
        return np.asarray(self.call("data", "read", path, data))

    def code(self) -> Code:
        """Load the whole objective, and return its code."""
        for name in ("data", "models", *(["metrics"] if self.objective.metrics else [])):
            self._submodule(name)
        return code.identify(self.name, self.folder)

    def place_of(self, error: BaseException) -> str:
        """Return where in the objective's own files an error was raised: ` (models.py, line 7)`."""
        return _place(error, self.folder)

    def _submodule(self, name: str) -> ModuleType:
        return _import(self.name, f"{self.module}.{name}", self.folder / f"{name}.py")

    def _function(self, submodule: str, function: str) -> Callable[..., Any]:
        source = self.folder / f"{submodule}.py"
        found: Any = getattr(self._submodule(submodule), function, None)
        if not callable(found):
            raise ObjectiveError(f"{source} has no {function}(); objective {self.name!r} needs it")
        return found  # type: ignore[no-any-return]

    def call(self, submodule: str, function: str, *arguments: object) -> Any:
        """Call one of the objective's functions; an error names its file and line."""
        source = self.folder / f"{submodule}.py"
        called = self._function(submodule, function)
        try:
            return called(*arguments)
        except (TunerError, MemoryError):
            raise
        except Exception as error:
            raise ObjectiveError(
                f"{function}() in {source}{_place(error, self.folder, source)} failed: "
                f"{type(error).__name__}: {error}"
            ) from error


@dataclass(frozen=True)
class MetricFunction:
    """The function of an objective that computes one of its metrics."""

    found: FoundObjective
    name: str
    function: Callable[..., Any]

    def __call__(
        self,
        labels: NDArray[np.int64],
        probabilities: NDArray[np.float64],
        patients: tuple[str, ...],
    ) -> object:
        """Return what the function returns; patients are given to those that take them."""
        arguments = (
            (labels, probabilities, patients) if self.takes_patients else (labels, probabilities)
        )
        return self.found.call("metrics", self.name, *arguments)

    @property
    def place(self) -> str:
        """The function with its file and line, for messages."""
        source = self.found.folder / "metrics.py"
        line = getattr(getattr(self.function, "__code__", None), "co_firstlineno", None)
        return f"{self.name}() in {source}" + (f", line {line}" if line else "")

    @cached_property
    def takes_patients(self) -> bool:
        """Whether it has a third argument: the patient of each image."""
        try:
            takes = inspect.signature(self.function)
            takes.bind(None, None, None)
        except (TypeError, ValueError):
            return False
        return True


def find(name: str, folders: Sequence[Path]) -> FoundObjective:
    """Find an objective by name: in the folders in order, then shipped, then installed ones."""
    # A name can come from a database, so it must never be able to name a path.
    if not name.isidentifier():
        raise ObjectiveError(
            f"{name!r} cannot be the name of an objective; expected letters, digits and _"
        )
    places = search_folders(folders)
    for place in places:
        if (place / name / "__init__.py").is_file():
            if place != shipped_folder():
                _add_library(place.parent)
            return _load(name, (place / name).resolve())
    installed = _installed()
    if name in installed:
        return _load(name, _installed_folder(name, installed[name]))
    raise _unknown(name, places, installed)


def is_present(name: str, folders: Sequence[Path]) -> bool:
    """Return whether `find` would find an objective, without running any of it."""
    if not name.isidentifier():
        return False
    here = any((place / name / "__init__.py").is_file() for place in search_folders(folders))
    return here or name in _installed()


def _add_library(folder: Path) -> None:
    """Let an objective import modules beside its folder of objectives, such as a lab's library.

    Appended to the path, so that nothing there shadows a module of Python or of a package.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def source_fingerprint(found: FoundObjective) -> str:
    """Hash the source that determines a training: the shared trainer's and the objective's."""
    both = f"{code.trainer_fingerprint()} {found.code().fingerprint}"
    return hashlib.sha256(both.encode()).hexdigest()


def _load(name: str, folder: Path) -> FoundObjective:
    # From here on, each file is recorded as it is when it is loaded.
    code.WITNESS.watch(folder)
    module_name = f"_tuner_objective_{name}_{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
    source = folder / "__init__.py"
    objective = getattr(_import(name, module_name, source, package=True), "OBJECTIVE", None)
    if not isinstance(objective, Objective):
        state = "does not define" if objective is None else "has something else as"
        raise ObjectiveError(
            f"{source} {state} OBJECTIVE; expected OBJECTIVE = Objective(parameters=..., data=...)"
        )
    faults = list(objective.faults())
    if faults:
        raise ObjectiveError(f"{source}: {'; '.join(faults)}")
    return FoundObjective(name=name, folder=folder, objective=objective, module=module_name)


def _import(name: str, module_name: str, source: Path, package: bool = False) -> ModuleType:
    """Import a package or a submodule by path; errors name the file and the cause."""
    try:
        if module_name in sys.modules:
            return sys.modules[module_name]
        if not package:
            return importlib.import_module(module_name)
        return _execute(module_name, source)
    # The file is the user's, so any exception is a fault of the objective.
    except Exception as error:
        where = _place(error, source.parent, source)
        raise ObjectiveError(
            f"objective {name!r} cannot be imported from {source}{where}: "
            f"{type(error).__name__}: {error}{_mending(error, source.parent)}"
        ) from error


def _place(error: BaseException, folder: Path, named: Path | None = None) -> str:
    """Return the innermost line of the folder's files in an error's traceback.

    In the file that was `named` already, only the line.
    """
    inside = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(folder)
    ]
    if not inside:
        return ""
    file, line = Path(inside[-1].filename), inside[-1].lineno
    return f", line {line}" if file == named else f" ({file.relative_to(folder)}, line {line})"


def _mending(error: Exception, folder: Path) -> str:
    """Return how to fix a failed import; empty for other errors."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    first = error.name.split(".")[0]
    # One of the objective's own modules, imported by its bare name.
    if (folder / f"{first}.py").is_file() or (folder / first / "__init__.py").is_file():
        return f". It is in {folder}: write `from . import {first}`"
    return (
        f". Install {first} into the Python that runs tuner ({sys.executable} -m pip install …), "
        f"or put your own {first} beside the folder objectives ({folder.parent.parent}) or on "
        "PYTHONPATH"
    )


def _execute(module_name: str, source: Path) -> ModuleType:
    # A file written a moment ago may be missing from the import system's cached listings.
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(
        module_name, source, submodule_search_locations=[str(source.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # The next import must not find a half-imported package.
        for stale in [key for key in sys.modules if key.split(".")[0] == module_name]:
            del sys.modules[stale]
        raise
    return module


def _installed() -> dict[str, str]:
    from importlib.metadata import entry_points

    return {point.name: point.module for point in entry_points(group=ENTRY_POINTS)}


def _installed_folder(name: str, module: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except ImportError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise ObjectiveError(
            f"an installed package offers objective {name!r} as {module}, "
            "which is not a package that can be imported; reinstall it"
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _names_in(places: Sequence[Path]) -> Iterator[str]:
    for place in places:
        for init in sorted(place.glob("*/__init__.py")):
            yield init.parent.name


def _unknown(name: str, places: Sequence[Path], installed: Mapping[str, str]) -> ObjectiveError:
    names = sorted({*_names_in(places), *installed})
    hint = meant(name, names) or f" Known: {', '.join(names) or 'none'}."
    searched = ", ".join(str(place) for place in places)
    return ObjectiveError(f"There is no objective {name!r}.{hint} Searched: {searched}")

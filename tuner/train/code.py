"""Which code trains: an objective's files, and everything they import that is not installed.

The files are found by following import statements from the objective's folder,
without running anything. So two machines with equal code agree, whatever they
trained before. Installed packages count by their version.

Import statements do not show everything, so an audit hook watches all code that Python
executes. It records the source that was really loaded, so that a file edited under a
running process is not mistaken for the code that runs, and it records code that no
import statement leads to. Such code is a doubt: nothing trained with it is reused.
Nothing here loads torch.
"""

import ast
import hashlib
import importlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import machinery, metadata
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

LIBRARIES = ("torch", "torchvision", "numpy", "scipy")
"""Covered by `checkpoints.numerics`: other versions mean other arithmetic, not other code."""

INSTALLED = frozenset({"site-packages", "dist-packages"})
STANDARD = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib")
)
OWN = os.path.realpath(Path(__file__).parents[1]) + os.sep
SHIPPED = OWN + "shipped" + os.sep
"""Objectives shipped with tuner count like a user's."""

MOST_FILES = 5000
"""How many files are followed at most; beyond that the imports are not known."""
INNER = frozenset({"<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


@dataclass(frozen=True)
class Code:
    """The code of one objective, as this process runs it."""

    files: Mapping[str, str]
    """SHA-256 of each source file, by a name that is the same on every machine."""
    packages: Mapping[str, str]
    """Version of each installed package that the files import."""
    doubts: tuple[str, ...] = ()
    """Why it is not known which code runs; if not empty, nothing may be reused."""

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for equal code."""
        text = json.dumps([dict(self.files), dict(self.packages)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class _Source:
    """One file: its machine-independent name, its content, and its package."""

    name: str
    content: bytes
    package: str | None
    """Base of relative imports; None in an objective, where all files count anyway."""


def identify(name: str, folder: Path) -> Code:
    """Return the code of the objective in a folder, which should be loaded already.

    A loaded file counts as it was when it was loaded. The others count as they were
    when the objective was first identified in this process.
    """
    followed = _followed(name, str(folder))
    files = {
        source.name: hashlib.sha256(WITNESS.executed.get(path, source.content)).hexdigest()
        for path, source in followed.sources.items()
    }
    doubts = [*followed.doubts, *WITNESS.doubts(followed.sources, str(folder))]
    return Code(files, followed.packages, tuple(dict.fromkeys(doubts)))


def trainer_fingerprint() -> str:
    """Hash the shared trainer's source as it was at the first call in this process."""
    return _trainer_fingerprint()


@cache
def _trainer_fingerprint() -> str:
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*.py")):
        text = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()


# --- following import statements ---------------------------------------------------------


@dataclass
class _Followed:
    """The sources found by following import statements from an objective's folder."""

    sources: dict[str, _Source] = field(default_factory=dict)
    """By real path."""
    packages: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    _waiting: list[str] = field(default_factory=list)
    _taken: dict[str, bool] = field(default_factory=dict)
    _whole: set[str] = field(default_factory=set)

    def add(self, path: str, name: str, package: str | None) -> None:
        """Add a source file, and follow its imports later."""
        real = os.path.realpath(path)
        if real in self.sources:
            return
        if len(self.sources) >= MOST_FILES:
            self.doubts.append(f"more than {MOST_FILES} files are imported")
            return
        try:
            content = WITNESS.executed.get(real) or Path(real).read_bytes()
        except OSError as error:
            self.doubts.append(f"{name} cannot be read ({error.strerror})")
            return
        self.sources[real] = _Source(name, content, package)
        self._waiting.append(real)

    def follow(self) -> None:
        """Follow all imports of all files."""
        while self._waiting:
            source = self.sources[self._waiting.pop()]
            try:
                tree = ast.parse(source.content)
            except (SyntaxError, ValueError, RecursionError):
                continue  # It cannot be loaded, either.
            for name, whole in _imports(tree, source.package):
                self._module(name, whole=whole)

    def _module(self, name: str, *, whole: bool) -> None:
        """Add a module and its parent packages, and with `whole` everything below it."""
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            part = ".".join(parts[:end])
            if part not in self._taken:
                self._taken[part] = self._take(part)
            if not self._taken[part]:
                return
        if not whole or name in self._whole:
            return
        self._whole.add(name)
        spec = _spec(name)
        for location in (spec.submodule_search_locations if spec else None) or ():
            for path in sorted(Path(location).rglob("*.py")):
                below = ".".join((name, *path.relative_to(location).with_suffix("").parts))
                self._file(below.removesuffix(".__init__"), str(path))

    def _take(self, name: str) -> bool:
        """Add one module; return whether modules below it are of interest."""
        spec = _spec(name)
        if spec is None:
            return False
        locations = list(spec.submodule_search_locations or ())
        where = spec.origin if spec.has_location and spec.origin else next(iter(locations), None)
        if where is None or is_standard(where) or is_own(where):
            return False
        if is_installed(where) and self._distribution(name.partition(".")[0]):
            return False
        if not spec.has_location:
            return True  # A namespace package has no code.
        if isinstance(spec.loader, machinery.SourceFileLoader):
            self._file(name, where)
        else:
            kind = type(spec.loader).__name__
            self.doubts.append(f"module {name} has no source file that Python loads ({kind})")
        return True

    def _file(self, name: str, path: str) -> None:
        is_package = Path(path).name == "__init__.py"
        shown = name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
        self.add(path, shown, name if is_package else name.rpartition(".")[0])

    def _distribution(self, top: str) -> bool:
        """Record the version of the installed package with this module; False if there is none."""
        found = _distributions_of(top)
        for distribution in found:
            if distribution not in LIBRARIES:
                self.packages[distribution] = _version(distribution)
        return bool(found)


_FOLLOWED: dict[tuple[str, str], _Followed] = {}


def _followed(name: str, folder: str) -> _Followed:
    # Loading further modules of the objective may extend sys.path, so the cached result holds
    # only for the modules that were loaded at the time.
    loaded = sorted(path for path in WITNESS.executed if path.startswith(folder + os.sep))
    key = folder, json.dumps(loaded)
    if key not in _FOLLOWED:
        found = _Followed()
        importlib.invalidate_caches()
        for path in sorted(Path(folder).rglob("*.py")):
            found.add(str(path), f"{name}/{path.relative_to(folder).as_posix()}", None)
        found.follow()
        _FOLLOWED[key] = found
    return _FOLLOWED[key]


def _imports(tree: ast.AST, package: str | None) -> Iterator[tuple[str, bool]]:
    """Yield all imports of a file, each with whether everything below it may be meant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, package)
            if base:
                yield base, False
                # A name imported from a package may be a module in it.
                yield from ((f"{base}.{a.name}", False) for a in node.names if a.name != "*")
        elif isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
            yield from _computed(node, package)


def _absolute(module: str, level: int, package: str | None) -> str:
    if not level:
        return module
    parts = (package or "").split(".")
    parents = parts[: len(parts) - level + 1] if package and level <= len(parts) else []
    return ".".join([*parents, *([module] if module else [])]) if parents else ""


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _computed(node: ast.Call, package: str | None) -> Iterator[tuple[str, bool]]:
    """Yield what a call imports; if the name is computed, everything in its package."""
    argument = node.args[0] if node.args else None
    given: ast.AST | None = argument
    # The prefix of f"mylab.{name}", "mylab." + name, "mylab.%s" % name, "mylab.{}".format()
    while not isinstance(given, ast.Constant | None):
        if isinstance(given, ast.JoinedStr) and given.values:
            given = given.values[0]
        elif isinstance(given, ast.BinOp):
            given = given.left
        elif isinstance(given, ast.Call) and isinstance(given.func, ast.Attribute):
            given = given.func.value
        else:
            given = None
    whole = given is not argument
    text = str(given.value) if isinstance(given, ast.Constant) else ""
    if whole:
        text = text.rpartition(".")[0]
    if text.startswith("."):
        name = text.lstrip(".")
        text = _absolute(name, len(text) - len(name), package)
    if text:
        yield text, whole
    elif package:
        yield package.partition(".")[0], True


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


@cache
def _distributions_of(top: str) -> list[str]:
    try:
        metadata.version(top)
    except metadata.PackageNotFoundError:
        # Reading all metadata takes a while, and is needed only for names such as `cv2`.
        return sorted(set(_distributions().get(top, [])))
    return [top]


@cache
def _version(distribution: str) -> str:
    """Return the version with a hash of the source, since a version may be rebuilt."""
    found = metadata.distribution(distribution)
    record = found.read_text("RECORD") or ""
    lines = sorted(line for line in record.splitlines() if re.search(r"\.py,sha256=", line))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return f"{found.version}+{digest[:8]}" if lines else found.version


def _spec(name: str) -> machinery.ModuleSpec | None:
    """Find a module without importing its parent packages."""
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, machinery.ModuleSpec):
        return loaded
    parent, _, _ = name.rpartition(".")
    path: list[str] | None = None
    if parent:
        around = _spec(parent)
        if around is None or around.submodule_search_locations is None:
            return None
        path = list(around.submodule_search_locations)
    for finder in sys.meta_path:
        look = getattr(finder, "find_spec", None)
        try:
            spec = look(name, path) if look is not None else None
        # Finders are other people's code, and may not expect to be asked about unimported modules.
        except Exception:  # noqa: BLE001
            spec = None
        if isinstance(spec, machinery.ModuleSpec):
            return spec
    return None


# --- where code is -----------------------------------------------------------------------


def is_installed(path: str) -> bool:
    """Return whether a path is below a folder of installed packages."""
    return not INSTALLED.isdisjoint(Path(path).parts)


def is_standard(path: str) -> bool:
    """Return whether a path is in Python's standard library."""
    return os.path.realpath(path).startswith(STANDARD) and not is_installed(path)


def is_own(path: str) -> bool:
    """Return whether a path belongs to tuner, without its shipped objectives."""
    real = os.path.realpath(path)
    return real.startswith(OWN) and not real.startswith(SHIPPED)


@cache
def is_foreign(path: str) -> bool:
    """Return whether a file of code is neither tuner's, nor Python's, nor installed."""
    return not (is_standard(path) or is_own(path) or is_installed(path))


# --- watching what is executed -----------------------------------------------------------


class Witness:
    """Watches all code that Python executes, and records where it comes from."""

    def __init__(self) -> None:
        self.executed: dict[str, bytes] = {}
        """The source of each file as it was loaded, by real path."""
        self._watched: set[str] = set()
        self._callers: dict[str, set[str]] = {}
        """The files on whose behalf each file was loaded, by real path."""
        self._strange: list[tuple[str, set[str]]] = []
        """Reasons why the code is not known, and the files that they concern."""

    def watch(self, folder: Path) -> None:
        """Record what is loaded from now on; code in this folder counts even if installed."""
        if not self._watched:
            sys.addaudithook(self._hear)
        self._watched.add(str(folder) + os.sep)

    def doubts(self, sources: Mapping[str, _Source], folder: str) -> list[str]:
        """Return doubts: code executed for these files that no import statement leads to."""
        mine = {*sources}

        def concerns(files: set[str]) -> bool:
            return any(file in mine or file.startswith(folder + os.sep) for file in files)

        found = [why for why, files in self._strange if concerns(files)]
        for path, callers in self._callers.items():
            if path not in mine and concerns(callers):
                found.append(f"{_short(path)} is loaded by a name that is computed")
        return found

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        # An exception here would break the operation being watched, such as an import.
        try:
            if event == "exec":
                self._executing(arguments[0], sys._getframe(1))
            elif event == "import" and arguments[1]:
                self._binary(str(arguments[1]), sys._getframe(1))
            elif event == "ctypes.dlopen" and arguments[0]:
                self._library(str(arguments[0]), sys._getframe(1))
        except Exception as error:  # noqa: BLE001
            self._strange.append((f"code could not be watched ({error})", set(self.executed)))

    def _executing(self, code: CodeType, frame: FrameType) -> None:
        name = code.co_filename
        path = _real(name)
        if path is None:
            caller = _real(frame.f_code.co_filename)
            # A text that only gives a value is a parameter; one that defines something is code.
            if caller is not None and self._counts(caller) and _defines(code):
                self._strange.append((f"{_short(caller)} executes a text as code", {caller}))
            return
        if not self._counts(path):
            return
        source = Path(path).read_bytes()
        if compile(source, name, "exec", dont_inherit=True) != code:
            # The .pyc is stale, or the file was written while it was being loaded.
            why = f"{_short(path)} is not what was loaded from it"
            self._strange.append((why, {path}))
        self.executed[path] = source
        self._callers.setdefault(path, set()).update(self._on_behalf_of(frame))

    def _binary(self, name: str, frame: FrameType) -> None:
        path = _real(name)
        compiled = path is not None and re.search(r"\.(so|pyd|dll|dylib)\b", path)
        if path is not None and compiled and self._counts(path):
            why = f"{_short(path)} is compiled code"
            self._strange.append((why, self._on_behalf_of(frame)))

    def _library(self, name: str, frame: FrameType | None) -> None:
        """Doubt a file that opens a library itself; installed packages may open theirs."""
        while frame is not None and is_standard(frame.f_code.co_filename):
            frame = frame.f_back
        caller = None if frame is None else _real(frame.f_code.co_filename)
        if caller is not None and self._counts(caller) and _real(name) is not None:
            self._strange.append((f"{_short(name)} is compiled code", {caller}))

    def _on_behalf_of(self, frame: FrameType | None) -> set[str]:
        files: set[str] = set()
        while frame is not None:
            path = _real(frame.f_code.co_filename)
            if path is not None and self._counts(path):
                files.add(path)
            frame = frame.f_back
        return files

    def _counts(self, path: str) -> bool:
        return is_foreign(path) or path.startswith(tuple(self._watched))


@cache
def _real(name: str) -> str | None:
    """Return the real path of a file of code; None for code without a file, such as `<string>`."""
    return None if name.startswith("<") or not Path(name).is_file() else os.path.realpath(name)


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def _defines(code: CodeType) -> bool:
    return any(isinstance(one, CodeType) and one.co_name not in INNER for one in code.co_consts)


WITNESS = Witness()

"""`model.json`: all that is needed beside the weights to predict as the study did, readable.

The file may come from anybody, so it is data and nothing else: its form is
checked here, its objective is looked for by name among those that this machine
knows, its sizes are bounded, and no network is built from it that the weights beside it are not of.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuner.errors import UserError
from tuner.records import METRICS, Job, Metric, Moment
from tuner.spec.study import OBJECTIVE
from tuner.train.sources.files import DEPTH

NAME = "model.json"
WEIGHTS = "model.safetensors"
PREDICTIONS = "predictions.safetensors"
CARD = "README.md"
EXPORTS = {"torchscript": "model.pt", "onnx": "model.onnx"}
"""The network as one file, where --format asked for it."""
FILES = (NAME, WEIGHTS, PREDICTIONS, CARD)
"""What such a folder always holds."""
MAY_HOLD = (*FILES, *EXPORTS.values())
"""All that it may hold."""

LARGEST = 16 << 20
"""Bytes of a model.json; ours have a few thousand."""
MOST_VALUES = 1 << 28
"""Numbers in a batch of images: 1 GB as float32."""

SHA256 = r"^[0-9a-f]{64}$"
Scalar = str | bool | int | float
Positive = Annotated[int, Field(ge=1, le=1 << 24)]
Files = Literal["alike", "unlike", "unchecked", "own"]


class DocumentTable(BaseModel):
    """A table of the file: exactly the keys declared, exactly their types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Preprocessing(DocumentTable):
    """How a file becomes an image that the network takes."""

    depth: Literal["uint8", "uint16", "float32"]
    """The type of pixels before the window."""
    kind: Literal["", "8-bit", "16-bit", "float", "windowed DICOM", "DICOM", "mixed"]
    """What the study's files were; empty where they were arrays, or drawn, and `mixed` where
    files of any kind were joined."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How an image of other proportions is fitted to the network's size."""
    depths: Literal["same", "range", "window"] = "same"
    """How images of different depths are joined; with `same` only the study's own kind is read."""
    window: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    """What becomes 0 and what 255; null where pixels stay as they are."""
    pixels: Literal["uint8", "float32"]
    """The type of pixels after the window."""
    mean: list[float]
    """Of the training pixels, by channel: subtracted."""
    scale: list[float]
    """One over the deviation of the training pixels, by channel: multiplied by."""
    files: Files
    """Whether files read by tuner's own decoder give the study's very pixels: `alike` and `unlike`
    were looked at, `own` is the objective's own reading, `unchecked` has no files to look at."""

    @model_validator(mode="after")
    def _agrees(self) -> "Preprocessing":
        if self.kind == "mixed":
            if self.depths == "same":
                raise ValueError("files of mixed kinds are joined by their ranges or one window")
        elif self.kind and str(DEPTH[self.kind].__name__) != self.depth:
            raise ValueError(f"files of kind {self.kind} do not have pixels of {self.depth}")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError("the window's upper limit is not above its lower one")
        return self


class EvaluationSetup(DocumentTable):
    """What decides the last bits of a prediction."""

    device: Literal["cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    evaluation_batch: Positive
    """How many images the study evaluated at a time."""
    versions: Mapping[str, str]
    """Of the libraries, and the device's arithmetic, as of the machine that saved this."""


TOLERANCE = 1e-4
"""How far a prediction may be from the stored one: in nats, relative above 1 nat.

The same weights differ on the same image by rounding alone, because kernels sum in another order
for other sizes of batches, other numbers of threads and other devices. On a CPU that was 3e-5 at
most for the networks that come with tuner (`python -m benchmarks.prediction_rounding`). This is
three times as much, and changes no probability by more than 0.01%.
"""


class Agreement(DocumentTable):
    """How predictions of the saved weights compare with those that the study stored."""

    images: int
    equal: int
    """Images whose every log-probability is the stored one, bit for bit."""
    largest_difference: float
    """Of two log-probabilities: in nats, relative above 1 nat."""
    changed_classes: int
    """Images that are taken for another class."""

    @property
    def exact(self) -> bool:
        """Whether every number is the stored one."""
        return self.equal == self.images

    @property
    def matches(self) -> bool:
        """Whether no number is further from the stored one than rounding explains."""
        return self.largest_difference <= TOLERANCE


class EnsembleNetwork(DocumentTable):
    """One network of an ensemble; the file of weights has its weights under `members.N.`."""

    trial: int
    seed: int
    epoch: int
    origin: str
    """Where its weights were taken from."""


class Model(DocumentTable):
    """All of model.json."""

    format: Literal[1]
    tuner: str
    """The version that wrote this."""
    study: str
    question: str
    trial: int
    seed: int
    at: Moment
    """Whether the weights are of the best epoch or of the last."""
    epoch: int
    metric: str
    metrics: list[dict[str, str | bool]] = []
    """Those that were computed beside the built-in ones: the fields of `Metric`."""
    objective: Annotated[str, Field(pattern=OBJECTIVE, max_length=100)]
    parameters: dict[str, Scalar]
    data: dict[str, Scalar]
    data_fingerprint: str
    source_fingerprint: str
    """Of the code of the trainer and the objective that saved this."""
    classes: Annotated[list[str], Field(min_length=2, max_length=100_000)]
    inputs: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    """Channels, height and width of an image."""
    reading: Preprocessing
    arithmetic: EvaluationSetup
    sizes: dict[str, int]
    """How many images each split has."""
    weights_sha256: Annotated[str, Field(pattern=SHA256)]
    predictions_sha256: Annotated[str, Field(pattern=SHA256)]
    origin: str
    """Where the weights were taken from."""
    agreement: dict[Literal["val", "test"], Agreement]
    result: dict[str, Any] = {}
    """The trial's figures as `tuner best --json` gives them."""
    provenance: dict[str, Any] = {}
    """What the study was launched with."""
    members: Annotated[list[EnsembleNetwork], Field(max_length=1000)] = []
    """The networks whose probabilities are averaged; empty for a single network. Trial, seed and
    epoch above are then those of the setting's median seed."""

    @model_validator(mode="after")
    def _fits(self) -> "Model":
        channels = self.inputs[0]
        if len(self.reading.mean) != channels or len(self.reading.scale) != channels:
            raise ValueError("mean and scale have not one value a channel")
        try:
            names = [f"val_{metric.name}" for metric in self._metrics]
        except TypeError as error:
            raise ValueError(f"metrics: {error}") from None
        if self.metric not in (*METRICS, *names):
            raise ValueError(f"metric is {self.metric!r}")
        if math.prod(self.inputs) * self.arithmetic.evaluation_batch > MOST_VALUES:
            raise ValueError("a batch of such images would take more than 1 GB")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.inputs
        return channels, height, width

    @property
    def title(self) -> str:
        """What it is: "trial 3", or "ensemble of 5 seeds"."""
        if self.members:
            return f"ensemble of {len(self.members)} seeds"
        return f"trial {self.trial}"

    def job(self) -> Job:
        """Return the trial that was trained."""
        return Job(
            self.objective, self.parameters, self.data, self.seed, self.metric, self._metrics
        )

    @property
    def _metrics(self) -> tuple[Metric, ...]:
        fields: Any = self.metrics
        return tuple(Metric(**one) for one in fields)

    def text(self) -> str:
        """Return the file's content."""
        return self.model_dump_json(indent=1) + "\n"


def read(folder: Path) -> Model:
    """Read and check a folder's model.json."""
    path = folder / NAME
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} holds no {NAME}; name a folder that `tuner best STUDY --save` wrote."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return Model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        told = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserError(
            f"{path} is not what `tuner best --save` writes ({told}); save the model again."
        ) from None

"""`model.json`: everything besides the weights that is needed to predict as the study did.

The file may come from anybody, so it is treated as untrusted data: its form is checked here, its
objective is looked up by name among those of this machine, its sizes are bounded, and a network is
built only if it fits the weights.
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
"""The network as one file, if --format was given."""
FILES = (NAME, WEIGHTS, PREDICTIONS, CARD)
"""The files that the folder always contains."""
MAY_HOLD = (*FILES, *EXPORTS.values())
"""All files that it may contain."""

LARGEST = 16 << 20
"""The most bytes of a model.json; ours have a few thousand."""
MOST_VALUES = 1 << 28
"""The most numbers in a batch of images: 1 GB as float32."""

SHA256 = r"^[0-9a-f]{64}$"
Scalar = str | bool | int | float
Positive = Annotated[int, Field(ge=1, le=1 << 24)]
Files = Literal["alike", "unlike", "unchecked", "own"]


class DocumentTable(BaseModel):
    """A table of the file, with exactly the declared keys and types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Preprocessing(DocumentTable):
    """How a file is converted to the network's input."""

    depth: Literal["uint8", "uint16", "float32"]
    """The type of pixels before the window."""
    kind: Literal["", "8-bit", "16-bit", "float", "windowed DICOM", "DICOM", "mixed"]
    """The kind of the study's files; empty for arrays and generated images, and `mixed` if files of
    several kinds were joined."""
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    """How an image with other proportions is fitted to the network's size."""
    depths: Literal["same", "range", "window"] = "same"
    """How images of different depths are joined; with `same`, only the study's own kind is read."""
    window: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    """The values mapped to 0 and 255; null if pixels are unchanged."""
    pixels: Literal["uint8", "float32"]
    """The type of pixels after the window."""
    mean: list[float]
    """Mean of the training pixels by channel, which is subtracted."""
    scale: list[float]
    """One over the standard deviation of the training pixels by channel, a factor."""
    files: Files
    """Whether tuner's decoder gives exactly the study's pixels: `alike` and `unlike` were checked,
    `own` means that the objective reads files itself, `unchecked` that there were no files."""

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
    """What the last bits of a prediction depend on."""

    device: Literal["cpu", "cuda", "mps"]
    threads: Annotated[int, Field(ge=1, le=1024)]
    evaluation_batch: Positive
    """The batch size of the study's evaluation."""
    versions: Mapping[str, str]
    """Versions of libraries, and the device's arithmetic, on the machine that saved this."""


TOLERANCE = 1e-4
"""The tolerance for a prediction against the stored one: in nats, relative above 1 nat.

With the same weights and image, predictions differ only by rounding, because kernels sum in a
different order for other batch sizes, numbers of threads and devices. On a CPU, the difference was
at most 3e-5 for the built-in networks (`python -m benchmarks.prediction_rounding`). The tolerance
is three times as much, and changes no probability by more than 0.01%.
"""


class Agreement(DocumentTable):
    """How predictions of the saved weights compare with those that the study stored."""

    images: int
    equal: int
    """Images whose log-probabilities all equal the stored ones bit for bit."""
    largest_difference: float
    """The largest difference of two log-probabilities: in nats, relative above 1 nat."""
    changed_classes: int
    """Images with a different predicted class."""

    @property
    def exact(self) -> bool:
        """Whether every number equals the stored one."""
        return self.equal == self.images

    @property
    def matches(self) -> bool:
        """Whether all differences are within the tolerance."""
        return self.largest_difference <= TOLERANCE


class EnsembleNetwork(DocumentTable):
    """One network of an ensemble, whose weights are stored under `members.N.`."""

    trial: int
    seed: int
    epoch: int
    origin: str
    """Where its weights came from."""


class Model(DocumentTable):
    """All of model.json."""

    format: Literal[1]
    tuner: str
    """The version that wrote this file."""
    study: str
    question: str
    trial: int
    seed: int
    at: Moment
    """Whether the weights are from the best or the last epoch."""
    epoch: int
    metric: str
    metrics: list[dict[str, str | bool]] = []
    """The study's additional metrics: the fields of `Metric`."""
    objective: Annotated[str, Field(pattern=OBJECTIVE, max_length=100)]
    parameters: dict[str, Scalar]
    data: dict[str, Scalar]
    data_fingerprint: str
    source_fingerprint: str
    """Hash of the code of trainer and objective that saved this."""
    classes: Annotated[list[str], Field(min_length=2, max_length=100_000)]
    inputs: Annotated[list[Positive], Field(min_length=3, max_length=3)]
    """Channels, height and width of an image."""
    reading: Preprocessing
    arithmetic: EvaluationSetup
    sizes: dict[str, int]
    """The number of images of each split."""
    weights_sha256: Annotated[str, Field(pattern=SHA256)]
    predictions_sha256: Annotated[str, Field(pattern=SHA256)]
    origin: str
    """Where the weights came from."""
    agreement: dict[Literal["val", "test"], Agreement]
    result: dict[str, Any] = {}
    """The trial's figures as in `tuner best --json`."""
    provenance: dict[str, Any] = {}
    """The provenance of the study's launch."""
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
        """A short description: "trial 3", or "ensemble of 5 seeds"."""
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

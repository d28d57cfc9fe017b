"""`tuner.load`: a saved network in a script or notebook, with its preprocessing."""

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from tuner.errors import DataError
from tuner.records import most_probable
from tuner.train.sources.files import UnreadableError
from tuner.winner.document import Model
from tuner.winner.pictures import ImageReader, Pixels, image_files, pictures
from tuner.winner.prediction import Opened, open_saved

if TYPE_CHECKING:
    from pandas import DataFrame

TOLD = 10
"""The most unreadable files that are named."""


class Loaded:
    """A saved network, which predicts images; also gives its torch module and preprocessing."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._reader = ImageReader(opened.model, opened.found)

    @classmethod
    def read(cls, folder: Path, objectives: Sequence[Path], device: str) -> Self:
        """Read a folder; every file in it is checked, and nothing in it is executed."""
        threads = torch.get_num_threads()
        try:
            return cls(open_saved(folder, objectives, device))
        finally:
            # A trainer sets its number of threads; this is the user's process, so restore it.
            torch.set_num_threads(threads)

    @property
    def network(self) -> nn.Module:
        """The torch module in evaluation mode; its input is what `preprocess` returns.

        An ensemble's returns log-probabilities, any other the outputs of the objective's network.
        """
        return self._opened.predictor.network

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the network's outputs."""
        return tuple(self._opened.model.classes)

    @property
    def about(self) -> Model:
        """The content of model.json: study, trial, seed, parameters, preprocessing, figures."""
        return self._opened.model

    def preprocess(self, images: Any) -> Tensor:
        """Return images as the network's input: read, resized and standardised.

        `images` are as for `predict`.
        """
        pixels, _ = self._pixels(images)
        return self._opened.predictor.standardised(np.stack(pixels))

    def predict(self, images: Any) -> "DataFrame":
        """Return the most probable class of each image, its probability, and those of all classes.

        `images` is a file or folder, a list of them, or an array: one image, or images along the
        first axis, with the study's kind of pixels. An unreadable file raises a DataError that
        names it.
        """
        from pandas import DataFrame

        pixels, names = self._pixels(images)
        logs = self._opened.predictor.predict(pixels, lambda *_: None)
        shares = np.exp(logs.astype(np.float64))
        taken = most_probable(logs)
        columns: dict[str, Any] = {} if names is None else {"path": names}
        columns["predicted"] = [self.classes[place] for place in taken]
        columns["probability"] = shares[np.arange(len(taken)), taken]
        columns |= {f"p_{name}": shares[:, place] for place, name in enumerate(self.classes)}
        return DataFrame(columns)

    def _pixels(self, images: Any) -> tuple[list[Pixels], list[str] | None]:
        if isinstance(images, str | PathLike):
            images = [images]
        if isinstance(images, list | tuple) and all(isinstance(i, str | PathLike) for i in images):
            if not images:
                raise DataError("There is no image to predict: the list is empty.")
            return self._files([fspath(image) for image in images])
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        try:
            return self._reader.images(array, "the array"), None
        except UnreadableError as error:
            raise DataError(str(error)) from None

    def _files(self, names: Sequence[str]) -> tuple[list[Pixels], list[str]]:
        files = [str(file) for file in image_files(names)]
        model, found = self._opened.model, self._opened.found
        read = list(pictures(files, model, found, lambda *_: None))
        faults = [f"{one.name}: {one.fault}" for one in read if one.pixels is None]
        if faults:
            more = f"\n  and {len(faults) - TOLD} more" if len(faults) > TOLD else ""
            lines = "\n".join(f"  {fault}" for fault in faults[:TOLD])
            raise DataError(f"Some files cannot be predicted; leave them out:\n{lines}{more}")
        pixels = [one.pixels for one in read if one.pixels is not None]
        return pixels, [one.name for one in read]

    def __repr__(self) -> str:
        model = self._opened.model
        inputs = " × ".join(map(str, model.inputs))
        outputs = ", ".join(self.classes)
        return f"<network of {model.study}, {model.title}: {inputs} → {outputs}>"

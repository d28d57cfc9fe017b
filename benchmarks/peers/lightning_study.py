"""Lightning for the training, Optuna on SQLite for the grid: one process."""

import logging
import time
import warnings
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers import grid, task
from benchmarks.peers import setting as peers
from benchmarks.peers.setting import Setting


class Classifier(lightning.LightningModule):  # type: ignore[misc,unused-ignore]
    """The network as a LightningModule."""

    def __init__(self, setting: Setting, name: str) -> None:
        super().__init__()
        self.network = task.network(setting)
        self.setting = setting
        self.name = name

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        """Log loss and accuracy of a batch."""
        self._evaluate(batch, "val")

    def test_step(self, batch: list[torch.Tensor], _index: int) -> None:  # noqa: PT019
        """Log loss and accuracy of a batch."""
        self._evaluate(batch, "test")

    def configure_optimizers(self) -> Any:
        """Return Adam and the schedule."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=peers.RATE)
        steps = task.schedule(self.name, optimizer, self.setting.epochs)
        return {"optimizer": optimizer, "lr_scheduler": steps}

    def _evaluate(self, batch: list[torch.Tensor], part: str) -> None:
        images, labels = batch
        outputs = self.network(images)
        self.log(f"{part}_loss", nn.functional.cross_entropy(outputs, labels))
        self.log(f"{part}_acc", (outputs.argmax(1) == labels).float().mean())


def train(setting: Setting, name: str, seed: int) -> dict[str, Any]:
    """Train one trial and return its accuracies at its best validation loss."""
    began = time.time()
    lightning.seed_everything(seed, verbose=False)
    parts = {part: TensorDataset(*arrays) for part, arrays in task.load(setting).items()}
    best = ModelCheckpoint(monitor="val_loss", dirpath=f"{setting.folder}/{name}-{seed}")
    trainer = lightning.Trainer(
        max_epochs=setting.epochs,
        accelerator="cpu",
        callbacks=[best],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Classifier(setting, name),
        DataLoader(parts[""], batch_size=peers.BATCH, shuffle=True),
        DataLoader(parts["val_"], batch_size=peers.BATCH),
    )
    result: dict[str, Any] = {"schedule": name, "seed": seed, "began": began}
    model = Classifier(setting, name)
    model.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    for part, key in (("val", "val_"), ("test", "test_")):
        loader = DataLoader(parts[key], batch_size=peers.BATCH)
        (figures,) = trainer.test(model, loader, verbose=False)
        result[part] = figures["test_acc"]
    return result


def main() -> None:
    """Run the grid with Lightning's output silenced."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    grid.run(train)


if __name__ == "__main__":
    main()

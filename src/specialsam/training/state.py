"""What tuning works on, what it notes of each epoch, and all that a killed run needs to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor
from torch.optim import Optimizer

from specialsam.core.errors import TrainingError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.types import Embedding
from specialsam.prompts import Draw, draw
from specialsam.training.settings import TrainSettings

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Item:
    """One training item, a record in one view.

    `id` names its masks and `masks` tells what they were read from, `key` names its embedding in the store.
    """

    id: str
    record: str
    key: str = ""
    masks: str = ""


@dataclass(frozen=True)
class TrainingData:
    """Where a step finds what it needs.

    `embeddings` maps items to stored embeddings, `masks` an item to its true masks bool (P, H, W). `pixels` maps an
    item to encoder input (3, S, S) and is needed only where the encoder itself is tuned. `draw` places the prompts of
    a step, by the strategies of the settings; those of validation are always placed by `prompts.draw`. `general` are
    images from outside the domain, whose `train` items are replayed where the settings ask for it.
    """

    train: Sequence[Item]
    val: Sequence[Item]
    embeddings: Callable[[Sequence[Item]], list[Embedding]]
    masks: Callable[[Item], BoolArray]
    pixels: Callable[[Item], tuple[Tensor, Geometry]] | None = None
    draw: Draw = draw
    general: TrainingData | None = None


@dataclass
class EpochFacts:
    """One line of the training history; epoch 0 is the base model."""

    epoch: int
    train_loss: float | None
    val_loss: float
    val_iou: float
    lr: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0
    read_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves: the history, the chosen epoch (0: the base), and proof that the encoder did not move."""

    history: list[EpochFacts]
    best_epoch: int
    stop: str
    encoder_before: str
    encoder_after: str
    steps: int

    @property
    def encoder_unchanged(self) -> bool:
        return self.encoder_before == self.encoder_after


DAMAGE = (
    *(RuntimeError, UnpicklingError, EOFError, BadZipFile),
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError, OSError),
)
"""What reading a damaged file raises, in zipfile and in torch."""


class State:
    """All that a killed run needs to go on, in one file that is replaced whole."""

    def __init__(
        self, path: Path, sam: Any, optimizer: Optimizer, base_decoder: str, settings: TrainSettings, data: TrainingData
    ):
        self.path, self.sam, self.optimizer = path, sam, optimizer
        items = [*data.train, *data.val, *(data.general.train if data.general else ())]
        names = "\n".join(f"{item.id} {item.key} {item.masks}" for item in items)
        self.identity = f"{settings.model_dump_json()}\n{base_decoder}\n{names}"
        self.history: list[EpochFacts] = []
        self.epoch, self.step, self.total_steps, self.stop = 1, 0, 0, ""
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}
        self.sums = {"loss": 0.0, "norm": 0.0, "read": 0.0, "seconds": 0.0}

    def tuned(self) -> dict[str, Tensor]:
        """Tuned parameters by name; buffers never move."""
        names = {name for name, p in self.sam.named_parameters() if p.requires_grad}
        return {name: value for name, value in self.sam.state_dict().items() if name in names}

    def add(self, loss: float, norm: float, read: float, seconds: float) -> None:
        for name, value in zip(self.sums, (loss, norm, read, seconds), strict=True):
            self.sums[name] += value
        self.step += 1
        self.total_steps += 1

    def mean(self, name: str) -> float:
        return self.sums[name] / max(1, self.step)

    def finish_epoch(self, val_loss: float, val_iou: float, rate: float) -> None:
        facts = EpochFacts(self.epoch, self.mean("loss"), val_loss, val_iou, rate, self.mean("norm"))
        facts.seconds, facts.read_seconds = self.sums["seconds"], self.sums["read"]
        self.history.append(facts)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums = dict.fromkeys(self.sums, 0.0)

    def remember_if_best(self) -> None:
        newest = self.history[-1]
        before = [facts.val_iou for facts in self.history[:-1]]
        if not before or newest.val_iou > max(before):
            self.best_epoch = newest.epoch
            self.best = {name: value.detach().cpu().clone() for name, value in self.tuned().items()}

    def load_best(self) -> None:
        self.sam.load_state_dict(self.best, strict=False)

    def save(self, accelerator: Accelerator) -> None:
        """Write the file in the main process, whose state is that of all; nobody waits, so that nobody can hang."""
        if not accelerator.is_main_process:
            return
        state = {
            "identity": self.identity,
            "history": [asdict(facts) for facts in self.history],
            "progress": [self.epoch, self.step, self.total_steps, self.best_epoch],
            "stop": self.stop,
            "sums": self.sums,
            "tuned": self.tuned(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
        }
        write_whole(self.path, lambda path: torch.save(state, path))

    def restore(self) -> None:
        """Go on from the file if it belongs to the same settings and items; start anew otherwise.

        It is read into main memory whatever device wrote it or runs now: each tensor goes to its parameter's device.
        """
        if not self.path.exists():
            return
        try:
            with ZipFile(self.path) as parts:  # torch writes checksums and never reads them
                damaged = parts.testzip()
            if damaged is not None:
                raise ValueError(f"{damaged} is not what was written")
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if state["identity"] != self.identity:
                return
            self.history = [EpochFacts(**facts) for facts in state["history"]]
            self.epoch, self.step, self.total_steps, self.best_epoch = state["progress"]
            self.stop, self.sums, self.best = state["stop"], state["sums"], state["best"]
            self.sam.load_state_dict(state["tuned"], strict=False)
            self.optimizer.load_state_dict(state["optimizer"])
        except DAMAGE as error:
            raise TrainingError(
                f"expected the state of a tuning run in {self.path}, got a damaged one ({type(error).__name__}); "
                "delete it to start anew"
            ) from error

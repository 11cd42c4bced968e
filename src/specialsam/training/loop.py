"""Tune a segmenter on stored embeddings: plain code, top to bottom, the accelerator passed in.

Every random choice follows from (seed, epoch, step, item), never from a generator that runs on; so a run that was
killed goes on from its last saved step and ends with the same weights as an unbroken one. Several processes share each
batch and sum their gradients, so that they end with the weights of one process with the same batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from specialsam.core.errors import TrainingError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.types import Embedding, Prediction, Prompts
from specialsam.metrics.overlap import overlap
from specialsam.models.segmenter import SINGLE, THREE, Segmenter, fingerprint
from specialsam.prompts import check_mixture, correction_clicks, draw, generator
from specialsam.training.losses import mixed, resolve_mix, soft_iou
from specialsam.training.tuning import Mode, merge, prepare

SAVE_EVERY_SECONDS = 60.0
"""Longest time of training that a kill in the middle of an epoch costs."""


class TrainSettings(BaseModel):
    """How the decoder is tuned. The defaults suit a few hundred images; recipes override them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = Field("decoder", description="what is tuned: decoder, decoder+prompt, lora, or all (small encoders)")
    lora_rank: int = Field(8, description="rank of the low-rank terms in mode lora", ge=1)
    epochs: int = Field(20, description="most epochs", ge=1)
    batch: int = Field(4, description="images a step", ge=1)
    objects: int = Field(4, description="most objects of an image in one step", ge=1)
    lr: float = Field(1e-4, description="peak learning rate", gt=0)
    weight_decay: float = Field(1e-4, description="AdamW weight decay", ge=0)
    warmup: float = Field(0.05, description="share of all steps with a rising learning rate", ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = Field("cosine", description="learning rate after the warm-up")
    clip: float = Field(1.0, description="largest gradient norm; 0 does not clip", ge=0)
    loss: str | dict[str, float] = Field("half", description="named mix (dice, half, half_boundary, sam) or weights")
    loss_at: Literal["logits", "image"] = Field(
        "logits", description="compare at the low resolution of the logits, or at the mask's own size as the seed does"
    )
    iou_head: float = Field(0.1, description="weight of the predicted-IoU regression", ge=0)
    masks: Literal["one", "three"] = Field("one", description="train the single mask, or the least of the three")
    prompts: dict[str, float] = Field(
        default_factory=lambda: {"random": 0.35, "interior": 0.25, "box_jitter": 0.3, "points3": 0.1},
        description="prompt strategies and their probabilities, one drawn a step",
    )
    corrections: int = Field(0, description="correction clicks added, one pass each, after the first answer", ge=0)
    correction_share: float = Field(0.5, description="share of steps that go through the corrections", ge=0, le=1)
    validation: tuple[str, ...] = Field(("interior", "box"), description="strategies of the validation IoU (mean)")
    patience: int = Field(5, description="epochs without a better validation IoU before the stop; 0 never stops", ge=0)
    keep: Literal["best", "last"] = Field("best", description="weights handed on: best by validation IoU, or the last")
    seed: int = Field(0, description="of every random choice")

    @field_validator("prompts")
    @classmethod
    def _known_prompts(cls, value: dict[str, float]) -> dict[str, float]:
        check_mixture(value)
        return value

    @field_validator("validation")
    @classmethod
    def _known_strategies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        check_mixture(dict.fromkeys(value, 1.0))
        return value

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        resolve_mix(value)
        return value


@dataclass(frozen=True)
class Item:
    """One training item, a record in one view: `id` names its masks, `key` its embedding in the store."""

    id: str
    record: str
    key: str = ""


@dataclass(frozen=True)
class TrainingData:
    """Where a step finds what it needs.

    `embeddings` maps items to stored embeddings, `masks` an item to its true masks bool (P, H, W). `pixels` maps an
    item to encoder input (3, S, S) and is needed only where the encoder itself is tuned.
    """

    train: Sequence[Item]
    val: Sequence[Item]
    embeddings: Callable[[Sequence[Item]], list[Embedding]]
    masks: Callable[[Item], BoolArray]
    pixels: Callable[[Item], tuple[Tensor, Geometry]] | None = None


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


def train(
    segmenter: Segmenter,
    data: TrainingData,
    settings: TrainSettings,
    folder: Path,
    accelerator: Any,
    progress: Callable[[int, int, str], None] | None = None,
    watch: Callable[[list[EpochFacts]], tuple[list[str], bool]] | None = None,
) -> TrainResult:
    """Tune `segmenter` in place and return the history; checkpoints in `folder` make a second call go on.

    `accelerator` is an `accelerate.Accelerator` (CPU, GPU, several processes, bf16). `watch` sees the history after
    each epoch and answers with warnings and whether to stop. The weights left in `segmenter`, on the device where they
    were, are those of the best epoch on validation (or the last, by `settings.keep`). Raises TrainingError when there
    is nothing to train on or the loss is not finite.
    """
    if not data.train:
        raise TrainingError("expected at least one training image with an object, got none; check masks and splits")
    sam: Any = segmenter.sam
    home = segmenter.device
    segmenter.forget_ids()
    base_decoder, encoder_before = segmenter.decoder_id, fingerprint(segmenter.encoder)
    sam.to(accelerator.device)
    parameters = prepare(sam, settings.mode, settings.lora_rank, settings.seed)
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    optimizer = accelerator.prepare(optimizer)
    steps_an_epoch = math.ceil(len(data.train) / settings.batch)
    total_steps = settings.epochs * steps_an_epoch
    state = _State(folder / "training.pt", sam, optimizer, base_decoder, settings, data)
    state.restore(accelerator.device)
    accelerator.wait_for_everyone()
    segmenter.encoder.eval()

    if not state.history:
        loss, iou = validate(segmenter, data, settings)
        state.history.append(EpochFacts(0, None, loss, iou))
        state.remember_if_best()
        state.save(accelerator)
    while state.stop == "" and state.epoch <= settings.epochs:
        epoch = state.epoch
        order = generator(settings.seed, "order", epoch).permutation(len(data.train))
        began = last_save = time.monotonic()
        while state.step < steps_an_epoch:
            chosen = [data.train[i] for i in order[state.step * settings.batch :][: settings.batch]]
            number = (epoch - 1) * steps_an_epoch + state.step
            rate = learning_rate(number, total_steps, settings)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, norm, read = _step(segmenter, data, chosen, settings, (epoch, number), optimizer, accelerator)
            state.add(loss, norm, read, time.monotonic() - began)
            began = time.monotonic()
            if progress:
                progress(number + 1, total_steps, f"epoch {epoch}/{settings.epochs}, loss {state.mean('loss'):.4f}")
            if time.monotonic() - last_save > SAVE_EVERY_SECONDS:
                state.save(accelerator)
                last_save = time.monotonic()
        val_loss, val_iou = validate(segmenter, data, settings)
        state.finish_epoch(val_loss, val_iou, learning_rate(epoch * steps_an_epoch - 1, total_steps, settings))
        warnings, halt = watch(state.history) if watch else ([], False)
        state.history[-1].warnings = warnings
        state.remember_if_best()
        if halt:
            state.stop = f"stopped by the monitor after epoch {epoch}: {warnings[-1] if warnings else 'halted'}"
        elif settings.patience and epoch - state.best_epoch >= settings.patience and data.val:
            state.stop = f"no better validation IoU for {settings.patience} epochs (best: epoch {state.best_epoch})"
        elif epoch == settings.epochs:
            state.stop = f"all {settings.epochs} epochs done"
        if accelerator.is_main_process:
            with (folder / "log.jsonl").open("a") as lines:
                lines.write(json.dumps({"event": "epoch", **asdict(state.history[-1])}) + "\n")
        state.save(accelerator)

    if settings.keep == "best" and data.val:
        state.load_best()
    merge(sam)
    sam.eval().to(home)
    segmenter.forget_ids()
    best = state.best_epoch if settings.keep == "best" and data.val else state.history[-1].epoch
    return TrainResult(
        state.history, best, state.stop, encoder_before, fingerprint(segmenter.encoder), state.total_steps
    )


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Linear warm-up over `settings.warmup` of all steps, then constant or cosine to 1 % of the peak."""
    warm = int(settings.warmup * total)
    if step < warm:
        return settings.lr * (step + 1) / (warm + 1)
    if settings.schedule == "constant":
        return settings.lr
    share = (step - warm) / max(1, total - warm)
    return settings.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


@dataclass(frozen=True)
class _Batch:
    """Objects of several images (`items`, in `rows` of the step) that share one kind of prompt and number of points."""

    items: list[str]
    rows: list[int]
    prompts: list[Prompts]
    masks: list[BoolArray]


def _draw_batch(
    items: Sequence[Item], masks: Sequence[BoolArray], settings: TrainSettings, purpose: tuple[int, int]
) -> list[_Batch]:
    """Prompts of one step: one strategy for all images, fresh random numbers, grouped by number of points."""
    mixture = check_mixture(settings.prompts)
    strategy = str(generator(settings.seed, "strategy", *purpose).choice(list(mixture), p=list(mixture.values())))
    by_shape: dict[int, _Batch] = {}
    for row, (item, every) in enumerate(zip(items, masks, strict=True)):
        rng = generator(settings.seed, "prompts", item.id, *purpose)
        several = np.sort(rng.permutation(len(every))[: settings.objects])
        for indices, prompts in draw(strategy, every[several], rng):
            points = 0 if prompts.points is None else prompts.points.shape[1]
            batch = by_shape.setdefault(points, _Batch([], [], [], []))
            batch.items.append(item.id)
            batch.rows.append(row)
            batch.prompts.append(prompts)
            batch.masks.append(every[several][indices])
    return list(by_shape.values())


def _step(
    segmenter: Segmenter,
    data: TrainingData,
    items: Sequence[Item],
    settings: TrainSettings,
    purpose: tuple[int, int],
    optimizer: Any,
    accelerator: Any,
) -> tuple[float, float, float]:
    """One optimiser step on `items`, this process's share of them; (loss, gradient norm, seconds spent reading)."""
    began = time.monotonic()
    every = [data.masks(item) for item in items]
    share = slice(accelerator.process_index, None, accelerator.num_processes)
    own, masks = items[share], every[share]
    inputs, frames = _inputs(data, own, settings, segmenter.device) if own else (torch.empty(0), [])
    read = time.monotonic() - began
    optimizer.zero_grad(set_to_none=True)
    total, objects = 0.0, sum(min(len(m), settings.objects) for m in every)
    for batch in _draw_batch(own, masks, settings, purpose):
        with accelerator.autocast():
            loss = _batch_loss(segmenter, inputs, frames, batch, settings, purpose)
        weight = sum(len(p) for p in batch.prompts) / max(1, objects)
        total += weight * float(loss.detach())
        accelerator.backward(weight * loss)
    parameters = [p for p in segmenter.sam.parameters() if p.requires_grad]
    total = _summed(parameters, total, accelerator)
    if not math.isfinite(total):
        raise TrainingError(
            f"expected a finite loss, got {total} at epoch {purpose[0]}, step {purpose[1]} "
            f"(images {', '.join(item.record for item in items)}); lower --lr or clip gradients"
        )
    norm = float(accelerator.clip_grad_norm_(parameters, settings.clip or float("inf")))
    optimizer.step()
    return total, norm, read


def _summed(parameters: Sequence[torch.nn.Parameter], loss: float, accelerator: Any) -> float:
    """Give every process the sum of all gradients, and return that of the losses; what no process used keeps none.

    In one piece and once a step: processes may differ in the number of passes (points an object, corrections, an empty
    share of the last batch), which an all-reduce behind each backward pass does not survive.
    """
    if accelerator.num_processes == 1:
        return loss
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    facts = parts[0].new_tensor([loss, *(float(p.grad is not None) for p in parameters)])
    whole = accelerator.reduce(torch.cat([facts, *(part.flatten() for part in parts)]), "sum")
    used, gradients = whole[1 : len(facts)], whole[len(facts) :].split([p.numel() for p in parameters])
    for parameter, some, gradient in zip(parameters, used.tolist(), gradients, strict=True):
        parameter.grad = gradient.view_as(parameter) if some else None
    return float(whole[0])


def _inputs(
    data: TrainingData, items: Sequence[Item], settings: TrainSettings, device: torch.device
) -> tuple[Tensor, list[Geometry]]:
    """Stored embeddings (B, D, h, w), or encoder inputs (B, 3, S, S) where the encoder is tuned, and the frames."""
    if settings.mode != "all":
        stored = data.embeddings(items)
        return torch.stack([e.tensor for e in stored]).to(device).float(), [e.geometry for e in stored]
    if data.pixels is None:
        raise TrainingError("expected the images themselves to tune the whole model, got stored embeddings only")
    pairs = [data.pixels(item) for item in items]
    return torch.stack([pixels for pixels, _ in pairs]).to(device), [geometry for _, geometry in pairs]


def _batch_loss(
    segmenter: Segmenter,
    inputs: Tensor,
    geometries: Sequence[Geometry],
    batch: _Batch,
    settings: TrainSettings,
    purpose: tuple[int, int],
) -> Tensor:
    """Mean loss over the objects of a batch, over the first answer and, where drawn, the corrected ones."""
    frames = [geometries[row] for row in batch.rows]
    target, valid = _targets(batch, frames)
    target, valid = target.to(segmenter.device), valid.to(segmenter.device)
    seeds = [generator(settings.seed, "corrections", item, *purpose) for item in batch.items]
    rounds = settings.corrections
    if rounds and generator(settings.seed, "corrections", *purpose).random() >= settings.correction_share:
        rounds = 0
    prompts, losses = list(batch.prompts), []
    outputs = THREE if settings.masks == "three" else SINGLE
    embeddings = inputs[batch.rows]
    if settings.mode == "all":
        embeddings = segmenter.encode_pixels(embeddings)
    for number in range(rounds + 1):
        logits, scores = segmenter.forward(embeddings, frames, prompts, outputs)
        losses.append(_object_loss(logits.float(), scores.float(), target, valid, batch, frames, settings).mean())
        if number < rounds:
            prompts = _corrected(logits, scores, batch, frames, prompts, seeds)
    return torch.stack(losses).mean()


def _targets(batch: _Batch, frames: Sequence[Geometry]) -> tuple[Tensor, Tensor]:
    target = np.concatenate([frame.masks_to_logits(m) for frame, m in zip(frames, batch.masks, strict=True)])
    valid = np.concatenate(
        [np.repeat(frame.valid_logits()[None], len(m), 0) for frame, m in zip(frames, batch.masks, strict=True)]
    )
    return torch.from_numpy(target), torch.from_numpy(valid)


def _object_loss(
    logits: Tensor,
    scores: Tensor,
    target: Tensor,
    valid: Tensor,
    batch: _Batch,
    frames: Sequence[Geometry],
    settings: TrainSettings,
) -> Tensor:
    """Loss (N,) of logits (N, C, L, L): the mix on the single or least of three masks, and the IoU head."""
    weights, count = resolve_mix(settings.loss), logits.shape[1]
    if settings.loss_at == "image":
        each = _loss_at_image(logits, batch, frames, weights)
    else:
        repeated = target.repeat_interleave(count, 0), valid.repeat_interleave(count, 0)
        each = mixed(logits.flatten(0, 1), *repeated, weights).reshape(-1, count)
    loss: Tensor = each.min(1).values
    if settings.iou_head:
        repeated = target.repeat_interleave(count, 0), valid.repeat_interleave(count, 0)
        iou = soft_iou(logits.flatten(0, 1), *repeated).reshape(-1, count)
        loss = loss + settings.iou_head * (scores - iou).square().mean(1)
    return loss


def _loss_at_image(logits: Tensor, batch: _Batch, frames: Sequence[Geometry], weights: dict[str, float]) -> Tensor:
    """Loss (N, C) with the logits upsampled bilinearly to each mask's own size (the seed's way)."""
    rows, start = [], 0
    for frame, masks in zip(frames, batch.masks, strict=True):
        large = frame.logits_to_original(logits[start : start + len(masks)])
        truth = torch.from_numpy(masks).to(logits.device, torch.float32)
        columns = [mixed(large[:, c], truth, torch.ones_like(truth), weights) for c in range(logits.shape[1])]
        rows.append(torch.stack(columns, 1))
        start += len(masks)
    return torch.cat(rows)


def _corrected(
    logits: Tensor,
    scores: Tensor,
    batch: _Batch,
    frames: Sequence[Geometry],
    prompts: Sequence[Prompts],
    seeds: Sequence[np.random.Generator],
) -> list[Prompts]:
    """Prompts with one more click in the error of the present answer, and that answer's logits as mask prompts."""
    out, start = [], 0
    for frame, masks, previous, rng in zip(frames, batch.masks, prompts, seeds, strict=True):
        stop = start + len(masks)
        answer = Prediction(logits[start:stop].detach().float(), scores[start:stop].detach(), frame).best()
        given = np.asarray(answer.logits[:, 0].cpu().numpy(), np.float32)
        out.append(correction_clicks(masks, answer.masks()[:, 0], previous, rng, given))
        start = stop
    return out


def validate(segmenter: Segmenter, data: TrainingData, settings: TrainSettings) -> tuple[float, float]:
    """(loss, IoU) on the validation items, the same prompts every time: mean over strategies, objects and images."""
    losses, ious = [], []
    for item in data.val:
        masks = data.masks(item)
        embedding = _val_embedding(segmenter, data, item, settings)
        for strategy in settings.validation:
            rng = generator(settings.seed, "validation", item.id, strategy)
            for indices, prompts in draw(strategy, masks, rng):
                answer = segmenter.decode(embedding, prompts, multimask=settings.masks == "three").best()
                truth = masks[indices]
                frame = embedding.geometry
                target, valid = _targets(_Batch([item.id], [0], [prompts], [truth]), [frame])
                loss = mixed(answer.logits[:, 0], target, valid, resolve_mix(settings.loss))
                losses.append(float(loss.mean()))
                found = answer.masks()[:, 0]
                ious.append(float(np.mean([overlap(m, t)["iou"] for m, t in zip(found, truth, strict=True)])))
    if not losses:
        return float("nan"), float("nan")
    return float(np.mean(losses)), float(np.mean(ious))


def _val_embedding(segmenter: Segmenter, data: TrainingData, item: Item, settings: TrainSettings) -> Embedding:
    if settings.mode != "all" or data.pixels is None:
        return data.embeddings([item])[0]
    pixels, geometry = data.pixels(item)
    segmenter.encoder.eval()
    with torch.no_grad():
        return Embedding(segmenter.encode_pixels(pixels[None])[0].cpu(), geometry)


class _State:
    """All that a killed run needs to go on, in one file that is replaced whole."""

    def __init__(
        self, path: Path, sam: Any, optimizer: Any, base_decoder: str, settings: TrainSettings, data: TrainingData
    ):
        self.path, self.sam, self.optimizer = path, sam, optimizer
        names = "\n".join(f"{item.id} {item.key}" for item in [*data.train, *data.val])
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

    def save(self, accelerator: Any) -> None:
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

    def restore(self, device: torch.device) -> None:
        """Go on from the file if it belongs to the same settings and items; start anew otherwise."""
        if not self.path.exists():
            return
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except (RuntimeError, UnpicklingError, EOFError, ValueError) as error:
            raise TrainingError(
                f"expected the state of a tuning run in {self.path}, got a damaged one ({type(error).__name__}); "
                "delete it to start anew"
            ) from error
        if state["identity"] != self.identity:
            return
        self.history = [EpochFacts(**facts) for facts in state["history"]]
        self.epoch, self.step, self.total_steps, self.best_epoch = state["progress"]
        self.stop, self.sums, self.best = state["stop"], state["sums"], state["best"]
        self.sam.load_state_dict(state["tuned"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])

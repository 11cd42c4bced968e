"""Tune a segmenter on stored embeddings: plain code, top to bottom, the place where it runs passed in.

Every random choice follows from (seed, epoch, step, item), never from a generator that runs on; so a run that was
killed goes on from its last saved step and ends with the same weights as an unbroken one. Several processes share each
batch and sum their gradients, so that they end with the weights of one process with the same batch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from specialsam.core.ahead import ahead
from specialsam.core.console import Progress
from specialsam.core.errors import TrainingError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray
from specialsam.core.packing import packed
from specialsam.core.place import Place, Spread, alone
from specialsam.core.types import Embedding, Prompts
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import SINGLE, THREE, Segmenter, fingerprint
from specialsam.models.specialist import ENCODER_MODES, clone
from specialsam.prompts import draw, generator
from specialsam.training.losses import mixed, resolve_mix
from specialsam.training.objective import Batch, Part, batch_loss, embedded, inputs_of, prepared, targets
from specialsam.training.settings import TrainSettings
from specialsam.training.state import EpochFacts, Item, State, TrainingData, TrainResult
from specialsam.training.tuning import merge, prepare

if TYPE_CHECKING:
    from accelerate import Accelerator

TOGETHER, MOST_OBJECTS = 8, 64
"""Validation items, and of these the objects, each counted once a strategy, that are asked about at once."""
SAVE_EVERY_SECONDS = 60.0
"""Longest time of training that a kill in the middle of an epoch costs."""


@dataclass
class Tuning:
    """What every step works with: the model that is tuned, its data, settings, and where it started from.

    `parameters` are those that learn, each of its own shape (...,); `start` their values in the base, likewise, where
    they are pulled back to it, else none. `base` answers what is to be kept, where that is replayed.
    """

    segmenter: Segmenter
    data: TrainingData
    settings: TrainSettings
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    parameters: list[torch.nn.Parameter]
    start: list[Tensor]
    base: Segmenter | None = None

    @property
    def steps_an_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.settings.batch)

    @property
    def workers(self) -> int:
        """Threads that prepare steps: beside a GPU several, beside torch's own threads one."""
        return min(4, os.cpu_count() or 1) if self.segmenter.device.type == "cuda" else 1

    def order(self, epoch: int) -> list[int]:
        """Places of the training items in the order in which an epoch takes them."""
        drawn = generator(self.settings.seed, "order", epoch).permutation(len(self.data.train))
        return [int(place) for place in drawn]

    def parts(self, epoch: int, order: Sequence[int], step: int) -> list[Part]:
        """What the step works on: images of the domain, and general ones where the settings replay some."""
        data, settings = self.data, self.settings
        purpose = (epoch, (epoch - 1) * self.steps_an_epoch + step)
        share = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        chosen = [data.train[i] for i in order[step * settings.batch :][: settings.batch]]
        found = [prepared(data, chosen, settings, purpose, share)]
        if settings.replay and data.general is not None:
            pool = data.general.train
            drawn = generator(settings.seed, "replay", *purpose).permutation(len(pool))[: settings.replay_images]
            part = prepared(data.general, [pool[i] for i in drawn], settings, purpose, share)
            found.append(replace(part, weight=settings.replay, as_base=settings.replay_truth == "base"))
        return found


def _begun(segmenter: Segmenter, data: TrainingData, settings: TrainSettings, place: Place) -> Tuning:
    """The model on its device with what its mode tunes set free, an optimiser, and what is kept of the base."""
    sam: Any = segmenter.sam
    sam.to(place.accelerator.device)
    distilled = settings.replay > 0 and settings.replay_truth == "base" and data.general is not None
    base = clone(segmenter, "base", share_encoder=settings.mode not in ENCODER_MODES) if distilled else None
    parameters = prepare(sam, settings.mode, settings.lora_rank, settings.seed, settings.tail_blocks)
    start = [parameter.detach().clone() for parameter in parameters] if settings.anchor else []
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    optimizer = place.accelerator.prepare(optimizer)
    return Tuning(segmenter, data, settings, optimizer, place.accelerator, parameters, start, base)


def train(
    segmenter: Segmenter,
    data: TrainingData,
    settings: TrainSettings,
    folder: Path,
    place: Place,
    progress: Progress | None = None,
    watch: Callable[[list[EpochFacts]], tuple[list[str], bool]] | None = None,
) -> TrainResult:
    """Tune `segmenter` in place and return the history; checkpoints in `folder` make a second call go on.

    `place` is where it runs (CPU, GPU, several processes). `watch` sees the history after
    each epoch and answers with warnings and whether to stop. The weights left in `segmenter`, on the device where they
    were, are those of the best epoch on validation (or the last, by `settings.keep`). Raises TrainingError when there
    is nothing to train on or the loss is not finite.
    """
    if not data.train:
        raise TrainingError("expected at least one training image with an object, got none; check masks and splits")
    sam: Any = segmenter.sam
    accelerator, home = place.accelerator, segmenter.device
    segmenter.forget_ids()
    base_decoder, encoder_before = segmenter.decoder_id, fingerprint(segmenter.encoder)
    tuning = _begun(segmenter, data, settings, place)
    state = State(folder / "training.pt", sam, tuning.optimizer, base_decoder, settings, data)
    state.restore()
    accelerator.wait_for_everyone()
    segmenter.encoder.eval()

    if not state.history:
        loss, iou = validate(segmenter, data, settings, place.spread)
        state.history.append(EpochFacts(0, None, loss, iou))
        state.remember_if_best()
        state.save(accelerator)
    while state.stop == "" and state.epoch <= settings.epochs:
        _epoch(tuning, state, progress)
        epoch = state.epoch
        val_loss, val_iou = validate(segmenter, data, settings, place.spread)
        state.finish_epoch(val_loss, val_iou, tuning.optimizer.param_groups[0]["lr"])
        warnings, halt = watch(state.history) if watch else ([], False)
        state.history[-1].warnings = warnings
        state.remember_if_best()
        if halt:
            state.stop = f"stopped by the monitor after epoch {epoch}: {warnings[-1] if warnings else 'halted'}"
        elif settings.patience and epoch - state.best_epoch >= settings.patience and data.val:
            state.stop = f"no better validation IoU for {settings.patience} epochs (best: epoch {state.best_epoch})"
        elif epoch == settings.epochs:
            state.stop = f"all {settings.epochs} epochs done"
        if place.main:
            _log(folder / "log.jsonl", state.history[1:])
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


def _epoch(tuning: Tuning, state: State, progress: Progress | None) -> None:
    """The steps that are left of the state's epoch; the next ones are prepared while one is computed."""
    settings, epoch, count = tuning.settings, state.epoch, tuning.steps_an_epoch
    total = settings.epochs * count
    coming = ahead(partial(tuning.parts, epoch, tuning.order(epoch)), range(state.step, count), tuning.workers)
    with closing(coming):
        began = last_save = time.monotonic()
        for parts in coming:
            read = time.monotonic() - began
            number = (epoch - 1) * count + state.step
            rate = learning_rate(number, total, settings)
            for group in tuning.optimizer.param_groups:
                group["lr"] = rate
            loss, norm = _step(tuning, parts, (epoch, number))
            state.add(loss, norm, read, time.monotonic() - began)
            began = time.monotonic()
            if progress:
                progress(number + 1, total, f"epoch {epoch}/{settings.epochs}, loss {state.mean('loss'):.4f}")
            if time.monotonic() - last_save > SAVE_EVERY_SECONDS:
                state.save(tuning.accelerator)
                last_save = time.monotonic()


def _log(path: Path, history: Sequence[EpochFacts]) -> None:
    """The whole history, a line an epoch."""
    text = "".join(json.dumps({"event": "epoch", **asdict(facts)}) + "\n" for facts in history)
    write_whole(path, lambda beside: beside.write_text(text))


def learning_rate(step: int, total: int, settings: TrainSettings) -> float:
    """Linear warm-up over `settings.warmup` of all steps, then constant or cosine to 1 % of the peak."""
    warm = int(settings.warmup * total)
    if step < warm:
        return settings.lr * (step + 1) / (warm + 1)
    if settings.schedule == "constant":
        return settings.lr
    share = (step - warm) / max(1, total - warm)
    return settings.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _step(tuning: Tuning, parts: Sequence[Part], purpose: tuple[int, int]) -> tuple[float, float]:
    """One optimiser step on this process's share of the images; (loss on the domain's images, gradient norm)."""
    segmenter, settings, accelerator = tuning.segmenter, tuning.settings, tuning.accelerator
    tuning.optimizer.zero_grad(set_to_none=True)
    totals = [0.0] * len(parts)
    for number, part in enumerate(parts):
        inputs = part.inputs.to(segmenter.device).float()
        for batch in part.batches:
            with accelerator.autocast():
                base = tuning.base if part.as_base else None
                loss = batch_loss(segmenter, inputs, part.frames, batch, settings, purpose, base)
            weight = sum(len(p) for p in batch.prompts) / max(1, part.objects)
            totals[number] += weight * float(loss.detach())
            accelerator.backward(part.weight * weight * loss)
    totals = _summed(tuning.parameters, totals, accelerator)
    if not all(map(math.isfinite, totals)):
        names = ", ".join(name for part in parts for batch in part.batches for name in batch.items)
        raise TrainingError(
            f"expected a finite loss, got {sum(totals)} at epoch {purpose[0]}, step {purpose[1]} "
            f"(images {names}); lower train.lr or clip gradients"
        )
    norm = float(accelerator.clip_grad_norm_(tuning.parameters, settings.clip or float("inf")))
    tuning.optimizer.step()
    if tuning.start:
        back = min(1.0, settings.anchor * float(tuning.optimizer.param_groups[0]["lr"]))
        with torch.no_grad():
            torch._foreach_lerp_(list(tuning.parameters), tuning.start, back)
    return totals[0], norm


def _summed(parameters: Sequence[torch.nn.Parameter], losses: list[float], accelerator: Accelerator) -> list[float]:
    """Give every process the sum of all gradients, and return those of the losses; what no process used keeps none.

    In one piece and once a step: processes may differ in the number of passes (points an object, corrections, an empty
    share of the last batch), which an all-reduce behind each backward pass does not survive.
    """
    if accelerator.num_processes == 1:
        return losses
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    facts = parts[0].new_tensor([*losses, *(float(p.grad is not None) for p in parameters)])
    whole = accelerator.reduce(torch.cat([facts, *(part.flatten() for part in parts)]), "sum")
    used, gradients = whole[len(losses) : len(facts)], whole[len(facts) :].split([p.numel() for p in parameters])
    for parameter, some, gradient in zip(parameters, used.tolist(), gradients, strict=True):
        parameter.grad = gradient.view_as(parameter) if some else None
    return [float(loss) for loss in whole[: len(losses)]]


def validate(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, spread: Spread = alone
) -> tuple[float, float]:
    """(loss, IoU) on the validation items, the same prompts every time: mean over strategies, objects and images."""
    pairs = [pair for found in _validated(segmenter, data, settings, spread) for pair in found]
    if not pairs:
        return float("nan"), float("nan")
    return float(np.mean([loss for loss, _ in pairs])), float(np.mean([iou for _, iou in pairs]))


def per_image_iou(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, spread: Spread = alone
) -> list[float]:
    """IoU of each validation item, with the prompts of `validate`, whose IoU is the mean of these."""
    found = _validated(segmenter, data, settings, spread)
    return [float(np.mean([iou for _, iou in pairs])) if pairs else float("nan") for pairs in found]


def _validated(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, spread: Spread
) -> list[list[tuple[float, float]]]:
    """(loss, IoU) of each validation item, for each strategy and group of prompts: means over objects."""
    parts = [data.val[start : start + TOGETHER] for start in range(0, len(data.val), TOGETHER)]
    each = spread(partial(_validated_together, segmenter, data, settings), parts)
    return [pairs for part in each for pairs in part]


@dataclass(frozen=True)
class _Asked:
    """Objects of the validation item at `place` that one strategy prompts: `truth` bool (P, H, W)."""

    place: int
    name: str
    embedding: Embedding
    prompts: Prompts
    truth: BoolArray


def _validated_together(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, items: Sequence[Item]
) -> list[list[tuple[float, float]]]:
    """As `_validated`, of a few items, which take a pass of the decoder for each kind of prompts."""
    out: list[list[tuple[float, float]]] = [[] for _ in items]
    mix, outputs = resolve_mix(settings.loss), THREE if settings.masks == "three" else SINGLE
    for some in packed(_asked(segmenter, data, settings, items), lambda one: len(one.prompts), MOST_OBJECTS):
        answers = segmenter.decode_each([one.embedding for one in some], [one.prompts for one in some], outputs)
        for one, answer in zip(some, (answer.best() for answer in answers), strict=True):
            batch = Batch([one.name], [0], [one.prompts], [one.truth])
            target, valid = targets(batch, [one.embedding.geometry], answer.logits.device)
            loss = mixed(answer.logits[:, 0], target, valid, mix)
            found = answer.masks()[:, 0]
            iou = float(np.mean([overlap(m, t)["iou"] for m, t in zip(found, one.truth, strict=True)]))
            out[one.place].append((float(loss.mean()), iou))
    return out


def _asked(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, items: Sequence[Item]
) -> Iterator[_Asked]:
    for place, item in enumerate(items):
        masks, embedding = data.masks(item), _val_embedding(segmenter, data, item, settings)
        for strategy in settings.validation:
            rng = generator(settings.seed, "validation", item.id, strategy)
            for indices, prompts in draw(strategy, masks, rng):
                yield _Asked(place, item.id, embedding, prompts, masks[indices])


def _val_embedding(segmenter: Segmenter, data: TrainingData, item: Item, settings: TrainSettings) -> Embedding:
    """The embedding by the model as it is now: stored, or made of what is stored where its encoder learns."""
    inputs, frames = inputs_of(data, [item], settings)
    segmenter.encoder.eval()
    with torch.no_grad():
        return Embedding(embedded(segmenter, inputs, settings)[0].cpu(), frames[0])

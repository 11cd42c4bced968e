"""Tune a segmenter on stored embeddings: plain code, top to bottom, the place where it runs passed in.

Every random choice follows from (seed, epoch, step, item), never from a generator that runs on; so a run that was
killed goes on from its last saved step and ends with the same weights as an unbroken one. Several processes share each
batch and sum their gradients, so that they end with the weights of one process with the same batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from specialsam.core.console import Progress
from specialsam.core.errors import TrainingError
from specialsam.core.files import write_whole
from specialsam.core.geometry import Geometry
from specialsam.core.place import Place, Spread, alone
from specialsam.core.types import Embedding
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import Segmenter, fingerprint
from specialsam.prompts import draw, generator
from specialsam.training.losses import mixed, resolve_mix
from specialsam.training.objective import Batch, batch_loss, draw_batch, targets
from specialsam.training.settings import TrainSettings
from specialsam.training.state import EpochFacts, Item, State, TrainingData, TrainResult
from specialsam.training.tuning import merge, prepare

if TYPE_CHECKING:
    from accelerate import Accelerator

SAVE_EVERY_SECONDS = 60.0
"""Longest time of training that a kill in the middle of an epoch costs."""


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
    sam.to(accelerator.device)
    parameters = prepare(sam, settings.mode, settings.lora_rank, settings.seed)
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    optimizer = accelerator.prepare(optimizer)
    steps_an_epoch = math.ceil(len(data.train) / settings.batch)
    total_steps = settings.epochs * steps_an_epoch
    state = State(folder / "training.pt", sam, optimizer, base_decoder, settings, data)
    state.restore()
    accelerator.wait_for_everyone()
    segmenter.encoder.eval()

    if not state.history:
        loss, iou = validate(segmenter, data, settings, place.spread)
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
        val_loss, val_iou = validate(segmenter, data, settings, place.spread)
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


def _step(
    segmenter: Segmenter,
    data: TrainingData,
    items: Sequence[Item],
    settings: TrainSettings,
    purpose: tuple[int, int],
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
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
    for batch in draw_batch(own, masks, settings, purpose, data.draw):
        with accelerator.autocast():
            loss = batch_loss(segmenter, inputs, frames, batch, settings, purpose)
        weight = sum(len(p) for p in batch.prompts) / max(1, objects)
        total += weight * float(loss.detach())
        accelerator.backward(weight * loss)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    total = _summed(parameters, total, accelerator)
    if not math.isfinite(total):
        raise TrainingError(
            f"expected a finite loss, got {total} at epoch {purpose[0]}, step {purpose[1]} "
            f"(images {', '.join(item.record for item in items)}); lower train.lr or clip gradients"
        )
    norm = float(accelerator.clip_grad_norm_(parameters, settings.clip or float("inf")))
    optimizer.step()
    return total, norm, read


def _summed(parameters: Sequence[torch.nn.Parameter], loss: float, accelerator: Accelerator) -> float:
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


def validate(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, spread: Spread = alone
) -> tuple[float, float]:
    """(loss, IoU) on the validation items, the same prompts every time: mean over strategies, objects and images."""
    pairs = [pair for found in spread(partial(_validated, segmenter, data, settings), data.val) for pair in found]
    if not pairs:
        return float("nan"), float("nan")
    return float(np.mean([loss for loss, _ in pairs])), float(np.mean([iou for _, iou in pairs]))


def per_image_iou(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, spread: Spread = alone
) -> list[float]:
    """IoU of each validation item, with the prompts of `validate`, whose IoU is the mean of these."""
    found = spread(partial(_validated, segmenter, data, settings), data.val)
    return [float(np.mean([iou for _, iou in pairs])) if pairs else float("nan") for pairs in found]


def _validated(
    segmenter: Segmenter, data: TrainingData, settings: TrainSettings, item: Item
) -> list[tuple[float, float]]:
    """(loss, IoU) of one validation item, for each strategy and group of prompts: means over objects."""
    out = []
    masks = data.masks(item)
    embedding = _val_embedding(segmenter, data, item, settings)
    for strategy in settings.validation:
        rng = generator(settings.seed, "validation", item.id, strategy)
        for indices, prompts in draw(strategy, masks, rng):
            answer = segmenter.decode(embedding, prompts, multimask=settings.masks == "three").best()
            truth = masks[indices]
            frame = embedding.geometry
            target, valid = targets(Batch([item.id], [0], [prompts], [truth]), [frame])
            loss = mixed(answer.logits[:, 0], target, valid, resolve_mix(settings.loss))
            found = answer.masks()[:, 0]
            iou = float(np.mean([overlap(m, t)["iou"] for m, t in zip(found, truth, strict=True)]))
            out.append((float(loss.mean()), iou))
    return out


def _val_embedding(segmenter: Segmenter, data: TrainingData, item: Item, settings: TrainSettings) -> Embedding:
    if settings.mode != "all" or data.pixels is None:
        return data.embeddings([item])[0]
    pixels, geometry = data.pixels(item)
    segmenter.encoder.eval()
    with torch.no_grad():
        return Embedding(segmenter.encode_pixels(pixels[None])[0].cpu(), geometry)

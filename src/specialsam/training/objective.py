"""What one step minimises: prompts drawn afresh, answers, and the loss of each object, corrections included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specialsam.core.errors import TrainingError
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.types import Prediction, Prompts
from specialsam.models.cut import embed_features
from specialsam.models.segmenter import SINGLE, THREE, Segmenter
from specialsam.prompts import Draw, check_mixture, correction_clicks, draw, generator
from specialsam.training.losses import mixed, resolve_mix, soft_iou
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData
from specialsam.training.tuning import TAIL_MODES


@dataclass(frozen=True)
class Batch:
    """Objects of several images (`items`, in `rows` of the step) that share one kind of prompt and number of points.

    `masks` are bool (P, H, W), one array an image.
    """

    items: list[str]
    rows: list[int]
    prompts: list[Prompts]
    masks: list[BoolArray]


def draw_batch(
    items: Sequence[Item],
    masks: Sequence[BoolArray],
    settings: TrainSettings,
    purpose: tuple[int, int],
    draw: Draw = draw,
) -> list[Batch]:
    """Prompts of one step for masks (P, H, W): one strategy for all, fresh numbers, grouped by number of points."""
    mixture = check_mixture(settings.prompts)
    strategy = str(generator(settings.seed, "strategy", *purpose).choice(list(mixture), p=list(mixture.values())))
    by_shape: dict[int, Batch] = {}
    for row, (item, every) in enumerate(zip(items, masks, strict=True)):
        rng = generator(settings.seed, "prompts", item.id, *purpose)
        several = np.sort(rng.permutation(len(every))[: settings.objects])
        for indices, prompts in draw(strategy, every[several], rng):
            points = 0 if prompts.points is None else prompts.points.shape[1]
            batch = by_shape.setdefault(points, Batch([], [], [], []))
            batch.items.append(item.id)
            batch.rows.append(row)
            batch.prompts.append(prompts)
            batch.masks.append(every[several][indices])
    return list(by_shape.values())


@dataclass(frozen=True)
class Part:
    """One kind of images of a step, ready to be learned from: `inputs` are embeddings (B, C, h, w), or pixels.

    Its mean loss over `objects`, those of all processes together, counts `weight` times. With `as_base` the answers of
    the base are the truth.
    """

    batches: list[Batch]
    inputs: Tensor
    frames: list[Geometry]
    objects: int
    weight: float = 1.0
    as_base: bool = False


def prepared(
    data: TrainingData, items: Sequence[Item], settings: TrainSettings, purpose: tuple[int, int], share: slice
) -> Part:
    """What a step on `items` needs and no weights decide: inputs and prompts of this process's `share` of them."""
    every = [data.masks(item) for item in items]
    own, masks = items[share], every[share]
    inputs, frames = inputs_of(data, own, settings) if own else (torch.empty(0), [])
    objects = sum(min(len(m), settings.objects) for m in every)
    return Part(draw_batch(own, masks, settings, purpose, data.draw), inputs, frames, objects)


def inputs_of(data: TrainingData, items: Sequence[Item], settings: TrainSettings) -> tuple[Tensor, list[Geometry]]:
    """What is stored of images, embeddings (B, D, h, w) or features at the cut, or pixels (B, 3, S, S) to tune all."""
    if settings.mode != "all":
        stored = data.embeddings(items)
        return torch.stack([e.tensor for e in stored]), [e.geometry for e in stored]
    if data.pixels is None:
        raise TrainingError("expected the images themselves to tune the whole model, got stored embeddings only")
    pairs = [data.pixels(item) for item in items]
    return torch.stack([pixels for pixels, _ in pairs]), [geometry for _, geometry in pairs]


def embedded(segmenter: Segmenter, inputs: Tensor, settings: TrainSettings) -> Tensor:
    """Embeddings (B, C, h, w) by the segmenter's encoder, or by the end of it, from what `inputs_of` read."""
    if settings.mode == "all":
        return segmenter.encode_pixels(inputs)
    if settings.mode in TAIL_MODES:
        return embed_features(segmenter, inputs.float(), settings.tail_blocks)
    return inputs


def batch_loss(
    segmenter: Segmenter,
    inputs: Tensor,
    geometries: Sequence[Geometry],
    batch: Batch,
    settings: TrainSettings,
    purpose: tuple[int, int],
    base: Segmenter | None = None,
) -> Tensor:
    """Mean loss over a batch's objects, of first and corrected answers; `inputs` are embeddings (B, C, h, w).

    Towards the true masks, or with a `base` towards its answers to the same prompts.
    """
    frames = [geometries[row] for row in batch.rows]
    target, valid = targets(batch, frames, segmenter.device)
    seeds = [generator(settings.seed, "corrections", item, *purpose) for item in batch.items]
    rounds = settings.corrections
    if rounds and generator(settings.seed, "corrections", *purpose).random() >= settings.correction_share:
        rounds = 0
    prompts, losses = list(batch.prompts), []
    outputs = THREE if settings.masks == "three" else SINGLE
    embeddings = embedded(segmenter, inputs[batch.rows], settings)
    if base is not None:
        with torch.no_grad():
            before = embedded(base, inputs[batch.rows], settings)
    for number in range(rounds + 1):
        logits, scores = segmenter.forward(embeddings, frames, prompts, outputs)
        if base is None:
            each = _object_loss(logits.float(), scores.float(), target, valid, batch, frames, settings)
        else:
            with torch.no_grad():
                kept = base.forward(before, frames, prompts, outputs)
            each = _distance(logits.float(), scores.float(), kept, valid, settings)
        losses.append(each.mean())
        if number < rounds:
            prompts = _corrected(logits, scores, batch, frames, prompts, seeds)
    return torch.stack(losses).mean()


def _distance(
    logits: Tensor, scores: Tensor, kept: tuple[Tensor, Tensor], valid: Tensor, settings: TrainSettings
) -> Tensor:
    """Loss (N,) of logits (N, C, L, L) and scores (N, C) against the answers `kept`, all C alike."""
    count = logits.shape[1]
    wanted = kept[0].float().sigmoid().flatten(0, 1)
    each = mixed(logits.flatten(0, 1), wanted, valid.repeat_interleave(count, 0), resolve_mix(settings.loss))
    return each.reshape(-1, count).mean(1) + settings.iou_head * (scores - kept[1].float()).square().mean(1)


def targets(batch: Batch, frames: Sequence[Geometry], device: torch.device) -> tuple[Tensor, Tensor]:
    """Truth and valid pixels of a batch's P objects in the decoder's frame, float32 (P, h, w) each, on `device`."""
    pairs = list(zip(frames, batch.masks, strict=True))
    target = torch.cat([frame.masks_to_logits_on(masks, device) for frame, masks in pairs])
    valid = [torch.from_numpy(frame.valid_logits()).expand(len(masks), -1, -1) for frame, masks in pairs]
    return target, torch.cat(valid).to(device)


def _object_loss(
    logits: Tensor,
    scores: Tensor,
    target: Tensor,
    valid: Tensor,
    batch: Batch,
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


def _loss_at_image(logits: Tensor, batch: Batch, frames: Sequence[Geometry], weights: dict[str, float]) -> Tensor:
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
    batch: Batch,
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

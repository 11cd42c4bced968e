"""What a step of pre-training asks of nano: prompts drawn from scenes' masks, corrections, losses; and validation.

Each step draws scenes (`synth.scenes`), a few objects of each, and one kind of prompt: a random foreground click, a
jittered box, both, or a click followed by correction clicks with the earlier logits as mask prompt (Kirillov et al.
2023, "Segment Anything", appendix A: focal and Dice 20:1, the least of three masks, IoU head by mean squared error).
The single-mask output is trained on the same prompts. An auxiliary head that is thrown away afterwards teaches the
encoder many more objects a step than the decoder can afford: the feature under a click, through a small MLP, is
multiplied with all features, and a boundary map is predicted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from specialsam.models.decode import decode, embed_prompts
from specialsam.models.efficientnet import WIDTHS
from specialsam.models.nano import NANO_CHANNELS
from specialsam.models.segmenter import ALL, encoded
from specialsam.training.losses import MIXES, mixed, soft_iou
from specialsam.training.pretrain_settings import PretrainSettings
from specialsam.training.scene_stream import Scenes

VALIDATION_SEED = 1_000_000_007
SINGLE_LOSS = {"focal": 4.0, "dice": 1.0}
"""Under 20:1 the single mask of an ambiguous click is empty, the cheapest hedge; more Dice forbids that."""
AUX_CHANNELS = 32


class AuxiliaryHead(nn.Module):
    """Embedding (B, 128, h, w) to three masks a click and a boundary map at the decoder's low resolution (4h, 4w)."""

    def __init__(self, channels: int = NANO_CHANNELS):
        super().__init__()
        self.expand = nn.Conv2d(channels, 16 * (AUX_CHANNELS + 1), 1)
        self.query = nn.Sequential(nn.Linear(AUX_CHANNELS, 96), nn.GELU(), nn.Linear(96, 3 * (AUX_CHANNELS + 1)))
        self.read = nn.Conv2d(channels, WIDTHS[32], 1)

    def forward(self, embeddings: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
        """`cells` (B, K) flat low-res indexes of clicks; logits (B, K, 3, L, L) and boundary logits (B, L, L)."""
        dense = functional.pixel_shuffle(self.expand(embeddings), 4)
        features, edge = dense[:, :-1].flatten(2), dense[:, -1]
        clicked = features.gather(2, cells[:, None].expand(-1, features.shape[1], -1)).transpose(1, 2)
        query = self.query(clicked).reshape(*cells.shape, 3, AUX_CHANNELS + 1)
        logits = query[..., :-1].flatten(1, 2) @ features / AUX_CHANNELS**0.5 + query[..., -1].flatten(1, 2)[..., None]
        side = dense.shape[-1]
        return logits.reshape(*cells.shape, 3, side, side), edge


def _correction(logits: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random error pixel an object: points (N, 1, 2) in model pixels, labels (N, 1); a true pixel if no error."""
    mask, truth = logits > 0, targets > 0.5
    wrong = (mask != truth).flatten(1).float()
    wrong = torch.where(wrong.sum(1, keepdim=True) > 0, wrong, truth.flatten(1).float() + 1e-6)
    cell = torch.multinomial(wrong.cpu(), 1, generator=generator).to(logits.device)[:, 0]
    labels = truth.flatten(1).gather(1, cell[:, None]).long()
    side = logits.shape[-1]
    points = torch.stack([cell % side, cell // side], -1).float() * 4 + 1.5
    return points[:, None], labels


def _mask_loss(logits: Tensor, scores: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, float]]:
    """SAM's loss for logits (N, 4, L, L): single mask, least of three, IoU head."""
    count = logits.shape[1]
    flat, truth = logits.flatten(0, 1), targets.repeat_interleave(count, 0)
    valid = torch.ones_like(truth)
    each = mixed(flat, truth, valid, MIXES["sam"]).reshape(-1, count)
    iou = soft_iou(flat, truth, valid).reshape(-1, count)
    single = mixed(logits[:, 0], targets, torch.ones_like(targets), SINGLE_LOSS).mean()
    least = each[:, 1:].min(1).values.mean()
    head = (scores - iou).square().mean()
    facts = {"iou_single": float(iou[:, 0].mean()), "iou_oracle": float(iou[:, 1:].max(1).values.mean())}
    return single + least + head, facts


def _auxiliary_loss(head: AuxiliaryHead, embeddings: Tensor, batch: dict[str, Tensor]) -> Tensor:
    logits, edge = head(embeddings, batch["cells"])
    flat = logits.flatten(0, 2)
    truth = batch["aux_targets"][:, :, None].expand_as(logits).flatten(0, 2)
    each = mixed(flat, truth, torch.ones_like(truth), MIXES["half"]).reshape(-1, 3)
    least = each.min(1).values + 0.05 * each.mean(1)
    weight = 1 + 3 * batch["edge"]
    return least.mean() + 0.5 * functional.binary_cross_entropy_with_logits(edge, batch["edge"], weight)


def _unread(head: AuxiliaryHead, embeddings: Tensor, coarsest: Tensor) -> Tensor:
    """Share of the variance of the backbone's coarsest level that a linear map cannot read from the embedding.

    ImageNet's features name things that generated scenes never ask for; decoders tuned on photographs can use them
    only where the embedding kept them.
    """
    spread, mean = torch.std_mean(coarsest, (0, 2, 3), keepdim=True)
    read = head.read(functional.avg_pool2d(embeddings, 2))
    return functional.mse_loss(read, (coarsest - mean) / (spread + 1e-3))


def _encode(sam: Any, pixels: Tensor, settings: PretrainSettings) -> tuple[Tensor, Tensor | None]:
    """Embeddings (B, D, h, w) and the backbone's coarsest level (B, C, h / 2, w / 2), None for encoders without one.

    A frozen backbone keeps no graph. It runs in fp32, for CPUs without bf16 emulate it at many times the cost.
    """
    encoder = sam.vision_encoder
    if settings.encoder != "lite":
        return encoded(encoder, pixels), None
    with torch.set_grad_enabled(settings.backbone > 0):
        levels = encoder.backbone(pixels)
    return encoder.neck(levels), levels[32].detach()


def step_loss(
    sam: nn.Module,
    head: AuxiliaryHead,
    batch: dict[str, Tensor],
    settings: PretrainSettings,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch (arrays (B, ...) by name) and facts for the log."""
    embeddings, coarsest = _encode(sam, batch["pixels"], settings)
    total = torch.zeros((), device=embeddings.device)
    readable = torch.zeros(())
    encoder_learns = settings.learn == "all"
    if encoder_learns and settings.readable and coarsest is not None:
        readable = _unread(head, embeddings, coarsest)
        total = total + settings.readable * readable
    if encoder_learns and settings.auxiliary:
        total = total + settings.auxiliary * _auxiliary_loss(head, embeddings, batch)
    kind = settings.kinds[int(rng.integers(len(settings.kinds)))]
    targets = batch["targets"].flatten(0, 1)
    index = torch.arange(len(embeddings), device=embeddings.device).repeat_interleave(batch["targets"].shape[1])
    points = batch["clicks"].flatten(0, 1) if kind != "box" else None
    boxes = batch["boxes"].flatten(0, 1) if kind != "click" else None
    labels = None if points is None else torch.ones(points.shape[:2], dtype=torch.long, device=points.device)
    sparse, dense = embed_prompts(sam, points, labels, boxes, None)
    logits, scores = decode(sam, embeddings, index, sparse, dense, ALL)
    loss, facts = _mask_loss(logits, scores, targets)
    total = total + loss
    facts = {f"{kind}_{name}": value for name, value in facts.items()} | {"unread": float(readable.detach())}
    for number in range(settings.rounds):
        if rng.random() >= settings.corrections:
            break
        best = logits[:, 0] if number else logits[:, 1:][torch.arange(len(logits)), scores[:, 1:].argmax(1)]
        extra, extra_labels = _correction(best.detach(), targets, generator)
        points = extra if points is None else torch.cat([points, extra], 1)
        labels = extra_labels if labels is None else torch.cat([labels, extra_labels], 1)
        given = best.detach() if rng.random() < 0.75 else None
        sparse, dense = embed_prompts(sam, points, labels, boxes, given)
        logits, scores = decode(sam, embeddings, index, sparse, dense, ALL)
        loss, more = _mask_loss(logits, scores, targets)
        total = total + loss
        facts[f"corrected{number + 1}_iou_single"] = more["iou_single"]
    return total, facts


@torch.no_grad()
def validate(sam: nn.Module, side: int, count: int = 48, batch: int = 8) -> dict[str, float]:
    """Mean IoU on scenes that no run trains on, by click (single, best by own score, oracle) and by box (single)."""
    scenes = Scenes(VALIDATION_SEED, count, side, 4)
    found: dict[str, list[Tensor]] = {"click_single": [], "click_best": [], "click_oracle": [], "box_single": []}
    for start in range(0, count, batch):
        rows = torch.utils.data.default_collate([scenes[i] for i in range(start, min(start + batch, count))])
        rows = {name: value.to(next(sam.parameters()).device) for name, value in rows.items()}
        embeddings = encoded(sam.get_submodule("vision_encoder"), rows["pixels"])
        index = torch.arange(len(embeddings), device=embeddings.device).repeat_interleave(4)
        targets = rows["targets"].flatten(0, 1)
        truth = targets.repeat_interleave(4, 0)
        for kind in ("click", "box"):
            points = rows["clicks"].flatten(0, 1) if kind == "click" else None
            labels = None if points is None else torch.ones(points.shape[:2], dtype=torch.long, device=points.device)
            boxes = rows["boxes"].flatten(0, 1) if kind == "box" else None
            sparse, dense = embed_prompts(sam, points, labels, boxes, None)
            logits, scores = decode(sam, embeddings, index, sparse, dense, ALL)
            iou = soft_iou(logits.flatten(0, 1), truth, torch.ones_like(truth)).reshape(-1, 4)
            found[f"{kind}_single"].append(iou[:, 0])
            if kind == "click":
                found["click_best"].append(iou[:, 1:].gather(1, scores[:, 1:].argmax(1, keepdim=True))[:, 0])
                found["click_oracle"].append(iou[:, 1:].max(1).values)
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}

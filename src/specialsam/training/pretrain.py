"""Pre-training of nano on generated scenes, by default over a frozen ImageNet backbone: SAM's recipe at small scale.

Each step draws scenes (`synth.scenes`), a few objects of each, and one kind of prompt: a random foreground click, a
jittered box, both, or a click followed by correction clicks with the earlier logits as mask prompt (Kirillov et al.
2023, appendix A: focal and Dice 20:1, the least of three masks, IoU head by mean squared error). The single-mask output
is trained on the same prompts. An auxiliary head that is thrown away afterwards teaches the encoder many more objects a
step than the decoder can afford: the feature under a click, through a small MLP, is multiplied with all features, and a
boundary map is predicted.

A run is a folder: `state.pt` (everything needed to go on), `log.jsonl`, `nano.safetensors` (averaged weights). Scene
seeds follow from the step, so a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from specialsam.core.files import write_whole
from specialsam.core.settings import Settings
from specialsam.models.decode import decode, embed_prompts
from specialsam.models.efficientnet import WIDTHS, imagenet_weights
from specialsam.models.folder import save_pretrained
from specialsam.models.load import load_model
from specialsam.models.nano import NANO_CHANNELS, EncoderKind, build_nano, learn_statistics
from specialsam.models.segmenter import ALL, Segmenter
from specialsam.training.losses import MIXES, mixed, soft_iou
from specialsam.training.scene_stream import Scenes, batches

Kind = Literal["click", "box", "box_click"]
VALIDATION_SEED = 1_000_000_007
BUNDLED_SIDE = 256
"""Input side of the shipped weights: of 256, 384 and 512 the one at which they score best on photographs."""
SINGLE_LOSS = {"focal": 4.0, "dice": 1.0}
"""Under 20:1 the single mask of an ambiguous click is empty, the cheapest hedge; more Dice forbids that."""
AUX_CHANNELS = 32


class PretrainSettings(Settings):
    """Everything that decides a pre-training run; saved with it."""

    encoder: EncoderKind = Field(
        "lite", description="image encoder: lite (on ImageNet weights), conv, vit (plain, windowed) or tinyvit"
    )
    backbone: float = Field(
        0.0, description="learning rate of lite's backbone as a share of the others'; 0 freezes it", ge=0, le=1
    )
    learn: Literal["all", "decoder", "scores"] = Field(
        "all",
        description="what learns: all that is not frozen, prompt encoder and decoder, or the own scores (IoU head)",
    )
    decoder: str = Field("", description="model whose prompt encoder and mask decoder this one begins with, as nano")
    side: int = Field(256, description="side of the training images in pixels, a multiple of 32", ge=64)
    render: int = Field(256, description="side of the rendered scenes; training images are crops of them", ge=64)
    reuse: int = Field(3, description="crops (each flipped at random) taken from a scene before it is dropped", ge=1)
    batch: int = Field(8, description="scenes a step", ge=1)
    objects: int = Field(4, description="objects prompted a scene through the decoder", ge=1)
    steps: int = Field(10_000, description="steps of the whole cosine schedule", ge=1)
    start: int = Field(0, description="step at which the cosine stands when this stage begins", ge=0)
    lr: float = Field(8e-4, description="peak learning rate", gt=0)
    warmup: int = Field(300, description="linear warm-up in steps", ge=0)
    weight_decay: float = Field(0.03, description="AdamW weight decay", ge=0)
    clip: float = Field(1.0, description="largest gradient norm", gt=0)
    ema: float = Field(0.999, description="decay of the averaged weights", ge=0, lt=1)
    corrections: float = Field(0.35, description="share of passes that go on to one more correction click", ge=0, le=1)
    rounds: int = Field(1, description="most correction clicks after the first pass", ge=0)
    auxiliary: float = Field(1.0, description="weight of the auxiliary dense head", ge=0)
    readable: float = Field(
        0.3, description="weight of the term that keeps the backbone's features readable from the embedding", ge=0
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the forward pass")
    compile: bool = Field(False, description="torch.compile the encoder")
    workers: int = Field(1, description="processes that generate scenes", ge=0)
    seed: int = Field(0, description="first scene seed and weight initialisation")


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

    A frozen backbone keeps no graph and runs in bf16, half its time on a CPU.
    """
    encoder = sam.vision_encoder
    if settings.encoder != "lite":
        answer = encoder(pixels)
        return (answer if isinstance(answer, Tensor) else answer.last_hidden_state), None
    with torch.set_grad_enabled(settings.backbone > 0):
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=not settings.backbone):
            levels = encoder.backbone(pixels)
        levels = {stride: level.float() for stride, level in levels.items()}
    return encoder.neck(levels), levels[32].detach()


def _step_loss(
    sam: nn.Module,
    head: AuxiliaryHead,
    batch: dict[str, Tensor],
    settings: PretrainSettings,
    rng: np.random.Generator,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Loss of one batch and facts for the log."""
    embeddings, coarsest = _encode(sam, batch["pixels"], settings)
    total = torch.zeros((), device=embeddings.device)
    readable = torch.zeros(())
    encoder_learns = settings.learn == "all"
    if encoder_learns and settings.readable and coarsest is not None:
        readable = _unread(head, embeddings, coarsest)
        total = total + settings.readable * readable
    if encoder_learns and settings.auxiliary:
        total = total + settings.auxiliary * _auxiliary_loss(head, embeddings, batch)
    kind: Kind = ("click", "click", "click", "box", "box_click")[int(rng.integers(5))]
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
        answer = sam.vision_encoder(rows["pixels"])  # type: ignore[operator]
        embeddings = answer if isinstance(answer, Tensor) else answer.last_hidden_state
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


def learning_rate(step: int, settings: PretrainSettings) -> float:
    """Linear warm-up, then cosine to 2 % of the peak."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    share = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    return settings.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))


def _begin(settings: PretrainSettings) -> Any:
    """A nano to train: fresh, on ImageNet's backbone where it has one, with another model's decoder where asked."""
    sam = build_nano(settings.encoder, settings.side).requires_grad_(True)
    sam.get_submodule("shared_image_embedding").requires_grad_(False)
    if settings.encoder == "lite":
        sam.vision_encoder.backbone.load_state_dict(imagenet_weights())
        sam.vision_encoder.backbone.requires_grad_(settings.backbone > 0)
    if settings.decoder:
        other = load_model(settings.decoder).sam.state_dict()
        sam.load_state_dict({k: v for k, v in other.items() if not k.startswith("vision_encoder.")}, strict=False)
    if settings.learn != "all":
        sam.vision_encoder.requires_grad_(False)
    if settings.learn == "scores":
        sam.prompt_encoder.requires_grad_(False)
        sam.mask_decoder.requires_grad_(False)
        sam.mask_decoder.iou_prediction_head.requires_grad_(True)
    return sam


def _groups(sam: Any, head: nn.Module, settings: PretrainSettings) -> list[dict[str, Any]]:
    """Optimizer groups: matrices with weight decay, the rest without; `share` is each one's part of the rate."""
    slow = set(sam.vision_encoder.backbone.parameters()) if settings.encoder == "lite" else set()
    learned = [p for p in [*sam.parameters(), *head.parameters()] if p.requires_grad]
    return [
        {"params": chosen, "weight_decay": decay, "share": share}
        for share, own in ((1.0, [p for p in learned if p not in slow]), (settings.backbone, [*slow]))
        for decay, chosen in (
            (settings.weight_decay, [p for p in own if p.requires_grad and p.ndim > 1]),
            (0.0, [p for p in own if p.requires_grad and p.ndim <= 1]),
        )
        if chosen
    ]


def _scenes(settings: PretrainSettings) -> Scenes:
    first_seed = (settings.seed + 1) * 100_000_000
    count = settings.steps * settings.batch
    return Scenes(first_seed, count, settings.side, settings.objects, settings.render, settings.reuse)


def pretrain(
    folder: Path,
    settings: PretrainSettings,
    minutes: float | None = None,
    initial: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    validate_every: int = 500,
    device: str = "cpu",
) -> Path:
    """Train until `settings.steps` or `minutes` are over, resuming from `folder`; returns the averaged weights' path.

    `initial` is the `state.pt` of an earlier stage (another side or batch) whose weights this one begins with, or a
    model of the same architecture, as nano.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(settings.seed)
    sam = _begin(settings).to(device)
    head = AuxiliaryHead().to(device)
    averaged = deepcopy(sam).eval().requires_grad_(False)
    groups = _groups(sam, head, settings)
    parameters = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.99))
    state_path, step = folder / "state.pt", settings.start
    source = state_path if state_path.exists() else initial
    if source is not None and source.suffix != state_path.suffix:
        weights = load_model(str(source)).sam.state_dict()
        sam.load_state_dict(weights)
        averaged.load_state_dict(weights)
    elif source is not None:
        state = torch.load(source, map_location=device, weights_only=True)
        sam.load_state_dict(state["sam"])
        averaged.load_state_dict(state["averaged"])
        head.load_state_dict(state["head"])
        if [len(group["params"]) for group in state["optimizer"]["param_groups"]] == [len(g["params"]) for g in groups]:
            optimizer.load_state_dict(state["optimizer"])
        if source is state_path:
            step = int(state["step"])
    sam.train()
    learn_statistics(sam, settings.learn == "all")
    if settings.compile:
        sam.vision_encoder.compile()

    began, since, facts_since = time.monotonic(), time.monotonic(), []
    save_state = _saver(folder, settings, sam, averaged, head, optimizer)
    last_saved = began
    for batch in batches(_scenes(settings), settings.batch, step, settings.steps, settings.workers):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        rng = np.random.default_rng([settings.seed, step])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, settings)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss, facts = _step_loss(sam, head, batch, settings, rng, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
        if torch.isfinite(norm):
            optimizer.step()
        decay = min(settings.ema, (step + 1) / (step + 10))
        _average(averaged, sam, decay)
        step += 1
        facts_since.append({"loss": float(loss.detach()), "norm": float(norm), **facts})
        if step % 50 == 0:
            seconds = time.monotonic() - since
            row = {"step": step, "lr": learning_rate(step, settings), "side": settings.side}
            row |= {"images_per_second": 50 * settings.batch / seconds} | _means(facts_since)
            _log(folder, row)
            if progress:
                progress(step, settings.steps, f"loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s")
            since, facts_since = time.monotonic(), []
        over = minutes is not None and time.monotonic() - began > 60 * minutes
        if step % validate_every == 0 or over or step == settings.steps:
            _log(folder, {"step": step, "validation": validate(averaged, settings.side)})
            since = time.monotonic()
        if over or step == settings.steps or time.monotonic() - last_saved > 120:
            save_state(step)
            last_saved = time.monotonic()
        if over:
            break
    return folder / "nano.safetensors"


def bundle(weights: Path, encoder: EncoderKind, folder: Path, side: int = BUNDLED_SIDE) -> Path:
    """Averaged weights (`nano.safetensors`) as a folder in half precision that `load_model` takes."""
    from safetensors.torch import load_file

    sam = build_nano(encoder, side)
    sam.load_state_dict(load_file(weights))
    return save_pretrained(Segmenter("nano", sam, side), folder, half=True)


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def _log(folder: Path, row: Mapping[str, object]) -> None:
    with (folder / "log.jsonl").open("a") as lines:
        lines.write(json.dumps({"time": time.time(), **row}) + "\n")


@torch.no_grad()
def _average(averaged: nn.Module, sam: nn.Module, decay: float) -> None:
    target, source = averaged.state_dict(), sam.state_dict()
    floats = [name for name in target if target[name].is_floating_point()]
    torch._foreach_lerp_([target[n] for n in floats], [source[n] for n in floats], 1 - decay)


def _saver(
    folder: Path,
    settings: PretrainSettings,
    sam: nn.Module,
    averaged: nn.Module,
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Callable[[int], None]:
    from safetensors.torch import save_file

    def save(step: int) -> None:
        state = {
            "step": step,
            "settings": settings.model_dump_json(),
            "sam": sam.state_dict(),
            "averaged": averaged.state_dict(),
            "head": head.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        write_whole(folder / "state.pt", lambda path: torch.save(state, path))
        tensors = {name: value.cpu().clone() for name, value in averaged.state_dict().items()}
        write_whole(folder / "nano.safetensors", lambda path: save_file(tensors, path, {"step": str(step)}))

    return save

"""Pre-training of nano on generated scenes, by default over a frozen ImageNet backbone: SAM's recipe at small scale.
A run is a folder: `state.pt` (everything needed to go on), `log.jsonl`, `nano.safetensors` (averaged weights). Scene
seeds follow from the step, so a resumed run sees what an unbroken one would have seen.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from specialsam.core.files import write_whole
from specialsam.models.efficientnet import imagenet_weights
from specialsam.models.folder import save_pretrained
from specialsam.models.load import load_model
from specialsam.models.nano import EncoderKind, build_nano, learn_statistics
from specialsam.models.segmenter import Segmenter
from specialsam.training.pretrain_objective import AuxiliaryHead, step_loss, validate
from specialsam.training.pretrain_settings import PretrainSettings
from specialsam.training.scene_stream import Scenes, batches

STATE = "state.pt"
SAVE_SECONDS = 120.0


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
        for share, own in (
            (1.0, [p for p in learned if p not in slow]),
            (settings.backbone, [p for p in learned if p in slow]),  # in an order that every process shares
        )
        for decay, chosen in (
            (settings.weight_decay, [p for p in own if p.ndim > 1]),
            (0.0, [p for p in own if p.ndim <= 1]),
        )
        if chosen
    ]


def _scenes(settings: PretrainSettings) -> Scenes:
    first_seed = (settings.seed + 1) * 100_000_000
    count = settings.steps * settings.batch
    return Scenes(first_seed, count, settings.side, settings.objects, settings.render, settings.reuse)


@dataclass
class Learner:
    """What a run changes: the model, the auxiliary head, the averaged weights, the optimizer."""

    sam: Any
    head: AuxiliaryHead
    averaged: Any
    optimizer: torch.optim.Optimizer

    @classmethod
    def fresh(cls, settings: PretrainSettings, device: str) -> Learner:
        torch.manual_seed(settings.seed)
        sam, head = _begin(settings).to(device), AuxiliaryHead().to(device)
        averaged = deepcopy(sam).eval().requires_grad_(False)
        optimizer = torch.optim.AdamW(_groups(sam, head, settings), lr=settings.lr, betas=(0.9, 0.99))
        return cls(sam, head, averaged, optimizer)

    @property
    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def take_weights(self, model: str) -> None:
        """Begin with the weights of a model of this architecture."""
        weights = load_model(model).sam.state_dict()
        self.sam.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def restore(self, path: Path) -> int:
        """Go on from a `state.pt`, with its optimizer where the same parameters learn; the step it was saved at."""
        state = torch.load(path, map_location=next(self.sam.parameters()).device, weights_only=True)
        self.sam.load_state_dict(state["sam"])
        self.averaged.load_state_dict(state["averaged"])
        self.head.load_state_dict(state["head"])
        then, now = state["optimizer"]["param_groups"], self.optimizer.param_groups
        if [len(group["params"]) for group in then] == [len(group["params"]) for group in now]:
            self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])

    def save(self, folder: Path, settings: PretrainSettings, step: int) -> None:
        """Write `state.pt`, and the averaged weights as `nano.safetensors`."""
        from safetensors.torch import save_file

        parts = {"sam": self.sam, "averaged": self.averaged, "head": self.head, "optimizer": self.optimizer}
        state = {"step": step, "settings": settings.model_dump_json()}
        state |= {name: part.state_dict() for name, part in parts.items()}
        write_whole(folder / "state.pt", lambda path: torch.save(state, path))
        tensors = {name: value.cpu().clone() for name, value in self.averaged.state_dict().items()}
        write_whole(folder / "nano.safetensors", lambda path: save_file(tensors, path, {"step": str(step)}))

    def learn(self, batch: dict[str, Tensor], settings: PretrainSettings, step: int) -> dict[str, float]:
        """One step on a batch; facts for the log."""
        rng = np.random.default_rng([settings.seed, step])
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(step, settings)
        device = next(iter(batch.values())).device.type
        with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bf16"):
            loss, facts = step_loss(self.sam, self.head, batch, settings, rng, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, settings.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        _average(self.averaged, self.sam, min(settings.ema, (step + 1) / (step + 10)))
        return {"loss": float(loss.detach()), "norm": float(norm), **facts}


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
    learner, step = Learner.fresh(settings, device), settings.start
    if (folder / STATE).exists():
        step = learner.restore(folder / STATE)
    elif initial is not None and initial.suffix == Path(STATE).suffix:
        learner.restore(initial)
    elif initial is not None:
        learner.take_weights(str(initial))
    learner.sam.train()
    learn_statistics(learner.sam, settings.learn == "all")
    if settings.compile:
        learner.sam.vision_encoder.compile()

    began = since = last_saved = time.monotonic()
    facts: list[dict[str, float]] = []
    for batch in batches(_scenes(settings), settings.batch, step, settings.steps, settings.workers):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        facts.append(learner.learn(batch, settings, step))
        step += 1
        if step % 50 == 0:
            row = {"step": step, "lr": learning_rate(step, settings), "side": settings.side}
            row |= {"images_per_second": 50 * settings.batch / (time.monotonic() - since)} | _means(facts)
            _log(folder, row)
            if progress:
                progress(step, settings.steps, f"loss {row['loss']:.3f}, {row['images_per_second']:.1f} images/s")
            since, facts = time.monotonic(), []
        over = step == settings.steps or (minutes is not None and time.monotonic() - began > 60 * minutes)
        if step % validate_every == 0 or over:
            _log(folder, {"step": step, "validation": validate(learner.averaged, settings.side)})
            since = time.monotonic()
        if over or time.monotonic() - last_saved > SAVE_SECONDS:
            learner.save(folder, settings, step)
            last_saved = time.monotonic()
        if over:
            break
    return folder / "nano.safetensors"


def bundle(weights: Path, encoder: EncoderKind, folder: Path, side: int) -> Path:
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

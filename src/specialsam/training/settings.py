"""How the decoder is tuned, and the finder learned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from specialsam.core.settings import Settings
from specialsam.prompts import check_mixture
from specialsam.training.losses import resolve_mix
from specialsam.training.tuning import Mode


class TrainSettings(Settings):
    """How the decoder is tuned. The defaults were chosen on several domains (docs/tuning.md); recipes override them."""

    mode: Mode = Field("decoder", description="what is tuned: decoder, decoder+prompt, lora, tail, tail+lora, or all")
    lora_rank: int = Field(8, description="rank of the low-rank terms in mode lora", ge=1)
    tail_blocks: int = Field(2, description="last blocks of a ViT encoder that the modes tail tune", ge=1)
    epochs: int = Field(8, description="most epochs", ge=1)
    batch: int = Field(4, description="images a step", ge=1)
    objects: int = Field(4, description="most objects of an image in one step", ge=1)
    lr: float = Field(5e-4, description="peak learning rate", gt=0)
    weight_decay: float = Field(1e-4, description="AdamW weight decay", ge=0)
    warmup: float = Field(0.05, description="share of all steps with a rising learning rate", ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = Field("cosine", description="learning rate after the warm-up")
    clip: float = Field(1.0, description="largest gradient norm; 0 does not clip", ge=0)
    loss: str | dict[str, float] = Field(
        "half", description="named mix (dice, half, half_boundary, sam, thin, missed) or weights"
    )
    loss_at: Literal["logits", "image"] = Field(
        "logits", description="compare at the low resolution of the logits, or at the mask's own size as the seed does"
    )
    iou_head: float = Field(0.1, description="weight of the predicted-IoU regression", ge=0)
    masks: Literal["one", "three"] = Field("one", description="train the single mask, or the least of the three")
    prompts: dict[str, float] = Field(
        default_factory=lambda: {"random": 0.35, "interior": 0.25, "box_jitter": 0.3, "points3": 0.1},
        description="prompt strategies and their probabilities, one drawn a step",
    )
    corrections: int = Field(1, description="correction clicks added, one pass each, after the first answer", ge=0)
    correction_share: float = Field(0.3, description="share of steps that go through the corrections", ge=0, le=1)
    replay: float = Field(1.0, description="weight of the loss on general images in each step; 0 replays none", ge=0)
    replay_images: int = Field(2, description="general images a step", ge=1)
    replay_pool: int = Field(64, description="general images that are drawn from, encoded once", ge=1)
    replay_own: bool = Field(
        True, description="also replay what the base finds beside the objects in as many of the training images"
    )
    replay_truth: Literal["masks", "base"] = Field(
        "base", description="general images are learned by their masks, or by the base's own answers (distillation)"
    )
    anchor: float = Field(
        0.0, description="pull towards the base's weights: each step takes lr * anchor of the way back (L2-SP)", ge=0
    )
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


class FinderSettings(Settings):
    """How the finder is learned."""

    enabled: bool = Field(True, description="learn a finder, which proposes objects where there is no prompt")
    width: int = Field(64, description="channels of the head", ge=8, le=256)
    blocks: int = Field(2, description="mixing blocks of the head", ge=0, le=6)
    epochs: int | None = Field(None, description="epochs; left out: 20, or the more that make 30 steps", ge=1)
    batch: int = Field(16, description="images a step", ge=1)
    lr: float = Field(2e-3, description="peak learning rate", gt=0)
    weight_decay: float = Field(0.05, description="AdamW weight decay", ge=0)
    dropout: float = Field(0.1, description="share of the embedding's channels that a step does not see", ge=0, lt=1)
    seed: int = Field(0, description="of every random choice")
    grid: int = Field(20, description="test images on which the slow grid of points is measured; 0: none", ge=0)

"""The settings of a pre-training run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from specialsam.core.settings import Settings
from specialsam.models.nano import EncoderKind

Kind = Literal["click", "box", "box_click"]
"""What a step prompts with: a random foreground click, a jittered box, or both."""


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
    kinds: tuple[Kind, ...] = Field(
        ("click", "click", "click", "box", "box_click"),
        description="what a step prompts with, drawn from these; one that is named twice is drawn twice as often",
        min_length=1,
    )
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

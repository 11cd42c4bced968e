"""A specialist: tuned weights, the base that they belong to, and what is known of how good they are.

The folder holds `model.safetensors` (the tuned parts under transformers' names) and `specialist.json`. The frozen
encoder is not copied: it comes from the base, whose encoder hash must be the one that the specialist was tuned on.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from specialsam.core.errors import ModelError
from specialsam.core.files import write_whole
from specialsam.models.segmenter import PREPROCESSING, Segmenter

FILE, WEIGHTS = "specialist.json", "model.safetensors"


class SpecialistCard(BaseModel):
    """specialist.json."""

    model_config = ConfigDict(extra="forbid")

    name: str
    base: str = Field(description="zoo name, checkpoint or folder that `load_model` takes")
    base_encoder_id: str
    base_decoder_id: str
    side: int
    preprocessing: str = PREPROCESSING
    tuned: str = Field(description="decoder, decoder+prompt, lora (merged), all; or base where tuning did not help")
    alpha: float = Field(1.0, description="share of the tuned weights in the mixture with the base's", ge=0, le=1)
    recipe: dict[str, Any] = Field(default_factory=dict)
    data_fingerprint: str = ""
    data_licence: str = "unknown"
    threshold: float = 0.0
    scores: dict[str, Any] = Field(default_factory=dict)
    note: str = ""
    version: str = ""


def save_specialist(tuned: Segmenter, card: SpecialistCard, folder: Path) -> Path:
    """Write the folder: every tensor outside the encoder, or all of them where the whole model was tuned."""
    from safetensors.torch import save_file

    keep = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in tuned.sam.state_dict().items()
        if card.tuned == "all" or not name.startswith("vision_encoder.")
    }
    write_whole(folder / WEIGHTS, lambda path: save_file(keep, path, {"format": "pt", "name": card.name}))
    write_whole(folder / FILE, lambda path: path.write_text(card.model_dump_json(indent=2) + "\n"))
    return folder


def is_specialist(folder: Path) -> bool:
    return (folder / FILE).exists()


def read_card(folder: Path) -> SpecialistCard:
    """The card of a specialist folder; ModelError in one line when it is none or damaged."""
    try:
        return SpecialistCard(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError as error:
        raise ModelError(f"expected a specialist folder with {FILE}, found none in {folder}") from error
    except (ValueError, TypeError) as error:  # not text, not JSON, or not these fields
        raise ModelError(
            f"expected a readable {FILE} in {folder}, got a damaged one ({type(error).__name__})"
        ) from error


def load_specialist(folder: Path, base: Segmenter) -> Segmenter:
    """The specialist on its base (which stays as it is); another base is refused in one line."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    card = read_card(folder)
    if base.side != card.side or base.encoder_id != card.base_encoder_id:
        raise ModelError(
            f"specialist {card.name} was tuned on {card.base} (encoder {card.base_encoder_id}), "
            f"got {base.name} (encoder {base.encoder_id}); load it on {card.base}"
        )
    try:
        weights = load_file(folder / WEIGHTS)
    except (FileNotFoundError, SafetensorError) as error:
        raise ModelError(
            f"expected readable weights in {folder / WEIGHTS}, got none; save the specialist anew"
        ) from error
    sam = clone(base, share_encoder=card.tuned != "all").sam
    try:
        missing, unexpected = sam.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"expected the tensors of {card.base} in {folder / WEIGHTS}, got others of the same names; "
            "save the specialist anew"
        ) from error
    outside = [name for name in missing if card.tuned == "all" or not name.startswith("vision_encoder.")]
    if outside or unexpected:
        raise ModelError(
            f"expected the tensors of {card.base} in {folder / WEIGHTS}, {len(outside)} are missing and "
            f"{len(unexpected)} unknown; save the specialist anew"
        )
    return Segmenter(card.name, sam.eval().requires_grad_(False), base.side, str(folder))


def clone(segmenter: Segmenter, name: str = "", share_encoder: bool = True) -> Segmenter:
    """A segmenter with its own copy of everything; both share the encoder where it stays frozen."""
    sam = deepcopy(segmenter.sam, {id(segmenter.encoder): segmenter.encoder} if share_encoder else {})
    return Segmenter(name or segmenter.name, sam, segmenter.side, segmenter.source)

"""What finds without a prompt in a specialist's folder: the finder's weights, and the memory of good images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.core.files import write_whole
from specialsam.models.finder import By, Finder
from specialsam.models.memory import Memory, read, tensors
from specialsam.models.segmenter import tensors_sha256
from specialsam.models.weights import require_finite

FINDER, MEMORY = "finder.safetensors", "memory.safetensors"


class FinderCard(BaseModel):
    """What specialist.json says of the finder in `finder.safetensors`."""

    model_config = ConfigDict(extra="forbid")

    weights_sha256: str
    channels: int = Field(ge=1, le=4096)  # bounded, as the next two: memory is taken before any tensor is read
    width: int = Field(ge=1, le=256)
    blocks: int = Field(ge=0, le=6)
    by: By = Field(description="with what a proposal is put to the decoder")
    learned_from: dict[str, int] = Field(description="images with objects and without that it learned from")


class Alarm(BaseModel):
    """Scores 0..1 of good images that nothing was learned from: what an alarm's threshold is set on."""

    model_config = ConfigDict(extra="forbid")

    good_scores: list[Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=list)
    source: str = Field("", description="what images they were of")
    size: tuple[int, int] | None = Field(None, description="(height, width) of the images, where all have one")
    grey: bool = Field(False, description="whether all of the images were grey")


def is_calibrated(alarm: Alarm) -> bool:
    """Whether the scores are of pictures that were given for them, and not of some that a run held out."""
    return bool(alarm.good_scores) and re.match(r"\d+ pictures of ", alarm.source) is not None


@dataclass(frozen=True)
class FinderParts:
    """What finds without a prompt in a specialist's folder: a finder, a memory of good images, either may be None.

    `learned_from` counts the images with objects ("images") and without ("blank") that the finder saw.
    """

    finder: Finder | None = None
    memory: Memory | None = None
    learned_from: dict[str, int] = field(default_factory=dict)


def save_parts(folder: Path, parts: FinderParts) -> tuple[FinderCard | None, str]:
    """Write finder and memory, or remove those of an earlier specialist; what the card says of them.

    ModelError for weights that are not finite.
    """
    from safetensors.torch import save_file

    card, sha256 = None, ""
    if parts.finder is not None:
        finder = parts.finder
        kept = {name: value.detach().cpu().clone().contiguous() for name, value in finder.state_dict().items()}
        require_finite(kept, f"the finder for {folder}")
        write_whole(folder / FINDER, lambda path: save_file(kept, path, {"format": "pt"}))
        card = FinderCard(
            weights_sha256=tensors_sha256(kept),
            channels=finder.channels,
            width=finder.width,
            blocks=finder.blocks,
            by=finder.by,
            learned_from=parts.learned_from,
        )
    else:
        (folder / FINDER).unlink(missing_ok=True)
    if parts.memory is not None:
        held = tensors(parts.memory)
        write_whole(folder / MEMORY, lambda path: save_file(held, path, {"format": "pt"}))
        sha256 = tensors_sha256(held)
    else:
        (folder / MEMORY).unlink(missing_ok=True)
    return card, sha256


def read_parts(folder: Path, card: FinderCard | None, memory_sha256: str) -> FinderParts:
    """Finder and memory as a specialist's card says, None for what it has not; ModelError in one line for others."""
    finder = memory = None
    if card is not None:
        finder = Finder(card.channels, card.width, card.blocks, card.by)
        try:
            finder.load_state_dict(_checked(folder / FINDER, card.weights_sha256))
        except RuntimeError as error:
            raise ModelError(
                f"expected the finder that its card tells of in {folder / FINDER}, got other tensors; "
                "save the specialist anew"
            ) from error
        finder = finder.eval().requires_grad_(False)
    if memory_sha256:
        memory = read(_checked(folder / MEMORY, memory_sha256))
    return FinderParts(finder, memory, card.learned_from if card else {})


def _checked(path: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file, finite and those of the hash; ModelError in one line otherwise."""
    weights = read_tensors(path)
    require_finite(weights, path)
    if tensors_sha256(weights) != sha256:
        raise ModelError(
            f"expected the weights that specialist.json was written for (sha256 {sha256[:16]}), got others in {path}; "
            "copy the whole folder anew, or save the specialist anew"
        )
    return weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; ModelError in one line where it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"expected readable weights in {path}, got none; save the specialist anew") from error
    return weights

"""A specialist: tuned weights, the base that they belong to, and what is known of how good they are.

The folder holds `model.safetensors` (the tuned parts under transformers' names) and `specialist.json`, which names the
hash of those tensors and of the base's encoder and decoder: a specialist is loaded whole, as it was saved, on the base
that it was tuned on, or not at all. The frozen encoder is not copied: it comes from the base.
"""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.core.files import write_whole
from specialsam.core.types import Look
from specialsam.models.finder_files import Alarm, FinderCard, FinderParts, read_parts, read_tensors, save_parts
from specialsam.models.segmenter import PREPROCESSING, Segmenter, tensors_sha256, weights_of
from specialsam.models.weights import require_finite
from specialsam.models.zoo import CARDS, NANO, SAM3_LICENCE

FILE, WEIGHTS = "specialist.json", "model.safetensors"
FORMAT = 5
"""Of `specialist.json`.

1 had neither `format` nor `weights_sha256`, 2 no `finder` and no `memory`, 3 no `look`, 4 no `base_licence`.
"""
ENCODER = "vision_encoder."
TRANSPLANTED = "transplanted"
"""Begins the note of a specialist whose decoder was put on another base."""
ENCODER_MODES = ("tail", "tail+lora", "all")
"""Ways of tuning after which a specialist has an encoder of its own."""


class SpecialistCard(BaseModel):
    """specialist.json."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    name: str
    base: str = Field(description="zoo name, checkpoint or folder that `load_model` takes")
    base_encoder_id: str
    base_decoder_id: str
    base_licence: str = Field("", description="of the base where it is known; some pass on to all that is made from it")
    side: int
    weights_sha256: str = Field("", description="`tensors_sha256` of the folder's tensors; set when it is saved")
    preprocessing: str = PREPROCESSING
    tuned: str = Field(
        description="decoder, decoder+prompt, lora (merged), tail, all; or base where tuning did not help"
    )
    alpha: float = Field(1.0, description="share of the tuned weights in the mixture with the base's", ge=0, le=1)
    recipe: dict[str, Any] = Field(default_factory=dict)
    data_fingerprint: str = ""
    data_licence: str = "unknown"
    threshold: float = 0.0
    finder: FinderCard | None = Field(None, description="how objects are found without a prompt")
    memory_sha256: str = Field("", description="`tensors_sha256` of memory.safetensors, what good images look like")
    alarm: Alarm = Field(default_factory=Alarm)
    look: Look | None = Field(None, description="how the images looked that it learned from")
    scores: dict[str, Any] = Field(default_factory=dict)
    note: str = ""
    version: str = ""


def save_specialist(tuned: Segmenter, card: SpecialistCard, folder: Path, parts: FinderParts | None = None) -> Path:
    """Write the folder: every tensor outside the encoder, or all of them where the whole model was tuned; the finder.

    Equal specialists give equal files. Raises ModelError for weights that are not finite, which could not be loaded.
    """
    from safetensors.torch import save_file

    keep = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in tuned.sam.state_dict().items()
        if _belongs(name, card)
    }
    require_finite(keep, f"the specialist {card.name}")
    finder, memory_sha256 = save_parts(folder, parts or FinderParts())
    said = {"weights_sha256": tensors_sha256(keep), "finder": finder, "memory_sha256": memory_sha256}
    whole = card.model_copy(update=said)
    # safetensors writes several metadata keys in an order that changes from process to process
    write_whole(folder / WEIGHTS, lambda path: save_file(keep, path, {"format": "pt"}))
    write_card(folder, whole)
    return folder


def licence_of(model: Segmenter) -> str:
    """The licence that a model is under as far as it is known, "" otherwise: SAM 3's for all of its architecture."""
    config: Any = model.sam.config
    if config.model_type == "sam3_tracker":
        return SAM3_LICENCE
    if model.source and is_specialist(Path(model.source)):
        return read_card(Path(model.source)).base_licence
    known = NANO if model.name == NANO.name else CARDS.get(model.name)
    return known.licence if known else ""


def write_card(folder: Path, card: SpecialistCard) -> None:
    """Write the card of a specialist folder, whole."""
    write_whole(folder / FILE, lambda path: path.write_text(card.model_dump_json(indent=2) + "\n"))


def load_finder(folder: Path) -> FinderParts:
    """Finder and memory of a specialist folder as its card says, None for what it has not; ModelError for others."""
    card = read_card(folder)
    return read_parts(folder, card.finder, card.memory_sha256)


def _belongs(name: str, card: SpecialistCard) -> bool:
    """Whether a tensor of the model is the specialist's own and not its base's."""
    return card.tuned in ENCODER_MODES or not name.startswith(ENCODER)


def is_specialist(folder: Path) -> bool:
    return (folder / FILE).exists()


def read_card(folder: Path) -> SpecialistCard:
    """The card of a specialist folder; ModelError in one line when it is none, damaged, or of a newer specialsam."""
    try:
        fields = {"format": 1} | json.loads((folder / FILE).read_text())
        written = fields["format"]
        if isinstance(written, int) and written > FORMAT:
            raise ModelError(
                f"expected a {FILE} of format {FORMAT} or below in {folder}, got format {written}, which a newer "
                "specialsam wrote; update specialsam"
            )
        return SpecialistCard(**fields)
    except FileNotFoundError as error:
        raise ModelError(f"expected a specialist folder with {FILE}, found none in {folder}") from error
    except (ValueError, TypeError, RecursionError) as error:  # not text, not JSON, or not these fields
        raise ModelError(
            f"expected a readable {FILE} in {folder}, got a damaged one ({type(error).__name__})"
        ) from error


def load_specialist(folder: Path, base: Segmenter, transplant: bool = False) -> Segmenter:
    """The specialist on its base (which stays as it is), on the base's device.

    With `transplant` on another model whose decoder has the same tensors: everything outside the encoder is then the
    specialist's, and nothing but a measurement says whether it understands that encoder's embeddings.

    Raises ModelError in one line for another base, and for weights that are not those which the card was written for:
    unreadable, tensors missing, unknown or of another shape, not finite, or of another hash.
    """
    card = read_card(folder)
    if transplant:
        _check_transplant(card, folder, base)
    else:
        _check_base(card, base)
    weights = _read_weights(folder / WEIGHTS, card, base)
    sam = clone(base, share_encoder=card.tuned not in ENCODER_MODES).sam
    sam.load_state_dict(weights, strict=False)  # what is missing is the base's encoder
    backend = base.backend if card.tuned not in ENCODER_MODES else None
    return Segmenter(card.name, sam.eval().requires_grad_(False), base.side, str(folder), backend)


def transplant(folder: Path, base: Segmenter, wanted: str, out: Path) -> Path:
    """Write the specialist in `folder` anew in `out`, on the encoder of `base`, which `load_model` takes as `wanted`.

    Its card says so. Finder, alarm and scores belong to the embeddings that it was tuned on and are left behind. Raises
    ModelError in one line for a base whose decoder has other tensors, and for a specialist with an encoder of its own.
    """
    card = read_card(folder)
    moved = load_specialist(folder, base, transplant=True)
    note = (
        f"{TRANSPLANTED}: tuned on embeddings of {card.base} (encoder {card.base_encoder_id}) and put on {wanted}; "
        "measure it here before it is used"
    )
    own: dict[str, Any] = {
        "name": f"{card.name}-on-{base.name}",
        "base": wanted,
        "base_encoder_id": base.encoder_id,
        "base_decoder_id": base.decoder_id,
        "base_licence": SAM3_LICENCE if card.base_licence == SAM3_LICENCE else licence_of(base),
        "side": base.side,
        "preprocessing": base.preprocessing.version,
        "note": note,
        "scores": {},
        "alarm": Alarm(),
    }
    return save_specialist(moved, card.model_copy(update=own), out)


def _check_transplant(card: SpecialistCard, folder: Path, base: Segmenter) -> None:
    if card.tuned in ENCODER_MODES:
        raise ModelError(
            f"expected a specialist whose decoder alone was tuned for a transplant, got {card.name}, which has an "
            f"encoder of its own ({card.tuned}); tune a decoder instead"
        )
    own, theirs = base.sam.state_dict(), read_tensors(folder / WEIGHTS)
    wanted = {name: value for name, value in own.items() if _belongs(name, card)}
    other = [n for n in {**wanted, **theirs} if n not in wanted or n not in theirs or not _alike(theirs[n], wanted[n])]
    if other:
        raise ModelError(
            f"expected a model whose decoder has the tensors of {card.name} (tuned on {card.base}) for a transplant, "
            f"got {base.name} with {len(other)} others (first: {other[0]}); take one of the same decoder"
        )


def _check_base(card: SpecialistCard, base: Segmenter) -> None:
    tuned_on = f"specialist {card.name} was tuned on {card.base}"
    if base.side != card.side or weights_of(base.encoder_id) != weights_of(card.base_encoder_id):
        raise ModelError(
            f"{tuned_on} (encoder {card.base_encoder_id}), got {base.name} (encoder {base.encoder_id}); "
            f"load it on {card.base}"
        )
    if base.decoder_id != card.base_decoder_id:
        raise ModelError(
            f"{tuned_on} (decoder {card.base_decoder_id}), got {base.name} with the same encoder and another decoder "
            f"({base.decoder_id}), to which it can be neither compared nor mixed; load it on {card.base}"
        )


def _read_weights(path: Path, card: SpecialistCard, base: Segmenter) -> dict[str, Tensor]:
    """The specialist's tensors by name, found whole and as the card says; ModelError in one line otherwise."""
    weights = read_tensors(path)
    wanted = {name: value for name, value in base.sam.state_dict().items() if _belongs(name, card)}
    wrong = {
        "missing": [name for name in wanted if name not in weights],
        "unknown": [name for name in weights if name not in wanted],
        "of another kind": [name for name in wanted if name in weights and not _alike(weights[name], wanted[name])],
    }
    found = ", ".join(f"{len(names)} {how} (first: {names[0]})" for how, names in wrong.items() if names)
    if found:
        which = "all tensors" if card.tuned in ENCODER_MODES else "all tensors outside the encoder"
        raise ModelError(f"expected {which} of {card.base} in {path}, got {found}; save the specialist anew")
    _check_whole(weights, path, card)
    return weights


def _check_whole(weights: dict[str, Tensor], path: Path, card: SpecialistCard) -> None:
    require_finite(weights, path)
    sha256 = tensors_sha256(weights)
    if card.weights_sha256 and sha256 != card.weights_sha256:  # a card of format 1 names none
        raise ModelError(
            f"expected the weights that {FILE} was written for (sha256 {card.weights_sha256[:16]}), "
            f"got others ({sha256[:16]}) in {path}; copy the whole folder anew, or save the specialist anew"
        )


def check_files(folder: Path) -> SpecialistCard:
    """The card of a folder whose tensors, finder and memory are those that it names; ModelError in one line otherwise.

    No base is needed: whether the tensors fit one is seen when the specialist is loaded.
    """
    card = read_card(folder)
    _check_whole(read_tensors(folder / WEIGHTS), folder / WEIGHTS, card)
    load_finder(folder)
    return card


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.is_floating_point() == other.is_floating_point()


def clone(segmenter: Segmenter, name: str = "", share_encoder: bool = True) -> Segmenter:
    """A segmenter with its own copy of everything; both share the encoder where it stays frozen."""
    sam = deepcopy(segmenter.sam, {id(segmenter.encoder): segmenter.encoder} if share_encoder else {})
    backend = segmenter.backend if share_encoder else None
    return Segmenter(name or segmenter.name, sam, segmenter.side, segmenter.source, backend)

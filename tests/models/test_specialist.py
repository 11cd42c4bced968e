"""Specialist folders: the same masks again, on their own base alone, and the base left as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from specialsam.core.errors import ModelError
from specialsam.core.types import Prompts
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter, fingerprint
from specialsam.models.specialist import (
    SpecialistCard,
    clone,
    is_specialist,
    load_specialist,
    read_card,
    save_specialist,
)

torch.set_num_threads(1)
SIDE = 128


@pytest.fixture(scope="module")
def base() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("nano", build_nano("conv", SIDE), SIDE)


def card(base: Segmenter, **changes: Any) -> SpecialistCard:
    fields: dict[str, Any] = {
        "name": "wood-nano",
        "base": "nano",
        "base_encoder_id": base.encoder_id,
        "base_decoder_id": base.decoder_id,
        "side": base.side,
        "tuned": "decoder",
        "recipe": {"seed": 1},
        "scores": {"val_iou": {"base": 0.5, "kept": 0.7}},
    }
    return SpecialistCard(**fields | changes)


def moved(segmenter: Segmenter, *parts: str) -> Segmenter:
    """The segmenter with the weights of these parts changed in place."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for part in parts:
            for parameter in getattr(segmenter.sam, part).parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return segmenter


def logits(segmenter: Segmenter) -> torch.Tensor:
    image = np.random.default_rng(0).integers(0, 256, (60, 100, 3), dtype=np.uint8)
    prompts = Prompts("click", np.array([[[50, 20]]], np.float32), np.ones((1, 1), np.int64))
    return segmenter.decode(segmenter.encode(image), prompts, multimask=True).logits


def test_the_same_masks_again(base: Segmenter, tmp_path: Path) -> None:
    tuned = moved(clone(base, "tuned"), "mask_decoder", "prompt_encoder")
    folder = save_specialist(tuned, card(base), tmp_path / "specialist")
    again = load_specialist(folder, base)
    assert torch.equal(logits(again), logits(tuned))
    assert float((logits(again) - logits(base)).abs().max()) > 1e-2
    assert (again.name, again.source, again.encoder_id) == ("wood-nano", str(folder), base.encoder_id)
    assert not any(p.requires_grad for p in again.sam.parameters())
    assert is_specialist(folder)
    assert not is_specialist(tmp_path)
    assert read_card(folder) == card(base)


def test_the_encoder_is_not_copied_into_the_folder(base: Segmenter, tmp_path: Path) -> None:
    save_specialist(clone(base), card(base), tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert names == {name for name in base.sam.state_dict() if not name.startswith("vision_encoder.")}


def test_a_clone_shares_the_encoder_and_nothing_else(base: Segmenter) -> None:
    before, answer = fingerprint(base.sam), logits(base)
    tuned = clone(base, "tuned")
    assert tuned.encoder is base.encoder
    own = {p.data_ptr() for p in tuned.sam.parameters()} - {p.data_ptr() for p in tuned.encoder.parameters()}
    assert not own & {p.data_ptr() for p in base.sam.parameters()}
    assert torch.equal(logits(tuned), answer)
    moved(tuned, "mask_decoder", "prompt_encoder")
    assert fingerprint(base.sam) == before
    assert torch.equal(logits(base), answer)
    assert (clone(base).name, tuned.name) == ("nano", "tuned")


def test_a_wholly_tuned_specialist_leaves_its_base_alone(base: Segmenter, tmp_path: Path) -> None:
    """Its own encoder is loaded beside the base's, not into it."""
    torch.manual_seed(0)
    whole = moved(Segmenter("whole", build_nano("conv", SIDE), SIDE), "vision_encoder", "mask_decoder")
    folder = save_specialist(whole, card(base, tuned="all"), tmp_path / "all")
    assert set(load_file(folder / "model.safetensors")) == set(base.sam.state_dict())
    before, answer = fingerprint(base.sam), logits(base)
    again = load_specialist(folder, base)
    assert torch.equal(logits(again), logits(whole))
    assert again.encoder_id == whole.encoder_id != base.encoder_id
    assert fingerprint(base.sam) == before
    assert torch.equal(logits(base), answer)
    assert torch.equal(logits(load_specialist(folder, base)), logits(whole))


def test_another_base_is_refused_in_one_line_that_names_both(base: Segmenter, tmp_path: Path) -> None:
    save_specialist(clone(base), card(base), tmp_path)
    other = moved(Segmenter("other", build_nano("conv", SIDE), SIDE), "vision_encoder")
    larger = Segmenter("larger", base.sam, 256)
    for wrong in (other, larger):
        with pytest.raises(ModelError, match="wood-nano was tuned on nano") as caught:
            load_specialist(tmp_path, wrong)
        line = str(caught.value)
        assert "\n" not in line
        assert all(part in line for part in (base.encoder_id, wrong.name, wrong.encoder_id))


def damaged(base: Segmenter, folder: Path, how: str) -> None:
    save_specialist(clone(base), card(base), folder)
    told, weights = folder / "specialist.json", folder / "model.safetensors"
    tensors = load_file(weights)
    if how == "no card":
        told.unlink()
    elif how == "half the card":
        told.write_text(told.read_text()[:50])
    elif how == "card is no text":
        told.write_bytes(b"\xff\xfe\x00")
    elif how == "card is a list":
        told.write_text("[]")
    elif how == "unknown field":
        told.write_text(json.dumps(json.loads(told.read_text()) | {"colour": "red"}))
    elif how == "no weights":
        weights.unlink()
    elif how == "half the weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif how == "empty weights":
        weights.write_bytes(b"")
    elif how == "a tensor too few":
        del tensors["mask_decoder.iou_token.weight"]
        save_file(tensors, weights)
    elif how == "a tensor too many":
        save_file(tensors | {"mask_decoder.colour": torch.zeros(1)}, weights)
    elif how == "another width":
        save_file(tensors | {"mask_decoder.iou_token.weight": torch.zeros(1, 256)}, weights)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("no card", "expected a specialist folder with specialist.json, found none"),
        ("half the card", "got a damaged one"),
        ("card is no text", "got a damaged one"),
        ("card is a list", "got a damaged one"),
        ("unknown field", "got a damaged one"),
        ("no weights", "expected readable weights"),
        ("half the weights", "expected readable weights"),
        ("empty weights", "expected readable weights"),
        ("a tensor too few", "1 are missing and 0 unknown"),
        ("a tensor too many", "0 are missing and 1 unknown"),
        ("another width", "expected the tensors of nano"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(base: Segmenter, tmp_path: Path, how: str, expected: str) -> None:
    damaged(base, tmp_path, how)
    with pytest.raises(ModelError, match=expected) as caught:
        load_specialist(tmp_path, base)
    assert "\n" not in str(caught.value)

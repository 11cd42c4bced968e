"""Specialist folders: the same masks again, on their own base alone, and the base left as it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from specialsam.core.errors import ModelError
from specialsam.core.types import Prompts
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter, fingerprint, tensors_sha256
from specialsam.models.specialist import (
    FORMAT,
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
    told = read_card(folder)
    assert told == card(base, weights_sha256=told.weights_sha256)


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


def test_a_base_with_another_decoder_is_refused_in_one_line_that_names_both(base: Segmenter, tmp_path: Path) -> None:
    """Its masks would be the same; the base that it is compared and mixed with would not be its own."""
    other = moved(clone(base, "other"), "mask_decoder")
    assert other.encoder_id == base.encoder_id
    save_specialist(clone(base), card(base), tmp_path)
    with pytest.raises(ModelError, match=r"tuned on nano \(decoder .*load it on nano") as caught:
        load_specialist(tmp_path, other)
    line = str(caught.value)
    assert "\n" not in line
    assert all(part in line for part in (base.decoder_id, "other", other.decoder_id))
    assert torch.equal(logits(load_specialist(tmp_path, base)), logits(base))


def rewritten(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Other weights in a specialist folder whose card says that they are the right ones."""
    save_file(tensors, folder / "model.safetensors")
    told = json.loads((folder / "specialist.json").read_text())
    (folder / "specialist.json").write_text(json.dumps(told | {"weights_sha256": tensors_sha256(tensors)}))


def refusal(folder: Path, base: Segmenter) -> str:
    """The one line with which loading ends; the base is byte for byte what it was."""
    before = fingerprint(base.sam)
    with pytest.raises(ModelError) as caught:
        load_specialist(folder, base)
    assert fingerprint(base.sam) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_encoder_tensors_in_a_decoder_specialist_never_reach_its_base(base: Segmenter, tmp_path: Path) -> None:
    """The clone shares the encoder: loading one tensor into it would change the base under its cached id."""
    folder = save_specialist(clone(base), card(base), tmp_path)
    name, encoder = next((n, v) for n, v in base.sam.state_dict().items() if n.startswith("vision_encoder."))
    rewritten(folder, load_file(folder / "model.safetensors") | {name: encoder + 1})
    line = refusal(folder, base)
    assert "expected all tensors outside the encoder of nano" in line
    assert f"1 unknown (first: {name})" in line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("tuned", ["decoder", "all"])
def test_weights_that_are_not_finite_are_named(base: Segmenter, tmp_path: Path, value: float, tuned: str) -> None:
    folder = save_specialist(clone(base), card(base, tuned=tuned), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "vision_encoder.out.weight" if tuned == "all" else "mask_decoder.mask_tokens.weight"
    tensors[name].view(-1)[-1] = value
    rewritten(folder, tensors)
    assert f"got NaN or infinity in {name}" in refusal(folder, base)


def test_a_number_too_large_for_single_precision_is_not_finite(base: Segmenter, tmp_path: Path) -> None:
    folder = save_specialist(clone(base), card(base), tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = "mask_decoder.iou_token.weight"
    rewritten(folder, tensors | {name: torch.full_like(tensors[name], 1e300, dtype=torch.float64)})
    assert f"got NaN or infinity in {name}" in refusal(folder, base)


def test_a_specialist_that_is_not_finite_is_not_saved(base: Segmenter, tmp_path: Path) -> None:
    broken = clone(base)
    with torch.no_grad():
        broken.sam.mask_decoder.iou_token.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(ModelError, match=r"wood-nano, got NaN or infinity in mask_decoder\.iou_token\.weight"):
        save_specialist(broken, card(base), tmp_path / "specialist")
    assert not (tmp_path / "specialist").exists()


def test_the_card_names_the_hash_of_the_tensors(base: Segmenter, tmp_path: Path) -> None:
    """Oracle: names, shapes, dtypes and bytes of the file hashed by hand, in the order of the names."""
    save_specialist(clone(base), card(base), tmp_path)
    digest = hashlib.sha256()
    for name, value in sorted(load_file(tmp_path / "model.safetensors").items()):
        digest.update(f"{name}{tuple(value.shape)}torch.float32".encode())
        digest.update(value.numpy().tobytes())
    assert read_card(tmp_path).weights_sha256 == digest.hexdigest()


def test_weights_that_the_card_was_not_written_for_are_refused(base: Segmenter, tmp_path: Path) -> None:
    one, other = (save_specialist(s, card(base), tmp_path / n) for n, s in (("a", clone(base)), ("b", clone(base))))
    changed = load_file(other / "model.safetensors")
    changed["mask_decoder.iou_token.weight"] += 1e-6
    save_file(changed, one / "model.safetensors")
    line = refusal(one, base)
    assert "expected the weights that specialist.json was written for" in line
    assert read_card(one).weights_sha256[:16] in line
    assert tensors_sha256(changed)[:16] in line
    load_specialist(other, base)


def test_a_card_of_the_first_format_names_no_hash_and_loads(base: Segmenter, tmp_path: Path) -> None:
    tuned = moved(clone(base, "tuned"), "mask_decoder")
    save_specialist(tuned, card(base), tmp_path)
    told = json.loads((tmp_path / "specialist.json").read_text())
    assert told.pop("format") == FORMAT == 5
    del told["weights_sha256"]
    (tmp_path / "specialist.json").write_text(json.dumps(told))
    assert (read_card(tmp_path).format, read_card(tmp_path).weights_sha256) == (1, "")
    assert torch.equal(logits(load_specialist(tmp_path, base)), logits(tuned))


def test_a_card_of_a_newer_format_says_so(base: Segmenter, tmp_path: Path) -> None:
    save_specialist(clone(base), card(base), tmp_path)
    told = json.loads((tmp_path / "specialist.json").read_text())
    (tmp_path / "specialist.json").write_text(json.dumps(told | {"format": 6, "colour": "red"}))
    line = refusal(tmp_path, base)
    assert "got format 6, which a newer specialsam wrote; update specialsam" in line


SAVE_FIVE = """
import hashlib, sys
from pathlib import Path
import torch
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard, save_specialist

model = torch.nn.ModuleDict({name: torch.nn.Linear(2, 3) for name in ("prompt_encoder", "mask_decoder")})
for number, value in enumerate(model.parameters()):
    value.data.fill_(number)
card = SpecialistCard(
    name="leaves", base="nano", base_encoder_id="e", base_decoder_id="d", side=64, tuned="decoder",
    recipe={"seed": 1, "lr": 0.1}, scores={"val_iou": {"base": 0.5, "kept": 0.7}},
)
for number in range(5):
    folder = save_specialist(Segmenter("small", model, 64), card, Path(sys.argv[1]) / str(number))
    files = sorted(folder.iterdir())
    print(*(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files))
"""


def test_equal_specialists_are_equal_files_in_every_process(tmp_path: Path) -> None:
    """Five times in each of two processes that hash text otherwise: two keys in either order would differ."""
    lines = set()
    for seed in ("1", "2"):
        command = [sys.executable, "-c", SAVE_FIVE, str(tmp_path / seed)]
        done = subprocess.run(command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        written = done.stdout.splitlines()
        assert len(written) == 5
        lines.update(written)
    assert len(lines) == 1


@pytest.fixture(scope="module")
def saved(base: Segmenter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, str]:
    """A specialist folder, the bytes of its weights, and the fingerprint of the specialist."""
    tuned = moved(clone(base, "tuned"), "mask_decoder")
    folder = save_specialist(tuned, card(base), tmp_path_factory.mktemp("flipped"))
    return folder, (folder / "model.safetensors").read_bytes(), fingerprint(tuned.sam)


@settings(max_examples=80)
@given(data=st.data())
def test_no_flipped_bit_gives_other_weights(
    base: Segmenter, saved: tuple[Path, bytes, str], data: st.DataObject
) -> None:
    """Half of the bits from the header (length, names, shapes, offsets), half from the numbers."""
    folder, whole, right = saved
    header = 8 + int.from_bytes(whole[:8], "little")
    place = data.draw(st.integers(0, header - 1) | st.integers(header, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    (folder / "model.safetensors").write_bytes(flipped)
    before = fingerprint(base.sam)
    try:
        found, line = fingerprint(load_specialist(folder, base).sam), ""
    except ModelError as error:
        found, line = "", str(error)
    assert fingerprint(base.sam) == before
    assert "\n" not in line
    assert line or (found == right and place < header), "of the numbers, none may change unnoticed"


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
    elif how == "whole numbers":
        save_file(tensors | {"mask_decoder.iou_token.weight": torch.zeros(1, 128, dtype=torch.int32)}, weights)
    elif how == "card without end":
        told.write_text("[" * 100_000)
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
        ("a tensor too few", r"got 1 missing \(first: mask_decoder.iou_token.weight\); save"),
        ("a tensor too many", r"got 1 unknown \(first: mask_decoder.colour\); save"),
        ("another width", r"got 1 of another kind \(first: mask_decoder.iou_token.weight\); save"),
        ("whole numbers", r"got 1 of another kind \(first: mask_decoder.iou_token.weight\); save"),
        ("card without end", "got a damaged one"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(base: Segmenter, tmp_path: Path, how: str, expected: str) -> None:
    damaged(base, tmp_path, how)
    assert re.search(expected, refusal(tmp_path, base))

"""A decoder on another encoder: only where it is asked for, only where the tensors fit, and the card says so.

The models are those of two official layouts with one decoder, made small: SAM's ViT and MobileSAM's TinyViT.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from specialsam.core.errors import ModelError, UsageError
from specialsam.core.types import Prompts
from specialsam.models import weights
from specialsam.models.architectures import build
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard, clone, load_specialist, read_card, save_specialist, transplant
from specialsam.models.zoo import Card, TinyVitNumbers, VitNumbers

LARGE = Card("large", "L", "", "large.pth", None, "none", "none", 1, 64, "vit", VitNumbers(32, 2, 2, (1,), 2), 32)
STAGES = TinyVitNumbers((8, 12, 16, 20), (1, 1, 2, 1), (1, 2, 2, 4), (7, 3, 4, 3), 5)
SMALL = replace(LARGE, name="small", encoder="tinyvit", numbers=STAGES)


def model(card: Card, folder: Path, seed: int) -> Segmenter:
    """Random weights through a file of the official layout."""
    torch.manual_seed(seed)
    path = folder / f"{card.name}.safetensors"
    state = weights.to_official(build(card).state_dict(), card)
    save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    return Segmenter(card.name, weights.load_checkpoint(path, card), card.side, str(path))


@pytest.fixture
def models(tmp_path: Path) -> tuple[Segmenter, Segmenter]:
    return model(LARGE, tmp_path, 0), model(SMALL, tmp_path, 1)


def tuned_on(base: Segmenter, folder: Path, how: str = "decoder") -> tuple[Segmenter, Path]:
    """A specialist whose decoder has moved, and its folder."""
    tuned = clone(base, "tuned", share_encoder=how == "decoder")
    with torch.no_grad():
        for parameter in tuned.sam.mask_decoder.parameters():  # type: ignore[union-attr]
            parameter.add_(0.05)
    card = SpecialistCard(
        name="leaves",
        base=base.name,
        base_encoder_id=base.encoder_id,
        base_decoder_id=base.decoder_id,
        side=base.side,
        tuned=how,
        scores={"val_iou": {"base": 0.5, "kept": 0.7}},
    )
    return tuned, save_specialist(tuned, card, folder)


def logits(segmenter: Segmenter, tensor: torch.Tensor | None = None) -> torch.Tensor:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    embedding = segmenter.encode(image)
    own = embedding if tensor is None else replace(embedding, tensor=tensor)
    return segmenter.decode(own, Prompts("click", np.array([[[30, 20]]], np.float32), np.ones((1, 1), np.int64))).logits


def test_the_tuned_decoder_answers_on_the_other_encoder_where_asked(
    models: tuple[Segmenter, Segmenter], tmp_path: Path
) -> None:
    """Oracle: the tuned model's own decoder, given the small encoder's embedding by hand."""
    large, small = models
    tuned, folder = tuned_on(large, tmp_path / "leaves")
    before, image = small.decoder_id, np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    moved = load_specialist(folder, small, transplant=True)
    assert moved.encoder_id == small.encoder_id != large.encoder_id
    assert moved.decoder_id == tuned.decoder_id != before
    assert torch.equal(logits(moved), logits(tuned, small.encode(image).tensor))
    assert small.decoder_id == before


def test_nobody_gets_it_who_has_not_asked(models: tuple[Segmenter, Segmenter], tmp_path: Path) -> None:
    large, small = models
    _, folder = tuned_on(large, tmp_path / "leaves")
    with pytest.raises(ModelError, match="leaves was tuned on large"):
        load_specialist(folder, small)


def test_a_written_transplant_stands_on_its_new_base_and_says_so(
    models: tuple[Segmenter, Segmenter], tmp_path: Path
) -> None:
    large, small = models
    _, folder = tuned_on(large, tmp_path / "leaves")
    out = transplant(folder, small, "small.safetensors", tmp_path / "moved")
    card = read_card(out)
    assert (card.base, card.base_encoder_id, card.name) == ("small.safetensors", small.encoder_id, "leaves-on-small")
    assert f"transplanted: tuned on embeddings of large (encoder {large.encoder_id})" in card.note
    assert card.scores == {}
    asked = load_specialist(folder, small, transplant=True)
    assert torch.equal(logits(load_specialist(out, small)), logits(asked))
    with pytest.raises(ModelError, match="leaves-on-small was tuned on small"):
        load_specialist(out, large)


def test_a_decoder_of_another_width_is_refused_in_one_line(models: tuple[Segmenter, Segmenter], tmp_path: Path) -> None:
    _, folder = tuned_on(models[0], tmp_path / "leaves")
    with pytest.raises(ModelError, match=r"same decoder") as caught:
        load_specialist(folder, model(replace(SMALL, channels=64), tmp_path, 2), transplant=True)
    line = str(caught.value)
    assert "\n" not in line
    assert "tensors of leaves (tuned on large)" in line


def test_a_specialist_with_an_encoder_of_its_own_is_not_transplanted(
    models: tuple[Segmenter, Segmenter], tmp_path: Path
) -> None:
    large, small = models
    _, folder = tuned_on(large, tmp_path / "leaves", "all")
    with pytest.raises(ModelError, match="an encoder of its own"):
        load_specialist(folder, small, transplant=True)
    with pytest.raises(ModelError, match="an encoder of its own"):
        transplant(folder, small, "small", tmp_path / "moved")
    assert not (tmp_path / "moved").exists()


def test_the_command_writes_it_and_never_over_something(
    models: tuple[Segmenter, Segmenter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch[str]
) -> None:
    from specialsam.cli.models import models_transplant
    from specialsam.models import load

    large, small = models
    _, folder = tuned_on(large, tmp_path / "leaves")
    monkeypatch.setattr(load, "load_model", lambda name: small)
    models_transplant(folder, small.source, tmp_path / "moved")
    assert read_card(tmp_path / "moved").base == str(Path(small.source).resolve())
    with pytest.raises(UsageError, match="there already"):
        models_transplant(folder, small.source, tmp_path / "moved")

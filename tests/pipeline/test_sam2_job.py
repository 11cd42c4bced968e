"""The main job on small random models of SAM 2.1's and SAM 3's architecture, from Meta's layout to the specialist.

The oracles: the names, frames and licence that the models' cards say, and a fresh call of the saved specialist.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from disc_data import discs, small
from PIL import Image

from specialsam.embeddings import EmbeddingStore
from specialsam.models.architectures import build, to_official
from specialsam.models.folder import save_pretrained
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import read_card
from specialsam.models.zoo import CARDS, SAM3_LICENCE, Card, HieraNumbers, PerceptionNumbers
from specialsam.pipeline.job import Request
from specialsam.pipeline.specialize import price_specialize, run_specialize

HIERA = HieraNumbers(width=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,), windows=(8, 4, 4, 2), background=2)
PERCEPTION = PerceptionNumbers(16, 32, 2, 2, (1,), window=2, trained_side=56)
SAM2 = Card("tiny2", "T", "", "tiny2.pt", None, "Apache-2.0", "none", 1, 128, "hiera", HIERA, 16)
SAM3 = Card("tiny3", "T", "", "tiny3.pt", None, SAM3_LICENCE, "none", 1, 112, "perception", PERCEPTION, 16)
CAMO = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data")) / "camo"


def weights(card: Card, folder: Path) -> Path:
    """Random weights of a card in a file of Meta's layout."""
    torch.manual_seed(0)
    path = folder / card.filename
    torch.save({"model": to_official(build(card).state_dict(), card)}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("card", [SAM2, SAM3], ids=["sam2", "sam3"])
def test_specialize_runs_through(card: Card, tmp_path: Path) -> None:
    data = discs(tmp_path / "data", 12)
    torch.manual_seed(0)
    base = Segmenter(card.name, build(card), card.side)
    model, run = save_pretrained(base, tmp_path / "model"), tmp_path / "run"
    assert run_specialize(Request(str(data), str(model), run), small()) is not None
    facts = json.loads((run / "run.json").read_text())
    assert facts["encoder"]["before"] == facts["encoder"]["after"]
    assert facts["peak_memory_mb"] > 0
    kept = read_card(run / "specialist")
    assert kept.preprocessing == base.preprocessing.version
    assert kept.preprocessing.startswith("square-")
    assert kept.base_licence == (SAM3_LICENCE if card is SAM3 else "")
    store = EmbeddingStore.open_existing(run / "embeddings", base.encoder_id)
    frames = {(entry.geometry, entry.shape) for entry in store.entries()}
    assert frames == {(base.geometry((72, 96)), base.embedding_shape)}
    specialist = load_model(run / "specialist")
    image = np.asarray(Image.open(data / "images" / "000.png"))
    assert torch.equal(specialist.encode(image).tensor, load_model(model).encode(image).tensor)


def test_embeddings_are_priced_with_all_their_levels(tmp_path: Path) -> None:
    """Four times 16 channels of 8 x 8 cells in half precision are 8192 bytes, 0.01 MB each."""
    data, model = discs(tmp_path / "data", 12), tmp_path / "model"
    save_pretrained(Segmenter("tiny", build(SAM2), 128), model)
    assert "0.01 MB each" in price_specialize(Request(str(data), str(model), tmp_path / "run"), small())


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not CAMO.is_dir(), reason=f"the images of CAMO are not in {CAMO}")
def test_specialize_runs_through_on_camouflaged_animals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty images, from a checkpoint in Meta's layout that is told by its sizes."""
    card = SAM2
    monkeypatch.setitem(CARDS, card.name, card)
    request = Request(str(CAMO), str(weights(card, tmp_path)), tmp_path / "run", limit=40)
    assert run_specialize(request, small(train={"epochs": 1})) is not None
    assert read_card(tmp_path / "run" / "specialist").base_licence == card.licence
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["splits"]) == 40

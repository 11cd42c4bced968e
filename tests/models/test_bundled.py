"""The weights inside the package: as the card says, no network, and as good as `docs/nano.md` states."""

from __future__ import annotations

import json

import pytest
import torch

from specialsam.core.errors import ModelError
from specialsam.models import load as load_module
from specialsam.models.folder import ENCODER_KEY
from specialsam.models.load import BUNDLED, load_model, verify_bundled
from specialsam.models.segmenter import Segmenter
from specialsam.models.zoo import NANO
from specialsam.training.pretrain_objective import validate

STATED = {"click_single": 0.49, "click_best": 0.49, "click_oracle": 0.56, "box_single": 0.66}
"""Lower bounds of the IoU on 24 generated scenes of nano's own side; `docs/nano.md` has the exact numbers."""


@pytest.fixture(scope="module")
def nano() -> Segmenter:
    return load_model("nano")


def test_the_file_is_the_one_on_the_card(nano: Segmenter) -> None:
    assert verify_bundled().name == NANO.filename
    assert sum(p.numel() for p in nano.sam.parameters()) == NANO.parameters
    assert nano.side == NANO.side
    config = json.loads((BUNDLED / "nano" / "config.json").read_text())
    assert config[ENCODER_KEY]["kind"] == NANO.encoder


def test_a_changed_file_is_named(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / NANO.filename).write_bytes(b"other")
    monkeypatch.setattr(load_module, "BUNDLED", tmp_path)
    with pytest.raises(ModelError, match=r"expected .*sha256 .* got"):
        verify_bundled()


def test_it_fits_a_package(nano: Segmenter) -> None:
    size = sum(file.stat().st_size for file in (BUNDLED / "nano").iterdir())
    assert size <= 12e6
    assert NANO.parameters <= 6e6


def test_it_segments_generated_scenes_as_stated(nano: Segmenter) -> None:
    torch.set_num_threads(1)
    found = validate(nano.sam, NANO.side, count=24)
    assert all(found[name] >= bound for name, bound in STATED.items()), found

"""Pictures of more than 8 bits that are asked about: read as those that were learned from. Oracle: values set here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from PIL import Image

from specialsam.apps.answering import _readings
from specialsam.apps.session import Session
from specialsam.core.errors import ModelError
from specialsam.core.types import Reading
from specialsam.models.finder_files import FinderParts
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard


def session(recipe: dict[str, object]) -> Session:
    card = SpecialistCard(
        name="x", base="nano", base_encoder_id="", base_decoder_id="", side=64, tuned="decoder", recipe=recipe
    )
    return Session(cast(Segmenter, SimpleNamespace()), FinderParts(), card)


def pictures(root: Path) -> dict[str, Path]:
    """A deep picture, one of bytes, and one that is none."""
    deep = np.full((8, 8), 900, np.uint16)
    Image.fromarray(deep).save(root / "deep.tif")
    Image.fromarray(deep.astype(np.uint8)).save(root / "plain.png")
    (root / "none.png").write_text("no picture")
    return {path.stem: path for path in sorted(root.iterdir())}


def test_deep_pictures_are_read_as_those_learned_from(tmp_path: Path) -> None:
    stated = {"low": 0.0, "high": 4095.0, "nodata": [-1.0], "bands": []}
    found = _readings(session({"reading": stated}), pictures(tmp_path))
    assert found == {"deep": Reading(0.0, 4095.0, (-1.0,))}


def test_without_a_word_the_pictures_have_one_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _readings(session({}), pictures(tmp_path)) == {"deep": Reading(0.0, 1023.0)}
    assert "0 (black) to 1023 (white)" in "".join(capsys.readouterr())
    with pytest.raises(ModelError, match="expected low, high, nodata and bands"):
        _readings(session({"reading": {"from": 1}}), pictures(tmp_path))

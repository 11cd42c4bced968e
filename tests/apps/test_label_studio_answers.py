"""Answers to Label Studio. Oracles: our reader of its exports (tested against label-studio-converter's), masks by hand.

The requests are what Label Studio 1.x sends to an ML backend: tasks, configuration, and what was drawn as the context.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from small_models import picture, pointed, small

from specialsam.apps.label_studio import brush_rle, predict, read_clicks, read_tags
from specialsam.apps.session import Session
from specialsam.core.errors import DataError
from specialsam.core.types import Prompts
from specialsam.data.label_studio import brush_mask
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.models.finder_files import FinderParts
from specialsam.models.segmenter import Segmenter

CONFIG = """<View><Image name="img" value="$photo"/>
<BrushLabels name="brush" toName="img"><Label value="fox"/><Label value="owl"/></BrushLabels>
<KeyPointLabels name="kp" toName="img" smart="true"><Label value="owl"/></KeyPointLabels></View>"""
POLYGONS = CONFIG.replace("BrushLabels", "PolygonLabels").replace('"brush"', '"poly"')


def point(x: float, y: float, positive: int = 1, label: str = "owl") -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.4, "keypointlabels": [label]}
    return {"type": "keypointlabels", "from_name": "kp", "to_name": "img", "is_positive": positive, "value": value}


def box(x: float, y: float, width: float, height: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["fox"]}
    return {"type": "rectanglelabels", "from_name": "rect", "to_name": "img", "value": value}


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_brush_masks_are_read_back(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    np.testing.assert_array_equal(brush_mask(list(brush_rle(mask)), (mask.shape[0], mask.shape[1])), mask)


def test_long_runs_are_read_back() -> None:
    mask = np.zeros((300, 400), bool)
    mask[120:, 7:] = True
    np.testing.assert_array_equal(brush_mask(list(brush_rle(mask)), (300, 400)), mask)
    assert len(brush_rle(np.zeros((1000, 1000), bool))) < 300


def test_clicks_are_one_question_in_shares() -> None:
    (asked,) = read_clicks([point(50, 25), point(10, 20, positive=0), box(10, 20, 30, 40)])
    np.testing.assert_allclose(asked.points, [[0.5, 0.25], [0.1, 0.2]])
    assert asked.point_labels is not None
    assert asked.point_labels.tolist() == [1, 0]
    assert asked.box == pytest.approx((0.1, 0.2, 0.4, 0.6))
    assert (asked.relative, asked.label) == (True, "fox")
    assert read_clicks([{"type": "choices", "value": {"choices": ["a"]}}]) == []


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(Segmenter, "decode_outputs", pointed)
    return Session(small(), FinderParts())


@pytest.mark.parametrize("drawn", ["click", "box"])
def test_a_brush_answer_is_the_segmenter_s_mask(session: Session, drawn: str) -> None:
    image = picture(1)
    result = point(50, 50) if drawn == "click" else box(25, 25, 50, 50)
    made = predict(session, image, read_tags(CONFIG), [result])
    (region,) = made["result"]
    asked = (
        Prompts("p", np.array([[[32, 24]]], np.float32), np.ones((1, 1), np.int64))
        if drawn == "click"
        else Prompts("b", boxes=np.array([[16, 12, 47, 35]], np.float32))
    )
    own = session.segmenter.decode(session.segmenter.encode(image), asked).masks()[0, 0]
    np.testing.assert_array_equal(brush_mask(region["value"]["rle"], (48, 64)), own)
    assert own.any()
    assert {name: region[name] for name in ("from_name", "to_name", "type", "original_width", "original_height")} == {
        "from_name": "brush",
        "to_name": "img",
        "type": "brushlabels",
        "original_width": 64,
        "original_height": 48,
    }
    assert region["value"]["format"] == "rle"
    assert region["value"]["brushlabels"] == ["owl" if drawn == "click" else "fox"]
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize("config", [CONFIG, POLYGONS])
def test_what_is_accepted_there_is_read_here(session: Session, tmp_path: Path, config: str) -> None:
    """Answered, accepted as an annotation, exported, opened by `open_dataset`: the same mask."""
    image = picture(1)
    Image.fromarray(image).save(tmp_path / "a.png")
    made = predict(session, image, read_tags(config), [point(50, 50)])
    task = {"id": 1, "data": {"photo": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": made["result"]}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    sample = load(open_dataset(f"label_studio:{tmp_path}").records[0])
    asked = Prompts("p", np.array([[[32, 24]]], np.float32), np.ones((1, 1), np.int64))
    own = session.segmenter.decode(session.segmenter.encode(image), asked).masks()[0, 0]
    both, either = (sample.masks[0] & own).sum(), (sample.masks[0] | own).sum()
    assert both / either > (0.999 if config == CONFIG else 0.8)  # a polygon's outline is a pixel of a small disc


def test_without_a_click_it_answers_what_it_finds(session: Session) -> None:
    made = predict(session, picture(1), read_tags(CONFIG), [])
    assert all(region["value"]["brushlabels"] == ["fox"] for region in made["result"])


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("<View><Image name='i' value='$x'/></View>", "expected BrushLabels or PolygonLabels"),
        ("no xml", "expected a labelling configuration as XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View/>', "has declarations"),
        ("<View>" + " " * 100_001 + "</View>", "too long"),
    ],
)
def test_configurations_that_have_no_place_for_masks_are_refused(config: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_tags(config)


def test_clicks_that_are_none_are_refused() -> None:
    with pytest.raises(DataError, match="in percent"):
        read_clicks([{"type": "keypointlabels", "value": {"x": "left", "y": 3}}])

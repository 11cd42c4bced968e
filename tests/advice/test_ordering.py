"""More prompts, better answers: by hand on curves that rise, stand and fall."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from specialsam.advice.probes.ordering import more_prompts
from specialsam.advice.probes.promptability import BOX_SCALE

IMAGES = 12


def evidence(by_clicks: dict[int, float], box: float, spread: float = 0.0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """IoU of one object an image after each click, and by the box; `spread` moves the images apart, alternating."""
    sign = np.where(np.arange(IMAGES) % 2, 1, -1) * spread
    curve = [
        {"model": "specialist", "record": f"r{i}", "object": 0, "click": n, "iou": iou + sign[i] * (n > 1)}
        for n, iou in by_clicks.items()
        for i in range(IMAGES)
    ]
    boxes = [
        {
            "model": "specialist",
            "axis": BOX_SCALE,
            "value": value,
            "record": f"r{i}",
            "object": 0,
            "iou": box - value + 1,
        }
        for value in (0.8, 1.0, 1.5)
        for i in range(IMAGES)
    ]
    other = [{**row, "model": "base", "iou": 0.0} for row in curve]
    return pd.DataFrame([*curve, *other]), pd.DataFrame(boxes)


def test_what_rises_passes_with_its_steps() -> None:
    found = more_prompts("specialist", *evidence({1: 0.5, 2: 0.1, 3: 0.6, 5: 0.65}, 0.7))
    assert found.level == "pass"
    assert found.numbers["1 click to 3 clicks"] == pytest.approx(0.1)
    assert found.numbers["3 clicks to 5 clicks"] == pytest.approx(0.05)
    assert found.numbers["1 click to box"] == pytest.approx(0.2)
    assert found.numbers["n"] == IMAGES
    assert not found.remedy


@pytest.mark.parametrize(
    ("clicks", "box", "named"),
    [({1: 0.5, 3: 0.4, 5: 0.6}, 0.7, "1 click to 3 clicks"), ({1: 0.5, 3: 0.6, 5: 0.7}, 0.3, "1 click to box")],
)
def test_what_surely_falls_fails_by_name(clicks: dict[int, float], box: float, named: str) -> None:
    found = more_prompts("specialist", *evidence(clicks, box))
    assert found.level == "fail"
    assert named in found.says
    assert "corrections" in found.remedy


def test_a_fall_within_its_noise_is_a_warning() -> None:
    found = more_prompts("specialist", *evidence({1: 0.5, 3: 0.49, 5: 0.6}, 0.7, spread=0.2))
    assert found.level == "warn"
    assert "1 click to 3 clicks" in found.says
    assert "5 clicks" not in found.says

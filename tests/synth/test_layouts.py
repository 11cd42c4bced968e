"""Layouts: every pixel has an owner that the canvas knows, whatever is laid out; one hidden animal where one hides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.layouts import HIDDEN_SHARE, LAYOUTS, draw_layout, ground, hidden
from specialsam.synth.materials import draw_material
from specialsam.synth.placing import Canvas

seeds = st.integers(0, 2**31)
sizes = st.integers(16, 128)
WHOLE = {"region", "object", "animal", "thin"}


def check(canvas: Canvas, size: int) -> None:
    """What holds on every canvas: its size, finite pixels, owners and parents that exist."""
    assert canvas.pixels.shape == (size, size, 3)
    assert np.isfinite(canvas.pixels).all()
    assert canvas.owner.shape == (size, size)
    assert 0 <= canvas.owner.min() <= canvas.owner.max() < len(canvas.kinds) == len(canvas.parents)
    for number, (kind, parent) in enumerate(zip(canvas.kinds, canvas.parents, strict=True)):
        assert (parent == -1) == (kind in WHOLE)
        assert parent < number
        assert parent == -1 or canvas.kinds[parent] in WHOLE - {"region"}


@pytest.mark.parametrize("name", LAYOUTS)
@settings(max_examples=12)
@given(seed=seeds, size=sizes, share=st.sampled_from([0.0, 0.15, 1.0]))
def test_a_layout_stays_on_its_canvas(name: str, seed: int, size: int, share: float) -> None:
    canvas = Canvas.blank(size, 1.0)
    LAYOUTS[name][0](np.random.default_rng(seed), canvas, share)
    check(canvas, size)
    assert "region" in canvas.kinds
    again = Canvas.blank(size, 1.0)
    LAYOUTS[name][0](np.random.default_rng(seed), again, share)
    assert np.array_equal(canvas.owner, again.owner)
    assert np.array_equal(canvas.pixels, again.pixels)


@settings(max_examples=20)
@given(seed=seeds, size=sizes)
def test_one_animal_hides(seed: int, size: int) -> None:
    canvas = Canvas.blank(size, 1.0)
    hidden(np.random.default_rng(seed), canvas)
    check(canvas, size)
    assert canvas.kinds.count("animal") == 1


@settings(max_examples=20)
@given(seed=seeds, size=sizes, count=st.integers(1, 5))
def test_regions_fill_the_canvas(seed: int, size: int, count: int) -> None:
    """One owner a material; the canvas's own is never left over, as the first region covers all of it."""
    rng = np.random.default_rng(seed)
    canvas = Canvas.blank(size, 1.0)
    ground(rng, canvas, [draw_material(rng) for _ in range(count)], 0.0)
    check(canvas, size)
    assert canvas.kinds == ["region"] * count
    assert canvas.pixels.max() > 0


def test_every_layout_is_drawn_by_its_weight() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_layout(rng) for _ in range(3000)]
    total = sum(weight for _, weight in LAYOUTS.values())
    for layout, weight in LAYOUTS.values():
        assert drawn.count(layout) / 3000 == pytest.approx(weight / total, abs=0.04)
    assert 0 < HIDDEN_SHARE < 1

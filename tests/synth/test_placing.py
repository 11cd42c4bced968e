"""Objects on a canvas: the map of owners is what was laid, in the order in which it was laid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.layouts import LAYOUTS, ground, hidden
from specialsam.synth.materials import draw_material
from specialsam.synth.placing import Canvas, Look, Thing, defocus, draw_centre, draw_look, draw_radius, draw_shape, lay

PLAIN = Look(relief=0, shadow=0, softness=0.4, ragged=0)


def blank(seed: int, size: int = 96) -> tuple[np.random.Generator, Canvas]:
    rng = np.random.default_rng(seed)
    canvas = Canvas.blank(size, 1.0)
    ground(rng, canvas, [draw_material(rng)], 0.0)
    return rng, canvas


@given(seed=st.integers(0, 2**31), x=st.floats(-60, 156), y=st.floats(-60, 156), radius=st.floats(6, 60))
@settings(max_examples=60)
def test_what_is_laid_owns_its_pixels_and_changes_no_others(seed: int, x: float, y: float, radius: float) -> None:
    rng, canvas = blank(seed)
    before, pixels = canvas.owner.copy(), canvas.pixels.copy()
    seen = lay(rng, canvas, Thing(draw_shape(rng, radius), (x, y), draw_material(rng), PLAIN))
    changed = canvas.owner != before
    if not seen:
        assert not changed.any()
        assert np.array_equal(canvas.pixels, pixels)
        assert len(canvas.kinds) == 1
        return
    assert changed.any()
    assert len(canvas.kinds) == len(canvas.parents) > 1
    assert canvas.parents[1] == -1
    assert all(parent == 1 for parent in canvas.parents[2:]), "all that came with it is a part of it"
    assert set(np.unique(canvas.owner)) <= set(range(len(canvas.kinds)))
    assert np.isfinite(canvas.pixels).all()


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_the_later_one_hides_the_earlier(seed: int) -> None:
    rng, canvas = blank(seed)
    material, outline = draw_material(rng), draw_shape(rng, 20, solid=True)
    assert lay(rng, canvas, Thing(outline, (48, 48), material, PLAIN))
    first = set(range(1, len(canvas.kinds)))
    assert lay(rng, canvas, Thing(outline, (48, 48), material, PLAIN))
    assert not np.isin(canvas.owner, list(first)).any()


@given(seed=st.integers(0, 2**31), smallest=st.floats(4, 20), ratio=st.floats(1.01, 12))
@settings(max_examples=60)
def test_draws_stay_within_their_limits(seed: int, smallest: float, ratio: float) -> None:
    rng, canvas = blank(seed, 128)
    radius = draw_radius(rng, canvas, smallest, smallest * ratio)
    assert smallest * canvas.unit <= radius <= smallest * ratio * canvas.unit + 1e-9
    x, y = draw_centre(rng, canvas, 0.25, 0.75)
    assert 32 <= x <= 96
    assert 32 <= y <= 96
    look = draw_look(rng)
    assert 0 <= look.relief <= 1
    assert 0 <= look.shadow <= 1
    assert look.softness > 0


@pytest.mark.parametrize("name", [*LAYOUTS, "hidden"])
@given(seed=st.integers(0, 2**31))
@settings(max_examples=5)
def test_layouts_fill_the_canvas(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    canvas = Canvas.blank(96, 0.5)
    if name == "hidden":
        hidden(rng, canvas)
        assert canvas.kinds.count("animal") == 1
    else:
        LAYOUTS[name][0](rng, canvas, 0.2)
    assert np.isfinite(canvas.pixels).all()
    assert canvas.pixels.min() >= -0.5
    assert 0 <= canvas.owner.min() <= canvas.owner.max() < len(canvas.kinds)
    assert canvas.kinds[0] == "region"


@pytest.mark.parametrize("blur", [0.0, 1.0, 4.0])
def test_defocus_smooths_and_keeps_the_mean(blur: float) -> None:
    _, canvas = blank(3)
    before = canvas.pixels.copy()
    defocus(canvas, blur)
    assert abs(canvas.pixels.mean() - before.mean()) < 0.02
    rough = [np.abs(np.diff(pixels, axis=0)).mean() for pixels in (canvas.pixels, before)]
    assert rough[0] <= rough[1]
    assert np.array_equal(canvas.pixels, before) == (blur * canvas.unit < 0.3)

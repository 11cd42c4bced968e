"""Outlines of animals: nothing beside them, limbs within them, the same for a seed. Oracle: scipy's distances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from specialsam.synth import animals
from specialsam.synth.animals import PLANS, animal


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), radius=st.floats(4, 150))
def test_nothing_is_drawn_beside_an_animal(seed: int, radius: float) -> None:
    """An edge is a few pixels wide: from there on the mask is 0, so that no frame shows around the animal.

    All but a few pixels: the tip of a limb thinner than a pixel is faint and stands alone.
    """
    mask = animal(np.random.default_rng(seed), radius).mask
    assert mask.dtype == np.uint8
    assert mask.max() > 127
    away = ndimage.distance_transform_edt(mask < 128)
    far = mask[away > 4 + 0.1 * radius]
    assert np.count_nonzero(far) <= 0.05 * far.size
    corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.min() == 0


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), radius=st.floats(4, 120))
def test_limbs_lie_within_the_animal_and_its_size_is_that_asked_for(seed: int, radius: float) -> None:
    made = animal(np.random.default_rng(seed), radius)
    assert not made.thin
    assert made.parts
    for kind, part in made.parts:
        assert kind == "part"
        assert part.shape == made.mask.shape
        assert (part <= made.mask).all()
    rows, columns = np.nonzero(made.mask > 127)
    assert 0.6 < (max(np.ptp(rows), np.ptp(columns)) + 1) / (2 * radius) < 3


@pytest.mark.parametrize("name", PLANS)
def test_every_build_is_one_animal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scipy finds one piece, or a large one and crumbs (a thin leg may break); a seed gives the same again."""
    monkeypatch.setattr(animals, "PLANS", {name: PLANS[name]})
    monkeypatch.setattr(animals, "_SHARES", np.ones(1))
    masks = [animal(np.random.default_rng(seed), 60.0).mask for seed in range(8)]
    for mask in masks:
        pieces, count = ndimage.label(mask > 127, np.ones((3, 3)))
        areas = ndimage.sum(mask > 127, pieces, range(1, count + 1))
        assert areas.max() > 0.9 * areas.sum()
        assert 0.05 < (mask > 127).mean() < 0.9
    assert np.array_equal(masks[0], animal(np.random.default_rng(0), 60.0).mask)
    assert len({mask.tobytes() for mask in masks}) == len(masks)

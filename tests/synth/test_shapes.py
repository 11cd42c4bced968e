"""Outlines: in their frame, of the size asked for, the same for a seed; the oracle is what numpy reads off the mask."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.synth.shapes import SHAPES, Silhouette

FAINT = 16
"""Levels of 255 that anti-aliasing may leave on the frame's border."""


def extent(made: Silhouette) -> int:
    """Pixels of the longer side of what is drawn."""
    rows, columns = np.nonzero(made.mask > 127)
    return int(max(np.ptp(rows), np.ptp(columns))) + 1


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), radius=st.floats(3, 150))
def test_an_outline_lies_in_its_frame_and_has_the_size_asked_for(name: str, seed: int, radius: float) -> None:
    made = SHAPES[name][0](np.random.default_rng(seed), radius)
    assert made.mask.dtype == np.uint8
    assert made.mask.ndim == 2
    assert made.mask.max() > 200
    border = np.concatenate([made.mask[0], made.mask[-1], made.mask[:, 0], made.mask[:, -1]])
    assert border.max() <= FAINT, "nothing is cut off"
    assert 0.3 < extent(made) / (2 * radius) < 4
    assert made.thin == (name == "branch")
    for kind, part in made.parts:
        assert kind in ("part", "hole")
        assert part.shape == made.mask.shape
        assert part.dtype == np.uint8


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), radius=st.floats(30, 220))
def test_twice_the_radius_is_twice_the_size(name: str, seed: int, radius: float) -> None:
    """By extent, a lump by the root of its area: flecks of noise about it come and go with the resolution."""
    small, large = (SHAPES[name][0](np.random.default_rng(seed), radius * factor) for factor in (1, 2))
    if name == "lump":
        assert ((large.mask > 127).sum() / (small.mask > 127).sum()) ** 0.5 == pytest.approx(2, rel=0.12)
    else:
        assert extent(large) / extent(small) == pytest.approx(2, rel=0.12)


@pytest.mark.parametrize("name", SHAPES)
def test_an_outline_follows_from_its_seed(name: str) -> None:
    one, same, other = (SHAPES[name][0](np.random.default_rng(seed), 25.0) for seed in (3, 3, 4))
    assert np.array_equal(one.mask, same.mask)
    assert len(one.parts) == len(same.parts)
    assert one.mask.shape != other.mask.shape or not np.array_equal(one.mask, other.mask)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), radius=st.floats(12, 80))
def test_a_ring_has_a_hole(seed: int, radius: float) -> None:
    """Either nothing of it is drawn there, or the hole is a part of its own within the outline."""
    made = SHAPES["ring"][0](np.random.default_rng(seed), radius)
    rows, columns = np.nonzero(made.mask > 127)
    middle = int(rows.mean()), int(columns.mean())
    if made.parts:
        ((kind, hole),) = made.parts
        assert kind == "hole"
        assert not ((hole > 127) & (made.mask <= 127)).any()
        assert 0 < (hole > 127).sum() < (made.mask > 127).sum()
    else:
        assert made.mask[middle] < 128

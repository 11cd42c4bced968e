"""What is read off a clean picture, against the formulas that drew it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from surfaces import GROUNDS, Image, net, weave

from specialsam.synth.defects.ground import survey

seeds = st.integers(0, 2**31)


def stripes(side: int, angle: float, period: float) -> Image:
    """Waves that run along `angle` (radians from x towards y)."""
    rows, columns = np.mgrid[:side, :side]
    across = rows * np.cos(angle) - columns * np.sin(angle)
    level = 120 + 60 * np.sin(2 * np.pi * across / period)
    return np.repeat(level.astype(np.uint8)[..., None], 3, 2)


@settings(max_examples=25)
@given(
    ground=st.sampled_from(sorted(GROUNDS)),
    height=st.integers(48, 200),
    width=st.integers(48, 200),
    seed=st.integers(0, 6),
    colour=st.booleans(),
)
def test_facts_of_any_picture_lie_in_their_ranges(
    ground: str, height: int, width: int, seed: int, colour: bool
) -> None:
    image = GROUNDS[ground](height, width, seed, colour)
    before = image.copy()
    found = survey(image)
    assert np.array_equal(image, before)
    assert (found.dark <= found.bright).all()
    assert found.mean.shape == found.dark.shape == found.bright.shape == (3,)
    assert found.mean == pytest.approx(image[::2, ::2].reshape(-1, 3).mean(0), abs=0.1)
    assert found.grain > 0
    side = min(height, width)
    assert 4 <= found.period <= max(4.0, side / 4)
    assert 0 <= found.order <= 1 + 1e-6
    assert found.grey == bool((image == image[..., :1]).all())
    if found.wires is not None:
        assert found.wires.dtype == np.float32
        assert found.wires.shape == (height, width)
        assert 0 <= found.wires.min() <= found.wires.max() <= 1


@settings(max_examples=20)
@given(angle=st.floats(0, np.pi), period=st.floats(8, 20))
def test_the_direction_is_that_of_the_stripes(angle: float, period: float) -> None:
    found = survey(stripes(128, angle, period))
    turned = (found.angle - angle + np.pi / 2) % np.pi - np.pi / 2
    assert abs(turned) < 0.05
    assert found.order > 0.9


@settings(max_examples=15)
@given(period=st.integers(8, 28), seed=seeds)
def test_the_repeat_is_that_of_the_weave(period: int, seed: int) -> None:
    assert survey(weave(240, 240, seed % 9, False, period)).period == pytest.approx(period, abs=1.5)


@settings(max_examples=12)
@given(period=st.sampled_from([24, 32, 48]), seed=seeds, bright=st.booleans(), colour=st.booleans())
def test_wires_stand_where_they_were_drawn(period: int, seed: int, bright: bool, colour: bool) -> None:
    image = net(192, 192, seed % 9, colour, period)
    drawn = image[..., 0] < 90
    free = image[..., 0] > 140
    wires = survey(255 - image if bright else image).wires
    assert wires is not None
    assert wires[drawn].mean() > 0.9
    assert wires[free].mean() < 0.1


@pytest.mark.parametrize("ground", ["plain", "speckled", "sloped", "halved"])
def test_no_wires_where_nothing_repeats(ground: str) -> None:
    for seed in range(3):
        assert survey(GROUNDS[ground](160, 160, seed, True)).wires is None

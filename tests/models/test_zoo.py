"""Cards against the published key lists, the papers' sizes, and the architectures that they describe."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest
import torch

from specialsam.core.errors import ModelError, SpecialSamError, UsageError
from specialsam.models.architectures import build
from specialsam.models.zoo import CARDS, Card, card

PARITY = Path(
    os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data")
).parent / "parity"  # fmt: skip
OFFICIAL = ("sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam")


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_card_describes_the_architecture_that_is_built_from_it(name: str) -> None:
    """Oracle: the parameter count, and no memory is used to find it."""
    sam = build(CARDS[name], "meta")
    assert sum(value.numel() for value in sam.parameters()) == CARDS[name].parameters
    assert {value.device.type for value in sam.parameters()} == {"meta"}
    assert not sam.training
    assert not any(value.requires_grad for value in sam.parameters())


@pytest.mark.parametrize(
    ("name", "millions"), [("sam_vit_b", 91), ("sam_vit_l", 308), ("sam_vit_h", 636), ("mobile_sam", 9.66)]
)
def test_sizes_are_those_that_the_papers_state(name: str, millions: float) -> None:
    """Kirillov et al. 2023 (91, 308 and 636 M) and Zhang et al. 2023 (9.66 M), who round and leave out small parts."""
    assert CARDS[name].parameters / 1e6 == pytest.approx(millions, rel=0.05)


@pytest.mark.real
@pytest.mark.parametrize("name", ["sam_vit_b", "mobile_sam"])
def test_parameters_are_counted_as_in_the_published_checkpoint(name: str) -> None:
    if not (PARITY / f"{name}.json").exists():
        pytest.skip(f"the key list {name}.json is not in {PARITY}")
    keys = json.loads((PARITY / f"{name}.json").read_text())["keys"]
    statistics = re.compile(r"running_mean$|running_var$|num_batches_tracked$")
    assert CARDS[name].parameters == sum(math.prod(shape) for key, shape in keys if not statistics.search(key))


@pytest.mark.parametrize("one", CARDS.values(), ids=CARDS.keys())
def test_a_card_is_complete(one: Card) -> None:
    assert CARDS[one.name] is one
    assert one.title
    assert one.paper
    assert one.licence
    assert one.parameters > 0
    assert one.side % 16 == 0
    assert one.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", one.sha256)
    assert not one.url or one.url.endswith("/" + one.filename)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_can_be_fetched_and_verified(name: str) -> None:
    one = CARDS[name]
    assert one.url.startswith("https://")
    assert one.sha256 is not None
    assert one.licence == "Apache-2.0"
    assert "arXiv:" in one.paper


def test_the_digits_in_metas_file_names_are_no_sha256() -> None:
    """They begin the file's MD5; checking them against a SHA-256 would refuse every genuine file."""
    for name in OFFICIAL[:3]:
        digits = CARDS[name].filename.removesuffix(".pth")[-6:]
        assert not str(CARDS[name].sha256).startswith(digits)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"sam_vit_b, sam_vit_l, sam_vit_h, mobile_sam.*got 'sam'"):
        card("sam")


def test_a_card_without_its_numbers_cannot_be_built() -> None:
    for kind in ("vit", "tinyvit", "other"):
        bare = Card("x", "X", "", "", None, "none", "none", 1, 64, kind)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="x") as caught:
            build(bare)
        assert isinstance(caught.value, SpecialSamError)
        assert "\n" not in str(caught.value)


def test_random_weights_are_alive() -> None:
    """transformers' own defaults would draw the encoder at 1e-10 and the positional encoding at half the width."""
    from specialsam.models.zoo import VitNumbers

    torch.manual_seed(0)
    tiny = Card("tiny", "T", "", "t.pth", None, "none", "none", 1, 64, "vit", VitNumbers(32, 2, 2, (1,), 2), 32)
    sam = build(tiny)
    assert float(sam.vision_encoder.layers[0].attn.qkv.weight.std()) == pytest.approx(0.02, rel=0.2)
    assert float(sam.shared_image_embedding.positional_embedding.std()) == pytest.approx(1, rel=0.5)
    assert sam.shared_image_embedding.positional_embedding is sam.prompt_encoder.shared_embedding.positional_embedding
    epsilons = {
        name: module.eps for name, module in sam.mask_decoder.named_modules() if isinstance(module, torch.nn.LayerNorm)
    }
    assert epsilons.pop("upscale_layer_norm") == 1e-6
    assert set(epsilons.values()) == {1e-5}

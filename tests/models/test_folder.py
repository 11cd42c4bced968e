"""Plain transformers folders. Oracle: transformers' own `SamModel.from_pretrained` on what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from specialsam.core.errors import ModelError
from specialsam.core.types import Prompts
from specialsam.models.folder import PROCESSOR, encoder_kind, load_pretrained, save_pretrained
from specialsam.models.nano import build_nano, nano_config
from specialsam.models.segmenter import Segmenter, fingerprint

torch.set_num_threads(1)
SIDE = 128
POINT = (50.0, 20.0)


@pytest.fixture(scope="module")
def conv() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("nano", build_nano("conv", SIDE), SIDE)


@pytest.fixture(scope="module")
def vit() -> Segmenter:
    """A small SAM with the ViT encoder of segment-anything, its weights of unit scale."""
    torch.manual_seed(0)
    sam = build_nano("vit", SIDE)
    for parameter in sam.vision_encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return Segmenter("small", sam, SIDE)


def picture() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8)


def click() -> Prompts:
    return Prompts("click", np.array([[POINT]], np.float32), np.ones((1, 1), np.int64))


def transformers_model(folder: Path) -> Any:
    from transformers import SamModel

    return SamModel.from_pretrained(folder).eval()


def masks_of(model: Any, **image: torch.Tensor) -> torch.Tensor:
    """Logits (1, 1, L, L) of transformers' own forward for the click, scaled by hand to the model's frame."""
    points = torch.tensor([[[POINT]]]) * SIDE / 100
    with torch.no_grad():
        answer: torch.Tensor = model(**image, input_points=points, multimask_output=False).pred_masks[0]
    return answer


def assert_same(one: torch.Tensor, other: torch.Tensor) -> None:
    """To single precision: what the rounding of another order of sums makes of it."""
    assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max())


def test_a_vit_is_a_plain_transformers_model(vit: Segmenter, tmp_path: Path) -> None:
    folder = save_pretrained(vit, tmp_path / "small")
    model = transformers_model(folder)
    assert encoder_kind(vit) == "vit"
    mine = vit.decode(vit.encode(picture()), click()).logits
    assert float(mine.std()) > 1e-3
    theirs = masks_of(model, pixel_values=vit.pixels(picture())[None])
    assert_same(mine, theirs)
    again = load_pretrained(folder)
    assert (again.name, again.side, again.encoder_id) == ("small", SIDE, vit.encoder_id)
    assert_same(again.decode(again.encode(picture()), click()).logits, mine)


def test_our_encoder_comes_back_bit_for_bit(conv: Segmenter, tmp_path: Path) -> None:
    folder = save_pretrained(conv, tmp_path / "nano")
    again = load_pretrained(folder)
    assert (again.name, again.side, again.source) == ("nano", SIDE, str(folder))
    assert (again.encoder_id, again.decoder_id) == (conv.encoder_id, conv.decoder_id)
    assert torch.equal(again.encode(picture()).tensor, conv.encode(picture()).tensor)
    assert not any(p.requires_grad for p in again.sam.parameters())
    assert not again.sam.training
    assert load_pretrained(folder, "mine").name == "mine"


def test_transformers_decodes_our_embeddings_and_shows_when_they_are_forgotten(conv: Segmenter, tmp_path: Path) -> None:
    model = transformers_model(save_pretrained(conv, tmp_path / "nano"))
    embedding = conv.encode(picture())
    theirs = masks_of(model, image_embeddings=embedding.tensor[None])
    assert_same(conv.decode(embedding, click()).logits, theirs)
    assert fingerprint(model.mask_decoder) == fingerprint(conv.sam.mask_decoder)  # type: ignore[arg-type]
    assert masks_of(model, pixel_values=conv.pixels(picture())[None]).isnan().all()


def test_half_precision_is_half_the_bytes_and_nearly_the_same(conv: Segmenter, tmp_path: Path) -> None:
    whole, half = save_pretrained(conv, tmp_path / "whole"), save_pretrained(conv, tmp_path / "half", half=True)
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.52 * sizes[0]
    again = load_pretrained(half)
    assert all(p.dtype == torch.float32 for p in again.sam.parameters())
    one, other = again.encode(picture()).tensor, conv.encode(picture()).tensor
    assert 0 < float((one - other).abs().max()) < 0.02


def test_tinyvit_nano(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny = Segmenter("tiny", build_nano("tinyvit", SIDE), SIDE)
    again = load_pretrained(save_pretrained(tiny, tmp_path / "tiny"))
    assert encoder_kind(tiny) == encoder_kind(again) == "tinyvit"
    assert torch.equal(again.encode(picture()).tensor, tiny.encode(picture()).tensor)


def test_an_earlier_folder_is_replaced_whole(
    conv: Segmenter, vit: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pretrained(conv, tmp_path / "deep" / "model")
    (folder / "left-over").write_text("")
    save_pretrained(vit, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", PROCESSOR]
    assert load_pretrained(folder).encoder_id == vit.encoder_id

    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", broken)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(conv, folder)
    assert load_pretrained(folder).encoder_id == vit.encoder_id
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_leaves_the_model_as_it_was(conv: Segmenter, tmp_path: Path) -> None:
    before = fingerprint(conv.sam)
    save_pretrained(conv, tmp_path / "nano", half=True)
    assert fingerprint(conv.sam) == before
    assert conv.sam.config == nano_config(SIDE)


def damaged(conv: Segmenter, folder: Path, how: str) -> Path:
    save_pretrained(conv, folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    fields = json.loads(config.read_text())
    if how == "no config":
        config.unlink()
    elif how == "config is no JSON":
        config.write_text("{")
    elif how == "config is no text":
        config.write_bytes(b"\xff\xfe\x00")
    elif how == "config is a list":
        config.write_text("[]")
    elif how == "encoder without side":
        del fields["specialsam_encoder"]["side"]
        config.write_text(json.dumps(fields))
    elif how == "no weights":
        weights.unlink()
    elif how == "half the weights":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif how == "another encoder":
        fields["specialsam_encoder"]["kind"] = "tinyvit"
        config.write_text(json.dumps(fields))
    elif how == "an unknown encoder":
        fields["specialsam_encoder"]["kind"] = "resnet"
        config.write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("no config", "expected a transformers folder with a config.json"),
        ("config is no JSON", "expected JSON in"),
        ("config is no text", "expected JSON in"),
        ("config is a list", "expected JSON in"),
        ("encoder without side", "expected kind, side and name"),
        ("no weights", "expected readable weights in"),
        ("half the weights", "expected readable weights in"),
        ("another encoder", "expected the weights of a tinyvit SAM"),
        ("an unknown encoder", "expected an encoder of lite, conv, tinyvit, got 'resnet'"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(conv: Segmenter, tmp_path: Path, how: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        load_pretrained(damaged(conv, tmp_path / "nano", how))
    assert "\n" not in str(caught.value)


def test_transformers_own_pipeline_gives_our_masks(vit: Segmenter, tmp_path: Path) -> None:
    """From a picture to masks at its size: `SamProcessor` and `SamModel` as their documentation uses them."""
    from transformers import SamModel, SamProcessor

    folder = save_pretrained(vit, tmp_path / "exported")
    processor, model = SamProcessor.from_pretrained(folder), SamModel.from_pretrained(folder)
    picture = np.random.default_rng(0).integers(0, 255, (75, 110, 3), dtype=np.uint8)
    asked = processor(picture, input_points=[[list(POINT)]], input_labels=[[1]], return_tensors="pt")
    torch.testing.assert_close(asked["pixel_values"][0], vit.pixels(picture), atol=1e-5, rtol=0)
    with torch.no_grad():
        answer = model(**asked, multimask_output=False)
    masks = processor.image_processor.post_process_masks(
        answer.pred_masks, asked["original_sizes"], asked["reshaped_input_sizes"], binarize=False
    )
    own = vit.decode(vit.encode(picture), Prompts("click", np.array([[POINT]], np.float32), np.ones((1, 1), np.int64)))
    torch.testing.assert_close(answer.pred_masks[0, 0], own.logits[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masks[0][0], own.geometry.logits_to_original(own.logits)[0], atol=1e-5, rtol=1e-5)

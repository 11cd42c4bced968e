"""Checkpoints in the forms that people have. The oracle is always the model that was written, by tensors and masks."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answered import masks_at
from safetensors.torch import save_file
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.models import weights
from specialsam.models.architectures import SHARED, SHARED_TOO, build, to_official, vit_config
from specialsam.models.checkpoints import DECODER, fold_unit_pixels, identify, unwrap
from specialsam.models.export import export_model
from specialsam.models.folder import save_pretrained
from specialsam.models.load import load_model
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD, Segmenter, fingerprint
from specialsam.models.zoo import CARDS, Card, VitNumbers

TINY = Card("tiny", "T", "", "tiny.pth", None, "none", "none", 1, 64, "vit", VitNumbers(32, 2, 2, (1,), 2), 32)
OTHER = replace(TINY, name="other", numbers=VitNumbers(48, 1, 2, (0,), 2))
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models are of the zoo here."""
    monkeypatch.setitem(CARDS, "tiny", TINY)


@pytest.fixture(scope="module")
def written() -> Any:
    torch.manual_seed(1)
    return lively(build(TINY))


@pytest.fixture
def official(written: Any) -> State:
    return {key: value.clone() for key, value in to_official(written.state_dict(), TINY).items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of another model of the same sizes."""
    torch.manual_seed(2)
    return save_pretrained(Segmenter("base", lively(build(TINY)), TINY.side), tmp_path / "base")


def lively(sam: Any) -> Any:
    """The model with weights by which its masks depend on every part; fresh ones give masks of nearly nothing."""
    for value in sam.parameters():
        value.normal_(std=value[0].numel() ** -0.5) if value.ndim > 1 else value.add_(torch.randn(value.shape) / 10)
    return sam


def masks(sam: Any, pixels: Tensor | None = None) -> Tensor:
    torch.manual_seed(3)
    drawn, points = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 1, 2) * 64
    with torch.no_grad():
        return masks_at(sam, drawn if pixels is None else pixels, points)


def refused(path: Path, *words: str, base: str | Path | None = None) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(path, base)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "sam.", "module.sam.", "net.", "a.b.c."]
)
def test_a_prefix_common_to_all_names_is_dropped(prefix: str, official: State, written: Any, tmp_path: Path) -> None:
    torch.save(prefixed(prefix, official), tmp_path / "w.pth")
    loaded = load_model(tmp_path / "w.pth")
    assert loaded.name == "tiny"
    assert fingerprint(loaded.sam) == fingerprint(written)


@pytest.mark.parametrize("wrap", ["_orig_mod", "module", "_fsdp_wrapped_module"])
def test_a_part_that_was_wrapped_by_itself(wrap: str, official: State, written: Any, tmp_path: Path) -> None:
    torch.save(
        {k.replace("image_encoder.", f"image_encoder.{wrap}."): v for k, v in official.items()}, tmp_path / "w.pt"
    )
    assert fingerprint(load_model(tmp_path / "w.pt").sam) == fingerprint(written)


ADAM = {"state": {0: {"step": torch.ones(1), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
WRAPPED: dict[str, Any] = {
    "lightning.ckpt": lambda s: {"state_dict": prefixed("model.", s), "epoch": 3, "optimizer_states": [ADAM]},
    "arguments.ckpt": lambda s: {"state_dict": prefixed("model.", s), "hyper_parameters": argparse.Namespace(lr=0.1)},
    "score.pt": lambda s: {"model": s, "optimizer": ADAM, "best": np.float64(0.5)},
    "net.pth": lambda s: {"net": s},
    "micro_sam_export.pt": lambda s: {"model_state": s, "decoder_state": {"out.weight": torch.zeros(2)}},
    "micro_sam_best.pt": lambda s: {"model_state": prefixed("sam.", s), "optimizer_state": ADAM, "iteration": 10},
    "deep.pth": lambda s: {"checkpoint": {"model": s}, "epoch": 1},
    "pytorch_model.bin": lambda s: s,
    "beside.pth": lambda s: s | {"epoch": 3},
    "twice.pth": lambda s: {"model": s, "ema": s},
    "odd.weights": lambda s: s,
    "parts.pth": lambda s: {
        part: {k.removeprefix(f"{part}."): v for k, v in s.items() if k.startswith(part)}
        for part in ("image_encoder", "prompt_encoder", "mask_decoder")
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_one_dictionary_that_fits_is_the_model(name: str, official: State, written: Any, tmp_path: Path) -> None:
    torch.save(WRAPPED[name](official), tmp_path / name)
    assert fingerprint(load_model(tmp_path / name).sam) == fingerprint(written)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth"])
def test_the_format_is_told_by_content(suffix: str, official: State, written: Any, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in official.items()}, tmp_path / f"w{suffix}")
    assert fingerprint(load_model(tmp_path / f"w{suffix}").sam) == fingerprint(written)


def test_two_models_that_differ_are_not_chosen_between(official: State, tmp_path: Path) -> None:
    torch.save({"model": official, "ema": {k: v + 1 for k, v in official.items()}}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "expected one model", "2 that differ (model, ema)")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors", ".bin"])
@pytest.mark.parametrize("tied", [True, False], ids=["both", "one"])
def test_transformers_names_without_a_folder(suffix: str, tied: bool, tmp_path: Path) -> None:
    """Oracle: masks of a model with the epsilon that transformers' own configuration has."""
    from transformers import SamModel

    torch.manual_seed(4)
    theirs = lively(SamModel(vit_config(TINY, 1e-6)).eval().requires_grad_(False))
    state = {k: v.clone() for k, v in theirs.state_dict().items() if tied or k != SHARED_TOO}
    state[SHARED] = state.get(SHARED_TOO, state[SHARED])
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        save_file({k: v.clone() for k, v in state.items()}, path)
    else:
        torch.save({"state_dict": prefixed("model.", state)}, path)
    theirs.load_state_dict(state | {SHARED_TOO: state[SHARED]})
    loaded = load_model(path)
    assert loaded.name == "tiny"
    assert fingerprint(loaded.sam) == fingerprint(theirs)
    torch.testing.assert_close(masks(loaded.sam), masks(theirs), rtol=1e-5, atol=1e-5)


def test_transformers_names_of_other_sizes_need_a_configuration(tmp_path: Path) -> None:
    """What the tensors do not tell (heads, epsilon) is taken from config.json beside the file or from a base."""
    torch.manual_seed(5)
    other = lively(build(OTHER))
    torch.save(other.state_dict(), tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "a transformers SamModel of other sizes", "config.json", "--base")
    folder = save_pretrained(Segmenter("other", build(OTHER), OTHER.side), tmp_path / "folder")
    assert fingerprint(load_model(tmp_path / "w.pth", folder).sam) == fingerprint(other)
    other.config.save_pretrained(tmp_path)
    loaded = load_model(tmp_path / "w.pth")
    assert loaded.side == 64
    torch.testing.assert_close(masks(loaded.sam), masks(other), rtol=1e-5, atol=1e-5)
    torch.save({k: v for k, v in other.state_dict().items() if "iou_token" not in k}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "1 missing (first: mask_decoder.iou_token.weight)")


@pytest.mark.parametrize("layout", ["official", "bare", "wrapped", "transformers", "with prompts"])
def test_a_decoder_is_put_on_a_base(layout: str, official: State, written: Any, base: Path, tmp_path: Path) -> None:
    """Oracle: a model of the base's encoder and the other's decoder, put together here."""
    keep = ("mask_decoder.", "prompt_encoder.") if layout == "with prompts" else ("mask_decoder.",)
    ours = written.state_dict()
    source = ours if layout == "transformers" else official
    state = {k: v for k, v in source.items() if k.startswith(keep)}
    if layout == "bare":
        state = {k.removeprefix("mask_decoder."): v for k, v in state.items()}
    path = tmp_path / "decoder.pth"
    torch.save({"model": prefixed("module.", state)} if layout == "wrapped" else state, path)
    first = load_model(base)
    before = fingerprint(first.sam)
    moved = (*keep, SHARED) if layout == "with prompts" else keep
    expected = build(TINY, "cpu", first.sam.config.mask_decoder_config.layer_norm_eps)  # type: ignore[union-attr]
    expected.load_state_dict(first.sam.state_dict() | {k: v for k, v in ours.items() if k.startswith(moved)})
    loaded = load_model(path, base)
    assert fingerprint(loaded.sam) == fingerprint(expected)
    assert loaded.encoder_id == first.encoder_id
    torch.testing.assert_close(masks(loaded.sam), masks(expected), rtol=1e-5, atol=1e-5)
    assert not any(value.requires_grad for value in loaded.sam.parameters())
    refused(path, DECODER, "--base")
    assert fingerprint(load_model(base).sam) == before
    assert fingerprint(load_model(export_model(str(path), tmp_path / "out", str(base))).sam) == fingerprint(expected)


def test_a_decoder_on_nano_and_on_a_zoo_file(tmp_path: Path, official: State, monkeypatch: pytest.MonkeyPatch) -> None:
    nano = load_model("nano")
    state = {k: v + 0.01 for k, v in nano.sam.state_dict().items() if k.startswith("mask_decoder.")}
    torch.save(state, tmp_path / "decoder.pth")
    loaded = load_model(tmp_path / "decoder.pth", "nano").sam.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    torch.save(official, tmp_path / "zoo.pth")
    monkeypatch.setattr("specialsam.models.weights.fetch", lambda card, progress: tmp_path / "zoo.pth")
    refused(tmp_path / "decoder.pth", "mask_decoder of tiny", "of another shape", base="tiny")


def test_a_prompt_encoder_without_its_positional_encoding_is_not_whole(
    official: State, base: Path, tmp_path: Path
) -> None:
    state = {k: v for k, v in official.items() if not k.startswith("image_encoder.") and "pe_layer" not in k}
    torch.save(state, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "1 missing", "positional_embedding", base=base)


def test_a_decoder_that_is_not_whole_is_never_put_on_a_base(official: State, base: Path, tmp_path: Path) -> None:
    state = {k: v for k, v in official.items() if k.startswith("mask_decoder.")}
    path = tmp_path / "decoder.pth"
    torch.save({k: v for k, v in state.items() if "norm_final_attn.bias" not in k}, path)
    refused(path, "1 missing (first: mask_decoder.transformer.norm_final_attn.bias)", base=base)
    torch.save(state | {"mask_decoder.more.weight": torch.ones(1)}, path)
    refused(path, "1 unknown (first: mask_decoder.more.weight)", base=base)
    torch.save(state | {"mask_decoder.iou_token.weight": torch.full((1, 32), torch.nan)}, path)
    refused(path, "NaN or infinity in mask_decoder.iou_token.weight", base=base)


class Adapted(nn.Module):
    """A layer with LoRA beside it, as peft runs it."""

    def __init__(self, layer: nn.Module, a: Tensor, b: Tensor, scale: float):
        super().__init__()
        self.layer, self.a, self.b, self.scale = layer, a, b, scale

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.layer(x) + self.scale * (x @ self.a.T) @ self.b.T
        return answer


SETTINGS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": None, "fan_in_fan_out": False}


def adapter(folder: Path, state: State, **settings: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    return folder


def pairs() -> State:
    torch.manual_seed(6)
    return {
        f"base_model.model.{module}.{side}.weight": torch.randn(shape) / 4
        for module, width in (("vision_encoder.layers.0.attn.qkv", 96), ("vision_encoder.layers.1.attn.qkv", 96))
        for side, shape in (("lora_A", (4, 32)), ("lora_B", (width, 4)))
    }


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("names", ["transformers", "official"])
def test_a_lora_adapter_is_merged(rslora: bool, names: str, base: Path, tmp_path: Path) -> None:
    """Oracle: the masks of the base with each adapted layer run as base layer plus low-rank branch."""
    state = pairs()
    whole = {"base_model.model.mask_decoder.iou_token.weight": torch.randn(1, 32)}
    expected: Any = load_model(base).sam
    for number in (0, 1):
        attention = expected.vision_encoder.layers[number].attn
        a, b = (state[f"base_model.model.vision_encoder.layers.{number}.attn.qkv.lora_{x}.weight"] for x in "AB")
        attention.qkv = Adapted(attention.qkv, a, b, 8 / (4**0.5 if rslora else 4))
    expected.mask_decoder.iou_token.weight.copy_(whole["base_model.model.mask_decoder.iou_token.weight"])
    if names == "official":
        state = {k.replace("vision_encoder.layers", "image_encoder.blocks"): v for k, v in state.items()}
    folder = adapter(tmp_path / "lora", state | whole, use_rslora=rslora)
    loaded = load_model(folder, base)
    torch.testing.assert_close(masks(loaded.sam), masks(expected), rtol=1e-4, atol=1e-4)
    assert (masks(loaded.sam) - masks(load_model(base).sam)).abs().max() > 1e-3
    refused(folder, "its settings name none", "--base")
    (folder / "adapter_config.json").write_text(
        json.dumps(SETTINGS | {"use_rslora": rslora, "base_model_name_or_path": str(base)})
    )
    for path in (folder, folder / "adapter_model.safetensors"):
        assert fingerprint(load_model(path).sam) == fingerprint(loaded.sam)


def test_heads_of_the_decoder_tell_the_layout(base: Path, tmp_path: Path) -> None:
    """The official layers 0 to 2 are proj_in, layers.0 and proj_out in transformers; 0 alone may be either's."""
    name = "mask_decoder.iou_prediction_head"
    weight = load_model(base).sam.state_dict()[f"{name}.proj_in.weight"]
    low = {"A": torch.randn(4, weight.shape[1]), "B": torch.randn(weight.shape[0], 4)}

    def pair(layer: str, sides: dict[str, Any]) -> State:
        return {f"base_model.model.{name}.{layer}.lora_{side}.weight": value for side, value in sides.items()}

    refused(adapter(tmp_path / "alone", pair("layers.0", low)), "tell the layout", base=base)
    last = load_model(base).sam.state_dict()[f"{name}.proj_out.weight"]
    more = {"A": torch.randn(4, last.shape[1]), "B": torch.randn(last.shape[0], 4)}
    merged = load_model(adapter(tmp_path / "official", pair("layers.0", low) | pair("layers.2", more)), base)
    first, now = load_model(base).sam.state_dict(), merged.sam.state_dict()
    torch.testing.assert_close(now[f"{name}.proj_in.weight"], weight + 2 * low["B"] @ low["A"])
    torch.testing.assert_close(now[f"{name}.proj_out.weight"], last + 2 * more["B"] @ more["A"])
    torch.testing.assert_close(now[f"{name}.layers.0.weight"], first[f"{name}.layers.0.weight"])


def test_scales_by_pattern_are_those_of_peft(base: Path, tmp_path: Path) -> None:
    """Oracle: the weights added by hand; the first expression that ends in the layer's name counts."""
    state, patterns = pairs(), {r"layers\.[1-9]\.attn\.qkv": 2, "qkv": 12, "attn.qkv": 100, "kv": 99}
    folder = adapter(tmp_path / "lora", state, alpha_pattern=patterns)
    first, merged = load_model(base).sam.state_dict(), load_model(folder, base).sam.state_dict()
    for layer, alpha in ((0, 12), (1, 2)):
        name = f"vision_encoder.layers.{layer}.attn.qkv"
        a, b = (state[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        torch.testing.assert_close(merged[f"{name}.weight"], first[f"{name}.weight"] + alpha / 4 * b @ a)
    refused(adapter(folder, state, alpha_pattern={"(": 1}), "peft's settings", base=base)


def test_a_convolution_with_lora(base: Path, tmp_path: Path) -> None:
    """Oracle: the convolution by A, then the one by B."""
    torch.manual_seed(7)
    a, b, x = torch.randn(4, 3, 16, 16), torch.randn(32, 4, 1, 1), torch.randn(1, 3, 64, 64)
    name = "base_model.model.vision_encoder.patch_embed.projection"
    folder = adapter(tmp_path / "lora", {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    first, merged = (
        (load_model(p, q).sam.vision_encoder.patch_embed.projection) for p, q in ((base, None), (folder, base))
    )  # type: ignore[union-attr]
    conv = nn.functional.conv2d
    branch = conv(conv(x, a, stride=16), b)
    torch.testing.assert_close(merged(x), first(x) + 2 * branch, rtol=1e-4, atol=1e-3)


def test_adapters_that_cannot_be_merged(base: Path, tmp_path: Path) -> None:
    state, folder = pairs(), tmp_path / "lora"
    first = next(iter(state))
    refused(adapter(folder, state, peft_type="LOHA"), "got LOHA", "merge_and_unload()", base=base)
    refused(adapter(folder, state, use_dora=True), "got DoRA", base=base)
    refused(adapter(folder, {k: v for k, v in state.items() if k != first}), "expected pairs", base=base)
    refused(
        adapter(folder, state | {first.replace("lora_A", "lora_magnitude_vector"): torch.ones(96)}), "pairs", base=base
    )
    other = {k.replace("layers.1", "layers.7"): v for k, v in state.items()}
    refused(adapter(folder, other), "vision_encoder.layers.7.attn.qkv.weight", "got none in base", "--base", base=base)
    strange = {"base_model.model.head.weight": torch.ones(1)}
    refused(adapter(folder, state | strange), "1 that it has not", "head.weight", base=base)
    refused(adapter(folder, state, base_model_name_or_path="some/sam"), "the adapter's settings name", "--trust-base")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "peft's settings of a LoRA adapter", base=base)
    (folder / "adapter_config.json").unlink()
    refused(folder / "adapter_model.safetensors", "adapter_config.json", "its scale is unknown", base=base)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
def test_buffers_of_sams_preprocessing_are_passed_over(
    shape: tuple[int, ...], official: State, written: Any, tmp_path: Path
) -> None:
    pixels = {"pixel_mean": torch.tensor(PIXEL_MEAN).view(shape), "pixel_std": torch.tensor(PIXEL_STD).view(shape)}
    torch.save(prefixed("module.", official | pixels), tmp_path / "w.pth")
    assert fingerprint(load_model(tmp_path / "w.pth").sam) == fingerprint(written)
    torch.save(official | pixels | {"pixel_mean": torch.zeros(shape)}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "SAM's pixel_mean", "(0.0, 0.0, 0.0)", "another scale")
    torch.save(official | {"pixel_mean": torch.zeros(shape), "epoch": 3}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "SAM's pixel_mean", "(0.0, 0.0, 0.0)", "another scale")


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_medsams_pixels(
    layout: str, written: Any, official: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: masks of the model that was written, given images of 0..1, against ours, given SAM's pixels."""
    monkeypatch.setattr("specialsam.models.load.MEDSAM_CARD", "tiny")
    path = tmp_path / "medsam_vit_b.pth"
    torch.save({"model": official if layout == "official" else written.state_dict(), "epoch": 1}, path)
    refused(path, "images scaled to 0..1", "--base medsam", "--base tiny")
    loaded = load_model(path, "medsam")
    assert loaded.name == "medsam"
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    theirs = torch.from_numpy(image).permute(2, 0, 1).float()[None].repeat(2, 1, 1, 1) / 255
    ours = loaded.pixels(image)[None].repeat(2, 1, 1, 1)
    torch.testing.assert_close(masks(loaded.sam, ours), masks(written, theirs), rtol=1e-3, atol=1e-3)
    assert fingerprint(load_model(path, "tiny").sam) == fingerprint(written)
    again = export_model(str(path), tmp_path / "sam-folder", "medsam")
    assert fingerprint(load_model(again).sam) == fingerprint(loaded.sam)


def test_a_folder_of_medsams_is_told_of(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(base, "expected a file for --base medsam", "model.safetensors", base="medsam")
    folder = base.rename(base.with_name("MedSAM-vit"))
    load_model(folder)
    assert "MedSAM-vit looks like MedSAM by its name" in "".join(capsys.readouterr())


def test_litemedsam_is_refused(tmp_path: Path, official: State) -> None:
    torch.save(official, tmp_path / "lite_medsam.pth")
    for base in (None, "medsam"):
        refused(tmp_path / "lite_medsam.pth", "expected MedSAM's sam_vit_b", "got tiny", "LiteMedSAM", base=base)


def test_the_scale_goes_into_the_first_layer_exactly(official: State) -> None:
    folded = fold_unit_pixels(official)
    assert [key for key in official if folded[key] is not official[key]] == [
        f"image_encoder.patch_embed.proj.{name}" for name in ("weight", "bias")
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["image_encoder.pos_embed", "mask_decoder.hf_token.weight"], "SAM-HQ, whose decoder"),
        (["vision_encoder.pos_embed", "mask_decoder.hq_token.weight"], "SAM-HQ"),
        (["image_encoder.trunk.pos_embed", "sam_mask_decoder.iou_token.weight"], "a part of SAM 2"),
        (["patch_embed.proj.weight", "pos_embed"], "an image encoder alone"),
        (["image_encoder.stages.0.weight", "mask_decoder.iou_token.weight"], "SAM's family that is not known"),
        (["vision_encoder.stem.0.0.weight", "mask_decoder.iou_token.weight"], "nano; give its folder"),
        (["conv1.weight", "fc.weight"], "unknown (2 tensors: conv1.weight, fc.weight)"),
    ],
)
def test_what_cannot_be_loaded_is_named(names: list[str], said: str, tmp_path: Path) -> None:
    torch.save({"model": {name: torch.ones(1) for name in names}}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "w.pth looks like", said)


def test_a_program_is_named_and_never_run(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "w.pt")
    refused(tmp_path / "w.pt", "a TorchScript program, which is never run", "state_dict()")


def test_a_missing_tensor_is_never_made_up(official: State, tmp_path: Path) -> None:
    for wrap in (lambda s: s, lambda s: {"net": prefixed("module.", s)}):
        torch.save(
            wrap({k: v for k, v in official.items() if k != "mask_decoder.iou_token.weight"}), tmp_path / "w.pth"
        )
        refused(tmp_path / "w.pth", "1 missing (first: mask_decoder.iou_token.weight)")


def test_unwrapping_changes_no_tensor(official: State) -> None:
    inner = unwrap({"a": {"b": prefixed("x.y.", official)}}, Path("w.pth"))
    assert inner.keys() == official.keys()
    assert all(inner[key] is value for key, value in official.items())
    assert identify(inner) == "tiny"
    assert weights.identify is identify

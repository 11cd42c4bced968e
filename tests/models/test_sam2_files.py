"""SAM 2.1 and SAM 3 in files: Meta's names, transformers' folders, specialists, licences, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_sams import (
    CARDS,
    MODELS,
    TOLERANCE,
    answered,
    image,
    prompts,
    segmenter,
)
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.models import levels
from specialsam.models.architectures import build, to_official, to_transformers
from specialsam.models.checkpoints import identify, said_of
from specialsam.models.export import NOTICE, export_model
from specialsam.models.folder import PROCESSOR, save_pretrained
from specialsam.models.load import load_model
from specialsam.models.specialist import SpecialistCard, clone, licence_of, load_specialist, save_specialist
from specialsam.models.zoo import CARDS as ZOO
from specialsam.models.zoo import SAM3_LICENCE
from specialsam.training.tuning import prepare

OFFICIAL_2 = (
    "image_encoder.trunk.pos_embed",
    "image_encoder.trunk.pos_embed_window",
    "image_encoder.trunk.patch_embed.proj.weight",
    "image_encoder.trunk.blocks.0.norm1.weight",
    "image_encoder.trunk.blocks.1.attn.qkv.weight",
    "image_encoder.trunk.blocks.1.attn.proj.bias",
    "image_encoder.trunk.blocks.1.proj.weight",
    "image_encoder.trunk.blocks.4.mlp.layers.0.weight",
    "image_encoder.trunk.blocks.4.mlp.layers.1.bias",
    "image_encoder.neck.convs.3.conv.weight",
)
OFFICIAL_3 = (
    "detector.backbone.vision_backbone.trunk.pos_embed",
    "detector.backbone.vision_backbone.trunk.patch_embed.proj.weight",
    "detector.backbone.vision_backbone.trunk.ln_pre.weight",
    "detector.backbone.vision_backbone.trunk.blocks.1.norm2.weight",
    "detector.backbone.vision_backbone.trunk.blocks.1.attn.qkv.bias",
    "detector.backbone.vision_backbone.trunk.blocks.1.attn.proj.weight",
    "detector.backbone.vision_backbone.trunk.blocks.0.mlp.fc2.weight",
    "detector.backbone.vision_backbone.sam2_convs.0.dconv_2x2_0.weight",
    "detector.backbone.vision_backbone.sam2_convs.0.dconv_2x2_1.bias",
    "detector.backbone.vision_backbone.sam2_convs.1.dconv_2x2.weight",
    "detector.backbone.vision_backbone.sam2_convs.2.conv_1x1.weight",
    "detector.backbone.vision_backbone.sam2_convs.2.conv_3x3.bias",
)
OFFICIAL_DECODER = (
    "no_mem_embed",
    "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "sam_prompt_encoder.point_embeddings.3.weight",
    "sam_prompt_encoder.not_a_point_embed.weight",
    "sam_prompt_encoder.no_mask_embed.weight",
    "sam_prompt_encoder.mask_downscaling.0.weight",
    "sam_prompt_encoder.mask_downscaling.1.weight",
    "sam_prompt_encoder.mask_downscaling.6.bias",
    "sam_mask_decoder.iou_token.weight",
    "sam_mask_decoder.mask_tokens.weight",
    "sam_mask_decoder.obj_score_token.weight",
    "sam_mask_decoder.transformer.layers.1.self_attn.out_proj.weight",
    "sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight",
    "sam_mask_decoder.transformer.layers.0.cross_attn_image_to_token.out_proj.bias",
    "sam_mask_decoder.transformer.layers.1.mlp.layers.0.weight",
    "sam_mask_decoder.transformer.layers.1.mlp.layers.1.weight",
    "sam_mask_decoder.transformer.layers.0.norm4.weight",
    "sam_mask_decoder.transformer.final_attn_token_to_image.out_proj.weight",
    "sam_mask_decoder.transformer.norm_final_attn.weight",
    "sam_mask_decoder.output_upscaling.0.weight",
    "sam_mask_decoder.output_upscaling.1.weight",
    "sam_mask_decoder.output_upscaling.3.bias",
    "sam_mask_decoder.conv_s0.weight",
    "sam_mask_decoder.conv_s1.bias",
    "sam_mask_decoder.output_hypernetworks_mlps.3.layers.0.weight",
    "sam_mask_decoder.output_hypernetworks_mlps.3.layers.1.weight",
    "sam_mask_decoder.output_hypernetworks_mlps.0.layers.2.bias",
    "sam_mask_decoder.iou_prediction_head.layers.1.weight",
    "sam_mask_decoder.pred_obj_score_head.layers.2.weight",
)
"""Names of Meta's checkpoints, one of each kind of tensor, written down by hand."""
FOR_VIDEOS = {
    "": ("maskmem_tpos_enc", "no_mem_pos_enc", "no_obj_ptr", "memory_attention.layers.0.norm1.weight"),
    "tracker.": ("tracker.maskmem_tpos_enc", "tracker.obj_ptr_proj.x", "detector.transformer.decoder.norm.weight"),
}
"""And of what a single image does not need."""


def official(kind: str) -> dict[str, Tensor]:
    """A model of these tests as Meta lays it out, with what videos and texts need beside it."""
    own, card = segmenter(kind), CARDS[kind]
    state = to_official(own.sam.state_dict(), card)
    if kind == "sam3":
        trunk = "detector.backbone.vision_backbone.trunk."
        for block in range(2):
            for part in ("weight", "bias"):
                names = [f"{trunk}blocks.{block}.attn.{letter}_proj.{part}" for letter in "qkv"]
                state[f"{trunk}blocks.{block}.attn.qkv.{part}"] = torch.cat([state.pop(name) for name in names])
            state[f"{trunk}blocks.{block}.attn.freqs_cis"] = torch.zeros(4, 2)
        positions = state[f"{trunk}pos_embed"]
        state[f"{trunk}pos_embed"] = torch.cat([torch.ones_like(positions[:, :1]), positions], 1)
        state["detector.backbone.vision_backbone.sam2_convs.3.conv_1x1.weight"] = torch.zeros(16, 16, 1, 1)
        points = state.pop("tracker.sam_prompt_encoder.point_embed.weight")
        for number, row in enumerate(points):
            state[f"tracker.sam_prompt_encoder.point_embeddings.{number}.weight"] = row[None]
    more = FOR_VIDEOS["tracker." if kind == "sam3" else ""]
    return {name: value.clone() for name, value in state.items()} | {name: torch.zeros(2) for name in more}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo with the small models of these tests in it."""
    for card in CARDS.values():
        monkeypatch.setitem(ZOO, card.name, card)


@MODELS
def test_the_official_layout_becomes_the_model_and_back(kind: str) -> None:
    """Oracle: the names above, and every tensor of the model that was laid out."""
    state = official(kind)
    prefix = "tracker." if kind == "sam3" else ""
    wanted = (*(OFFICIAL_3 if kind == "sam3" else OFFICIAL_2), *(f"{prefix}{name}" for name in OFFICIAL_DECODER))
    assert [name for name in wanted if name not in state] == []
    own = segmenter(kind).sam.state_dict()
    there = to_transformers(state, CARDS[kind])
    assert there.keys() == own.keys()
    assert all(torch.equal(there[name], own[name]) for name in own)
    if kind == "sam2":
        back = to_official(there, CARDS[kind])
        assert back.keys() == {name for name in state if name not in FOR_VIDEOS[""]}
        assert all(torch.equal(back[name], state[name]) for name in back)


@MODELS
def test_an_official_checkpoint_is_told_and_loaded(kind: str, known: None, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": official(kind)}, path)
    loaded, own = load_model(path), segmenter(kind)
    assert (loaded.name, loaded.side) == (CARDS[kind].name, CARDS[kind].side)
    assert (loaded.encoder_id, loaded.decoder_id) == (own.encoder_id, own.decoder_id)
    picture = image((60, 97))
    torch.testing.assert_close(loaded.encode(picture).tensor, own.encode(picture).tensor)


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].encoder in ("hiera", "perception")])
def test_published_sizes_are_told_from_each_other(name: str) -> None:
    """Oracle: a model of the card's own sizes, without memory, by Meta's names."""
    card = ZOO[name]
    sam = build(card, "meta")
    assert sum(value.numel() for value in sam.parameters()) == card.parameters
    state = to_official(sam.state_dict(), card)
    assert identify(state) == name
    assert identify(levels.theirs(sam.state_dict())) == "a transformers SamModel"
    fewer = {key: value for key, value in state.items() if ".blocks.3." not in key}
    assert identify(fewer) not in ZOO


@MODELS
def test_a_transformers_folder_is_written_and_read(kind: str, tmp_path: Path) -> None:
    """Oracle: transformers' own class, which loads the folder and answers alike."""
    import transformers

    own, picture = segmenter(kind), image((60, 97))
    folder = save_pretrained(own, tmp_path / "model")
    loaded = load_model(folder)
    assert (loaded.encoder_id, loaded.decoder_id, loaded.side) == (own.encoder_id, own.decoder_id, own.side)
    model = {"sam2": "Sam2Model", "sam3": "Sam3TrackerModel"}[kind]
    other, info = getattr(transformers, model).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    given = prompts("point", (60, 97), 32)
    logits, *_ = answered(other.eval(), own.pixels(picture), own.geometry(picture.shape), given, True)
    answer = own.decode(own.encode(picture), given, multimask=True)
    torch.testing.assert_close(answer.logits, logits, atol=TOLERANCE, rtol=TOLERANCE)
    told = json.loads((folder / PROCESSOR).read_text())
    assert told["size"] == {"height": own.side, "width": own.side}
    assert told["image_mean"] == pytest.approx([0.485, 0.456, 0.406] if kind == "sam2" else [0.5] * 3)


def test_a_folder_of_four_levels_is_read_with_three(tmp_path: Path) -> None:
    """As `facebook/sam3` has it: the fourth is taken away, and a fresh tracker of transformers answers the same."""
    from transformers import Sam3TrackerModel

    config = segmenter("sam3").sam.config.to_dict()  # type: ignore[union-attr, operator]
    config["vision_config"]["scale_factors"] = [4.0, 2.0, 1.0, 0.5]
    torch.manual_seed(0)
    four = Sam3TrackerModel(Sam3TrackerModel.config_class(**config)).eval()
    assert len(four.vision_encoder.neck.fpn_layers) == 4
    four.prompt_encoder.shared_embedding.positional_embedding.copy_(four.shared_image_embedding.positional_embedding)
    four.save_pretrained(tmp_path)
    own, picture, given = load_model(tmp_path), image((60, 97)), prompts("box", (60, 97), 32)
    assert len(own.encoder.neck.fpn_layers) == 3  # type: ignore[union-attr, arg-type]
    logits, *_ = answered(four, own.pixels(picture), own.geometry(picture.shape), given, True)
    answer = own.decode(own.encode(picture), given, multimask=True)
    torch.testing.assert_close(answer.logits, logits, atol=TOLERANCE, rtol=TOLERANCE)


@MODELS
def test_a_folder_that_is_made_for_videos_gives_the_part_for_images(kind: str, tmp_path: Path) -> None:
    """As Meta's folders on the hub are: another `model_type`, SAM 3's parts under other names, and more beside them."""
    own = segmenter(kind)
    config = own.sam.config.to_dict()  # type: ignore[union-attr, operator]
    state = {name: value.clone() for name, value in levels.theirs(own.sam.state_dict()).items()}
    if kind == "sam2":
        told = config | {"model_type": "sam2_video", "memory_attention_num_layers": 4}
        more = ("memory_attention.x", "memory_temporal_positional_encoding", "no_object_pointer")
    else:
        config["vision_config"]["scale_factors"] = [4.0, 2.0, 1.0, 0.5]
        told = {"model_type": "sam3_video", "tracker_config": config | {"model_type": "sam3_tracker_video"}}
        places = (("vision_encoder.backbone.", "detector_model.vision_encoder.backbone."),)
        places += (("vision_encoder.neck.", "tracker_neck."), ("", "tracker_model."))
        state = {
            next(new + name[len(old) :] for old, new in places if name.startswith(old)): value
            for name, value in state.items()
        }
        for name, shape in (("proj1", (16, 16, 1, 1)), ("proj2", (16, 16, 3, 3))):
            state |= {f"tracker_neck.fpn_layers.3.{name}.weight": torch.zeros(shape)}
            state |= {f"tracker_neck.fpn_layers.3.{name}.bias": torch.zeros(16)}
        more = ("detector_model.text_encoder.x", "tracker_model.memory_attention.x")
    save_file(state | {name: torch.zeros(2) for name in more}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(told))
    loaded = load_model(tmp_path)
    assert loaded.preprocessing == own.preprocessing
    assert (loaded.encoder_id, loaded.decoder_id, loaded.side) == (own.encoder_id, own.decoder_id, own.side)


def test_a_file_of_transformers_names_loads_on_a_known_size(known: None, tmp_path: Path) -> None:
    own = segmenter("sam2")
    state = {name: value.clone() for name, value in levels.theirs(own.sam.state_dict()).items()}
    save_file(state | {"memory_attention.x": torch.zeros(2)}, tmp_path / "other.safetensors")
    loaded = load_model(tmp_path / "other.safetensors", "tiny")
    assert (loaded.encoder_id, loaded.decoder_id) == (own.encoder_id, own.decoder_id)


def test_a_specialist_is_saved_and_loaded_on_its_base(tmp_path: Path) -> None:
    own = segmenter("sam3")
    tuned = clone(own, "tuned")
    with torch.no_grad():
        tuned.sam.mask_decoder.iou_token.weight.add_(0.5)  # type: ignore[union-attr, operator]
    card = SpecialistCard(
        name="tuned",
        base="somewhere",
        base_encoder_id=own.encoder_id,
        base_decoder_id=own.decoder_id,
        base_licence=licence_of(own),
        side=own.side,
        tuned="decoder",
    )
    save_specialist(tuned, card, tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "conv_s" in name or "no_memory" in name]
    loaded = load_specialist(tmp_path, own)
    assert loaded.decoder_id == tuned.decoder_id != own.decoder_id
    assert licence_of(loaded) == json.loads((tmp_path / "specialist.json").read_text())["base_licence"] == SAM3_LICENCE


def test_sam_3s_licence_goes_along_with_what_is_exported(tmp_path: Path) -> None:
    for kind in CARDS:
        save_pretrained(segmenter(kind), tmp_path / kind)
        export_model(str(tmp_path / kind), tmp_path / f"{kind}-out")
    assert SAM3_LICENCE in (tmp_path / "sam3-out" / NOTICE).read_text()
    assert not (tmp_path / "sam2-out" / NOTICE).exists()


def line_of(call: Any) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_done_with_several_levels_is_refused_in_one_line(known: None, tmp_path: Path) -> None:
    base = str(save_pretrained(segmenter("sam2"), tmp_path / "base"))
    for out, kind in (("a", "onnx"), ("b", "openvino"), ("c", "x-anylabeling"), ("d.pth", "torch")):
        assert "several levels" in line_of(lambda out=out, kind=kind: export_model(base, tmp_path / out, kind=kind))
    torch.save(
        {"iou_token.weight": torch.zeros(1, 16), "mask_tokens.weight": torch.zeros(4, 16)}, tmp_path / "part.pth"
    )
    assert "save the whole model" in line_of(lambda: load_model(tmp_path / "part.pth", base))
    assert "tune the decoder" in line_of(lambda: prepare(clone(segmenter("sam2")).sam, "tail"))
    part = {name: value for name, value in official("sam2").items() if name.startswith("sam_")}
    assert "a part of SAM 2" in said_of(part)
    assert "a part of SAM 3" in said_of({name: v for name, v in official("sam3").items() if "trunk" in name})
    broken = official("sam2")
    del broken["sam_mask_decoder.pred_obj_score_head.layers.1.bias"]
    torch.save(broken, tmp_path / "broken.pt")
    assert "1 missing (first: sam_mask_decoder.pred_obj_score_head.layers.1.bias)" in line_of(
        lambda: load_model(tmp_path / "broken.pt")
    )


def test_edgetam_is_refused_for_want_of_timm(tmp_path: Path) -> None:
    names = (
        "image_encoder.trunk.body.stem_0.c.weight",
        "sam_mask_decoder.iou_token.weight",
        "spatial_perceiver.latents",
    )
    torch.save({"model": {name: torch.zeros(1, 4) for name in names}}, tmp_path / "edgetam.pt")
    assert re.search("EdgeTAM.*timm", line_of(lambda: load_model(tmp_path / "edgetam.pt")))
    folder = tmp_path / "edgetam"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "edgetam"}))
    assert re.search("EdgeTAM.*timm", line_of(lambda: load_model(folder)))

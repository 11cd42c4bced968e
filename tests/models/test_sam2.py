"""SAM 2.1 and SAM 3's tracker against transformers' own models with the same random weights; their official names.

transformers' `Sam3TrackerModel` of four levels adds the embedding of "no memory" to the one that it throws away; of the
three levels that are left here it adds it where Meta's own code does, so that it is the oracle with three.
"""

from __future__ import annotations

import functools
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Prompts
from specialsam.embeddings import EmbeddingStore
from specialsam.embeddings.shards import Entry, checksum
from specialsam.models import levels
from specialsam.models.architectures import build, to_official, to_transformers
from specialsam.models.checkpoints import identify, said_of
from specialsam.models.decode import dynamic_single
from specialsam.models.export import NOTICE, export_model
from specialsam.models.finder import Finder, propose
from specialsam.models.folder import PROCESSOR, save_pretrained
from specialsam.models.load import load_model
from specialsam.models.segmenter import ALL, SINGLE, THREE, Segmenter
from specialsam.models.specialist import SpecialistCard, clone, licence_of, load_specialist, save_specialist
from specialsam.models.zoo import CARDS as ZOO
from specialsam.models.zoo import SAM3_LICENCE, Card, HieraNumbers, PerceptionNumbers
from specialsam.training.finder import targets
from specialsam.training.tuning import prepare

TOLERANCE = 1e-4
HIERA = HieraNumbers(width=8, heads=1, blocks=(1, 1, 2, 1), global_blocks=(3,), windows=(8, 4, 4, 2), background=2)
PERCEPTION = PerceptionNumbers(16, 32, 2, 2, (1,), window=2, trained_side=56)
SAM2 = Card("tiny", "T", "", "tiny.pt", None, "none", "none", 1, 128, "hiera", HIERA, 16)
SAM3 = Card("tiny3", "T", "", "tiny3.pt", None, "none", "none", 1, 112, "perception", PERCEPTION, 16)
CARDS = {"sam2": SAM2, "sam3": SAM3}
SIZES = ((90, 90), (60, 97), (131, 70))
MODELS = pytest.mark.parametrize("kind", CARDS)


def random_model(card: Card) -> Any:
    """A model of a card, no weight of which is at rest where training would have moved it."""
    torch.manual_seed(7)
    sam = build(card)
    with torch.no_grad():
        for name, value in sam.named_parameters():
            if not name.endswith("norm.weight") and "layer_norm" not in name:
                value.copy_(torch.randn_like(value) * (0.6 if value.ndim < 2 else 1.2 / value[0].numel() ** 0.5))
    return sam


@functools.cache
def segmenter(kind: str) -> Segmenter:
    """One of these tests' models, to be read only."""
    card = CARDS[kind]
    return Segmenter(card.name, random_model(card).requires_grad_(False), card.side)


@functools.cache
def reference(kind: str) -> Any:
    """transformers' own model with the same weights, built by its own configuration."""
    from transformers import Sam2Model, Sam3TrackerModel

    own = segmenter(kind)
    kinds = {"sam2": Sam2Model, "sam3_tracker": Sam3TrackerModel}
    other: Any = kinds[own.sam.config.model_type](own.sam.config).eval()  # type: ignore[union-attr, index]
    other.load_state_dict(levels.theirs(own.sam.state_dict()))
    return other


def image(size: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(0, 256, (*size, 3)), np.uint8)


def prompts(kind: str, size: tuple[int, int], side: int) -> Prompts:
    """Prompts of a kind for three objects."""
    rng = np.random.default_rng(1)
    extent = np.array(size[::-1], np.float32)
    points = (rng.random((3, 2, 2)) * extent).astype(np.float32)
    labels = np.array([[1, 0], [1, 1], [1, 0]], np.int64)
    boxes = np.concatenate([points.min(1), points.max(1) + 1], 1).astype(np.float32)
    masks = rng.normal(0, 4, (3, side, side)).astype(np.float32)
    parts: dict[str, Any] = {}
    if "point" in kind:
        parts |= {"points": points, "labels": labels}
    if "box" in kind:
        parts["boxes"] = boxes
    if "mask" in kind:
        parts["masks"] = masks
    return Prompts(kind, **parts)


KINDS = ("point", "box", "point and box", "mask", "point and mask", "box and mask")


def answered(other: Any, pixels: Tensor, geometry: Geometry, given: Prompts, multimask: bool) -> tuple[Tensor, ...]:
    """Logits (P, C, L, L), scores (P, C) and presence (P,) of transformers' model, its objects one after another.

    Its coordinates are scaled as its processor does it: each axis by itself.
    """
    scale = np.array([geometry.side / geometry.width, geometry.side / geometry.height], np.float32)
    out = []
    for place in range(len(given)):
        inputs: dict[str, Any] = {}
        if given.points is not None and given.labels is not None:
            inputs["input_points"] = torch.from_numpy(given.points[place] * scale)[None, None]
            inputs["input_labels"] = torch.from_numpy(given.labels[place])[None, None]
        if given.boxes is not None:
            inputs["input_boxes"] = torch.from_numpy(given.boxes[place] * np.tile(scale, 2))[None, None]
        if given.masks is not None:
            inputs["input_masks"] = torch.from_numpy(given.masks[place])[None, None]
        with torch.no_grad():
            answer = other(pixel_values=pixels[None], multimask_output=multimask, **inputs)
        out.append((answer.pred_masks[0, 0], answer.iou_scores[0, 0], answer.object_score_logits[0, 0, 0]))
    return tuple(torch.stack(parts) for parts in zip(*out, strict=True))


@MODELS
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("asked", KINDS)
def test_answers_are_those_of_transformers(kind: str, size: tuple[int, int], asked: str) -> None:
    """Oracle: `Sam2Model` and `Sam3TrackerModel` from pixels on, three masks and one, chosen in their way."""
    own, other = segmenter(kind), reference(kind)
    embedding = own.encode(image(size))
    given = prompts(asked, size, embedding.geometry.logits_side)
    for outputs, multimask in ((THREE, True), (SINGLE, False)):
        answer = own.decode_outputs(embedding, given, outputs)
        logits, scores, present = answered(other, own.pixels(image(size)), embedding.geometry, given, multimask)
        assert answer.logits.std() > 0.1
        torch.testing.assert_close(answer.logits, logits, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(answer.scores, scores, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(answer.present, present, atol=TOLERANCE, rtol=TOLERANCE)


def test_both_ways_of_choosing_a_single_mask_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the rule by hand on planes of one value, and a threshold that no answer above can miss or reach."""
    sam = build(SAM2)
    planes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.01, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0]])
    logits = planes[..., None, None].expand(3, 4, 8, 8)
    scores = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.1, 0.2, 0.9, 0.3], [0.1, 0.2, 0.3, 0.9]])
    masks, own = dynamic_single(sam, logits, scores)
    assert masks[:, :, 0, 0].tolist() == [[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0]]
    assert own[:, 0].tolist() == pytest.approx([0.1, 0.9, 0.1])
    assert torch.equal(masks[:, 1:], logits[:, 1:])
    model = segmenter("sam2")
    embedding, given = model.encode(image((60, 97))), prompts("point", (60, 97), 32)
    every = model.forward(embedding.tensor[None], [embedding.geometry], [given], ALL)[0]
    for threshold, expected in ((0.0, every[:, 0]), (1.1, None)):
        monkeypatch.setattr(model.sam.mask_decoder, "dynamic_multimask_stability_thresh", threshold)
        answer = model.decode(embedding, given)
        best = model.decode(embedding, given, multimask=True).best()
        torch.testing.assert_close(answer.logits[:, 0], best.logits[:, 0] if expected is None else expected)


@MODELS
def test_a_batch_of_images_is_its_images_one_by_one(kind: str) -> None:
    """Oracle: the loop, for the encoder and for the decoder with two images of different sizes at once."""
    own = segmenter(kind)
    images = [image(size, seed) for seed, size in enumerate(SIZES)]
    together = own.encode_batch(images)
    for one, picture in zip(together, images, strict=True):
        alone = own.encode(picture)
        assert one.geometry == alone.geometry
        torch.testing.assert_close(one.tensor, alone.tensor, atol=1e-5, rtol=1e-5)
    given = [prompts("point and box", size, 32) for size in SIZES]
    tensors = torch.stack([one.tensor for one in together])
    logits, scores = own.forward(tensors, [one.geometry for one in together], given, ALL)
    alone = [
        own.forward(one.tensor[None], [one.geometry], [asked], ALL) for one, asked in zip(together, given, strict=True)
    ]
    torch.testing.assert_close(logits, torch.cat([part[0] for part in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores, torch.cat([part[1] for part in alone]), atol=1e-5, rtol=1e-5)


@MODELS
def test_an_embedding_holds_every_value_of_every_level(kind: str) -> None:
    """Oracle: what transformers' own model computes of an image, put together again from the folded channels."""
    own, other = segmenter(kind), reference(kind)
    picture = image((60, 97))
    tensor = own.encode(picture).tensor
    with torch.no_grad():
        fine, middle, coarse = other.get_image_embeddings(own.pixels(picture)[None])
    width, cells = coarse.shape[1], coarse.shape[2]
    assert tensor.shape == own.embedding_shape == (4 * width, cells, cells)
    torch.testing.assert_close(tensor[:width], coarse[0], atol=1e-5, rtol=1e-5)
    for row, column in ((0, 0), (3, 5), (cells - 1, 2)):
        cell = tensor[width:, row, column]
        for y in range(2):
            for x in range(2):
                place = (2 * y + x) * (width // 4)
                expected = middle[0, :, 2 * row + y, 2 * column + x]
                torch.testing.assert_close(cell[place : place + width // 4], expected, atol=1e-5, rtol=1e-5)
                for v in range(2):
                    for u in range(2):
                        start = width + ((2 * y + x) * 4 + 2 * v + u) * (width // 8)
                        expected = fine[0, :, 4 * row + 2 * y + v, 4 * column + 2 * x + u]
                        torch.testing.assert_close(cell[start : start + width // 8], expected, atol=1e-5, rtol=1e-5)


@MODELS
def test_pixels_are_those_of_transformers_processor(kind: str) -> None:
    """Oracle: its formula, (resized / 255 - mean) / std with ImageNet's values for SAM 2 and halves for SAM 3."""
    own, picture = segmenter(kind), image((60, 97))
    mean, std = {
        "sam2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "sam3": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }[kind]
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (own.side, own.side), mode="bilinear", antialias=True)[0]
    expected = (resized / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(own.pixels(picture), expected, atol=1e-5, rtol=1e-5)


def test_what_makes_the_finer_levels_is_the_encoder_and_frozen() -> None:
    own = segmenter("sam2")
    for name in ("conv_s0.weight", "conv_s1.bias", "no_memory_embedding"):
        other = clone(own, share_encoder=False)
        with torch.no_grad():
            other.encoder.get_parameter(name).add_(1)
        assert other.encoder_id != own.encoder_id
        assert other.decoder_id == own.decoder_id
    learned = clone(own)
    prepare(learned.sam, "decoder+prompt")
    names = {name for name, value in learned.sam.named_parameters() if value.requires_grad}
    assert "mask_decoder.obj_score_token.weight" in names
    assert not any(name.startswith("vision_encoder.") for name in names)
    assert not any("conv_s" in name or "no_memory" in name for name in names)


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


def test_a_file_of_transformers_names_loads_on_a_known_size(known: None, tmp_path: Path) -> None:
    own = segmenter("sam2")
    state = {name: value.clone() for name, value in levels.theirs(own.sam.state_dict()).items()}
    save_file(state | {"memory_attention.x": torch.zeros(2)}, tmp_path / "other.safetensors")
    loaded = load_model(tmp_path / "other.safetensors", "tiny")
    assert (loaded.encoder_id, loaded.decoder_id) == (own.encoder_id, own.decoder_id)


@pytest.mark.parametrize(
    ("kind", "shape", "half", "eighth"),
    [("sam2.1_hiera_tiny", (1024, 64, 64), 8.0, 4.0), ("sam3_tracker", (1024, 72, 72), 10.125, 5.0625)],
)
def test_the_store_holds_all_levels_in_the_promised_room(
    kind: str, shape: tuple[int, int, int], half: float, eighth: float, tmp_path: Path
) -> None:
    """8 MiB an image in half precision and 4 in int8 (SAM 3: 10.1 and 5.1), with the frames that it was made in."""
    from specialsam.core.types import Embedding

    card = ZOO[kind]
    own = Segmenter(kind, build(card, "meta"), card.side)
    assert own.embedding_shape == shape
    embedding = Embedding(torch.randn(shape, generator=torch.Generator().manual_seed(0)), own.geometry((300, 400)))
    for precision, mebibytes in (("half", half), ("int8", eighth)):
        store = EmbeddingStore(tmp_path / precision, "someone", precision)  # type: ignore[arg-type]
        with store.writer() as writer:
            entry = writer.put("0" * 64, embedding, "one")
        assert entry.bytes / 2**20 == pytest.approx(mebibytes, rel=0.002)
        again = EmbeddingStore(tmp_path / precision, "someone", precision)  # type: ignore[arg-type]
        found = again.get("0" * 64)
        assert found.geometry == embedding.geometry
        torch.testing.assert_close(found.tensor.float(), embedding.tensor, atol=0.03, rtol=0.01)
        (tmp_path / precision / "someone" / "index.parquet").unlink()
        assert EmbeddingStore(tmp_path / precision, "someone", precision).get("0" * 64).geometry == embedding.geometry  # type: ignore[arg-type]


def test_what_was_stored_before_there_were_stretched_frames_is_read_as_ever() -> None:
    """Oracle: an entry of the earlier format, without the two new fields, and its sum by the earlier rule."""
    facts = {"key": "k", "record": "r", "view": "", "height": 60, "width": 97, "side": 128}
    shape = {"channels": 4, "rows": 8, "columns": 8}
    entry = Entry(**facts, shard="s", **shape, precision="half", encoder="e", created=1.0)  # type: ignore[arg-type]
    assert entry.geometry == Geometry(60, 97, 128)
    values = torch.randn(4, 8, 8).half()
    said = json.dumps([*facts.values(), 4, 8, 8, "half", "e"]).encode()
    assert checksum(entry, None, values) == zlib.crc32(values.numpy().tobytes(), zlib.crc32(said))
    assert checksum(replace(entry, stretched=True), None, values) != checksum(entry, None, values)


@MODELS
def test_a_finder_of_a_stretched_frame_learns_boxes_where_they_are(kind: str) -> None:
    """Oracle: the box of the mask by hand, scaled with each side, to a logit; proposals lie in the image."""
    own = segmenter(kind)
    mask = np.zeros((1, 60, 97), np.bool_)
    mask[0, 12:40, 20:70] = True
    truth = targets(mask, own.geometry((60, 97)))
    row, column = (int(place) for place in torch.nonzero(truth.middle == 1)[0])
    cell, side = own.geometry((60, 97)).cell, own.side
    left, top, right, bottom = (float(value) for value in truth.sides[:, row, column])
    x, y = column * cell + cell / 2, row * cell + cell / 2
    expected = np.array([20 / 97, 12 / 60, 70 / 97, 40 / 60]) * side
    np.testing.assert_allclose([x - left, y - top, x + right, y + bottom], expected, atol=4)
    torch.manual_seed(0)
    found = propose(Finder(own.embedding_shape[0]).eval(), own.encode(image((60, 97))))
    assert len(found)
    assert (found.points >= 0).all()
    assert (found.points <= [96, 59]).all()
    assert (found.boxes[:, 2:] <= [96, 59]).all()


def test_embeddings_of_another_frame_are_refused() -> None:
    own = segmenter("sam2")
    embedding = own.encode(image((60, 97)))
    with pytest.raises(ModelError, match="encode the image with this model"):
        own.decode(replace(embedding, geometry=Geometry(60, 97, 128)), prompts("point", (60, 97), 32))


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

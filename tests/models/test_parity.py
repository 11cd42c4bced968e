"""Our models against what segment-anything and MobileSAM themselves answered (their own predictors, fp32, CPU).

The stored answers were made with weights filled by a rule that is kept beside them, so that nothing is downloaded.
ViT-B takes long on a small CPU: one of its six cases runs by default, all of them with SPECIALSAM_PARITY=all.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answered import theirs_of
from torch import Tensor

from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding, Prompts
from specialsam.models.segmenter import Segmenter, encoded
from specialsam.models.weights import load_checkpoint
from specialsam.models.zoo import CARDS

DATA = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PARITY = DATA.parent / "parity"
TOLERANCE = 1e-4
CASES = (
    "one_point_three_masks",
    "one_point_one_mask",
    "three_points_with_background",
    "box",
    "box_and_point",
    "mask_input_and_point",
)
VIT_CASES = CASES if os.environ.get("SPECIALSAM_PARITY") == "all" else ("box_and_point",)
RUNS = [*(("mobile_sam", case) for case in CASES), *(("sam_vit_b", case) for case in VIT_CASES)]

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (PARITY / "rule.py").exists(), reason=f"the stored answers are not in {PARITY}"),
]


@functools.cache
def rule() -> Any:
    spec = importlib.util.spec_from_file_location("parity_rule", PARITY / "rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def cases(model: str) -> dict[str, dict[str, Any]]:
    listed = json.loads((PARITY / f"{model}.json").read_text())["cases"]
    return {case["name"]: case | {"index": index} for index, case in enumerate(listed)}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model's name to its segmenter, through a checkpoint file in the official layout."""

    @functools.cache
    def loaded(model: str) -> Segmenter:
        told = json.loads((PARITY / f"{model}.json").read_text())
        state = {
            key: torch.from_numpy(np.asarray(rule().fill(key, tuple(shape), told["salt"])))
            for key, shape in told["keys"]
        }
        path = tmp_path_factory.mktemp(model) / CARDS[model].filename
        torch.save(state, path)
        return Segmenter(model, load_checkpoint(path, CARDS[model]), CARDS[model].side)

    return loaded


@pytest.fixture(scope="module")
def encode(load: Any) -> Any:
    """A model's name and a case to the image embedding; each image is encoded once."""

    @functools.cache
    def embedding(model: str, case: str) -> Tensor:
        told = cases(model)[case]
        pixels = preprocess(rule().image(*told["size"], told["index"]), Geometry(*told["size"], 1024))
        with torch.no_grad():
            out: Tensor = encoded(load(model).sam.vision_encoder, pixels[None])
        return out

    return embedding


def preprocess(image: np.ndarray[Any, Any], geometry: Geometry) -> Tensor:
    """Written out anew: scaled, (x - mean) / std, then zeros right and below."""
    small = geometry.image_to_model(image).astype(np.float32)
    small = (small - np.array([123.675, 116.28, 103.53], np.float32)) / np.array([58.395, 57.12, 57.375], np.float32)
    square = np.zeros((1024, 1024, 3), np.float32)
    square[: small.shape[0], : small.shape[1]] = small
    return torch.from_numpy(square).permute(2, 0, 1)


def answers(model: str, case: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(PARITY / f"{model}.npz") as stored:
        return {name.split("/")[1]: stored[name] for name in stored.files if name.split("/")[0] == case}


def compare(logits: Tensor, scores: Tensor, expected: dict[str, np.ndarray[Any, Any]], stride: int) -> None:
    """Logits (C, L, L) and scores (C,) against the stored ones."""
    np.testing.assert_allclose(logits.flatten(1)[:, ::stride], expected["low_res_logits"], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, expected["iou"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("model", "case"), RUNS)
def test_image_embeddings_are_those_of_the_original(encode: Any, model: str, case: str) -> None:
    embedding, expected = encode(model, case), answers(model, case)
    np.testing.assert_allclose(embedding.flatten()[::6151], expected["embedding"], rtol=0, atol=TOLERANCE)
    facts = [float(embedding.mean()), float(embedding.std()), float(embedding.abs().max())]
    np.testing.assert_allclose(facts, expected["embedding_stats"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("model", "case"), RUNS)
def test_transformers_decoder_gives_the_masks_of_the_original(load: Any, encode: Any, model: str, case: str) -> None:
    """The modules of `SamModel` as they are, configured by us (the decoder's epsilon is 1e-5)."""
    sam, told = theirs_of(load(model).sam), cases(model)[case]
    geometry = Geometry(*told["size"], 1024)
    points = labels = boxes = None
    if "points" in told:
        points = torch.from_numpy(geometry.points_to_model(told["points"]))[None, None]
        labels = torch.tensor(told["labels"])[None, None]
    if "box" in told:
        boxes = torch.from_numpy(geometry.boxes_to_model(told["box"]))[None, None]
    masks = torch.from_numpy(rule().disc())[None] if "mask" in told else None
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder(points, labels, boxes, masks)
        logits, scores = sam.mask_decoder(
            image_embeddings=encode(model, case),
            image_positional_embeddings=sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=told["multimask"],
        )
    compare(logits[0, 0], scores[0, 0], answers(model, case), 61)


@pytest.mark.parametrize(("model", "case"), RUNS)
def test_segmenter_gives_the_masks_of_the_original(load: Any, encode: Any, model: str, case: str) -> None:
    """Our own decoding, prompts in original pixels, and masks back at the original size."""
    told, expected = cases(model)[case], answers(model, case)
    prompts = Prompts(
        "stored",
        points=np.asarray([told["points"]], np.float32) if "points" in told else None,
        labels=np.asarray([told["labels"]], np.int64) if "points" in told else None,
        boxes=np.asarray([told["box"]], np.float32) if "box" in told else None,
        masks=rule().disc() if "mask" in told else None,
    )
    embedding = Embedding(encode(model, case)[0], Geometry(*told["size"], 1024))
    prediction = load(model).decode(embedding, prompts, told["multimask"])
    compare(prediction.logits[0], prediction.scores[0], expected, 61)
    area = prediction.masks()[0].sum((1, 2))
    np.testing.assert_allclose(area, expected["mask_area"], rtol=1e-4, atol=2)


def test_segmenter_preprocesses_as_the_original(load: Any) -> None:
    """From the image as an array to the embedding, the whole way."""
    told = cases("mobile_sam")["box_and_point"]
    image = rule().image(*told["size"], told["index"])
    torch.testing.assert_close(
        load("mobile_sam").pixels(image), preprocess(image, Geometry(*told["size"], 1024)), rtol=0, atol=1e-6
    )
    embedding = load("mobile_sam").encode(image)
    expected = answers("mobile_sam", "box_and_point")["embedding"]
    np.testing.assert_allclose(embedding.tensor.flatten()[::6151], expected, rtol=0, atol=TOLERANCE)


def test_the_comparison_notices_a_wrong_epsilon(load: Any, encode: Any) -> None:
    """transformers' default epsilon (1e-6) moves the logits beyond the tolerance: the answers are sharp enough."""
    case = "one_point_three_masks"
    told, expected = cases("mobile_sam")[case], answers("mobile_sam", case)
    segmenter = load("mobile_sam")
    prompts = Prompts(
        "stored",
        points=np.asarray([told["points"]], np.float32),
        labels=np.asarray([told["labels"]], np.int64),
    )
    embedding = Embedding(encode("mobile_sam", case)[0], Geometry(*told["size"], 1024))
    norms = [
        module
        for name, module in segmenter.sam.mask_decoder.transformer.named_modules()
        if isinstance(module, torch.nn.LayerNorm) and name.startswith("layers.")
    ]
    assert len(norms) == 8
    try:
        for norm in norms:
            norm.eps = 1e-6
        prediction = segmenter.decode(embedding, prompts, told["multimask"])
        with pytest.raises(AssertionError):
            compare(prediction.logits[0], prediction.scores[0], expected, 61)
    finally:
        for norm in norms:
            norm.eps = 1e-5

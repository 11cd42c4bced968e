"""Exported models in the programs that they are for. Oracle: their code, or their way of asking in our words."""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from PIL import Image
from test_parity import PARITY
from test_vit import card, sam

from specialsam.core.errors import ModelError
from specialsam.core.types import Prompts
from specialsam.models import labeling_files
from specialsam.models.architectures import build, to_official
from specialsam.models.export import export_model
from specialsam.models.folder import save_pretrained
from specialsam.models.labeling_files import CONFIG, FrameEncoder, export_labeling
from specialsam.models.segmenter import Segmenter
from specialsam.models.zoo import CARDS, Card, VitNumbers

Picture = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def picture(height: int, width: int, seed: int = 0) -> Picture:
    """Smooth blots without a black pixel."""
    coarse = np.random.default_rng(seed).integers(1, 255, (5, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).clip(1)


def lively(model: Any) -> Any:
    """Random weights answer next to nothing: larger ones, so that a fault is seen."""
    torch.manual_seed(5)
    with torch.no_grad():
        for part in (model.mask_decoder, model.prompt_encoder):
            for weight in part.parameters():
                weight.add_(0.15 * torch.randn_like(weight))
    return model


@pytest.fixture(scope="module")
def original() -> Any:
    """The package segment_anything; of torchvision, which it asks for, the two functions that its predictor calls."""
    made = {name: types.ModuleType(f"torchvision{name}") for name in ("", ".ops", ".ops.boxes", ".transforms")}
    made[".ops.boxes"].__dict__.update(dict.fromkeys(("batched_nms", "box_area")))
    made[".transforms.functional"] = types.ModuleType("torchvision.transforms.functional")
    made[".transforms.functional"].__dict__.update(
        to_pil_image=Image.fromarray,
        resize=lambda image, size: image.resize(size[::-1], Image.Resampling.BILINEAR),
    )
    with pytest.MonkeyPatch.context() as patch:  # for as long as the import: others look whether torchvision is there
        for name, module in made.items():
            patch.setitem(sys.modules, f"torchvision{name}", module)
        import segment_anything
    return segment_anything


SMALL = Card("vit_small", "S", "", "s.pth", None, "none", "none", 1, 1024, "vit", VitNumbers(32, 2, 2, (1,)), 256)
SIZES = (SMALL, CARDS["sam_vit_b"]) if os.environ.get("SPECIALSAM_PARITY") == "all" else (SMALL,)


@pytest.mark.slow
@pytest.mark.parametrize("of", SIZES, ids=lambda of: of.name)
def test_segment_anything_itself_loads_a_pth_and_gives_our_masks(
    original: Any, of: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package's own builder; for a ViT-B, which takes a minute, through its registry."""
    monkeypatch.setitem(CARDS, of.name, of)
    torch.manual_seed(1)
    ours = Segmenter(of.name, lively(build(of)), 1024)
    path = str(export_model(str(save_pretrained(ours, tmp_path / "folder")), tmp_path / "my-sam.pth"))
    if of is SMALL:
        theirs = sys.modules["segment_anything.build_sam"]._build_sam(32, 2, 2, [1], path)
    else:
        theirs = original.sam_model_registry["vit_b"](checkpoint=path)
    predictor = original.SamPredictor(theirs)
    image = picture(300, 400)
    with torch.no_grad():
        predictor.set_image(image)
    embedding = ours.encode(image)
    torch.testing.assert_close(embedding.tensor, predictor.features[0], atol=1e-4, rtol=1e-4)
    point, box = np.array([[120, 90]], np.float32), np.array([60, 40, 300, 200], np.float32)
    for asked, prompts in (
        (
            {"point_coords": point, "point_labels": np.ones(1, int)},
            Prompts("p", point[None], np.ones((1, 1), np.int64)),
        ),
        ({"box": box}, Prompts("b", boxes=box[None])),
    ):
        masks, scores, low = predictor.predict(**asked, multimask_output=False)
        answer = ours.decode(embedding, prompts)
        np.testing.assert_allclose(answer.logits[0], low, atol=1e-4 * np.std(low), rtol=1e-4)
        np.testing.assert_allclose(answer.scores[0], scores, atol=1e-4, rtol=1e-4)
        assert (answer.masks()[0, 0] == masks[0]).mean() > 0.9999
        assert np.std(low) > 0.1


@pytest.mark.real
@pytest.mark.skipif(not (PARITY / "rule.py").exists(), reason=f"the stored answers are not in {PARITY}")
def test_a_pth_of_mobile_sam_has_the_names_and_shapes_of_the_original() -> None:
    """The original needs timm; its answers on these names are those of `test_parity`."""
    told = json.loads((PARITY / "mobile_sam.json").read_text())["keys"]
    state = to_official(build(CARDS["mobile_sam"]).state_dict(), CARDS["mobile_sam"])
    learned = {name: list(value.shape) for name, value in state.items()}
    assert learned == dict(told)


def test_nano_has_no_pth_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"for a \.pth, got nano; export it to a folder instead"):
        export_model("nano", tmp_path / "nano.pth")


def small() -> Segmenter:
    return Segmenter("my specialist", lively(sam(card(), 0)), 96)


@pytest.fixture(scope="module")
def labeling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labeling")
    found = export_labeling(small(), folder, [picture(300, 500), picture(500, 300)])
    assert found.mean > 0.99
    assert found.masks == 20
    return folder


def asked_as_the_program_does(folder: Path, image: Picture, marks: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """Logits at the picture's size. The way of X-AnyLabeling 4.2.1's `segment_anything`, told in our words."""
    told = yaml.safe_load((folder / CONFIG).read_text())
    assert told["type"] == "segment_anything"
    assert {"name", "display_name", "input_size", "max_width", "max_height"} <= set(told)
    run = [onnxruntime.InferenceSession(str(folder / told[f"{part}_model_path"])) for part in ("encoder", "decoder")]
    scale = min(684 / image.shape[0], 1024 / image.shape[1])
    there = np.array([[scale, 0, 0], [0, scale, 0]])
    frame = cv2.warpAffine(image, there, (1024, 684), flags=cv2.INTER_LINEAR).astype(np.float32)
    (embeddings,) = run[0].run(None, {run[0].get_inputs()[0].name: frame})
    points: list[list[float]] = []
    labels: list[int] = []
    for mark in marks:
        points += np.reshape(mark["data"], (-1, 2)).tolist()
        labels += [mark["label"]] if mark["type"] == "point" else [2, 3]
    asked = {
        "image_embeddings": embeddings,
        "point_coords": (np.array([[*points, [0.0, 0.0]]]) * scale).astype(np.float32),
        "point_labels": np.array([[*labels, -1]], np.float32),
        "mask_input": np.zeros((1, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array((684, 1024), np.float32),
    }
    masks, _, _ = run[1].run(None, asked)
    size = image.shape[1], image.shape[0]
    return cv2.warpAffine(masks[0, 0], np.linalg.inv(np.vstack([there, [0, 0, 1]]))[:2], size)


@pytest.mark.parametrize("size", [(684, 1024), (684, 456), (512, 1024)])
@pytest.mark.parametrize("kind", ["point", "points", "rectangle", "both"])
def test_x_anylabeling_gets_our_masks(labeling: Path, size: tuple[int, int], kind: str) -> None:
    """Pictures that fill the frame by a side, so that the program's own scaling costs nothing."""
    image, (h, w) = picture(*size, seed=4), size
    box = [0.2 * w, 0.3 * h, 0.7 * w, 0.8 * h]
    points = [[0.4 * w, 0.5 * h], [0.8 * w, 0.2 * h]][: 2 if kind in ("points", "both") else 1]
    marks: list[dict[str, Any]] = []
    if kind != "rectangle":
        marks += [{"type": "point", "data": point, "label": 1 - n} for n, point in enumerate(points)]
    if kind in ("rectangle", "both"):
        marks.append({"type": "rectangle", "data": box})
    segmenter = small()
    own = segmenter.decode(
        segmenter.encode(image),
        Prompts(
            "asked",
            points=None if kind == "rectangle" else np.array([points], np.float32),
            labels=None if kind == "rectangle" else np.array([[1, 0][: len(points)]], np.int64),
            boxes=np.array([box], np.float32) if kind in ("rectangle", "both") else None,
        ),
    )
    ours = own.geometry.logits_to_original(own.logits)[0, 0].numpy()
    theirs = asked_as_the_program_does(labeling, image, marks)
    np.testing.assert_allclose(theirs, ours, atol=0.02 * np.abs(ours).max(), rtol=0)
    assert np.std(ours) > 0.01
    both, either = ((theirs > 0) & (ours > 0)).sum(), ((theirs > 0) | (ours > 0)).sum()
    assert both >= 0.99 * either


def test_a_black_frame_and_a_black_border_are_answered(labeling: Path) -> None:
    encoder = FrameEncoder(small())
    for lit, size in ((0, [1, 1]), (100, [300, 200])):
        frame = torch.zeros(684, 1024, 3)
        frame[:300, :200] = lit
        with torch.no_grad():
            made = encoder(frame)
        assert torch.isfinite(made).all()
        assert made[0, -2:, 0, 0].tolist() == size


def test_a_pair_that_answers_otherwise_is_refused_and_removed(
    labeling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(module: Any, example: Any, path: Path) -> None:
        kind = path.name.split(".")[-2]
        shutil.copy(next(labeling.glob(f"*.{kind}.onnx")), path)

    monkeypatch.setattr(labeling_files, "write_module", another)
    monkeypatch.setattr(labeling_files, "_as_asked", lambda path: None)
    with pytest.raises(ModelError, match="expected masks of the exported files to agree"):
        export_labeling(Segmenter("other", lively(sam(card(), 7)), 96), tmp_path, [picture(300, 500)])
    assert not list(tmp_path.iterdir())

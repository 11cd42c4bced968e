"""A model as ONNX files that run without torch, checked against the model itself before they count.

A folder holds `encoder.onnx`, `decoder.onnx`, `finder.onnx` where there is a finder, and `runtime.json`, which says
how pictures become pixels, whose weights these are and how well the answers agree.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.core.files import write_whole
from specialsam.core.geometry import Geometry, ImageArray
from specialsam.models.finder import Finder
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD, Segmenter
from specialsam.models.traced import OPSET, TracedDecoder, TracedEncoder, TracedFinder, need

ENCODER, DECODER, FINDER, FACTS = "encoder.onnx", "decoder.onnx", "finder.onnx", "runtime.json"
LEAST = 0.99
"""Mean IoU with the model's own masks below which files are refused."""
GRID = 3
"""Clicks a side, on every checked picture."""


@dataclass(frozen=True)
class Agreement:
    """IoU of masks with those of the model itself: mean, 5th percentile, and over how many."""

    mean: float
    low: float
    masks: int


def export_onnx(segmenter: Segmenter, finder: Finder | None, folder: Path, images: Sequence[ImageArray]) -> Agreement:
    """Write the files of a model into a folder, checked on `images` (uint8 (H, W, 3)); ModelError where they differ."""
    write_encoder(segmenter, folder / ENCODER)
    write_module(TracedDecoder(segmenter), _decoder_example(segmenter), folder / DECODER)
    if finder is not None:
        write_module(TracedFinder(finder.eval()), _finder_example(segmenter), folder / FINDER)
    files = [folder / name for name in (ENCODER, DECODER, FINDER)]
    found = checked(files, lambda: agreement(segmenter, folder, images))
    facts = {
        "name": segmenter.name,
        "side": segmenter.side,
        "pixel_mean": PIXEL_MEAN,
        "pixel_std": PIXEL_STD,
        "resize": "longest side to `side`, bilinear (PIL), zeros right and below after normalisation",
        "outputs": "low_res_masks are logits on a grid of side / 4 that covers the padded square; 0 is the border",
        "encoder_id": segmenter.encoder_id,
        "decoder_id": segmenter.decoder_id,
        "agreement": {"mean_iou": found.mean, "iou_5_percent": found.low, "masks": found.masks},
    }
    write_whole(folder / FACTS, lambda path: path.write_text(json.dumps(facts, indent=2) + "\n"))
    return found


def checked(files: Sequence[Path], agree: Callable[[], Agreement]) -> Agreement:
    """What `agree` finds; the files are removed where it fails, or where they agree too little (ModelError)."""
    try:
        found = agree()
        if not found.mean >= LEAST:
            raise ModelError(
                f"expected masks of the exported files to agree with the model's (mean IoU {LEAST} or more), "
                f"got {found.mean:.3f} on {found.masks} masks; the files are removed"
            )
    except ModelError:
        for path in files:
            path.unlink(missing_ok=True)
        raise
    return found


def write_encoder(segmenter: Segmenter, path: Path) -> Path:
    """The encoder as one ONNX file, for any number of pictures at once."""
    pixels = torch.zeros(2, 3, segmenter.side, segmenter.side)
    example = Example({"pixels": pixels}, {"pixels": {0: "batch"}}, ("embeddings",))
    return write_module(TracedEncoder(segmenter.encoder), example, path)


@dataclass(frozen=True)
class Example:
    """Inputs by name, which of their axes may change, and the outputs' names."""

    inputs: dict[str, Tensor]
    free: dict[str, dict[int, str]]
    outputs: tuple[str, ...]


def _decoder_example(segmenter: Segmenter) -> Example:
    config: Any = segmenter.sam.config
    cells, width = segmenter.side // 16, config.prompt_encoder_config.hidden_size
    inputs = {
        "image_embeddings": torch.zeros(1, width, cells, cells),
        "point_coords": torch.zeros(3, 4, 2),
        "point_labels": torch.ones(3, 4),
        "mask_input": torch.zeros(3, 1, 4 * cells, 4 * cells),
        "has_mask_input": torch.zeros(1),
    }
    each = {0: "objects"}
    free = {
        "point_coords": {0: "objects", 1: "points"},
        "point_labels": {0: "objects", 1: "points"},
        "mask_input": each,
    }
    return Example(inputs, free, ("low_res_masks", "iou_predictions"))


def _finder_example(segmenter: Segmenter) -> Example:
    config: Any = segmenter.sam.config
    cells, width = segmenter.side // 16, config.prompt_encoder_config.hidden_size
    inputs = {"embeddings": torch.zeros(1, width, cells, cells), "valid": torch.ones(1, cells, cells, dtype=torch.bool)}
    return Example(inputs, {}, ("middle", "sides", "dense", "presence"))


def write_module(module: nn.Module, example: Example, path: Path) -> Path:
    """A module as one ONNX file, traced on its example inputs."""
    need("onnxscript")
    names = sorted({name for axes in example.free.values() for name in axes.values()})
    axes = {name: torch.export.Dim(name) for name in names}
    free = {name: {k: axes[v] for k, v in example.free.get(name, {}).items()} or None for name in example.inputs}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.cpu().eval(),
            tuple(example.inputs.values()),
            input_names=list(example.inputs),
            output_names=list(example.outputs),
            dynamic_shapes=free,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    write_whole(path, lambda beside: program.save(str(beside), external_data=False))
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of packages that nobody asked for."""
    import logging

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def agreement(segmenter: Segmenter, folder: Path, images: Sequence[ImageArray]) -> Agreement:
    """How well the files' masks agree with the model's own, for a grid of clicks and a box on every picture."""
    runtime = need("onnxruntime")
    encoder, decoder = (session(runtime, folder / name) for name in (ENCODER, DECODER))
    found: list[float] = []
    for image in images:
        geometry = segmenter.geometry(image.shape)
        pixels = segmenter.pixels(image)[None]
        points, labels = questions(geometry)
        masks = np.zeros((len(points), 1, geometry.logits_side, geometry.logits_side), np.float32)
        rest = points, labels, masks, np.zeros(1, np.float32)
        with torch.no_grad():
            embeddings = segmenter.encode_pixels(pixels)
            own, _ = TracedDecoder(segmenter)(embeddings, *map(torch.from_numpy, rest))
        (theirs,) = encoder.run(None, {"pixels": pixels.numpy()})
        names = ("point_coords", "point_labels", "mask_input", "has_mask_input")
        logits, _ = decoder.run(None, {"image_embeddings": theirs, **dict(zip(names, rest, strict=True))})
        found += mask_ious(own[:, 0].numpy() > 0, logits[:, 0] > 0)
    if not found:
        raise ModelError("expected pictures to check exported files on, got none")
    return Agreement(float(np.mean(found)), float(np.quantile(found, 0.05)), len(found))


def session(runtime: Any, path: Path) -> Any:
    """An onnxruntime session with as many threads as torch uses; ModelError in one line for a file that it refuses."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of the runtime's own kinds
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"expected a model that onnxruntime opens in {path}, it does not ({reason})") from error


def questions(geometry: Geometry) -> tuple[np.ndarray[Any, np.dtype[np.float32]], ...]:
    """Clicks on a grid and one box, as the decoder's points (P, 2, 2) and labels (P, 2)."""
    height, width = geometry.resized
    steps = (np.arange(GRID) + 0.5) / GRID
    x, y = (part.ravel() for part in np.meshgrid(steps * width, steps * height))
    clicks = np.stack([np.stack([x, y], 1), np.zeros((GRID**2, 2))], 1)
    box = np.array([[[width / 4, height / 4], [3 * width / 4, 3 * height / 4]]])
    labels = np.array([[1, -1]] * GRID**2 + [[2, 3]])
    return np.concatenate([clicks, box]).astype(np.float32), labels.astype(np.float32)


def mask_ious(one: np.ndarray[Any, np.dtype[np.bool_]], other: np.ndarray[Any, np.dtype[np.bool_]]) -> list[float]:
    """IoU of each pair of masks (P, L, L); 1 where both are empty."""
    shared, whole = (one & other).sum((1, 2)), (one | other).sum((1, 2))
    return [float(a / b) if b else 1.0 for a, b in zip(shared, whole, strict=True)]

"""A model for X-AnyLabeling: two ONNX files and a YAML, as its model type `segment_anything` opens them.

The program lays every picture into a frame of 684x1024 pixels, upper left, black around it, and asks in pixels of that
frame whatever the model's side. The encoder finds the picture in the frame and scales it as the model wants it; two
more channels of the embeddings carry its height and width to the decoder, which answers in the frame. The two files
belong together. The decoder's inputs are otherwise those of segment-anything's own ONNX export, its single mask is the
answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
import yaml
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray
from specialsam.core.types import Prompts
from specialsam.models.decode import decode
from specialsam.models.onnx_files import Agreement, Example, checked, mask_ious, questions, session, write_module
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD, SINGLE, Segmenter
from specialsam.models.traced import TracedDecoder, TracedEncoder, need

FRAME = (684, 1024)
"""Height and width of the frame; points come in its pixels."""
CONFIG = "x-anylabeling.yaml"
_MASK_SIDE = 256


class FrameEncoder(nn.Module):
    """A frame float32 (684, 1024, 3) of values 0..255 to embeddings and the picture's size (1, D + 2, h, w).

    Black rows below and black columns on the right are what the program has put there.
    """

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.encoder, self.side = TracedEncoder(segmenter.encoder), segmenter.side
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(PIXEL_STD)[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        """Values float32 (684, 1024, 3) to embeddings float32 (1, D + 2, h, w)."""
        lit = (image.amax(2) > 0).to(image.dtype)
        size = torch.stack([_reach(lit.amax(1)), _reach(lit.amax(0))])
        resized = _resized(size, self.side)
        rows, columns = (_shrinking(size[i], resized[i], FRAME[i], self.side) for i in (0, 1))
        inside = rows.sum(1)[:, None] * columns.sum(1)  # 0 where the picture does not reach, else 1
        pixels = torch.round(rows @ torch.round(image.permute(2, 0, 1) @ columns.T))  # Pillow: across, down, bytes
        normal = (pixels - self.get_buffer("mean")) / self.get_buffer("std") * inside
        embeddings = self.encoder(normal[None])
        told = size[None, :, None, None].expand(1, 2, *embeddings.shape[2:])
        return torch.cat([embeddings, told], 1)


class FrameDecoder(nn.Module):
    """Prompts of one object in pixels of the frame to its mask's logits there and its score."""

    def __init__(self, segmenter: Segmenter):
        super().__init__()
        self.inner, self.side = TracedDecoder(segmenter), segmenter.side

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `TracedDecoder`, points (1, K, 2) in pixels of the frame, mask logits (1, 1, 256, 256).

        Gives masks (1, 1, 684, 1024), 0 beside the picture, scores (1, 1) and low-res logits (1, 1, L, L).
        """
        embeddings, size = image_embeddings[:, :-2], image_embeddings[0, -2:, 0, 0]
        resized = _resized(size, self.side)
        cells = self.side // 4
        if cells != _MASK_SIDE:
            mask_input = functional.interpolate(mask_input, (cells, cells), mode="bilinear")
        points = point_coords * (resized / size).flip(0)
        sparse, dense = self.inner.prompts(points, point_labels, mask_input, has_mask_input)
        index = torch.zeros_like(point_labels[:, 0], dtype=torch.long)
        low, scores = decode(self.inner.sam, embeddings, index, sparse, dense, SINGLE)
        square = functional.interpolate(low, (self.side, self.side), mode="bilinear")
        rows, columns = (_growing(resized[i], size[i], self.side, FRAME[i]) for i in (0, 1))
        return rows @ square @ columns.T, scores, low


def _reach(lit: Tensor) -> Tensor:
    """How far a row of zeros and ones reaches, at least 1: the place of the last 1, from 1."""
    return (torch.cumsum(lit.flip(0), 0) > 0).to(lit.dtype).sum().clamp(min=1)


def _resized(size: Tensor, side: int) -> Tensor:
    """`Geometry.resized` of a size (height, width) that is data."""
    return torch.floor(size * (side / size.amax(0)) + 0.5).clamp(min=1)


def _shrinking(length: Tensor, wanted: Tensor, given: int, side: int) -> Tensor:
    """The matrix (side, given) that scales `length` values to `wanted` by Pillow's bilinear rule; 0 after them."""
    scale = length / wanted
    places, outputs = torch.arange(given) + 0.5, torch.arange(side)
    apart = (places - ((outputs + 0.5) * scale)[:, None]).abs() / scale.clamp(min=1)
    weights = functional.relu(1 - apart) * (places < length)
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6) * (outputs < wanted)[:, None]


def _growing(length: Tensor, wanted: Tensor, side: int, given: int) -> Tensor:
    """The matrix (given, side) that scales the first `length` logits to `wanted`, bilinear as torch does; 0 after."""
    outputs = torch.arange(given)
    centres = torch.minimum(((outputs + 0.5) * (length / wanted)).clamp(min=0.5), length - 0.5)
    weights = functional.relu(1 - (torch.arange(side) + 0.5 - centres[:, None]).abs())
    return weights * (outputs < wanted)[:, None]


def export_labeling(segmenter: Segmenter, folder: Path, images: Sequence[ImageArray]) -> Agreement:
    """Write the pair and its YAML into a folder, checked on `images` uint8 (H, W, 3); ModelError where they differ.

    The check lays pictures into the frame and asks as the program does, and compares with the model's own masks of what
    the program shows it: how much a picture loses in the frame is not the files' affair.
    """
    need("onnxscript")
    name = re.sub(r"[^\w.-]+", "-", segmenter.name).strip("-.") or "model"
    encoder, decoder = folder / f"{name}.encoder.onnx", folder / f"{name}.decoder.onnx"
    write_module(FrameEncoder(segmenter), Example({"image": torch.ones(*FRAME, 3)}, {}, ("image_embeddings",)), encoder)
    write_module(FrameDecoder(segmenter), _decoder_example(segmenter), decoder)
    _as_asked(decoder)
    found = checked((encoder, decoder), lambda: _agreement(segmenter, encoder, decoder, images))
    facts = {
        "type": "segment_anything",
        "name": name,
        "provider": "specialsam",
        "display_name": segmenter.name,
        "encoder_model_path": encoder.name,
        "decoder_model_path": decoder.name,
        "input_size": max(FRAME),
        "max_width": FRAME[1],
        "max_height": FRAME[0],
    }
    text = yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
    write_whole(folder / CONFIG, lambda path: path.write_text(text, encoding="utf-8"))
    return found


def _decoder_example(segmenter: Segmenter) -> Example:
    config: Any = segmenter.sam.config
    cells, width = segmenter.side // 16, config.prompt_encoder_config.hidden_size
    inputs = {
        "image_embeddings": torch.full((1, width + 2, cells, cells), 500.0),
        "point_coords": torch.zeros(1, 4, 2),
        "point_labels": torch.ones(1, 4),
        "mask_input": torch.zeros(1, 1, _MASK_SIDE, _MASK_SIDE),
        "has_mask_input": torch.zeros(1),
    }
    free = {"point_coords": {1: "points"}, "point_labels": {1: "points"}}
    return Example(inputs, free, ("masks", "iou_predictions", "low_res_masks"))


def _as_asked(path: Path) -> None:
    """Let a decoder take what the program gives beside that: `orig_im_size`, always the frame's, and a padding point.

    The program ends a box, too, with a padding point, which SAM knows of clicks alone: it is cut off. How many points
    are left depends on the labels, which torch's exporter does not allow.
    """
    onnx = need("onnx")
    model = onnx.load(str(path))
    graph, node, kinds = model.graph, onnx.helper.make_node, onnx.TensorProto
    rename = {"point_coords": "kept_coords", "point_labels": "kept_labels"}
    for step in graph.node:
        step.input[:] = [rename.get(name, name) for name in step.input]
    numbers = {"first": [0], "last": [-1], "end": [2**31], "axis": [1]}
    constants = {name: np.array(value, np.int64) for name, value in numbers.items()}
    constants |= {"corner": np.array(2, np.float32), "padding": np.array(-1, np.float32)}
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    before = [
        node("Equal", ["point_labels", "corner"], ["corners"]),
        node("Cast", ["corners"], ["corners_as_numbers"], to=kinds.INT64),
        node("ReduceMax", ["corners_as_numbers"], ["has_box"], keepdims=0),
        node("Slice", ["point_labels", "last", "end", "axis"], ["last_label"]),
        node("Equal", ["last_label", "padding"], ["ends_padded"]),
        node("Cast", ["ends_padded"], ["ends_padded_as_number"], to=kinds.INT64),
        node("ReduceMax", ["ends_padded_as_number"], ["has_padding"], keepdims=0),
        node("Mul", ["has_box", "has_padding"], ["cut"]),
        node("Shape", ["point_labels"], ["count"], start=1),
        node("Sub", ["count", "cut"], ["kept"]),
        *(node("Slice", [given, "first", "kept", "axis"], [made]) for given, made in rename.items()),
    ]
    after = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *after])
    for value in graph.input:
        if value.name in rename:
            value.type.tensor_type.shape.dim[1].dim_param = "given"  # not as many as are kept
    graph.input.append(onnx.helper.make_tensor_value_info("orig_im_size", kinds.FLOAT, [2]))
    onnx.checker.check_model(model)
    write_whole(path, lambda beside: onnx.save(model, str(beside)))


def _agreement(segmenter: Segmenter, encoder: Path, decoder: Path, images: Sequence[ImageArray]) -> Agreement:
    runtime = need("onnxruntime")
    see, answer = session(runtime, encoder), session(runtime, decoder)
    found: list[float] = []
    for image in images:
        frame = framed(image)
        (embeddings,) = see.run(None, {"image": frame.astype(np.float32)})
        rows, columns = (int(np.flatnonzero(frame.max((2, 1 - axis))).max(initial=0)) + 1 for axis in (0, 1))
        shown = np.ascontiguousarray(frame[:rows, :columns])
        embedding = segmenter.encode(shown)
        for points, labels in zip(*questions(embedding.geometry), strict=True):
            places = embedding.geometry.points_to_original(points)
            masks = answer.run(None, _asked(embeddings, *_padded(places, labels)))[0]
            own: BoolArray = segmenter.decode(embedding, _as_prompts(places, labels)).masks()[:, 0]
            found += mask_ious(own, masks[0, :, :rows, :columns] > 0)
    if not found:
        raise ModelError("expected pictures to check exported files on, got none")
    return Agreement(float(np.mean(found)), float(np.quantile(found, 0.05)), len(found))


def framed(image: ImageArray) -> ImageArray:
    """A picture uint8 (H, W, 3) in the frame uint8 (684, 1024, 3) as the program lays it."""
    scale = min(FRAME[0] / image.shape[0], FRAME[1] / image.shape[1])
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    return np.asarray(cv2.warpAffine(image, matrix, FRAME[::-1], flags=cv2.INTER_LINEAR), np.uint8)


def _padded(points: FloatArray, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The program's points and labels of a click or box, at whose end it puts a padding point."""
    given = labels >= 0
    points, labels = np.append(points[given], [[0, 0]], 0), np.append(labels[given], [-1])
    return points.astype(np.float32), labels.astype(np.float32)


def _asked(embeddings: FloatArray, points: FloatArray, labels: FloatArray) -> dict[str, FloatArray]:
    return {
        "image_embeddings": embeddings,
        "point_coords": points[None],
        "point_labels": labels[None],
        "mask_input": np.zeros((1, 1, _MASK_SIDE, _MASK_SIDE), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
        "orig_im_size": np.array(FRAME, np.float32),
    }


def _as_prompts(points: FloatArray, labels: FloatArray) -> Prompts:
    """A click, or the box of two corners, in pixels of the picture."""
    if labels[0] == 1:
        return Prompts("click", points[None, :1], np.ones((1, 1), np.int64))
    return Prompts("box", boxes=points.reshape(1, 4))

"""Clicks and boxes of Label Studio answered in its own terms, for its ML backend: `examples/label_studio_backend.py`.

A request holds tasks, the project's labelling configuration and, where somebody has clicked, what was drawn
(`params.context.result`), in percent of the picture's sides. The answer is a list of regions: brush masks, polygons.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specialsam.apps.answers import FoundObject
from specialsam.apps.asked import Asked
from specialsam.apps.formats import polygon
from specialsam.apps.session import Asking, Session, answer_asked, find_in
from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.masks import from_rles

_WIDTHS = (3, 6, 11, 16)
"""Bits of a run's length that a brush mask may choose from."""
_LONGEST = 100_000
"""Characters of a labelling configuration that are read."""


@dataclass(frozen=True)
class Tags:
    """Where masks go in a labelling configuration: the control's name and kind, the picture's tag and field, labels."""

    control: str
    kind: str
    picture: str
    field: str
    labels: tuple[str, ...]


def read_tags(config: str) -> Tags:
    """The first BrushLabels of a configuration, else its first PolygonLabels; DataError where it has neither."""
    if len(config) > _LONGEST or "<!" in config:  # no entities: they can be as large as they like
        raise DataError(
            "expected a labelling configuration of plain tags, got one that is too long or has declarations"
        )
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise DataError(f"expected a labelling configuration as XML, got {config[:60]!r}") from error
    for kind in ("BrushLabels", "PolygonLabels"):
        for tag in root.iter(kind):
            shown = tag.get("toName", "")
            picture = next((one for one in root.iter("Image") if one.get("name") == shown), None)
            if picture is not None:
                labels = tuple(one.get("value", "") for one in tag.iter("Label"))
                return Tags(tag.get("name", ""), kind, shown, picture.get("value", "").lstrip("$"), labels)
    raise DataError("expected BrushLabels or PolygonLabels on an Image in the labelling configuration, got neither")


def read_clicks(results: Sequence[Mapping[str, Any]]) -> list[Asked]:
    """What was drawn as one question: its key points (negative where `is_positive` is 0) and its last rectangle.

    Points and boxes are shares of the picture. Empty where nothing of these was drawn.
    """
    points: list[tuple[float, float]] = []
    kinds: list[int] = []
    box: tuple[float, float, float, float] | None = None
    label = ""
    for result in results:
        kind, value = result.get("type"), result.get("value") or {}
        if kind not in ("keypointlabels", "rectanglelabels"):
            continue
        try:
            x, y = float(value["x"]) / 100, float(value["y"]) / 100
            if kind == "keypointlabels":
                points.append((x, y))
                kinds.append(int(bool(int(result.get("is_positive", 1)))))
            else:
                box = (x, y, x + float(value["width"]) / 100, y + float(value["height"]) / 100)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"expected x and y (and width and height) in percent, got {str(value)[:80]}") from error
        names = value.get(kind) or [""]
        label = str(names[0]) or label
    if not points and box is None:
        return []
    asked_points = np.array(points, np.float32) if points else None
    asked_kinds = np.array(kinds, np.int64) if points else None
    return [Asked("", asked_points, asked_kinds, box, relative=True, label=label)]


def predict(
    session: Session, image: ImageArray, tags: Tags, drawn: Sequence[Mapping[str, Any]], how: Asking | None = None
) -> dict[str, Any]:
    """One prediction of a task: what is at the clicks in a picture uint8 (H, W, 3), or what is found without any."""
    height, width = image.shape[:2]
    asked = [one.in_pixels(height, width) for one in read_clicks(drawn)]
    how = how or Asking()
    objects = answer_asked(session, image, asked, how)[0] if asked else find_in(session, image, how)[0]
    regions = [_region(found, number, tags, (height, width)) for number, found in enumerate(objects)]
    score = min((found.score for found in objects), default=0.0)
    return {"result": regions, "score": score, "model_version": session.segmenter.name}


def _region(found: FoundObject, number: int, tags: Tags, size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    mask = from_rles([found.rle], height, width)[0]
    label = found.label if found.label in tags.labels else next(iter(tags.labels), "")
    kind = tags.kind.lower()
    shape: dict[str, Any] = {"format": "rle", "rle": brush_rle(mask)}
    if tags.kind == "PolygonLabels":
        shape = {"points": (polygon(mask)[0] * (100 / width, 100 / height)).tolist(), "closed": True}
    return {
        "id": f"sam-{number + 1}",
        "from_name": tags.control,
        "to_name": tags.picture,
        "type": kind,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**shape, kind: [label] if label else []},
        "score": found.score,
        "readonly": False,
    }


def brush_rle(mask: BoolArray) -> list[int]:
    """A mask bool (H, W) as Label Studio's brush run lengths, a list of bytes: RGBA, 255 where the mask is.

    The layout is told at `data.label_studio.brush_mask`, which reads them.
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(np.append(starts, flat.size)) * 4
    bits = [format(4 * flat.size, "032b"), format(7, "05b"), *(format(width - 1, "04b") for width in _WIDTHS)]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        value = "11111111" if flat[start] else "00000000"
        while length:
            part = min(length, 1 << _WIDTHS[-1])
            choice = next(n for n, width in enumerate(_WIDTHS) if part <= 1 << width)
            bits.append(f"1{choice:02b}{part - 1:0{_WIDTHS[choice]}b}{value}")
            length -= part
    text = "".join(bits)
    packed = np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0"))
    return [int(byte) for byte in packed]

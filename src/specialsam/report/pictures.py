"""Side by side: input with its prompt, truth, base and specialist, with hits, misses and false alarms coloured."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.report.facts import Comparison
from specialsam.report.numbers import score
from specialsam.report.palette import FALSE_ALARM, HIT, MISS

WIDTH = 360
"""Pixels of one panel's width at most; the height is at most a third more."""
BUDGET = 4_000_000
"""Bytes of all pictures of a page together, as base64."""
QUALITIES = (85, 75, 62, 48, 35)

_Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Panel:
    """One picture uint8 (h, w, 3), its title, a note ("IoU 66.4", "zoomed 3.1 times") and a text in its place."""

    title: str
    note: str
    alt: str
    image: ImageArray


def panels(comparison: Comparison, width: int = WIDTH, tuned: str = "Specialist") -> tuple[Panel, ...]:
    """Input, truth, base and specialist (called `tuned`). Small objects are zoomed; the input shows the window."""
    height, wide = comparison.truth.shape
    window = _window(comparison)
    zoom = min(wide / (window[2] - window[0]), height / (window[3] - window[1]))
    what = f"{comparison.record}, {comparison.strategy}"
    out = [Panel("Input and prompt", "", f"Input image with its prompt: {what}", _input(comparison, window, width))]
    note = f"zoomed {zoom:.1f} times" if zoom > 1.05 else ""
    out.append(Panel("Truth", note, f"True mask: {what}", _truth(comparison, window, width)))
    for title, mask, iou in (
        ("Base", comparison.base, comparison.base_iou),
        (tuned, comparison.tuned, comparison.tuned_iou),
    ):
        said = f"IoU {score(iou)}" if mask is not None else "no answer"
        out.append(Panel(title, said, f"{title}, {said}: {what}", _errors(comparison, mask, window, width)))
    return tuple(out)


def data_uris(images: Sequence[ImageArray], budget: int = BUDGET) -> list[str | None]:
    """JPEG data URIs of images uint8 (h, w, 3), all of one quality, the best that stays within `budget` characters.

    Where even the lowest quality does not, the images from the first that no longer fits are None.
    """
    for quality in QUALITIES:
        encoded = [_jpeg(image, quality) for image in images]
        if sum(map(len, encoded)) <= budget:
            return list(encoded)
    total = np.cumsum([len(text) for text in encoded])
    return [text if size <= budget else None for text, size in zip(encoded, total, strict=True)]


def marked(image: ImageArray, mask: BoolArray | None, width: int = WIDTH) -> ImageArray:
    """The image uint8 (H, W, 3) at `width` px at most, its mask bool (H, W) tinted and outlined: uint8 (h, w, 3)."""
    whole = (0, 0, image.shape[1], image.shape[0])
    small = _cut(image, whole, width)
    return small if mask is None else _overlaid(small, _cut_mask(mask, whole, width))


def strip(comparison: Comparison, width: int = WIDTH, tuned: str = "Specialist") -> ImageArray:
    """The four panels in one row with their titles, uint8 (h, w, 3), for a file of its own."""
    row = panels(comparison, width, tuned)
    gap, head = 8, 22
    tall = max(panel.image.shape[0] for panel in row) + head
    sheet = Image.new("RGB", (sum(panel.image.shape[1] + gap for panel in row) - gap, tall), "white")
    draw, x = ImageDraw.Draw(sheet), 0
    for panel in row:
        draw.text((x + 2, 5), ", ".join(part for part in (panel.title, panel.note) if part), fill=(27, 36, 48))
        sheet.paste(Image.fromarray(panel.image), (x, head))
        x += panel.image.shape[1] + gap
    return np.asarray(sheet)


def _window(comparison: Comparison) -> _Window:
    """(x0, y0, x1, y1) around all masks and the prompt when they fill less than half of each side, else the image."""
    height, width = comparison.truth.shape
    spots = [mask for mask in (comparison.truth, comparison.base, comparison.tuned) if mask is not None]
    rows, columns = np.nonzero(np.logical_or.reduce(spots))
    xs, ys = [columns.astype(float)], [rows.astype(float)]
    for part in (comparison.points, None if comparison.box is None else comparison.box.reshape(2, 2)):
        if part is not None:
            xs.append(part[:, 0].astype(float))
            ys.append(part[:, 1].astype(float))
    x, y = np.concatenate(xs), np.concatenate(ys)
    if not len(x):
        return 0, 0, width, height
    share = 1.5 * max((x.max() - x.min() + 1) / width, (y.max() - y.min() + 1) / height, 16 / max(height, width))
    if share > 0.6:
        return 0, 0, width, height
    wide, tall = max(2, round(share * width)), max(2, round(share * height))
    left = int(np.clip((x.min() + x.max() + 1 - wide) / 2, 0, width - wide))
    top = int(np.clip((y.min() + y.max() + 1 - tall) / 2, 0, height - tall))
    return left, top, left + wide, top + tall


def _scale(window: _Window, width: int) -> tuple[float, int, int]:
    """(factor, width, height) of a window as a panel of `width` at most."""
    wide, tall = window[2] - window[0], window[3] - window[1]
    factor = min(width / wide, width * 4 / 3 / tall)
    return factor, max(1, round(wide * factor)), max(1, round(tall * factor))


def _cut(pixels: npt.NDArray[np.uint8], window: _Window, width: int) -> ImageArray:
    factor, wide, tall = _scale(window, width)
    part = pixels[window[1] : window[3], window[0] : window[2]]
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(part), (wide, tall), interpolation=mode), np.uint8)


def _cut_mask(mask: BoolArray, window: _Window, width: int) -> BoolArray:
    factor, wide, tall = _scale(window, width)
    part = mask[window[1] : window[3], window[0] : window[2]].astype(np.float32)
    mode = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(part, (wide, tall), interpolation=mode) > 0.5, np.bool_)


def _outline(image: ImageArray, mask: BoolArray, colour: tuple[int, int, int], width: int = 1) -> None:
    """Draw a mask's contours into the image, on a dark line that shows on any ground."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, (20, 24, 30), width + 2, cv2.LINE_AA)
    cv2.drawContours(image, contours, -1, colour, width, cv2.LINE_AA)


def _input(comparison: Comparison, window: _Window, width: int) -> ImageArray:
    height, wide = comparison.truth.shape
    whole = (0, 0, wide, height)
    factor, _, _ = _scale(whole, width)
    image = _cut(comparison.image, whole, width)
    if window != whole:
        corners = [round(side * factor) for side in window]
        cv2.rectangle(image, (corners[0], corners[1]), (corners[2], corners[3]), (255, 255, 255), 1, cv2.LINE_AA)
    if comparison.box is not None:
        x0, y0, x1, y1 = (round(float(side)) for side in (comparison.box + 0.5) * factor - 0.5)
        for colour, thick in (((20, 24, 30), 4), (HIT, 2)):
            cv2.rectangle(image, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
    if comparison.points is not None:
        labels = comparison.labels if comparison.labels is not None else np.ones(len(comparison.points), np.int64)
        for (x, y), sort in zip((comparison.points + 0.5) * factor - 0.5, labels, strict=True):
            _click(image, round(float(x)), round(float(y)), int(sort) == 1)
    return image


def _click(image: ImageArray, x: int, y: int, foreground: bool) -> None:
    """A disc with a plus for a foreground click, with a minus for a background click."""
    cv2.circle(image, (x, y), 8, (255, 255, 255), -1, cv2.LINE_AA)
    cv2.circle(image, (x, y), 7, (11, 108, 178) if foreground else (196, 72, 14), -1, cv2.LINE_AA)
    cv2.line(image, (x - 4, y), (x + 4, y), (255, 255, 255), 2)
    if foreground:
        cv2.line(image, (x, y - 4), (x, y + 4), (255, 255, 255), 2)


def _tint(image: ImageArray, mask: BoolArray, colour: tuple[int, int, int], share: float) -> None:
    image[mask] = ((1 - share) * image[mask] + share * np.array(colour)).astype(np.uint8)


def _truth(comparison: Comparison, window: _Window, width: int) -> ImageArray:
    return _overlaid(_cut(comparison.image, window, width), _cut_mask(comparison.truth, window, width))


def _overlaid(image: ImageArray, mask: BoolArray) -> ImageArray:
    _tint(image, mask, HIT, 0.35)
    _outline(image, mask, (255, 255, 255))
    return image


def _errors(comparison: Comparison, mask: BoolArray | None, window: _Window, width: int) -> ImageArray:
    colour = _cut(comparison.image, window, width)
    grey = cv2.cvtColor(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    image = np.asarray(0.55 * grey + 0.2 * colour, np.uint8)
    truth = _cut_mask(comparison.truth, window, width)
    found = np.zeros_like(truth) if mask is None else _cut_mask(mask, window, width)
    _tint(image, truth & found, HIT, 0.62)
    _tint(image, truth & ~found, MISS, 0.62)
    _tint(image, ~truth & found, FALSE_ALARM, 0.7)
    _outline(image, truth, (255, 255, 255))
    return image


def _jpeg(image: ImageArray, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

"""Photographs with what was found in them: outlined, filled, numbered, with scores; cut out; base beside specialist.

A picture is drawn at the size it is shown at, so that lines and letters are equally readable in all of them. One mask
is in memory at a time, as an outline, whatever the number of objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from specialsam.apps.answers import Answer, FoundObject
from specialsam.apps.megadetector import confidence
from specialsam.core.errors import DataError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray
from specialsam.core.masks import from_rles
from specialsam.report.palette import HIT, LIGHT

LONGEST = 1280
"""Pixels of the longest side of a marked picture."""
THUMBNAIL = 420
CROP = 640
CROPS = 12
"""Objects of a photograph, the first of the answer, that get a crop as a file."""
LEAST = 64
"""Pixels of a crop's side at least, if the photograph has them: a small object is not known without its ground."""

_HALO = (20, 24, 30)
_WHITE = (255, 255, 255)
_FILL = 0.2
_BITS = 4
"""Fractional bits of the coordinates that OpenCV draws."""
_GAP = 12

_Points = npt.NDArray[np.float64]
"""Corners (N, 1, 2) of an outline as (x, y), in pixels of the photograph."""
_Outline = list[_Points]
_Fixed = npt.NDArray[np.int32]
"""The same (N, 1, 2) in the picture, in steps of 1 / 2**_BITS pixel."""
_Window = tuple[int, int, int, int]


def marked(image: ImageArray, answer: Answer, longest: int = LONGEST) -> ImageArray:
    """The photograph uint8 (H, W, 3) at `longest` px at most, each object outlined, filled, with number and score.

    Returns uint8 (h, w, 3). Numbers are from 1, in the order of the answer; the tag is left out where the picture has
    no room for it. Raises DataError where the masks are of another size than the image.
    """
    return _drawn(image, answer.objects, _outlines(image, answer.objects, answer.file), longest)


def side_by_side(image: ImageArray, answer: Answer, longest: int = LONGEST) -> ImageArray:
    """What the base answers, left, beside the specialist, right, each as `marked` draws it, with a caption above.

    Image uint8 (H, W, 3) to uint8 (h, w, 3). DataError where the base was not asked.
    """
    if not answer.beside:
        raise DataError(f"{answer.file}: expected the base's answers beside the specialist's, got none; ask for them")
    found = (answer.beside, answer.objects)
    base, tuned = (_drawn(image, these, _outlines(image, these, answer.file), longest) for these in found)
    return _captioned((("Base", base), ("Specialist", tuned)))


def crop(image: ImageArray, found: FoundObject, margin: float = 0.25) -> ImageArray:
    """The square around an object's box and `margin` of its longer side, moved and cut to lie in the photograph.

    Image uint8 (H, W, 3) to uint8 (h, w, 3), pixels as they are, at least `LEAST` a side where the photograph has them.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = found.box
    side = max(LEAST, round(max(x1 - x0 + 1, y1 - y0 + 1) * (1 + 2 * margin)))
    wide, tall = min(side, width), min(side, height)
    left = int(np.clip(round((x0 + x1 + 1 - wide) / 2), 0, width - wide))
    top = int(np.clip(round((y0 + y1 + 1 - tall) / 2), 0, height - tall))
    return np.ascontiguousarray(image[top : top + tall, left : left + wide])


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of one answer, relative to the folder that holds them (posix, plain ASCII); "" where there is none.

    `thumbnail` and `base` (what the base answers) are small, `marked` and `beside` (both in one) large.
    """

    thumbnail: str
    marked: str
    crops: tuple[str, ...]
    base: str = ""
    beside: str = ""


def pictures_of(answer: Answer) -> Pictures:
    """Where the pictures of an answer belong; nowhere where nothing was found.

    The names hold a digest of file and objects: no two files share a name, however they are called, and a picture that
    was drawn from another answer is never taken for this one's.
    """
    if not answer.objects:
        return Pictures("", "", ())
    drawn = {key: value for key, value in answer.as_json().items() if key in ("file", "objects", "beside")}
    digest = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", PurePosixPath(answer.file).stem)[-40:].strip("-")
    name = f"{stem or 'photograph'}-{digest}"
    crops = tuple(f"crops/{name}-{number}.jpg" for number in range(1, min(len(answer.objects), CROPS) + 1))
    base, beside = (f"thumbnails/{name}-base.jpg", f"beside/{name}.jpg") if answer.beside else ("", "")
    return Pictures(f"thumbnails/{name}.jpg", f"marked/{name}.jpg", crops, base, beside)


def files_of(answer: Answer) -> list[str]:
    """The picture files of an answer, relative to the folder that holds them."""
    names = pictures_of(answer)
    return [name for name in (names.thumbnail, names.marked, names.base, names.beside, *names.crops) if name]


def save_pictures(image: ImageArray, answer: Answer, out: Path) -> Pictures:
    """Write all pictures of an answer below `out` as JPEG, the thumbnail last; `image` is uint8 (H, W, 3).

    Of a photograph in which nothing was found there are none: most of a camera trap's are such.
    SpecialSamError in one line where they cannot be written, DataError where the masks are not the image's.
    """
    names = pictures_of(answer)
    if not answer.objects:
        return names
    outlines = _outlines(image, answer.objects, answer.file)
    large = _drawn(image, answer.objects, outlines, LONGEST)
    _save(large, out / names.marked)
    for found, name in zip(answer.objects, names.crops, strict=False):
        _save(_scaled(crop(image, found), CROP), out / name)
    if answer.beside:
        others = _outlines(image, answer.beside, answer.file)
        base = _drawn(image, answer.beside, others, LONGEST)
        _save(_captioned((("Base", base), ("Specialist", large))), out / names.beside)
        _save(_drawn(image, answer.beside, others, THUMBNAIL), out / names.base)
    _save(_drawn(image, answer.objects, outlines, THUMBNAIL), out / names.thumbnail)
    return names


def _captioned(views: Sequence[tuple[str, ImageArray]]) -> ImageArray:
    """Pictures of one height from left to right, each with its title above."""
    letters = _letters(max(views[0][1].shape[:2]))
    font, head = ImageFont.load_default(letters), round(letters * 1.7)
    widths = [max(view.shape[1], round(font.getlength(title)) + 1) for title, view in views]
    size = sum(widths) + _GAP * (len(views) - 1), max(view.shape[0] for _, view in views) + head
    sheet = Image.new("RGB", size, "white")
    draw, x = ImageDraw.Draw(sheet), 0
    for (title, view), width in zip(views, widths, strict=True):
        draw.text((x, head / 2), title, LIGHT["ink"], font, anchor="lm")
        sheet.paste(Image.fromarray(view), (x, head))
        x += width + _GAP
    return np.asarray(sheet)


def _save(picture: ImageArray, path: Path) -> None:
    write_whole(path, lambda beside: Image.fromarray(picture).save(beside, "JPEG", quality=82))


def _outlines(image: ImageArray, objects: Sequence[FoundObject], file: str) -> list[_Outline]:
    """The outlines of each object's parts and holes; none of an empty mask."""
    height, width = image.shape[:2]
    out = []
    for found in objects:
        tall, wide = found.rle["size"]
        if (tall, wide) != (height, width):
            came = f"expected masks of the image's {height}x{width} (height x width), got {tall}x{wide}"
            raise DataError(f"{file}: {came}; give the answer for this very image")
        mask = from_rles([found.rle], height, width)[0]
        parts, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        out.append([part.astype(np.float64) for part in parts])
    return out


def _scaled(image: ImageArray, longest: int) -> ImageArray:
    """A copy of the image, its longest side at most `longest`."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image.copy()
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _letters(longest: int) -> int:
    """Height of letters in a picture of that longest side."""
    return max(12, round(longest / 58))


def _drawn(image: ImageArray, objects: Sequence[FoundObject], outlines: Sequence[_Outline], longest: int) -> ImageArray:
    picture = _scaled(image, longest)
    scale = np.array([picture.shape[1] / image.shape[1], picture.shape[0] / image.shape[0]])
    placed = [[_placed(part, scale) for part in outline] for outline in outlines]
    side = max(picture.shape[:2])
    _paint(picture, placed, 1 if side < 200 else max(2, round(side / 640)))
    boxes = [_around(outline, picture) for outline in placed]
    return _tagged(picture, [(n, found, box) for n, (found, box) in enumerate(zip(objects, boxes, strict=True), 1)])


def _placed(part: _Points, scale: npt.NDArray[np.float64]) -> _Fixed:
    """An outline in the picture, without corners that nobody sees and that would make its line thicker."""
    corners = cv2.approxPolyDP(((part + 0.5) * scale - 0.5).astype(np.float32), 0.3, True)
    return np.asarray(np.rint(corners * 2**_BITS), np.int32)


def _paint(picture: ImageArray, outlines: Sequence[list[_Fixed]], line: int) -> None:
    """Fill all objects, then draw all lines, each on a dark one that shows on light ground."""
    filled = picture.copy()
    for outline in outlines:
        cv2.fillPoly(filled, outline, HIT, cv2.LINE_AA, _BITS)
    cv2.addWeighted(filled, _FILL, picture, 1 - _FILL, 0, picture)
    for colour, thick in ((_HALO, line + (2 if line == 1 else 3)), (HIT, line)):
        for outline in outlines:
            cv2.polylines(picture, outline, True, colour, thick, cv2.LINE_AA, _BITS)


def _around(outline: list[_Fixed], picture: ImageArray) -> _Window | None:
    """(x0, y0, x1, y1) of an object in the picture; None for an empty one."""
    if not outline:
        return None
    points = np.concatenate(outline)[:, 0] / 2**_BITS
    (x0, y0), (x1, y1) = np.floor(points.min(0)), np.ceil(points.max(0))
    height, width = picture.shape[:2]
    return max(0, int(x0)), max(0, int(y0)), min(width, int(x1) + 1), min(height, int(y1) + 1)


def _tagged(picture: ImageArray, found: Sequence[tuple[int, FoundObject, _Window | None]]) -> ImageArray:
    """The picture with a tag beside each object, the first ones first to choose their place."""
    letters = _letters(max(picture.shape[:2]))
    font, pad = ImageFont.load_default(letters), max(2, letters // 4)
    sheet = Image.fromarray(picture)
    draw = ImageDraw.Draw(sheet)
    taken = [box for _, _, box in found if box]
    for number, one, box in found:
        texts = f"{number}", f"{confidence(one.score):.2f}"
        widths = [round(font.getlength(text)) + 2 * pad for text in texts]
        place = _room(box, sum(widths), letters + pad, sheet.size, taken) if box else None
        if place is None:
            continue
        x0, y0, x1, y1 = place
        middle = (y0 + y1) / 2
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), _HALO)
        draw.rectangle((x0 + 1, y0 + 1, x0 + widths[0] - 1, y1 - 2), HIT)
        draw.text((x0 + widths[0] / 2, middle), texts[0], _HALO, font, anchor="mm")
        draw.text((x0 + widths[0] + widths[1] / 2, middle), texts[1], _WHITE, font, anchor="mm")
        taken += [place] * 2  # worse to cover than an object
    return np.asarray(sheet)


def _room(box: _Window, wide: int, tall: int, size: tuple[int, int], taken: Sequence[_Window]) -> _Window | None:
    """Where a tag goes: above its object, below or beside it, off all that is taken; None where it cannot fit."""
    width, height = size
    if wide > width or tall > height:
        return None
    x0, y0, x1, y1 = box
    gap = tall // 3
    above, below, far = y0 - tall - gap, y1 + gap, tall + 1
    beside = (x1 + gap, y0), (x0 - wide - gap, y0)
    around = (
        (x0, above),
        (x0, below),
        *beside,
        (x1 - wide, above),
        (x1 - wide, below),
        (x0, above - far),
        (x0, below + far),
    )
    rooms = []
    for left, top in around:
        x, y = min(max(0, left), width - wide), min(max(0, top), height - tall)
        rooms.append((x, y, x + wide, y + tall))
    return min(rooms, key=lambda room: sum(_overlap(room, other) for other in taken))


def _overlap(a: _Window, b: _Window) -> int:
    """Pixels that two windows share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))

"""Generated pictures with exact masks: regions, objects that hide each other, and the parts of objects.

A scene is laid out from back to front on a canvas that keeps, for every pixel, who owns it; masks are read off that
map, so they are exact whatever light, blur and compression do to the pixels. Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.files import write_whole
from specialsam.synth.layouts import HIDDEN_SHARE, cracked, draw_layout, hidden
from specialsam.synth.light import photograph
from specialsam.synth.placing import Canvas

SMALLEST = 0.001
"""Masks below this share of the image are dropped."""
MOST_MASKS = 48


@dataclass(frozen=True)
class Scene:
    """A picture uint8 RGB (H, W, 3), its masks bool (P, H, W), P >= 1, and one word a mask.

    Kinds: "region" (ground, sky), "object", "animal", "thin" (branches, poles), "part" and "hole" (within an object).
    An object's mask is all that is visible of it and its parts.
    """

    image: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.bool_]
    kinds: tuple[str, ...]


def scene(seed: int, size: int = 256, camouflage: float | None = None) -> Scene:
    """Scene number `seed` as a square of `size` pixels; the same on every call.

    `camouflage` is the probability that the scene hides one animal on ground of its own texture family: None is the
    mix for pre-training, 0 never, 1 always.
    """
    rng = np.random.default_rng((seed, 4))
    canvas = Canvas.blank(size, float(rng.uniform(0, 2 * np.pi)))
    if rng.random() < (HIDDEN_SHARE if camouflage is None else camouflage):
        hidden(rng, canvas)
    else:
        draw_layout(rng)(rng, canvas, 0.15 if camouflage is None else camouflage)
    masks, kinds = _read_masks(canvas)
    return Scene(photograph(rng, canvas.pixels, canvas.unit), masks, kinds)


def cracked_scene(seed: int, size: int = 640) -> Scene:
    """Surface number `seed` as a square of `size` pixels with one crack of 2 to 5 pixels; the same on every call."""
    rng = np.random.default_rng((seed, 5))
    canvas = Canvas.blank(size, float(rng.uniform(0, 2 * np.pi)))
    cracked(rng, canvas)
    masks, kinds = _read_masks(canvas, 0)
    return Scene(photograph(rng, canvas.pixels, 1.0), masks, kinds)


def _read_masks(canvas: Canvas, smallest: float = SMALLEST) -> tuple[npt.NDArray[np.bool_], tuple[str, ...]]:
    """Visible masks of everything on the canvas that is large enough, the largest MOST_MASKS of them."""
    count = len(canvas.kinds)
    parents = np.array(canvas.parents)
    within = np.eye(count, dtype=bool)  # within[i, j]: j is i or a part of i
    for child in range(count):
        if parents[child] >= 0:
            within[:, child] |= within[:, parents[child]]
    own = np.bincount(canvas.owner.ravel(), minlength=count)
    area = within @ own
    keep = area >= max(smallest * canvas.owner.size, 1)
    for child in range(count):  # a part that is all that shows of its object says nothing new
        if parents[child] >= 0 and area[child] > 0.92 * area[parents[child]]:
            keep[child] = False
    chosen = np.flatnonzero(keep)
    if len(chosen) > MOST_MASKS:
        chosen = np.sort(chosen[np.argsort(-area[chosen], kind="stable")[:MOST_MASKS]])
    if count <= 256:
        owner = canvas.owner.astype(np.uint8)
        tables = np.zeros((len(chosen), 256), np.uint8)
        tables[:, :count] = within[chosen]
        masks = np.stack([cv2.LUT(owner, table) for table in tables]).astype(np.bool_)
    else:
        masks = within[chosen][:, canvas.owner]
    return masks, tuple(canvas.kinds[number] for number in chosen)


def write_dataset(
    folder: Path,
    count: int,
    size: int,
    seed: int,
    camouflage: float = 1.0,
    progress: Callable[[int, int, str], None] | None = None,
    cracks: bool = False,
) -> None:
    """Write scenes `seed` ... as `images/scene-00000.jpg` and `masks/scene-00000.png` (0 or 255); finished files stay.

    The mask is the scene's hidden animal; a scene without one gives its largest object, or region if it has no object.
    With `cracks` they are `cracked_scene`s, and the mask is the crack.
    """
    for number in range(count):
        image = folder / "images" / f"scene-{number:05d}.jpg"
        mask = folder / "masks" / f"scene-{number:05d}.png"
        if progress:
            progress(number, count, image.stem)
        if image.exists() and mask.exists():
            continue
        made = cracked_scene(seed + number, size) if cracks else scene(seed + number, size, camouflage)
        chosen = made.kinds.index("thin") if cracks else _foremost(made)
        plane = made.masks[chosen].astype(np.uint8) * 255
        write_whole(mask, partial(_encode, plane))
        write_whole(image, partial(_encode, made.image[..., ::-1]))


def _foremost(made: Scene) -> int:
    rank = {"animal": 3, "object": 2, "thin": 1}
    return max(range(len(made.kinds)), key=lambda i: (rank.get(made.kinds[i], 0), made.masks[i].sum()))


def _encode(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    _, packed = cv2.imencode(path.suffix, pixels, options)
    path.write_bytes(packed.tobytes())


def contact_sheet(
    seeds: Sequence[int], size: int = 256, columns: int = 6, camouflage: float | None = None, cracks: bool = False
) -> npt.NDArray[np.uint8]:
    """Scenes beside their masks in colours, uint8 (H, W, 3) RGB; `columns` scenes a row."""
    tiles = []
    for seed in seeds:
        made = cracked_scene(seed, size) if cracks else scene(seed, size, camouflage)
        shown = made.image.astype(np.float32)
        for number in np.argsort([-mask.sum() for mask in made.masks], kind="stable"):
            hue = np.array([[[number * 67 % 180, 220, 255]]], np.uint8)
            mask = made.masks[number]
            shown[mask] = shown[mask] * 0.45 + cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0] * 0.55
        tiles.append(np.hstack([made.image, shown.astype(np.uint8)]))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])

"""Mosaics of textures with exact masks: each cell of a layout is filled by one texture, by grain alone if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.types import Prompts
from specialsam.synth.cells import LabelMap, Layout, label_map

SIDE, TILE = 512, 256
"""Sides of the original study's mosaics and tiles in pixels."""
MOST_GAIN = 4.0
"""Colour matching stretches or squeezes a channel at most by this: noise in a plain texture is not blown up."""
LEAST_COHERENCE, LEAST_SLANT = 0.1, 2.0
"""A texture has a common direction from this coherence (0..1) on; a slant below so many degrees is left alone."""
OUTLINE = 3
"""Pixels of the coloured outlines on a contact sheet."""


@dataclass(frozen=True)
class Mosaic:
    """A picture uint8 RGB (H, W, 3), the cell of each pixel uint8 (H, W) in 0 ... P - 1, and each cell's texture.

    `textures` are indices into the textures that the mosaic was made of; `angles` the degrees by which each was turned.
    """

    image: ImageArray
    labels: LabelMap
    textures: tuple[int, ...]
    angles: tuple[float, ...]

    @cached_property
    def masks(self) -> BoolArray:
        """Bool (P, H, W), one a cell: disjoint, and together the whole image."""
        return np.asarray(self.labels[None] == np.arange(len(self.textures), dtype=np.uint8)[:, None, None], np.bool_)


def mosaic(
    textures: Sequence[ImageArray],
    layout: Layout,
    rng: np.random.Generator,
    side: int = SIDE,
    *,
    rotate: bool = False,
    colour_match: bool = False,
    grain_only: bool = False,
    tile: int = TILE,
) -> Mosaic:
    """Fill the cells with textures (uint8 RGB (h, w, 3), at least as many as cells), each with one of its own.

    As many textures as cells fill them in order; of more a random choice is taken. Each texture is scaled so that its
    shorter side is `tile` pixels; a cell smaller than that shows a random window of it, a larger one goes on in its
    mirror image. `rotate` turns each texture by a random angle. `colour_match` gives all cells the same mean and
    spread in each channel of CIELAB, so that grain alone tells them apart. `grain_only` fills all cells with one
    texture whose directions are spread evenly over 180 degrees.
    """
    needed = 1 if grain_only else layout.cells
    if len(textures) < needed:
        raise DataError(f"expected at least {needed} textures for {layout.name}, got {len(textures)}")
    for texture in textures:
        if texture.ndim != 3 or texture.shape[2] != 3 or texture.dtype != np.uint8 or not texture.size:
            raise DataError(f"expected uint8 (h, w, 3) textures, got {texture.dtype} {texture.shape}")
    labels = label_map(layout, side, rng)
    order = rng.permutation(len(textures))[:needed] if len(textures) > needed else range(needed)
    chosen = [int(index) for index in order] * (layout.cells // needed)
    angles = _angles(layout.cells, rng, rotate, grain_only)
    fitted = {index: fit(textures[index], tile) for index in set(chosen)}
    straight: dict[int, ImageArray] = {}
    image = np.empty((side, side, 3), np.uint8)
    for cell, (index, angle) in enumerate(zip(chosen, angles, strict=True)):
        inside = (labels == cell).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(inside)
        frame = slice(y, y + height), slice(x, x + width)
        texture = fitted[index]
        if angle or height > texture.shape[0] or width > texture.shape[1]:  # it will be mirrored
            texture = straight[index] = straight[index] if index in straight else straightened(texture)
        patch = _patch(texture, height, width, angle, rng)
        image[frame] = cv2.copyTo(patch, inside[frame], image[frame])
    if colour_match:
        image = match_colours(image, labels)
    return Mosaic(image, labels, tuple(chosen), tuple(angles))


def fit(texture: ImageArray, tile: int) -> ImageArray:
    """The texture scaled so that its shorter side is `tile` pixels, its proportions kept."""
    height, width = texture.shape[:2]
    scale = tile / min(height, width)
    size = max(tile, round(width * scale)), max(tile, round(height * scale))
    if size == (width, height):
        return texture
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(texture, size, interpolation=mode), np.uint8)


def straightened(texture: ImageArray) -> ImageArray:
    """The texture turned by at most 45 degrees so that its grain runs along an axis, cut to where it has pixels.

    For textures that will be mirrored: slanting grain changes its direction at the fold, which would look like the
    border of a cell that no mask knows of. The direction is that of the structure tensor (Bigun and Granlund 1987) over
    the whole texture; one without a common direction, or already straight, stays as it is.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.5)
    across, down = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, yy, xy = (float((one * other).mean()) for one, other in ((across, across), (down, down), (across, down)))
    coherence = np.hypot(xx - yy, 2 * xy) / (xx + yy + 1e-9)
    slant = np.rad2deg(np.arctan2(2 * xy, xx - yy) / 2)  # of the gradient, in -90..90
    slant = (slant + 45) % 90 - 45
    if coherence < LEAST_COHERENCE or abs(slant) < LEAST_SLANT:
        return texture
    height, width = texture.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(slant), 1.0)
    turned = cv2.warpAffine(texture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    sin, cos = abs(np.sin(np.deg2rad(slant))), abs(np.cos(np.deg2rad(slant)))
    edge = int(min(height, width) / (sin + cos)) - 2
    top, left = (height - edge) // 2, (width - edge) // 2
    return np.asarray(turned[top : top + edge, left : left + edge], np.uint8)


def match_colours(image: ImageArray, labels: LabelMap) -> ImageArray:
    """The image with the same mean and standard deviation of each CIELAB channel in all cells: the cells' average.

    Reinhard et al. 2001, "Color transfer between images", in CIELAB. What leaves the range of RGB is clipped.
    """
    lab = cv2.cvtColor(image.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_RGB2LAB)
    cells = int(labels.max()) + 1
    facts = [cv2.meanStdDev(lab, mask=(labels == cell).astype(np.uint8)) for cell in range(cells)]
    mean, spread = (np.stack(part)[..., 0] for part in zip(*facts, strict=True))  # (P, 3) each
    gains, shifts = np.zeros((2, 1, 256, 3), np.float32)
    gains[0, :cells] = np.clip(spread.mean(0) / np.maximum(spread, 1e-6), 1 / MOST_GAIN, MOST_GAIN)
    shifts[0, :cells] = mean.mean(0) - gains[0, :cells] * mean
    cell_of = cv2.merge([labels] * 3)
    matched = lab * cv2.LUT(cell_of, gains) + cv2.LUT(cell_of, shifts)
    rgb = cv2.cvtColor(matched, cv2.COLOR_LAB2RGB)
    return np.asarray(np.clip(rgb * 255 + 0.5, 0, 255), np.uint8)


def tile_centres(layout: Layout, side: int = SIDE) -> Prompts:
    """One foreground point a tile of a grid, at its centre (side / columns * (column + 0.5), likewise for rows).

    The original study's prompt. In all its mosaics these are the same four points, so that a decoder can answer from
    the prompt without a look at the image: only prompts that vary measure segmentation.
    """
    if layout.kind != "grid":
        raise DataError(f"expected a grid for points at tile centres, got {layout.name}")
    rows, columns = np.divmod(np.arange(layout.cells), layout.columns)
    points = np.stack([(columns + 0.5) * side / layout.columns, (rows + 0.5) * side / layout.rows], 1)
    labels = np.ones((layout.cells, 1), np.int64)
    return Prompts("tile_centre", points=points[:, None].astype(np.float32), labels=labels)


def contact_sheet(mosaics: Sequence[Mosaic], columns: int = 4) -> ImageArray:
    """Mosaics beside themselves with their cells outlined, uint8 RGB; `columns` mosaics a row."""
    if not mosaics:
        raise DataError("expected at least one mosaic for a contact sheet, got none")
    tiles = [np.hstack([made.image, outlined(made)]) for made in mosaics]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[row : row + columns]) for row in range(0, len(tiles), columns)])


def outlined(made: Mosaic) -> ImageArray:
    """The mosaic's picture with a coloured line along the borders of its cells."""
    shown = made.image.copy()
    for cell, mask in enumerate(made.masks):
        hue = np.array([[[cell * 67 % 180, 230, 255]]], np.uint8)
        colour = [int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0]]
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        inner = np.zeros(mask.shape, np.uint8)
        cv2.drawContours(inner, contours, -1, 1, 2 * OUTLINE - 1)
        shown[(inner > 0) & mask] = colour
    return shown


def _angles(cells: int, rng: np.random.Generator, rotate: bool, grain_only: bool) -> list[float]:
    """Degrees by which each cell's texture is turned: spread evenly over 180, at random, or not at all."""
    if grain_only:
        return [float(angle) for angle in rng.uniform(0, 180) + rng.permutation(cells) * 180 / cells]
    return [float(angle) for angle in rng.uniform(0, 360, cells)] if rotate else [0.0] * cells


def _patch(texture: ImageArray, height: int, width: int, angle: float, rng: np.random.Generator) -> ImageArray:
    """A window (height, width) of the texture turned by `angle` degrees; beyond its edges lies its mirror image.

    A turned texture keeps its centre in the centre of the window, where it needs the least mirroring.
    """
    spare = rng.uniform(0, 1, 2)
    tall, wide = texture.shape[:2]
    if angle:
        turn = np.deg2rad(angle)
        cos, sin = np.cos(turn), np.sin(turn)
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        towards = np.array([[cos, -sin], [sin, cos]])
        offset = np.array([(wide - 1) / 2, (tall - 1) / 2]) - towards @ middle
        back = np.hstack([towards, offset[:, None]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(texture, back, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(warped, np.uint8)
    left, top = round(spare[0] * max(0, wide - width)), round(spare[1] * max(0, tall - height))
    cut = texture[top : top + height, left : left + width]
    missing = height - cut.shape[0], width - cut.shape[1]
    if not any(missing):
        return cut
    return np.pad(cut, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")

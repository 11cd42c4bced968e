"""Views: augmentation before encoding, for the embedding of a flipped image is not the flipped embedding.

A `View` is a fixed set of numbers, so its image can be made again at any time and its `key` can be part of an
embedding's key. `apply` gives image and masks (and thereby prompts) in the view's own frame. Draws follow from
(seed, record id) alone. Elastic deformation after Simard et al. 2003, "Best practices for convolutional neural
networks applied to visual document analysis".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray, ImageArray
from specialsam.core.randomness import generator
from specialsam.core.settings import Settings
from specialsam.core.types import Sample
from specialsam.core.windows import Window

VIEWS_VERSION = 1
"""Part of every view's key but the identity's; to be raised when `apply` gives other pixels for the same numbers."""
_FIELD_SIDE = 256
_ATTEMPTS = 16
_KINDS: dict[str, type[float | bool | int | str]] = {"float": float, "bool": bool, "int": int, "str": str}


@dataclass(frozen=True)
class View:
    """Changes of one image, applied in the order of the fields; the defaults change nothing.

    `flip` mirrors left and right, `flip_vertical` top and bottom. `rotation` turns counter-clockwise by degrees and
    `scale` enlarges, both about the centre with the canvas kept. `elastic` is the largest displacement and
    `elastic_sigma` the smoothness of an elastic deformation. `crop` is the share of each side that a window around a
    random object keeps (1: all). `blur` is the sigma of a Gaussian; like `elastic` and `elastic_sigma` it is a share
    of the longer side. `brightness` is added (share of the full range), `contrast` and `saturation` are factors,
    `hue` a turn in degrees. `seed` fixes the window and the deformation. `name` is for people and no part of the key.
    First of all, `top`, `left`, `height` and `width` in pixels cut a tile out of the image; a height of 0 is all of it.
    """

    top: int = 0
    left: int = 0
    height: int = 0
    width: int = 0
    flip: bool = False
    flip_vertical: bool = False
    rotation: float = 0.0
    scale: float = 1.0
    elastic: float = 0.0
    elastic_sigma: float = 0.05
    crop: float = 1.0
    blur: float = 0.0
    brightness: float = 0.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    seed: int = 0
    name: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for part in fields(self):
            object.__setattr__(self, part.name, _KINDS[str(part.type)](getattr(self, part.name)))
        if not all(math.isfinite(value) for value in self._parameters().values()):
            raise DataError(f"expected a view of finite numbers, got {self}")
        if not 0 < self.crop <= 1 or min(self.scale, self.elastic_sigma) <= 0:
            raise DataError(
                f"expected a crop above 0 and at most 1, scale and elastic_sigma above 0, "
                f"got {self.crop}, {self.scale} and {self.elastic_sigma}"
            )
        if min(self.elastic, self.blur, self.contrast, self.saturation) < 0:
            raise DataError(f"expected elastic, blur, contrast and saturation of at least 0, got {self}")
        if min(self.top, self.left, self.height, self.width) < 0 or (self.height > 0) != (self.width > 0):
            raise DataError(f"expected a tile of a corner and a size, got {self}")
        object.__setattr__(self, "rotation", self.rotation % 360 % 360)  # Twice: -1e-20 % 360 is 360.

    def _parameters(self) -> dict[str, float]:
        return {part.name: getattr(self, part.name) for part in fields(self) if part.compare}

    @property
    def tile(self) -> Window | None:
        """The part of the image that is seen; None for all of it."""
        return Window(self.top, self.left, self.height, self.width) if self.height else None

    def on(self, tile: Window) -> View:
        """The same changes, made to a tile of the image."""
        return replace(self, top=tile.top, left=tile.left, height=tile.height, width=tile.width)

    @property
    def key(self) -> str:
        """Stable text of all that changes pixels; "" for the identity, different for different pixels."""
        neutral = {part.name: part.default for part in fields(self)}
        changed = {name: value for name, value in self._parameters().items() if value != neutral[name]}
        if self.crop == 1 and not self.elastic:
            changed.pop("seed", None)
        if not self.elastic:
            changed.pop("elastic_sigma", None)
        parts = [f"{name}={value!r}" for name, value in changed.items()]
        return ";".join([f"v{VIEWS_VERSION}", *parts]) if parts else ""


IDENTITY = View()


def apply(view: View, sample: Sample) -> Sample:
    """The sample seen in `view`: image uint8 (h, w, 3) and masks bool (p, h, w) in the view's own frame.

    What enters from outside the canvas is a reflection in the image and background in the masks, so an object at the
    border can show a second time, unlabelled. Objects without a pixel left are dropped with their labels. The canvas
    keeps its size except under `crop` and in a tile, which are not enlarged: the model scales every image anyway. The
    identity gives the sample itself.
    """
    if not view.key:
        return sample
    image, masks = sample.image, sample.masks
    if view.tile:
        image, masks = image[view.tile.slices], masks[:, *view.tile.slices]
        if image.shape[:2] != view.tile.size:
            raise DataError(f"{sample.id}: expected a tile within {sample.size[0]}x{sample.size[1]}, got {view.tile}")
    if view.flip:
        image, masks = image[:, ::-1], masks[..., ::-1]
    if view.flip_vertical:
        image, masks = image[::-1], masks[:, ::-1]
    image = np.ascontiguousarray(image)
    if view.rotation or view.scale != 1:
        image, masks = _turn(image, masks, view.rotation, view.scale)
    if view.elastic:
        image, masks = _deform(image, masks, view.elastic, view.elastic_sigma, generator(view.seed, "elastic"))
    if view.crop < 1:
        window = _window(masks, view.crop, generator(view.seed, "crop"))
        image, masks = np.ascontiguousarray(image[window]), masks[:, *window]
    if view.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), view.blur * max(image.shape[:2])), np.uint8)
    image = _recolour(image, view)
    left = np.asarray(masks.any((1, 2)))
    labels = tuple(label for label, there in zip(sample.labels, left.tolist(), strict=False) if there)
    return Sample(sample.record, image, np.ascontiguousarray(masks[left]), labels)


def _window(masks: BoolArray, share: float, rng: np.random.Generator) -> tuple[slice, slice]:
    """A window of `share` of each side that holds a random pixel of a random object; anywhere without objects."""
    height, width = masks.shape[1:]
    sides = np.array([max(1, round(share * height)), max(1, round(share * width))])
    full = np.array([height, width])
    there = np.flatnonzero(masks.any((1, 2)))
    if len(there):
        pixels = np.argwhere(masks[rng.choice(there)])
        anchor = pixels[rng.integers(len(pixels))]
    else:
        anchor = rng.integers(full)
    start = np.clip(anchor - rng.integers(sides), 0, full - sides)
    return slice(int(start[0]), int(start[0] + sides[0])), slice(int(start[1]), int(start[1] + sides[1]))


def _turn(image: ImageArray, masks: BoolArray, rotation: float, scale: float) -> tuple[ImageArray, BoolArray]:
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), rotation, scale)

    def warp(pixels: npt.NDArray[np.uint8], interpolation: int, border: int) -> npt.NDArray[np.uint8]:
        warped = cv2.warpAffine(pixels, matrix, (width, height), flags=interpolation, borderMode=border)
        return np.asarray(warped, np.uint8)

    return warp(image, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101), _each(
        masks, lambda mask: warp(mask, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    )


def _deform(
    image: ImageArray, masks: BoolArray, reach: float, sigma: float, rng: np.random.Generator
) -> tuple[ImageArray, BoolArray]:
    """Smooth random displacement; the field is made small and enlarged, so that its cost does not grow with sigma."""
    height, width = image.shape[:2]
    longer = max(height, width)
    noise = rng.uniform(-1, 1, (_FIELD_SIDE, _FIELD_SIDE, 2)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigma * _FIELD_SIDE), np.float32)
    smooth = smooth * (reach * longer / max(float(np.linalg.norm(smooth, axis=2).max()), 1e-12))
    moves = cv2.resize(smooth, (longer, longer), interpolation=cv2.INTER_CUBIC)[:height, :width]
    columns = np.arange(width, dtype=np.float32)[None] + moves[..., 0]
    rows = np.arange(height, dtype=np.float32)[:, None] + moves[..., 1]

    def warp(pixels: npt.NDArray[np.uint8], interpolation: int, border: int) -> npt.NDArray[np.uint8]:
        return np.asarray(cv2.remap(pixels, columns, rows, interpolation, borderMode=border), np.uint8)

    return warp(image, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101), _each(
        masks, lambda mask: warp(mask, cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    )


def _each(masks: BoolArray, change: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]) -> BoolArray:
    out = np.zeros(masks.shape, np.bool_)
    for index, mask in enumerate(masks):
        out[index] = change(np.ascontiguousarray(mask).astype(np.uint8)) > 0
    return out


def _recolour(image: ImageArray, view: View) -> ImageArray:
    if view.brightness == 0 and view.contrast == 1 and view.saturation == 1 and view.hue == 0:
        return image
    pixels = image.astype(np.float32) / 255
    if view.hue or view.saturation != 1:
        hsv = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), np.float32)
        hsv[..., 0] = (hsv[..., 0] + view.hue) % 360
        hsv[..., 1] = np.clip(hsv[..., 1] * view.saturation, 0, 1)
        pixels = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)
    mean = float(pixels.mean())
    pixels = (pixels - mean) * view.contrast + mean + view.brightness
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * 255), np.uint8)


class ViewRecipe(Settings):
    """How extra views are drawn; a preset's name stands for its recipe. The default draws none."""

    count: int = Field(0, description="extra views of each image", ge=0)
    flip: float = Field(0.0, description="probability of mirroring left and right (true: always)", ge=0, le=1)
    flip_vertical: float = Field(0.0, description="probability of mirroring top and bottom", ge=0, le=1)
    rotation: float = Field(0.0, description="largest turn either way, degrees; 180 is any angle", ge=0, le=360)
    scale: tuple[float, float] = Field((1.0, 1.0), description="smallest and largest scale")
    brightness: float = Field(0.0, description="largest change of brightness, share of the full range", ge=0, le=1)
    contrast: float = Field(0.0, description="largest change of contrast, as a factor of 1 more or less", ge=0, lt=1)
    saturation: float = Field(0.0, description="largest change of saturation, likewise", ge=0, lt=1)
    hue: float = Field(0.0, description="largest turn of hue either way, degrees", ge=0, le=180)
    elastic: float = Field(0.0, description="largest elastic displacement, share of the longer side", ge=0, le=0.2)
    elastic_sigma: float = Field(0.05, description="smoothness of that, share of the longer side", gt=0, le=1)
    blur: float = Field(0.0, description="largest blur sigma, share of the longer side", ge=0, le=0.1)
    crop: float = Field(1.0, description="smallest share of each side that a zoom crop keeps; 1: no crops", gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return VIEW_PRESETS[_known(value)] if isinstance(value, str) else value

    @field_validator("scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"expected 0 < smallest <= largest scale, got {value[0]} and {value[1]}")
        return value


VIEW_PRESETS: dict[str, dict[str, float | tuple[float, float]]] = {
    "none": {},
    "flip": {"count": 1, "flip": 1.0},
    "carpet": {
        "count": 4,
        "rotation": 180.0,
        "scale": (0.8, 1.2),
        "brightness": 0.1,
        "contrast": 0.2,
        "saturation": 0.2,
        "hue": 10.0,
        "elastic": 0.01,
    },
    "camouflage": {"count": 3, "flip": 0.5, "brightness": 0.15, "contrast": 0.25, "crop": 0.5},
}
"""Recipes by name: the seed's second view, and what its authors would do next for carpets and for camouflage."""


def _known(name: str) -> str:
    if name not in VIEW_PRESETS:
        raise ValueError(f"expected views out of {', '.join(VIEW_PRESETS)}, got {name!r}")
    return name


def view_recipe(name: str) -> ViewRecipe:
    """A preset by name; UsageError names those that there are."""
    try:
        return ViewRecipe.model_validate(VIEW_PRESETS[_known(name)])
    except ValueError as error:
        raise UsageError(str(error)) from error


def views_for(record_id: str, recipe: ViewRecipe, seed: int) -> tuple[View, ...]:
    """Extra views of a record, without the identity: the same for the same (record id, recipe, seed) everywhere.

    All differ from each other and from the identity; there are fewer than `recipe.count` where the recipe cannot make
    so many (a flip alone makes one). More views begin with the same ones.
    """
    out: list[View] = []
    for index in range(recipe.count):
        for attempt in range(_ATTEMPTS):
            view = _draw(recipe, generator(seed, "view", record_id, index, attempt), f"view {index + 1}")
            if view.key and view.key not in {other.key for other in out}:
                out.append(view)
                break
    return tuple(out)


def _draw(recipe: ViewRecipe, rng: np.random.Generator, name: str) -> View:
    """One draw; every parameter takes its turn, so that switching one on leaves the others as they were."""

    def around(middle: float, reach: float) -> float:
        return round(middle + reach * float(rng.uniform(-1, 1)), 4)

    flip, flip_vertical = bool(rng.random() < recipe.flip), bool(rng.random() < recipe.flip_vertical)
    return View(
        flip=flip,
        flip_vertical=flip_vertical,
        rotation=around(0, recipe.rotation),
        scale=round(float(np.exp(rng.uniform(*np.log(recipe.scale)))), 4),
        brightness=around(0, recipe.brightness),
        contrast=around(1, recipe.contrast),
        saturation=around(1, recipe.saturation),
        hue=around(0, recipe.hue),
        elastic=round(recipe.elastic * float(rng.random()), 4),
        elastic_sigma=recipe.elastic_sigma,
        blur=round(recipe.blur * float(rng.random()), 5),
        crop=round(recipe.crop + (1 - recipe.crop) * float(rng.random()), 4),
        seed=int(rng.integers(1 << 31)),
        name=name,
    )

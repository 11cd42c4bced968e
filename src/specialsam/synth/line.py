"""A simulated production line: a camera above a moving cloth whose defects lie at known metres.

Along the web `s` counts metres from what leaves the first picture first; across it `v` counts millimetres from the
left edge of the picture. The web moves down through the picture, so that row y of a picture of H rows shows
s = travelled - (y + 0.5) * pitch, where `travelled` is the place of the picture's upper edge: H * pitch at the start.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.core.randomness import generator
from specialsam.core.settings import Settings
from specialsam.synth.defects import KINDS, make
from specialsam.synth.textures import TILE_SIDE, tile, tiles_of

_Values = npt.NDArray[np.float64]
RAMP = 0.5
"""Seconds in which the line stops and starts again."""
ROOM = 8
"""Segments of the web that are kept in memory at once."""


class LineRecipe(Settings):
    """A line: its web, its motion, its camera."""

    metres: float = Field(10.0, description="metres of web that pass", gt=0, le=100_000)
    side: int = Field(512, description="pixels of a picture, in rows and in columns", ge=64, le=4096)
    pitch_mm: float = Field(0.5, description="millimetres of web that a pixel shows", gt=0)
    speed: float = Field(0.2, description="metres a second while the line runs", gt=0)
    fps: float = Field(10.0, description="pictures a second", gt=0)
    defects: int = Field(10, description="defects on the web, in segments of their own", ge=0)
    kinds: tuple[str, ...] = Field(("thread", "cut", "hole", "stain"), description="kinds they are drawn from")
    stops: tuple[tuple[float, float], ...] = Field((), description="(second, seconds) that the line stands still")
    light: float = Field(0.08, description="share by which the light drifts up and down", ge=0, lt=1)
    vibration: float = Field(0.7, description="pixels (deviation) that the camera shakes", ge=0)
    exposure: float = Field(0.004, description="seconds of exposure, in which the web moves on", ge=0)
    noise: float = Field(2.0, description="levels of 255 (deviation) of the sensor's noise", ge=0)
    grey: bool = Field(False, description="a grey camera")
    seed: int = Field(0, description="of every random choice")

    @field_validator("kinds")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = sorted(set(value) - set(KINDS))
        if unknown or not value:
            raise ValueError(f"expected kinds of {', '.join(KINDS)}, got {', '.join(unknown) or 'none'}")
        return value

    @model_validator(mode="after")
    def _room(self) -> LineRecipe:
        if self.metres < self.length_m:
            raise ValueError(f"expected at least one picture of web ({self.length_m:g} m), got {self.metres:g} m")
        if self.defects > self.segments:
            raise ValueError(f"expected at most {self.segments} defects on {self.metres:g} m, got {self.defects}")
        return self

    @property
    def length_m(self) -> float:
        """Metres of web that a picture shows."""
        return self.side * self.pitch_mm / 1000

    @property
    def segments(self) -> int:
        """Whole pictures' lengths on the web."""
        return int(self.metres / self.length_m + 1e-9)


@dataclass(frozen=True)
class TrueDefect:
    """A defect of the web: its kind, (from, to) in metres along and millimetres across, and its area."""

    kind: str
    along_m: tuple[float, float]
    across_mm: tuple[float, float]
    area_mm2: float

    def as_json(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)


class Web:
    """The cloth of a recipe, drawn where it is looked at; `flawless` leaves the defects out.

    `defects` are its truth, in the order of the web.
    """

    def __init__(self, recipe: LineRecipe, flawless: bool = False):
        self.recipe = recipe
        rng = generator(recipe.seed, "line", "defects")
        chosen = () if flawless else rng.choice(recipe.segments, recipe.defects, replace=False)
        self._kinds = {int(place): recipe.kinds[int(rng.integers(len(recipe.kinds)))] for place in sorted(chosen)}
        weave = list(tiles_of("weave"))
        numbers = generator(recipe.seed, "line", "cloth").choice(weave, 2, replace=False)
        self._tiles = [tile(int(number))[0] for number in numbers]
        self._colour = generator(recipe.seed, "line", "colour").uniform(90, 190, 3).astype(np.float32)
        self._segment = lru_cache(maxsize=ROOM)(self._drawn)
        self.defects = tuple(self._segment(place)[1] for place in self._kinds)

    def rows(self, start: int, stop: int) -> ImageArray:
        """Rows of pixels `start` to `stop` of the web as they pass, uint8 (N, W, 3); it goes on without end."""
        side = self.recipe.side
        parts = []
        for number in range(start // side, (stop - 1) // side + 1):
            image = self._segment(number)[0]
            parts.append(image[max(0, start - number * side) : stop - number * side])
        return np.concatenate(parts)

    def _cloth(self, number: int) -> ImageArray:
        side = self.recipe.side
        first, second = self._tiles
        y, x = np.arange(number * side, (number + 1) * side)[:, None], np.arange(side)[None]
        fine = first[y % TILE_SIDE, x % TILE_SIDE].astype(np.float32) / 255 - 0.5
        broad = cv2.resize(second, (700, 700)).astype(np.float32) / 255 - 0.5
        level = 1 + 0.35 * fine + 0.12 * broad[y % 700, x % 700]
        return np.asarray(np.clip(level[..., None] * self._colour, 0, 255), np.uint8)

    def _drawn(self, number: int) -> tuple[ImageArray, TrueDefect]:
        image, recipe = self._cloth(number), self.recipe
        kind = self._kinds.get(number)
        if kind is None:
            return image, TrueDefect("", (0, 0), (0, 0), 0)
        found = make(kind, image, generator(recipe.seed, "line", "defect", number))
        rows, columns = np.nonzero(found.mask)
        pitch = recipe.pitch_mm
        first = number * recipe.side
        along = ((first + int(rows.min())) * pitch / 1000, (first + int(rows.max()) + 1) * pitch / 1000)
        across = (int(columns.min()) * pitch, (int(columns.max()) + 1) * pitch)
        return found.image, TrueDefect(kind, along, across, float(found.mask.sum() * pitch**2))


def travelled(recipe: LineRecipe) -> _Values:
    """Place in metres, float64 (N,), of the upper edge of each of the N pictures until all web has passed."""
    step, place, out = 1 / recipe.fps, recipe.length_m, []
    fine = max(1, round(step / 0.01))
    while place < recipe.metres + 1e-9:
        out.append(place)
        at = (len(out) - 1) * step
        for part in range(fine):
            place += _running(recipe, at + part * step / fine) * recipe.speed * step / fine
    return np.array(out)


def _running(recipe: LineRecipe, at: float) -> float:
    """Share of its speed that the line has at a second."""
    share = 1.0
    for start, lasting in recipe.stops:
        share = min(share, float(np.clip(max(start - at, at - start - lasting) / RAMP, 0, 1)))
    return share


class Camera:
    """What the camera sees of a web: drifting light, vibration, motion blur, noise."""

    def __init__(self, web: Web):
        self.web, self.recipe = web, web.recipe
        side = self.recipe.side
        y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
        self._fall: FloatArray = np.asarray(1 - 0.1 * (x * x + y * y) + 0.04 * x, np.float32)

    def picture(self, number: int, place: float) -> ImageArray:
        """Picture `number`, uint8 (H, W, 3) RGB, while the picture's upper edge is at `place` metres."""
        recipe = self.recipe
        rng = generator(recipe.seed, "line", "picture", number)
        pitch = recipe.pitch_mm / 1000
        shake = rng.normal(0, recipe.vibration, 2) if recipe.vibration else np.zeros(2)
        end = place / pitch + shake[0]
        last = int(np.floor(end))
        rows = self.web.rows(max(last - recipe.side - 1, 0), last + 2)[::-1]
        if len(rows) < recipe.side + 3:  # shaken beyond the very start of the web
            rows = np.pad(rows, ((0, recipe.side + 3 - len(rows)), (0, 0), (0, 0)), mode="edge")
        move = np.array([[1, 0, shake[1]], [0, 1, -(2 - (end - last))]], np.float32)
        image = cv2.warpAffine(rows, move, (recipe.side, recipe.side), borderMode=cv2.BORDER_REPLICATE)
        blur = recipe.exposure * recipe.speed / pitch * _running(recipe, number / recipe.fps)
        if blur > 1:
            image = cv2.blur(image, (1, round(blur)))
        gain = 1 + recipe.light * np.sin(2 * np.pi * number / recipe.fps / 40 + recipe.seed)
        out = image.astype(np.float32) * (self._fall * np.float32(gain))[..., None]
        if recipe.noise:
            out += rng.standard_normal(out.shape, np.float32) * np.float32(recipe.noise)
        out = np.clip(out, 0, 255).astype(np.uint8)
        if recipe.grey:
            out = cv2.cvtColor(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return np.asarray(out, np.uint8)

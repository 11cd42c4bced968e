"""How images that are larger than the model's frame are cut into overlapping tiles."""

from __future__ import annotations

from pydantic import Field, field_validator

from specialsam.core.settings import Settings
from specialsam.core.windows import SMALLEST, Size, Window, tiles


class TileSettings(Settings):
    """Tiles of an image's own pixels, each encoded by itself; images that are no larger than one are left whole."""

    side: int = Field(0, description=f"pixels of a tile's side in the image, {SMALLEST} or more; 0: no tiles", ge=0)
    overlap: float = Field(0.25, description="share of a side that neighbours have in common", ge=0, le=0.75)

    @field_validator("side")
    @classmethod
    def _none_or_enough(cls, value: int) -> int:
        if 0 < value < SMALLEST:
            raise ValueError(f"expected tiles of {SMALLEST} px or more, or 0 for none, got {value}")
        return value

    def windows(self, size: Size) -> list[Window]:
        """The tiles of an image of `size`, row by row; one where it is no larger. There must be a side."""
        return tiles(size, self.side, self.overlap)

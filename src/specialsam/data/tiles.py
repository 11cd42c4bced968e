"""How images that are larger than the model's frame are cut into overlapping tiles."""

from __future__ import annotations

from pydantic import Field

from specialsam.core.settings import Settings
from specialsam.core.windows import Size, Window, tiles


class TileSettings(Settings):
    """Tiles of an image's own pixels, each encoded by itself; images that are no larger than one are left whole."""

    side: int = Field(0, description="pixels of a tile's side in the image, 16 or more; 0: no tiles", ge=0)
    overlap: float = Field(0.25, description="share of a side that neighbours have in common", ge=0, le=0.75)

    def windows(self, size: Size) -> list[Window]:
        """The tiles of an image of `size`, row by row: all of it as one window where it is not cut."""
        return tiles(size, self.side, self.overlap) if self.side else [Window(0, 0, *size)]

"""Marked snapshots: of each event the picture in which it was surest, written while it is in sight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2

from specialsam.core.errors import SpecialSamError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray

FOLDER = "snapshots"
COLOUR = (14, 72, 196)
"""Blue, green, red of the mark."""
QUALITY = 88


def marked_jpeg(image: ImageArray, boxes: Iterable[Sequence[float]]) -> bytes:
    """A picture uint8 (H, W, 3) RGB as JPEG with boxes (x0, y0, x1, y1) around the finds, a little apart from them."""
    marked = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    wide = max(1, round(min(image.shape[:2]) / 200))
    apart = 3 * wide
    for box in boxes:
        x0, y0, x1, y1 = (round(side) for side in box)
        cv2.rectangle(marked, (x0 - apart, y0 - apart), (x1 + apart, y1 + apart), (255, 255, 255), 2 * wide + 1)
        cv2.rectangle(marked, (x0 - apart, y0 - apart), (x1 + apart, y1 + apart), COLOUR, wide)
    done, packed = cv2.imencode(".jpg", marked, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise SpecialSamError(f"cannot make a snapshot of a picture of {image.shape}")
    return packed.tobytes()


def write_snapshot(out: Path, name: str, packed: bytes) -> None:
    """SpecialSamError in one line where it cannot be written."""
    write_whole(out / name, lambda path: path.write_bytes(packed))


def forget_others(out: Path, names: Iterable[str]) -> None:
    """Remove snapshots of what did not become an event: those of names that are not among these."""
    kept = set(names)
    folder = out / FOLDER
    if folder.is_dir():
        for path in folder.iterdir():
            if f"{FOLDER}/{path.name}" not in kept:
                with suppress(OSError):
                    path.unlink()

"""What a record's files hold, as digests: whether an image or a mask is still what it was when work was done on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from specialsam.core.console import Progress
from specialsam.core.errors import DataError
from specialsam.core.folders import at_hand
from specialsam.core.geometry import ImageArray
from specialsam.core.ledger import JsonValue, digest
from specialsam.core.types import Record


@dataclass(frozen=True)
class Content:
    """Digests of a record's image file and of its masks with the way they are read; an unreadable file has one too."""

    image: str
    masks: str


def digest_file(path: Path) -> str:
    """sha256 of an image file's bytes: tells images apart without decoding them. DataError if it cannot be read."""
    try:
        with at_hand(path).open("rb") as file:
            return "file:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: expected a readable image file ({error.strerror or error})") from error


def digest_array(image: ImageArray) -> str:
    """sha256 of a decoded image's type, shape and bytes, for images (H, W, 3) that are no files."""
    found = hashlib.sha256(f"{image.dtype.str}{image.shape}".encode())
    found.update(image.tobytes())
    return "array:" + found.hexdigest()


def digest_record(record: Record) -> str:
    """Digest of a record's image file and, where its format alone does not say it, of how its values are read."""
    return digest_file(record.image) + _read_as(record)


def content_of(record: Record) -> Content:
    """The digests of one record."""
    said: list[JsonValue] = [
        record.mask_kind,
        record.rles,
        record.labels,
        record.category,
        record.supercategory,
        None if record.mask is None else _named(record.mask),
    ]
    if record.more:
        said.append([_named(path) for path in record.more])
    if record.masks_as is not None:
        said.append(asdict(record.masks_as))
    return Content(_named(record.image) + _read_as(record), digest(*said))


def _named(path: Path) -> str:
    try:
        return digest_file(path)
    except DataError as error:
        return f"unreadable: {error}"


def _read_as(record: Record) -> str:
    """What follows the digest of an image's bytes where its format alone does not say how they are read."""
    return "" if record.reading is None else f":{digest(asdict(record.reading))[:16]}"


def contents(records: Iterable[Record], progress: Progress | None = None) -> dict[str, Content]:
    """The digests of all records, by id."""
    listed = list(records)
    out = {}
    for number, record in enumerate(listed, 1):
        out[record.id] = content_of(record)
        if progress:
            progress(number, len(listed), record.id)
    return out

"""Near-duplicates by perceptual hash, mirrored ones too, so that no copy of a test image hides in train.

The hash is the sign pattern of the 63 lowest cosine frequencies of a 32x32 grey thumbnail against their median (Zauner,
"Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, `pHash`). Mirroring an image changes the
sign of every odd horizontal frequency, so the hash of the mirrored image comes from the same transform.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.console import Progress
from specialsam.core.errors import DataError
from specialsam.core.geometry import ImageArray
from specialsam.core.types import Problem, Reading, Record
from specialsam.data.images import read_grey
from specialsam.data.pairs import UNREADABLE

HashArray = npt.NDArray[np.uint64]

DISTANCE = 10
"""Bits of 63 in which near-duplicates differ at most; see `near_duplicates` for what was measured."""
TOGETHER = DISTANCE + 2
"""Bits up to which a split keeps images together. The hash of one picture changes with the size at which it was decoded
(of 611 photographs 94 % by none or two bits, all by six at most): a check that decodes pictures whole should find no
pair that the split could not see."""

_SIDE = 32
_FREQUENCIES = 8
_BLOCK = 4_000_000
"""Hash pairs compared at once (32 MB)."""


def thumbnail(path: Path, reading: Reading | None = None) -> ImageArray:
    """Grey thumbnail uint8 (32, 32) of an image file, decoded no larger than needed; DataError if unreadable."""
    grey = read_grey(path, 2 * _SIDE, reading)
    return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def perceptual_hash(grey: ImageArray) -> HashArray:
    """Hashes uint64 (2,) of a grey thumbnail (32, 32): as it is, and mirrored left to right; the first bit is 0."""
    if grey.shape != (_SIDE, _SIDE):
        raise DataError(f"expected a grey thumbnail of {_SIDE}x{_SIDE}, got {grey.shape}")
    low = cv2.dct(grey.astype(np.float32))[:_FREQUENCIES, :_FREQUENCIES]
    low = np.where(np.abs(low) < 1e-2, 0, low)  # a plain image has rounding errors where others have structure
    mirrored = low * np.where(np.arange(_FREQUENCIES) % 2, -1, 1)
    bits = np.zeros((2, _FREQUENCIES**2), np.bool_)
    for row, frequencies in zip(bits, (low, mirrored), strict=True):
        structure = frequencies.ravel()[1:]
        row[1:] = structure > np.median(structure)
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def hash_records(
    records: Sequence[Record],
    progress: Progress | None = None,
    problems: list[Problem] | None = None,
) -> tuple[list[str], HashArray]:
    """Ids and hashes uint64 (N, 2) of the readable records, in their order; one thumbnail is in memory at a time.

    An unreadable image has no hash. It is appended to `problems` where that is given; who loads it names it anyway.
    """
    ids: list[str] = []
    hashes: list[HashArray] = []
    for done, record in enumerate(records, 1):
        try:
            hashes.append(perceptual_hash(thumbnail(record.image, record.reading)))
            ids.append(record.id)
        except DataError as error:
            if problems is not None:
                problems.append(Problem(record.image, UNREADABLE, str(error)))
        if progress:
            progress(done, len(records), record.id)
    return ids, np.array(hashes, np.uint64).reshape(-1, 2)


def close_pairs(hashes: HashArray, distance: int) -> list[tuple[int, int, int]]:
    """(i, j, bits that differ) with i < j of all rows of (N, 2) hashes that differ in at most `distance` bits.

    The second column counts against the first: a mirrored copy is as close as a straight one. Memory stays at some
    50 MB whatever N is.
    """
    out: list[tuple[int, int, int]] = []
    count = len(hashes)
    step = max(1, _BLOCK // max(1, count))
    straight, mirrored = hashes[:, 0], hashes[:, 1]
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        columns = straight[None, start:]
        bits = np.minimum(
            np.bitwise_count(straight[rows, None] ^ columns), np.bitwise_count(mirrored[rows, None] ^ columns)
        )
        first, second = np.nonzero(bits <= distance)
        for i, j in zip(first.tolist(), second.tolist(), strict=True):
            if i < j:
                out.append((start + i, start + j, int(bits[i, j])))
    return out


def near_duplicates(
    records: Sequence[Record],
    distance: int = DISTANCE,
    progress: Progress | None = None,
    problems: list[Problem] | None = None,
) -> list[tuple[str, str, int]]:
    """Pairs of record ids whose images differ in at most `distance` bits of 63, closest first, with that number.

    The default 10 was measured on CAMO's 996 training images (495,510 pairs): the 23 pairs up to 10 bits are all frames
    of three scenes; at 12 bits 3 of 4 pairs are, at 14 chance begins. On 211 wood textures the 8 pairs up to 10 are the
    same board, raw and sealed or in two lights; 305 MVTec grid images, 300 of BSDS500 and 26 of a fabric have no pair
    (closest: 12, 14 and 18 bits). Of 200 CAMO images, 10 bits find again: all as JPEG of quality 30, at half or double
    size, grey, mirrored, squashed, with noise of 10 levels or 2 % cut off; 99.5 % turned by 2 degrees or 40 levels
    brighter; 53 % with 5 % cut off on each side, and 2 % with 10 %. This finds copies, not likeness.

    Unreadable images are in no pair, as in `hash_records`.
    """
    if distance < 0:
        raise DataError(f"expected a distance of at least 0 bits, got {distance}")
    ids, hashes = hash_records(records, progress, problems)
    pairs = sorted(close_pairs(hashes, distance), key=lambda pair: (pair[2], pair[0], pair[1]))
    return [(ids[i], ids[j], bits) for i, j, bits in pairs]


def duplicate_groups(pairs: Iterable[tuple[str, str, int]]) -> dict[str, str]:
    """The group of every id that occurs in a pair: pairs that share an id chain together, named by the smallest id."""
    parents: dict[str, str] = {}

    def root(id: str) -> str:
        while parents.setdefault(id, id) != id:
            parents[id] = parents[parents[id]]
            id = parents[id]
        return id

    for one, other, _ in pairs:
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return {id: root(id) for id in sorted(parents)}

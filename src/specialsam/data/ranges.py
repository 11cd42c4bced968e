"""One range for a data set: which values of its deeper images become black and white, and which bands are colours.

A file's container says little of that: cameras and scanners put 10, 12 or 14 bits into 16, instruments put counts into
32 or floats beside a value for "no data". So the values of a sample are looked at, the range is taken for all images
alike, and a note states it. Files of bytes are left as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from specialsam.core.errors import DataError
from specialsam.core.geometry import PixelArray
from specialsam.core.sampling import evenly
from specialsam.core.types import Reading, Record
from specialsam.data.headers import Depth, depth_of
from specialsam.data.images import raw_values
from specialsam.data.read_settings import READ, ReadSettings
from specialsam.data.shading import Span, finite, own_span

SAMPLE_IMAGES = 60
SAMPLE_PIXELS = 300_000
"""Images whose values are looked at, evenly chosen, and the values kept of each."""
BITS = (8, 10, 12, 14, 16)
OUTLIER_SHARE = 1e-3
"""Values above which this share of the pixels lies may be hot pixels: they count only where they need no more bits."""
HOT = 4.0
"""How many times the range without outliers the range with them must be before they are cut off."""
SCALES = (1.0, 100.0, 255.0, 1023.0, 4095.0, 10_000.0, 16_383.0, 65_535.0)
"""Ranges that floats come in: shares, percent, bytes, bits, reflectance."""
FILLED = 0.25
"""A range fits where the data's largest value reaches this share of it."""
SENTINELS = (-9999.0, -99999.0, -32768.0, -32767.0, -999.0, -1e10, -1e20, 9999.0, 99999.0, 1e20)
"""Values that stand for "no data" where they lie far outside of all others."""
HUGE = 1e30
FLAT_ALPHA = 0.5
"""A fourth band is alpha where this share of its pixels is 0 or 255."""


@dataclass(frozen=True)
class _Look:
    """A sample of the values of all images of one type."""

    kind: str
    values: PixelArray
    own: tuple[Span, ...]
    nodata: tuple[float, ...]
    looked: int


def with_readings(records: Sequence[Record], how: ReadSettings = READ) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The records with how their images are read, and what there is to say of it; bytes of a colour stay as they are.

    An image that cannot be read has no part in it: who loads it names it.
    """
    groups: dict[tuple[str, int, bool, bool], list[Record]] = defaultdict(list)
    for record in records:
        depth = _depth(record)
        if depth is not None and (not depth.plain or how.bands):
            stacked = depth.pages > 1 and depth.bands == 1
            groups[(depth.kind, depth.pages if stacked else depth.bands, stacked, depth.alpha)].append(record)
    readings: dict[str, Reading] = {}
    notes: list[str] = []
    for (kind, bands, stacked, alpha), members in groups.items():
        chosen, said = _bands(members, bands, stacked, alpha, how)
        reading = Reading(bands=chosen)
        if kind not in ("uint8", "bool"):
            ranged, more = _ranged(members, kind, stacked, chosen, how)
            reading, said = replace(ranged, bands=chosen), [*said, more] if more else said
        if reading != Reading():
            readings.update((record.id, reading) for record in members)
        notes += [f"{len(members)} images: {line}" for line in said]
    kept = tuple(
        replace(record, reading=readings[record.id]) if record.id in readings else record for record in records
    )
    return kept, tuple(notes)


def _depth(record: Record) -> Depth | None:
    try:
        return depth_of(record.image)
    except DataError:
        return None


def _bands(
    members: Sequence[Record], bands: int, stacked: bool, alpha: bool, how: ReadSettings
) -> tuple[tuple[int, ...], list[str]]:
    """Which bands are colours, () for what the file itself says, and what to say of it."""
    what = "pages" if stacked else "bands"
    if how.bands:
        return how.bands, [
            f"of {bands} {what}, {', '.join(map(str, how.bands))} are read as colours, as data.bands says"
        ]
    first = "first three are read as red, green and blue" if bands in (3, 4) else "first one counts"
    if stacked:
        chosen = (0, 1, 2) if bands in (3, 4) else (0,)
        return chosen, [f"of {bands} pages the {first} (else set data.bands)"]
    if alpha:
        if _is_alpha(members):
            return (), []
        return (0, 1, 2), [
            "the fourth band is called alpha but looks like a measurement (near infrared?): the first three bands "
            "count (else set data.bands)"
        ]
    if bands == 2 or bands > 3:
        first = "first one counts" if bands == 2 else "first three are read as red, green and blue"
        return ((0,) if bands == 2 else (0, 1, 2)), [f"of {bands} bands the {first} (else set data.bands)"]
    return (), []


def _is_alpha(members: Sequence[Record]) -> bool:
    """Whether the fourth band of most files is nothing but 0 and 255, or nearly."""
    votes = []
    for record in evenly(members, SAMPLE_IMAGES):
        try:
            fourth = raw_values(record.image)[..., 3]
        except (DataError, IndexError):
            continue
        votes.append(float(np.isin(fourth, (0, 255)).mean()) >= FLAT_ALPHA)
    return 2 * sum(votes) >= len(votes)


def _look(members: Sequence[Record], kind: str, stacked: bool, bands: tuple[int, ...]) -> _Look | None:
    values, own, stated = [], [], set()
    for record in evenly(members, SAMPLE_IMAGES):
        try:
            depth = depth_of(record.image)
            pixels = raw_values(record.image, pages=stacked)
        except DataError:
            continue
        if pixels.ndim == 3:
            pixels = pixels[..., [band for band in bands or (0, 1, 2) if band < pixels.shape[2]] or [0]]
        if depth.nodata is not None:
            stated.add(depth.nodata)
        own.append(own_span(pixels))
        flat = pixels.ravel()
        ends = np.array([flat.min(), flat.max()], flat.dtype)
        values.append(np.concatenate([flat[:: max(1, flat.size // SAMPLE_PIXELS)], ends]))
    if not values:
        return None
    return _Look(kind, np.concatenate(values), tuple(own), tuple(sorted(stated)), len(values))


def _ranged(
    members: Sequence[Record], kind: str, stacked: bool, bands: tuple[int, ...], how: ReadSettings
) -> tuple[Reading, str]:
    """The range of images of one type, nothing where their own depth says the same, and a line that states it."""
    look = _look(members, kind, stacked, bands)
    if look is None:
        return Reading(), ""
    nodata = _nodata(look)
    values = finite(look.values)
    for nothing in nodata:
        values = values[~np.isclose(values, nothing, rtol=1e-6, atol=0)]
    if not values.size:
        return Reading(), f"values of {kind} hold nothing but missing data"
    (low, high), why = (how.levels, "as data.levels says") if how.levels else span_of(values)
    missing = f", {', '.join(f'{nothing:g}' for nothing in nodata)} is missing data" if nodata else ""
    line = (
        f"values of {kind} from {float(values.min()):g} to {float(values.max()):g} in the {look.looked} looked at, "
        f"read as {low:g} (black) to {high:g} (white), {why}{missing} (else set data.levels)"
    )
    if not nodata and all(span == (low, high) for span in look.own):
        return Reading(), line
    return Reading(low, high, nodata), line


def _nodata(look: _Look) -> tuple[float, ...]:
    """Values that stand for missing data: those stated, and extremes that lie far outside of all others."""
    values = finite(look.values)
    found = [value for value in look.nodata if np.isclose(values, value, rtol=1e-6, atol=0).any()]
    if look.kind.startswith(("float", "int")) and values.size:
        found += [float(end) for end in {values.min(), values.max()} if abs(float(end)) > HUGE]
        for end in (float(values.min()), float(values.max())):
            others = values[values != end]
            if end in SENTINELS and others.size and end not in found:
                near, far = float(others.min()), float(others.max())
                if min(abs(end - near), abs(end - far)) > far - near:
                    found.append(end)
    return tuple(sorted(set(found)))


def span_of(values: PixelArray) -> tuple[Span, str]:
    """The range to read values (N,) by, and why: bits for whole numbers from 0 on, the scales of floats, else their
    extremes. A few values far above all others (hot pixels) are cut off.
    """
    low, high = float(values.min()), float(values.max())
    usual = float(np.quantile(values, 1 - OUTLIER_SHARE))
    cut = ""
    if low >= 0 and np.issubdtype(values.dtype, np.integer) and high <= 65535:
        top = _of_bits(high)
        if _of_bits(usual) * HOT < top:
            top, cut = _of_bits(usual), ", a few values above it are cut off"
        return (0.0, top), f"which is {int(np.log2(top + 1))} bits{cut}"
    floating = np.issubdtype(values.dtype, np.floating)
    if floating and low >= 0:
        peak = usual if usual > 0 and high > HOT * usual else high
        for scale in SCALES:
            if scale * FILLED <= peak <= scale:
                return (0.0, scale), "the usual range of such values" + (", what lies above is cut off" * (peak < high))
    bottom = float(np.quantile(values, OUTLIER_SHARE))
    spread = max(usual - bottom, 1e-12)
    if high - usual > HOT * spread or bottom - low > HOT * spread:
        return (bottom, usual), f"all but {OUTLIER_SHARE:.1%} of them at each end"
    return (low, high if high > low else low + 1), "their own extremes"


def _of_bits(value: float) -> float:
    return float(2 ** next(bits for bits in BITS if value <= 2**bits - 1) - 1)

"""Photographs to look at: which files lie in the places asked for, and when and where each of them was taken."""

from __future__ import annotations

import importlib
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import open_regular
from specialsam.core.names import printable
from specialsam.core.types import Problem
from specialsam.data.headers import ON_REQUEST, SUFFIXES, opened
from specialsam.data.pairs import OTHER_FILE, UNREADABLE, natural_key

HEIF = frozenset({".heic", ".heif"})
"""Endings of photographs that need a package of their own: see `register_heif`."""
ENDINGS = SUFFIXES | HEIF
LINK = "link left alone"
HEIF_PACKAGE = "pillow-heif"

_HEIF_CONTENT = re.compile(r"ftyp(he|mif1|msf1)")
_TIME = re.compile(r"(\d{4})[:/-](\d\d)[:/-](\d\d)[ T](\d\d:\d\d:\d\d)")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")


@dataclass
class _Found:
    """What was found so far: photographs by name, their real paths, problems, and endings of what is none."""

    files: dict[str, Path] = field(default_factory=dict)
    real: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, path: Path, real: str) -> None:
        """Keep a file under its name, made printable, once; where two names print alike the second gets a number."""
        if real in self.real:
            return
        shown = whole = printable(name)
        number = 1
        while shown in self.files:
            number += 1
            shown = f"{whole} ({number})"
        self.real.add(real)
        self.files[shown] = path

    def problem(self, path: Path, kind: str, reason: str) -> None:
        self.problems.append(Problem(path, kind, f"{path}: {reason}"))


def gather(places: Sequence[Path], leave_out: Iterable[Path] = ()) -> tuple[dict[str, Path], tuple[Problem, ...]]:
    """Photographs in folders, at any depth, and files asked for by name; with what looks like one and is none.

    Keys are names relative to the place (posix, printable), in natural order, the places one after the other; of
    several places each name begins with the place's own, and with as many folders above it as tell the places apart. A
    file that lies in two places counts once. Left out are hidden files and folders, and folders of `leave_out`, such as
    the one for the answers. A link is followed only where it was asked for by name, or leads to a file in its place.

    Raises UsageError in one line for a place that is not there, and where no photograph was found at all.
    """
    found = _Found()
    out_of_bounds = {os.path.realpath(folder) for folder in leave_out}
    folders = {place for place in places if _is_folder(place)}
    labels = _labels(places)
    for place, label in labels.items():
        if place in folders:
            _look_through(place, label if len(labels) > 1 else "", out_of_bounds, found)
        elif _is_usable(place, found):
            found.add(label, place, os.path.realpath(place))
    if not found.files:
        raise UsageError(_nothing(places, found))
    return found.files, tuple(found.problems)


def _is_folder(place: Path) -> bool:
    """Whether a place is a folder; UsageError where nothing is there or it cannot be looked at."""
    try:
        return stat.S_ISDIR(place.stat().st_mode)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{place}: expected a folder or a photograph, got none ({reason}); check the name") from error


def _labels(places: Sequence[Path]) -> dict[Path, str]:
    """Each place once, with the fewest last parts of its path (posix) that no other place shares."""
    unique: dict[str, Path] = {}
    for place in places:
        unique.setdefault(os.path.realpath(place), place)
    parts = {place: Path(os.path.normpath(place.absolute())).parts[1:] or ("root",) for place in unique.values()}
    labels: dict[Path, str] = {}
    most = max((len(own) for own in parts.values()), default=0)
    for length in range(1, most + 1):
        ends = {place: "/".join(own[-length:]) for place, own in parts.items()}
        times = Counter(ends.values())
        for place, end in ends.items():
            if times[end] == 1 or length == most:
                labels.setdefault(place, end)
    return {place: labels[place] for place in unique.values()}


def _look_through(place: Path, label: str, out_of_bounds: set[str], found: _Found) -> None:
    """Add all photographs below a folder, files before the links to them, both in natural order."""
    files, links = _listed(place, out_of_bounds, found)
    root = Path(os.path.realpath(place))
    keep = [(path, str(root / path.relative_to(place))) for path in files]
    keep += [(link, real) for link in sorted(links, key=natural_key) if (real := _led_to(link, root, found))]
    own: dict[str, Path] = {}
    for path, real in keep:
        if real not in own and _is_usable(path, found):
            own[real] = path
    for real, path in sorted(own.items(), key=lambda pair: natural_key(pair[1])):
        name = path.relative_to(place).as_posix()
        found.add(f"{label}/{name}" if label else name, path, real)


def _listed(place: Path, out_of_bounds: set[str], found: _Found) -> tuple[list[Path], list[Path]]:
    """Files below a folder that bear a photograph's name, and all links; without recursion, however deep it goes."""
    files: list[Path] = []
    links: list[Path] = []
    folders = [place]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                seen = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
            for entry in seen:
                path = Path(folder, entry.name)
                if entry.is_symlink():
                    links.append(path)
                elif entry.is_dir():
                    if os.path.realpath(path) not in out_of_bounds:
                        folders.append(path)
                elif path.suffix.lower() in ENDINGS:
                    files.append(path)
                else:
                    found.others[printable(path.suffix.lower())] += 1
        except OSError as error:
            found.problem(
                folder, UNREADABLE, f"the folder cannot be listed ({error.strerror}); what it holds is left out"
            )
    return files, links


def _led_to(link: Path, root: Path, found: _Found) -> str:
    """The real path of a photograph in `root` that a link leads to; "" for all else, a problem where one is lost."""
    target = Path(os.path.realpath(link))
    named = link.suffix.lower() in ENDINGS
    try:
        is_folder = stat.S_ISDIR(link.stat().st_mode)
    except OSError:
        if named:
            found.problem(link, LINK, "expected a photograph, got a link that leads nowhere; remove or mend it")
        return ""
    if not (is_folder or named):
        return ""
    inside = target.is_relative_to(root)
    if not inside:
        found.problem(link, LINK, "the link leads out of the place asked for; ask for what it leads to as well")
    elif is_folder and any(part.startswith(".") for part in target.relative_to(root).parts):
        found.problem(link, LINK, "the link leads into a hidden folder; ask for what it leads to as well")
    return str(target) if inside and not is_folder else ""


def _is_usable(path: Path, found: _Found) -> bool:
    """Whether a path is a regular file that may be read; a problem where it is not."""
    try:
        if not path.is_file():
            open_regular(path).close()
    except DataError as error:
        found.problems.append(Problem(path, OTHER_FILE, str(error)))
        return False
    except OSError as error:
        found.problem(path, UNREADABLE, f"the file cannot be read ({error.strerror})")
        return False
    if not os.access(path, os.R_OK):
        found.problem(path, UNREADABLE, "expected a readable photograph, permission was denied")
        return False
    return True


def _nothing(places: Sequence[Path], found: _Found) -> str:
    """What to say where no photograph was found."""
    if not places:
        return "expected a folder of photographs or several, got none; name one"
    where = ", ".join(map(str, places[:3])) + (f" and {len(places) - 3} other places" if len(places) > 3 else "")
    passed = found.others.total()
    kinds = ", ".join(ending or "no ending" for ending, _ in found.others.most_common(3))
    among = f" among {passed} other file{'s' if passed > 1 else ''} ({kinds})" if passed else ""
    broken = f" ({len(found.problems)} cannot be used: {found.problems[0].message})" if found.problems else ""
    wanted = ", ".join(sorted(ENDINGS))
    return f"expected photographs ({wanted}) in {where}, found none{among}{broken}; name the folder that holds them"


@dataclass(frozen=True)
class Exif:
    """When and where a photograph was taken, as its camera wrote it.

    `taken` is ISO 8601 in local time, with its offset where the camera states one (+02:00), "" where the time is
    missing or nonsense. `latitude` and `longitude` are degrees, north and east positive; both or neither are known.
    """

    taken: str = ""
    latitude: float | None = None
    longitude: float | None = None


def exif_of(path: Path) -> Exif:
    """What the EXIF block of an image file says, read without its pixels; nothing of one that is damaged or foreign."""
    tags, parts = ExifTags.Base, ExifTags.IFD
    with suppress(DataError), opened(path) as image:
        # The method of the base class: PNG's own would decode all pixels to look for EXIF behind them.
        exif = _read(Image.Image.getexif, image) or Image.Exif()
        detail, gps = (_read(exif.get_ifd, part) or {} for part in (parts.Exif, parts.GPSInfo))
        taken = _taken(detail.get(tags.DateTimeOriginal), detail.get(tags.OffsetTimeOriginal))
        return Exif(taken or _taken(_read(exif.get, tags.DateTime), detail.get(tags.OffsetTime)), *_place(gps))
    return Exif()


def _read(get: Callable[[Any], Any], what: object) -> Any:
    """What PIL reads; None where the bytes are damaged, of which it makes errors of every kind."""
    try:
        return get(what)
    except Exception:
        return None


def _text(value: object) -> str:
    """A text of EXIF, which ends where a NUL does and may come as bytes."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
    return text.partition("\0")[0].strip()


def _taken(time: object, offset: object) -> str:
    """2026:01:31 18:00:00 and an offset, if there is one, as ISO 8601; "" for what is no time."""
    match = _TIME.match(_text(time))
    if match is None:
        return ""
    local, zone = "{}-{}-{}T{}".format(*match.groups()), _text(offset)
    for text in (f"{local}{zone}" if _OFFSET.fullmatch(zone) else local, local):
        with suppress(ValueError):
            return datetime.fromisoformat(text).isoformat()
    return ""


def _place(gps: dict[int, Any]) -> tuple[float | None, float | None]:
    """(latitude, longitude) of a GPS block; (None, None) unless both are on earth and say which half they are of."""
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "NS", 90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "EW", 180)
    return (None, None) if latitude is None or longitude is None else (latitude, longitude)


def _degrees(parts: Any, half: object, halves: str, most: float) -> float | None:
    """Degrees, minutes and seconds as degrees, seven decimals (a centimetre), negative in the second of two halves."""
    side = _text(half).upper()
    try:
        numbers = [float(part) for part in (parts if isinstance(parts, tuple | list) else (parts,))]
        value = math.fsum(number / unit for number, unit in zip(numbers, (1, 60, 3600), strict=False))
    except (TypeError, ValueError, ArithmeticError):
        return None
    if side not in tuple(halves) or not 0 <= value <= most:
        return None
    return round(-value if side == halves[1] else value, 7) + 0.0


def register_heif() -> bool:
    """Let this process read HEIC and HEIF photographs; False where the package for it is not installed."""
    if ON_REQUEST not in Image.OPEN:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except (ImportError, AttributeError):
            return False
    return ON_REQUEST in Image.OPEN


def reason_for(path: Path, error: Exception) -> str:
    """Why a photograph failed, in one line that is shown beside its name; a HEIC one may lack a package."""
    text = printable(" ".join(str(error).split())) or type(error).__name__
    if ON_REQUEST not in Image.OPEN and (
        _HEIF_CONTENT.search(text) or (path.suffix.lower() in HEIF and "ftyp" in text)
    ):
        return (
            f"a HEIC photograph needs the package {HEIF_PACKAGE}, which is not installed; "
            f"run pip install {HEIF_PACKAGE} or save it as JPEG"
        )
    return text.removeprefix(f"{printable(str(path))}: ")

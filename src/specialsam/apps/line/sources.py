"""What can be inspected: a folder or glob of pictures, a video file, a camera's number, an RTSP or HTTP address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from specialsam.apps.photographs import gather
from specialsam.core.console import complain
from specialsam.core.errors import UsageError
from specialsam.core.names import printable
from specialsam.data.pairs import natural_key

FILMS = (".avi", ".mp4", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".webm", ".ts", ".mjpg", ".mjpeg")
SCHEMES = ("rtsp", "rtsps", "http", "https")
_GLOB = re.compile(r"[*?\[]")
AXES = {"down": (0, 1), "up": (0, -1), "right": (1, 0), "left": (-1, 0)}
"""Unit step (x, y) of each direction."""


@dataclass(frozen=True)
class Source:
    """A stream: its `kind` (folder, video, camera, url), `place`, the picture files of a folder, its name to show."""

    kind: str
    place: str
    name: str
    files: tuple[str, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it can be read at any pace, and again: files can."""
        return self.kind in ("folder", "video")


def source_of(text: str, out: Path | None = None) -> Source:
    """What a user names; UsageError in one line for what is none, or holds no picture."""
    if text.isascii() and text.isdigit():
        return Source("camera", text, f"camera {text}")
    if "://" in text:
        return _address(text)
    path = Path(text)
    if path.is_dir() or (not path.exists() and _GLOB.search(text)):
        return _pictures(path, text, out)
    if path.is_file():
        if path.suffix.lower() not in FILMS:
            raise UsageError(f"expected a video ({', '.join(FILMS)}) or a folder of pictures, got {text}")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # at which OpenCV ends its process
            raise UsageError(f"expected a video whose name is text, got {printable(text)}; rename it") from error
        return Source("video", str(path), printable(path.name))
    if path.exists():
        raise UsageError(f"expected a video file, got something else in {text}")
    raise UsageError(
        f"expected a folder or glob of pictures, a video file, a camera's number or an rtsp:// or http:// address, "
        f"found nothing at {text}"
    )


def _address(text: str) -> Source:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme.lower() not in SCHEMES:
        scheme = text.split("://", 1)[0]
        raise UsageError(f"expected an address with {', '.join(SCHEMES)} and a host, got {printable(scheme)}://...")
    return Source("url", text, hidden(text))


def hidden(address: str) -> str:
    """An address without its password and without what follows a question mark, to be shown and kept."""
    parts = urlsplit(address)
    place = parts.netloc.rpartition("@")[2]
    return printable(urlunsplit((parts.scheme, place, parts.path, "", "")))


def _pictures(path: Path, text: str, out: Path | None) -> Source:
    if path.is_dir():
        places = [path]
    else:
        places = sorted(path.parent.glob(path.name)) if not _GLOB.search(str(path.parent)) else []
    if not places:
        raise UsageError(f"expected pictures, found none that match {text}")
    files, problems = gather(places, [out] if out else [])
    for problem in problems:
        complain(f"left out: {problem.message}")
    ordered = tuple(str(files[name]) for name in sorted(files, key=lambda name: natural_key(Path(name))))
    return Source("folder", str(path), printable(path.name or text), ordered)

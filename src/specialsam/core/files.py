"""Whole files or none: write beside, then rename; and nothing but regular files is opened of what lies in a folder."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from specialsam.core.documents import parse_json
from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.folders import at_hand

FULL = 1 << 20
"""Bytes below which a disk counts as full when a write has failed."""

LEFTOVER = r"\..+\.(?P<pid>\d+)\.tmp(\..*)?"
"""Names of files that `write_whole` has begun; the process that writes one is named in it."""


def read_json(path: Path, remedy: str) -> Any:
    """What a JSON file holds; DataError in one line for one that is unreadable, damaged or nested without end."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"expected a readable {path}, got a damaged one; {remedy}") from error


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading; what else may bear an image's name never ends or never begins to be read.

    Raises DataError for a folder, a named pipe, a socket or a device, and OSError as `open` does (nothing there, no
    permission, a link that leads to itself).
    """
    mode = at_hand(path).stat().st_mode
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
        raise DataError(f"{path}: expected a file, got {kind}")
    return path.open("rb")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; nothing half-written is left.

    Raises SpecialSamError in one line where the folder cannot be written or the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        beside.replace(path)
    except Exception as error:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
        elif _disk_is_full(error, path.parent):
            reason = os.strerror(errno.ENOSPC)
        else:
            raise
        raise SpecialSamError(f"cannot write {path} ({reason}); make room or choose another folder") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def _disk_is_full(error: Exception, folder: Path) -> bool:
    """Whether a full disk is behind an error: torch and safetensors raise errors of their own kinds."""
    return os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < FULL


def keep_only(folder: Path, names: Iterable[str], listed: str) -> int:
    """Remove what an earlier call wrote below `folder` and this one did not; the number of files that went.

    `names` (relative, posix) are the files that belong there now; `listed` is the file, a name a line, in which the
    last call left its own. What no call has listed is somebody else's and stays.
    """
    now = set(names)
    known = folder / listed
    before = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    gone = 0
    for name in before:
        path = folder / name
        inside = not Path(name).is_absolute() and ".." not in Path(name).parts
        if inside and name not in now and path.is_file():
            path.unlink()
            gone += 1
    write_whole(known, lambda beside: beside.write_text("".join(f"{name}\n" for name in sorted(now)), encoding="utf-8"))
    return gone

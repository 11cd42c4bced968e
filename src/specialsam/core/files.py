"""Whole files or none: write beside, then rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from specialsam.core.errors import SpecialSamError

FULL = 1 << 20
"""Bytes below which a disk counts as full when a write has failed."""


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

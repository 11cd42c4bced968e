"""Whole files or none: write beside, then rename."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from specialsam.core.errors import SpecialSamError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; nothing half-written is left.

    Raises SpecialSamError in one line where the folder cannot be written or the disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        beside.replace(path)
    except OSError as error:
        raise SpecialSamError(
            f"cannot write {path} ({error.strerror or error}); make room or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            beside.unlink()

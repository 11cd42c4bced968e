"""What every process draws alike, drawn once on a machine: arrays in a file, named by the code that draws them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
import scipy

from specialsam.core.errors import SpecialSamError
from specialsam.core.files import write_whole
from specialsam.core.folders import cache_folder, in_use

Arrays = dict[str, Any]
"""numpy arrays by name, or what becomes one: numbers, text, tuples of numbers."""


def kept(what: str, name: str, drawn_by: str, draw: Callable[[], Arrays]) -> Arrays:
    """The arrays that `draw` makes, by name, of any shape and type: read where this machine has them, else drawn.

    `what` names the folder of the cache, `drawn_by` (`code`) whatever decides the arrays, so that other code draws
    anew. A damaged file counts as none, and a machine that lets nothing be kept draws every time.
    """
    path = _folder(cache_folder() / what / drawn_by) / f"{name}.npz"
    with suppress(OSError, ValueError, EOFError, KeyError, BadZipFile), np.load(path) as file:
        return {key: file[key] for key in file.files}
    drawn: Arrays = {key: np.asarray(value) for key, value in draw().items()}
    with suppress(OSError, SpecialSamError):
        write_whole(path, partial(np.savez, **drawn))
    return drawn


_folder = cache(in_use)
"""The folder, marked as used once a process."""


@cache
def code(*files: Path) -> str:
    """Names what decides a drawing: these files, and the versions of the libraries that draw."""
    versions = f"{np.__version__} {scipy.__version__} {cv2.__version__}"
    return hashlib.sha256(b"".join(file.read_bytes() for file in files) + versions.encode()).hexdigest()[:16]

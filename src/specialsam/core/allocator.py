"""Memory that a job frees and asks for again, batch after batch, stays with its process.

glibc gives every large block that is freed back to the system, so that the next batch of the same size comes as fresh
pages, which the kernel clears one by one: a fifth of the time of encoding a batch on a CPU (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Numbers of mallopt(3)'s settings."""
LARGEST = 2**31 - 1
STEP = 64 * 2**20
"""Bytes by which the heap grows."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to its own peak; whether its allocator can be asked for that."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(name, value) for name, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, LARGEST), (TOP_PAD, STEP)))

"""Oracle: the kernel's own count of fresh pages (ru_minflt) where the same large block is freed and asked for again."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from specialsam.core.allocator import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else True
for _ in range(2):
    np.full(1 << 22, 1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    np.full(1 << 22, 1.0)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _fresh_pages(how: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone is asked")
def test_a_block_of_the_same_size_comes_without_fresh_pages() -> None:
    kept, pages = _fresh_pages("keep")
    _, plain = _fresh_pages("plain")
    assert kept == "True"
    assert pages < plain / 10

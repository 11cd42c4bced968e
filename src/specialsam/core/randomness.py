"""Random numbers with an address instead of a state."""

from __future__ import annotations

import hashlib
import json

import numpy as np


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """A random generator that depends on the seed and the purpose alone: the same in every process."""
    parts = [part if isinstance(part, str) else int(part) for part in (seed, *purpose)]
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))

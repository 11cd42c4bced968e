"""Data sets on disk to records and samples: `open_dataset`, `load`, and what a data set holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# At once and not lazily: the submodule of the same name would otherwise take the function's place when it is imported.
from specialsam.data.loading import load

if TYPE_CHECKING:
    from specialsam.data.census import counts, inspect_masks
    from specialsam.data.open import ADAPTERS, open_dataset

__all__ = ["ADAPTERS", "counts", "inspect_masks", "load", "open_dataset"]

_HOMES = {
    "ADAPTERS": "specialsam.data.open",
    "counts": "specialsam.data.census",
    "inspect_masks": "specialsam.data.census",
    "open_dataset": "specialsam.data.open",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

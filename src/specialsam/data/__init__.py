"""Data sets on disk to records and samples: `open_dataset`, `load`, and what a data set holds."""

from specialsam.data.census import counts, inspect_masks
from specialsam.data.loading import load
from specialsam.data.open import ADAPTERS, open_dataset

__all__ = ["ADAPTERS", "counts", "inspect_masks", "load", "open_dataset"]

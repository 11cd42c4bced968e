"""What the checks look at: everything that a run would use, in one place, so that a fault anywhere in it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from specialsam.core.geometry import BoolArray
from specialsam.core.types import Dataset, Embedding, Record, Sample, Split
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import Group, draw

Draw = Callable[[str, BoolArray, np.random.Generator], list[Group]]


@dataclass(frozen=True)
class Subject:
    """A data set, its split, and the parts that a run would train and measure with.

    `splits` gives each record that is used its split, `load` reads a sample, `embed` answers with the embedding that
    training will see (stored), `draw` places prompts. `believed` is the number of images with objects that the user
    believes to have, None where nobody said.
    """

    dataset: Dataset
    splits: Mapping[str, Split]
    load: Callable[[Record], Sample]
    segmenter: Segmenter
    embed: Callable[[Sample, Segmenter], Embedding]
    draw: Draw = draw
    believed: int | None = None

    def of(self, *splits: Split) -> list[Record]:
        """Records of the given splits (all three where none is given), in the data set's order."""
        wanted = splits or ("train", "val", "test")
        return [record for record in self.dataset.records if self.splits.get(record.id) in wanted]

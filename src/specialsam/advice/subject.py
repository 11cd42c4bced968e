"""What the checks look at: everything that a run would use, in one place, so that a fault anywhere in it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from specialsam.core.types import Dataset, Embedding, Record, Sample, Split, Truth
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import Draw, draw


@dataclass(frozen=True)
class Subject:
    """A data set, its split, and the parts that a run would train and measure with.

    `splits` gives each record that is used its split, `load` reads a sample, `truth` its objects alone (from where they
    are packed; None reads the sample), `embed` answers with the embedding that
    training will see (stored), `draw` places prompts. `believed` is the number of images with objects that the user
    believes to have, None where nobody said.
    """

    dataset: Dataset
    splits: Mapping[str, Split]
    load: Callable[[Record], Sample]
    segmenter: Segmenter
    embed: Callable[[Truth, Segmenter], Embedding]
    draw: Draw = draw
    truth: Callable[[Record], Truth] | None = None
    believed: int | None = None

    def true(self, record: Record) -> Truth:
        """The objects of a record."""
        return self.truth(record) if self.truth else self.load(record)

    def of(self, *splits: Split) -> list[Record]:
        """Records of the given splits (all three where none is given), in the data set's order."""
        wanted = splits or ("train", "val", "test")
        return [record for record in self.dataset.records if self.splits.get(record.id) in wanted]

"""What a job works on: the data set, what each image holds, near-duplicates, and the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from specialsam.core.console import stage
from specialsam.core.errors import DataError
from specialsam.core.ledger import digest
from specialsam.core.types import Dataset, Problem, Record, Split
from specialsam.data.census import counts, inspect_masks
from specialsam.data.content import Content, contents
from specialsam.data.duplicates import duplicate_groups, near_duplicates
from specialsam.data.open import open_dataset
from specialsam.data.splits import split_records, stable_hash

Fractions = tuple[float, float, float]
BLANK_FRACTIONS: Fractions = (0.45, 0.35, 0.2)
"""Of images that hold nothing many are held out: alarms at 1 % need a hundred to set the threshold on."""
MIX = 6
"""Categories that the protocol's words name."""


@dataclass(frozen=True)
class Plan:
    """A data set ready to work on: objects of every labelled record, split and content of every one that has objects.

    `blank` gives those that are labelled to hold nothing, with their splits; a finder learns and is measured on them.
    `content` holds the digests of image and masks, of both, as they were when the plan was made.
    """

    dataset: Dataset
    objects: Mapping[str, int]
    splits: Mapping[str, Split]
    groups: Mapping[str, str]
    problems: tuple[Problem, ...]
    content: Mapping[str, Content] = field(repr=False)
    blank: Mapping[str, Split] = field(default_factory=dict)

    def blanks(self, split: Split) -> list[Record]:
        """Records of one split that hold nothing, in the data set's order."""
        return [record for record in self.dataset.records if self.blank.get(record.id) == split]

    def of(self, split: Split) -> list[Record]:
        """Records of one split, in the data set's order."""
        return [record for record in self.dataset.records if self.splits.get(record.id) == split]

    @property
    def fingerprint(self) -> str:
        """Hash of what is learned from: the data set's name, and ids, images and masks of training and validation."""
        used = sorted(name for name, split in {**self.splits, **self.blank}.items() if split != "test")
        return digest(self.dataset.name, [[n, self.content[n].image, self.content[n].masks] for n in used])[:16]

    def counts(self) -> dict[str, int]:
        return counts(self.dataset, self.objects)

    def split_sizes(self) -> dict[str, int]:
        found = Counter(self.splits.values())
        return {split: found.get(split, 0) for split in ("train", "val", "test")}

    def mix(self, records: Sequence[Record]) -> str:
        """How many images of what categories, the most frequent first: "149 images: 129 animal, 20 other"."""
        found = Counter(record.category for record in records if record.category)
        named = ", ".join(f"{count} {name}" for name, count in found.most_common(MIX))
        rest = f", {len(found) - MIX} more categories" if len(found) > MIX else ""
        return f"{len(records)} images" + (f": {named}{rest}" if len(found) > 1 else "")

    def categories(self) -> dict[str, dict[str, int]]:
        """Images per category and split."""
        table: dict[str, dict[str, int]] = {}
        for record in self.dataset.records:
            if record.id in self.splits:
                line = table.setdefault(record.category or "(none)", {"train": 0, "val": 0, "test": 0})
                line[self.splits[record.id]] += 1
        return table


def plan(source: str, fractions: Fractions, seed: int, limit: int | None = None, duplicates: bool = True) -> Plan:
    """Open, look into every mask, find near-duplicates, and split; only images with an object enter the split.

    `limit` keeps that many images with objects, chosen by stable hash. Raises DataError where nothing is labelled.
    """
    dataset = open_dataset(source)
    problems: list[Problem] = []
    with stage("reading masks") as progress:
        objects = inspect_masks(dataset.records, progress, problems)
    usable = [record for record in dataset.records if objects.get(record.id, 0) > 0]
    if not usable:
        raise DataError(
            f"{source}: expected images with masks, got {len(dataset)} images without a single object; "
            f"masks are foreground above 127, one file an image{''.join(f' ({note})' for note in dataset.notes[:1])}"
        )
    usable = _limited(usable, limit, seed)
    blank = _limited([record for record in dataset.records if objects.get(record.id) == 0], limit, seed)
    groups: dict[str, str] = {}
    if duplicates:
        with stage("looking for near-duplicates") as progress:
            groups = dict(duplicate_groups(near_duplicates(usable, progress=progress)))
    with stage("looking for changes") as progress:
        content = contents([*usable, *blank], progress)
    splits = split_records(usable, fractions, seed, groups=groups)
    return Plan(dataset, objects, splits, groups, (*dataset.problems, *problems), content, _split_blanks(blank, seed))


def _limited(records: list[Record], limit: int | None, seed: int) -> list[Record]:
    """A stable subset of `limit` records, all where there are no more."""
    if limit is None or limit >= len(records):
        return records
    order = sorted(records, key=lambda record: stable_hash(f"limit:{seed}:{record.id}"))
    kept = {record.id for record in order[:limit]}
    return [record for record in records if record.id in kept]


def _split_blanks(records: list[Record], seed: int) -> dict[str, Split]:
    """Splits of images that hold nothing, by BLANK_FRACTIONS or as the data set states; few are all learned from."""
    try:
        return split_records(records, BLANK_FRACTIONS, seed) if records else {}
    except DataError:  # fewer than splits
        return {record.id: record.split or "train" for record in records}

"""What a job works on: the data set, what each image holds, near-duplicates, and the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from specialsam.core.console import say, stage
from specialsam.core.errors import DataError
from specialsam.core.ledger import digest
from specialsam.core.sampling import evenly
from specialsam.core.types import Dataset, Problem, Record, Split
from specialsam.data.census import counts, inspect_masks
from specialsam.data.content import Content, contents
from specialsam.data.duplicates import TOGETHER, duplicate_groups, near_duplicates
from specialsam.data.open import open_dataset
from specialsam.data.read_settings import READ, ReadSettings
from specialsam.data.splits import split_in_order, split_records, stable_hash

Fractions = tuple[float, float, float]
BLANK_FRACTIONS: Fractions = (0.45, 0.35, 0.2)
"""Of images that hold nothing many are held out: alarms at 1 % need a hundred to set the threshold on."""
FIXED_CAMERA = 0.5
"""Share of the images in one group of near-duplicates from which to ask whether one camera took them all."""
CAMERA_SAMPLE, LEAST_FRAMES = 100, 6
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

    def choices(self) -> list[str]:
        """What was decided of how the files are read and could be set otherwise."""
        return [note for note in self.dataset.notes if "set data." in note]

    def reading(self) -> dict[str, object]:
        """How most of the deep images are read, for a specialist's card: {"reading": ...}; {} where none is."""
        found = Counter(record.reading for record in self.dataset.records if record.reading is not None)
        return {"reading": asdict(found.most_common(1)[0][0])} if found else {}

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


def plan(
    source: str,
    fractions: Fractions,
    seed: int,
    limit: int | None = None,
    duplicates: bool = True,
    how: ReadSettings = READ,
) -> Plan:
    """Open, look into every mask, find near-duplicates, and split; only images with an object enter the split.

    `how` says how the files are read. `limit` keeps that many images with objects, chosen by stable hash. Without
    `duplicates` frames of one fixed camera are cut by the order of their names. DataError where nothing is labelled.
    """
    dataset = open_dataset(source, how)
    problems: list[Problem] = []
    with stage("reading masks") as progress:
        objects = inspect_masks(dataset.records, progress, problems)
    usable = [record for record in dataset.records if objects.get(record.id, 0) > 0]
    if not usable:
        raise DataError(
            f"{source}: expected images with masks, got {len(dataset)} images without a single object"
            f"{_why_none(dataset, problems)}"
        )
    usable = _limited(usable, limit, seed)
    blank = _limited([record for record in dataset.records if objects.get(record.id) == 0], limit, seed)
    groups: dict[str, str] = {}
    if duplicates:
        with stage("looking for near-duplicates") as progress:
            groups = dict(duplicate_groups(near_duplicates(usable, TOGETHER, progress)))
    with stage("looking for changes") as progress:
        content = contents([*usable, *blank], progress)
    if not duplicates and _one_camera(usable, fractions):
        splits = split_in_order(usable, fractions)
        left = len(usable) - len(splits)
        say(f"{source}: frames of a fixed camera: cut by the order of their names, {left} left out between the splits")
    else:
        splits = _split(usable, fractions, seed, groups)
    return Plan(dataset, objects, splits, groups, (*dataset.problems, *problems), content, _split_blanks(blank, seed))


def _why_none(dataset: Dataset, problems: Sequence[Problem]) -> str:
    """What is known of a data set in which no object was found, for the end of a line."""
    told = [f"read as {dataset.layout}"]
    if any(record.mask is not None for record in dataset.records):
        told.append("a mask file's foreground is above 127, or each value but the background's")
    elif all(record.mask_kind == "none" for record in dataset.records):
        told.append("none of them has a label")
    told += [
        f"{len(found)} problems, the first: {found[0].message}" for found in (dataset.problems, problems) if found
    ][:1]
    return "".join(f"; {part}" for part in [*told, *dataset.notes[:1]])


def _limited(records: list[Record], limit: int | None, seed: int) -> list[Record]:
    """A stable subset of `limit` records, all where there are no more."""
    if limit is None or limit >= len(records):
        return records
    order = sorted(records, key=lambda record: stable_hash(f"limit:{seed}:{record.id}"))
    kept = {record.id for record in order[:limit]}
    return [record for record in records if record.id in kept]


def _one_camera(records: Sequence[Record], fractions: Fractions) -> bool:
    """Whether most images show the same scene, so that frames beside each other must not part: seen on a sample."""
    if sum(share > 0 for share in fractions) < 2 or len(records) < LEAST_FRAMES or any(one.split for one in records):
        return False
    sample = evenly(records, CAMERA_SAMPLE)
    sizes = Counter(duplicate_groups(near_duplicates(sample)).values())
    return max(sizes.values(), default=0) >= FIXED_CAMERA * len(sample)


def _split(records: list[Record], fractions: Fractions, seed: int, groups: Mapping[str, str]) -> dict[str, Split]:
    """The splits of records; where near-duplicates leave too few groups, DataError that says what can be done."""
    try:
        return split_records(records, fractions, seed, groups=groups)
    except DataError as error:
        sizes = Counter(groups.values())
        most = max(sizes.values(), default=0)
        if most < FIXED_CAMERA * len(records) or "groups of near-duplicates" not in str(error):
            raise
        raise DataError(
            f"{error}. {most} of {len(records)} images are near-duplicates of each other: a fixed camera, or frames of "
            "one clip? Then say -s duplicates=false: the images are cut into splits by the order of their names, with "
            "a gap between; scores then hold for this scene alone"
        ) from error


def _split_blanks(records: list[Record], seed: int) -> dict[str, Split]:
    """Splits of images that hold nothing, by BLANK_FRACTIONS or as the data set states; few are all learned from."""
    try:
        return split_records(records, BLANK_FRACTIONS, seed) if records else {}
    except DataError:  # fewer than splits
        return {record.id: record.split or "train" for record in records}

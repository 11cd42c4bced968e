"""Train, val and test by a stable hash: stratified by category, near-duplicates together, stated splits honoured."""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Record, Split
from specialsam.data.pairs import natural_key

GAP = 0.02
"""Share of a camera's frames that are left out between two splits."""
ORDER: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class _Unit:
    """Records that stay together: their ids, the hash in 0..1 that orders them, their stratum, their stated splits."""

    ids: tuple[str, ...]
    hash: float
    key: str
    stratum: str
    stated: frozenset[Split]


def stable_hash(text: str) -> float:
    """A number in 0..1 (1 excluded) that depends on the text alone: the first 53 bits of its SHA-256."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2**53


def split_records(
    records: Sequence[Record],
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    honour: bool = True,
    groups: Mapping[str, str] | None = None,
) -> dict[str, Split]:
    """Give every record id its split, the same on every machine and in whatever order the records come.

    Records of one group (`groups` by id, and `Record.group`) are never separated. Within each category they stand in
    the order of a hash of seed and name, and the row is cut at the fractions after a shift that is hashed from the
    category ("systematic sampling with a random start", Cochran, Sampling Techniques, ch. 8). So each category is
    within one unit of its share however small it is, the roundings do not all lean the same way, and a record more
    moves at most one other record over each of the two cuts of its category. A plain threshold on the hash would move
    none, but leaves small categories to chance (one in six categories of 5 records would have all in train).

    With `honour` the splits that the data set states are kept, and only those it lacks are cut, from the records stated
    as train or not at all, in proportion. Test is kept whole; near-duplicates of a stated test (or val) record join it,
    because in train they would leak: compare with published numbers on `record.split == "test"` alone.

    Every split with a fraction above 0 gets at least one record, where need be by a move from the largest split.
    Raises DataError where there are too few records (or groups) for that, and UsageError for impossible fractions.
    """
    wanted = _wanted(fractions)
    units = _units(records, seed, groups or {})
    out: dict[_Unit, Split] = {}
    free: list[_Unit] = []
    shares = dict(zip(ORDER, fractions, strict=True))
    for unit in units:
        stated = next((split for split in ("test", "val") if split in unit.stated), None) if honour else None
        if stated == "test" or stated == "val":
            out[unit] = stated
            shares[stated] = 0.0
        else:
            free.append(unit)
    if not free:
        return {id: split for unit, split in out.items() for id in unit.ids}
    missing = [split for split in wanted if shares[split] > 0]
    if len(free) < len(missing):
        what = "records" if len(units) == len(records) else "groups of near-duplicates"
        raise DataError(
            f"expected at least {len(missing)} {what} to cut {', '.join(missing)} from, got {len(free)}; "
            "add images, or set the fraction of a split to 0"
        )
    cut = _cut(free, [shares[split] for split in ORDER], seed)
    _fill(cut, missing)
    out.update(cut)
    return {id: split for unit, split in out.items() for id in unit.ids}


def split_in_order(
    records: Sequence[Record], fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> dict[str, Split]:
    """Cut frames of one camera one after another by the order of their files' names, with a gap before each cut.

    Frames that follow each other are all but equal, so 2 % of them (one at least) are left out between two splits:
    their ids are not in the answer. DataError where there are too few frames.
    """
    wanted = _wanted(fractions)
    row = sorted(records, key=lambda record: natural_key(record.image))
    gap = max(1, round(GAP * len(row)))
    left = len(row) - gap * (len(wanted) - 1)
    if left < len(wanted):
        raise DataError(
            f"expected at least {len(wanted) * 2 - 1} frames to cut {', '.join(wanted)} from, got {len(row)}"
        )
    out: dict[str, Split] = {}
    start, share = 0, 0.0
    for number, split in enumerate(wanted):
        share += fractions[ORDER.index(split)]
        least, most = number + 1, left - (len(wanted) - 1 - number)
        end = min(max(round(share * left), least, start - number * gap + 1), most) + number * gap
        out.update((record.id, split) for record in row[start:end])
        start = end + gap
    return out


def _wanted(fractions: tuple[float, float, float]) -> list[Split]:
    """The splits with a fraction above 0, once the fractions are in order."""
    good = len(fractions) == 3 and all(math.isfinite(share) and share >= 0 for share in fractions)
    if not good or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise UsageError(f"expected fractions of train, val and test that sum to 1, train above 0, got {fractions}")
    return [split for split, share in zip(ORDER, fractions, strict=True) if share > 0]


def _units(records: Sequence[Record], seed: int, groups: Mapping[str, str]) -> list[_Unit]:
    """Bundle records by group, joining `groups` and `Record.group` where both speak."""
    if not records:
        raise DataError("expected at least one record to split, got none")
    parents: dict[str, str] = {}

    def root(node: str) -> str:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    for record in records:
        node = f"id {record.id}"
        if node in parents:
            raise DataError(f"expected records with ids of their own, got {record.id!r} twice")
        parents[node] = node
    for record in records:
        for node in (f"stated {record.group}" if record.group else "", f"found {groups.get(record.id, '')}"):
            if node not in ("", "found "):
                parents[root(f"id {record.id}")] = root(node)
    members: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        members[root(f"id {record.id}")].append(record)
    return [_unit(together, seed, groups) for together in members.values()]


def _unit(records: list[Record], seed: int, groups: Mapping[str, str]) -> _Unit:
    names = [groups.get(record.id) or record.group or record.id for record in records]
    strata = Counter(f"{record.supercategory}/{record.category}" for record in records)
    return _Unit(
        ids=tuple(sorted(record.id for record in records)),
        hash=stable_hash(f"{seed}:{min(names)}"),
        key=min(names),
        stratum=min(strata, key=lambda stratum: (-strata[stratum], stratum)),
        stated=frozenset(record.split for record in records if record.split),
    )


def _cut(units: Iterable[_Unit], shares: list[float], seed: int) -> dict[_Unit, Split]:
    """Cut each stratum, in the order of hashes, at the shares of its records."""
    strata: dict[str, list[_Unit]] = defaultdict(list)
    for unit in units:
        strata[unit.stratum].append(unit)
    total = sum(shares)
    first, second = shares[0] / total, (shares[0] + shares[1]) / total
    out: dict[_Unit, Split] = {}
    for stratum, row in strata.items():
        size = sum(len(unit.ids) for unit in row)
        shift = stable_hash(f"{seed}:stratum:{stratum}")
        before = 0
        for unit in sorted(row, key=lambda unit: (unit.hash, unit.key, unit.ids)):
            position = (before + shift * len(unit.ids)) / size
            out[unit] = "train" if position < first else "val" if position < second else "test"
            before += len(unit.ids)
    return out


def _fill(cut: dict[_Unit, Split], missing: Sequence[Split]) -> None:
    """Move units (the last ones by hash) from the split with most units into those that got none."""
    for split in missing:
        if split not in cut.values():
            sizes = Counter(cut.values())
            giver = max(ORDER, key=lambda other: (sizes[other], -ORDER.index(other)))
            moved = max((unit for unit, of in cut.items() if of == giver), key=lambda unit: (unit.hash, unit.key))
            cut[moved] = split

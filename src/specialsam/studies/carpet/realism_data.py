"""What the sim-to-real meter looks at: synthetic pictures of each kind, real defects, and bare ground, all encoded.

The clean pictures under the synthetic defects are the same for every kind; bare ground is a clean picture with the mask
of a real defect laid on it, so that a pair differs in the defect alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from specialsam.core.console import Progress, say, stage
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import BoolArray
from specialsam.core.types import Dataset, Record
from specialsam.data.loading import load, load_masks
from specialsam.data.splits import stable_hash
from specialsam.data.views import IDENTITY
from specialsam.embeddings import EmbeddingStore, embed
from specialsam.models.segmenter import Segmenter
from specialsam.studies.carpet.realism import LEAST, Origin, Region, region_vector
from specialsam.synth.defect_data import PLAN, DefectRecipe, good_records, place_of, write_defects
from specialsam.synth.defects import KINDS, PUBLISHED, REALISTIC

CHOSEN = (*PUBLISHED, *REALISTIC)
"""Kinds that are looked at where none are named: all but composites of two."""
BATCH = 2
"""Images encoded at once."""


@dataclass(frozen=True)
class Seen:
    """One defect: the picture, and the record whose mask says where to look (another one's on bare ground)."""

    origin: Origin
    kind: str
    picture: Record
    masked: Record
    group: str

    def mask(self) -> BoolArray:
        """The union of its objects, bool (H, W)."""
        return np.asarray(load_masks(self.masked).any(0), np.bool_)


@dataclass(frozen=True)
class Encoded:
    """Defects with their embeddings: `keys` maps a picture's id to its key in the store."""

    store: EmbeddingStore
    seen: tuple[Seen, ...]
    keys: dict[str, str] = field(repr=False)

    def of(self, origin: Origin, kind: str = "") -> list[Seen]:
        """Those of an origin, and of one kind or real type if it is named; in order."""
        return [one for one in self.seen if one.origin == origin and kind in ("", one.kind)]

    def kinds(self, origin: Origin) -> list[str]:
        return list(dict.fromkeys(one.kind for one in self.of(origin)))


def check_kinds(kinds: Sequence[str], count: int) -> tuple[str, ...]:
    """The kinds to look at, each once; UsageError for an unknown one and for too few pictures."""
    chosen = tuple(dict.fromkeys(kinds)) or CHOSEN
    unknown = sorted(set(chosen) - set(KINDS))
    if unknown:
        raise UsageError(f"expected kinds of {', '.join(KINDS)}, got {', '.join(unknown)}")
    if count < LEAST:
        raise UsageError(f"expected a count of at least {LEAST} pictures of each kind, got {count}")
    return chosen


def gather(dataset: Dataset, folder: Path, kinds: Sequence[str], count: int, seed: int = 0) -> tuple[Seen, ...]:
    """Write `count` pictures of each kind below `folder/synthetic` and list them beside real defects and bare ground.

    DataError where the data set has no clean pictures or fewer than four real defects. What is written already stays.
    """
    goods = good_records(dataset)
    if not goods:
        raise DataError(f"{dataset.root}: expected images without defects to make synthetic ones on, got none")
    real = [record for record in dataset.records if record.mask_kind != "none" and load_masks(record).any()]
    if len(real) < LEAST:
        raise DataError(f"{dataset.root}: expected at least {LEAST} real defects with masks, got {len(real)}")
    made: list[Seen] = []
    with stage("making defects") as progress:
        for number, kind in enumerate(kinds):
            place = folder / "synthetic" / kind
            whole = _part(progress, number * count, len(kinds) * count)
            write_defects(place, goods, DefectRecipe(train=count, kinds={kind: 1.0}, seed=seed), whole)
            made += _synthetic(place, kind)
    grounds = sorted(goods, key=lambda record: stable_hash(f"bare:{seed}:{record.id}"))
    bare = [
        Seen("clean", "clean", grounds[number % len(grounds)], record, record.id) for number, record in enumerate(real)
    ]
    return (*made, *(Seen("real", r.category or "defect", r, r, r.id) for r in real), *bare)


def _part(progress: Progress, before: int, total: int) -> Progress:
    """The progress of one part of a stage as that of the whole."""
    return lambda done, _, what: progress(before + done, total, what)


def _synthetic(place: Path, kind: str) -> list[Seen]:
    """The pictures of a folder that `write_defects` filled, grouped by the clean picture below them."""
    out = []
    plan = json.loads((place / PLAN).read_text())
    for line in plan["pictures"]:
        name = Path(line["split"]) / line["kind"] / f"{line['number']:05d}.png"
        record = Record(
            id=f"synthetic/{kind}/{name.stem}",
            image=place / "images" / name,
            mask=place / "masks" / name,
            mask_kind="binary",
            category=kind,
        )
        out.append(Seen("synthetic", kind, record, record, plan.get("instead", {}).get(place_of(line), line["source"])))
    return out


def encode(seen: Sequence[Seen], segmenter: Segmenter, folder: Path) -> Encoded:
    """Embeddings of all pictures in the store `folder/embeddings`; what cannot be encoded is named and left out."""
    store = EmbeddingStore(folder / "embeddings", segmenter.encoder_id)
    pictures = list({one.picture.id: one.picture for one in seen}.values())
    with stage("encoding") as progress:
        report = embed(
            [(record, IDENTITY) for record in pictures],
            load,
            segmenter,
            store,
            batch_size=BATCH,
            needs=lambda _: True,
            progress=lambda done, total, _: progress(done, total, ""),
        )
    for failure in report.failed:
        say(f"  not encoded: {failure.record}: {failure.error}")
    keys = {record: key for (record, _), key in report.keys.items()}
    return Encoded(store, tuple(one for one in seen if one.picture.id in keys), keys)


def regions(encoded: Encoded) -> list[Region]:
    """Every defect as its vector; one that leaves no ground around it is named and left out."""
    out = []
    with stage("describing defects") as progress:
        for number, one in enumerate(encoded.seen, 1):
            mask = one.mask()
            try:
                vector = region_vector(encoded.store.get(encoded.keys[one.picture.id]), mask)
            except DataError as error:
                say(f"  not described: {one.picture.id}: {error}")
                continue
            out.append(Region(one.origin, one.kind, one.picture.id, one.group, vector, float(mask.mean())))
            progress(number, len(encoded.seen), one.kind)
    return out

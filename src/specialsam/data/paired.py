"""Folders of images and of masks to records: match the names, decide what the masks hold, tell objects from annotators.

Shared by every layout whose masks are image files of nobody's known convention.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from specialsam.core.types import MaskKind, MaskReading, Record, Split
from specialsam.data.mask_kind import MaskKindDecision, decide
from specialsam.data.matching import matches, nearest
from specialsam.data.pairs import NO_MASK, ODD_VALUES, Found, add_pair, report_orphans
from specialsam.data.read_settings import READ, ReadSettings
from specialsam.data.several import many_paged, meaning_of_pages, meaning_of_several

NAMED = 20
"""Images without a mask for which the nearest name is looked for."""


@dataclass(frozen=True)
class Part:
    """Images and masks by name, what comes before the names in ids, and the split and category that they state.

    `pairs` are known already where the layout says them; else names are matched. An image without a mask is a problem,
    or, with `without_mask`, labelled as empty ("rle") or unlabelled ("none").
    """

    pictures: Mapping[str, Path]
    drawn: Mapping[str, Path]
    prefix: str = ""
    split: Split | None = None
    pairs: Mapping[str, Sequence[str]] | None = None
    without_mask: Callable[[str], MaskKind | None] = field(default=lambda name: None)
    category: str = ""
    label: str = ""


Describe = Callable[[str, Split | None], tuple[Split | None, str]]


def no_description(name: str, split: Split | None) -> tuple[Split | None, str]:
    """Names say nothing of split and category."""
    return split, ""


@dataclass
class _Several:
    """What further masks of the same images are."""

    objects: bool = False
    left: int = 0


def add_parts(
    found: Found, parts: Sequence[Part], how: ReadSettings = READ, describe: Describe = no_description
) -> list[str]:
    """Add every image of every part to `found`, as a record or as a problem; what there is to say of the masks."""
    matched = [(part, _matched(part) if part.pairs is None else part.pairs) for part in parts]
    every = [part.drawn[name] for part, pairs in matched for names in pairs.values() for name in names]
    decision = decide(every if every else [path for part in parts for path in part.drawn.values()], how)
    notes = [decision.note]
    odd = set(decision.odd)
    groups = [
        [path for name in names if (path := part.drawn[name]) not in odd]
        for part, pairs in matched
        for names in pairs.values()
    ]
    reading, said = _paged(every, decision, how)
    several, more = _several(groups, decision, reading, how)
    decided = replace(decision, read=reading)
    for part, pairs in matched:
        _add_part(found, part, pairs, decided, several, describe)
    if several.left:
        notes.append(f"{several.left} further masks of the same images were left out: the first annotator counts{more}")
    elif more:
        notes.append(more)
    return [*notes, *said]


def _matched(part: Part) -> dict[str, list[str]]:
    """The masks of each image by their names; what is no regular file has no say in what names have in common."""
    images, masks = ([name for name, path in one.items() if path.is_file()] for one in (part.pictures, part.drawn))
    return matches(images, masks)


def _paged(
    masks: Sequence[Path], decision: MaskKindDecision, how: ReadSettings
) -> tuple[MaskReading | None, list[str]]:
    """How masks are read where some have several pages, and what to say of it."""
    many = many_paged(masks)
    if not many:
        return decision.read, []
    kind, told = meaning_of_pages(many, decision.kind, how)
    if kind == "annotators":
        return decision.read, [f"{len(many)} masks have several pages: the first annotator's counts ({told})"]
    read = replace(decision.read or MaskReading(), pages=True)
    return read, [f"{len(many)} masks have several pages: each is an object of its own ({told}; else set data.several)"]


def _several(
    groups: Sequence[Sequence[Path]], decision: MaskKindDecision, reading: MaskReading | None, how: ReadSettings
) -> tuple[_Several, str]:
    further = sum(max(0, len(group) - 1) for group in groups)
    if not further:
        return _Several(), ""
    kind, told = meaning_of_several(groups, decision.kind, reading, how)
    if kind == "annotators":
        return _Several(False, further), f" ({told}; else set data.several)"
    images = sum(1 for group in groups if len(group) > 1)
    return _Several(True), f"{images} images have several mask files, each an object ({told}; else set data.several)"


def _add_part(
    found: Found,
    part: Part,
    pairs: Mapping[str, Sequence[str]],
    decision: MaskKindDecision,
    several: _Several,
    describe: Describe,
) -> None:
    used: set[str] = set()
    unpaired = 0
    odd = set(decision.odd)
    for name, image in part.pictures.items():
        names = list(pairs.get(name, ()))
        used.update(names)
        masks = [part.drawn[one] for one in names]
        good = [mask for mask in masks if mask not in odd]
        if masks and not good:
            message = f"{image}: the values of its mask {masks[0]} do not fit, as {decision.note}"
            found.problem(image, ODD_VALUES, message)
            continue
        if not masks and part.without_mask(name) is None:
            unpaired += 1
            if unpaired <= NAMED and image.is_file() and _name_nearest(found, image, name, part, used):
                continue
        split, category = describe(name, part.split)
        record = Record(
            part.prefix + name,
            image,
            good[0] if good else None,
            category=part.category or category,
            labels=(part.label,) if part.label and good else (),
            split=split,
            more=tuple(good[1:]) if several.objects else (),
            masks_as=decision.read if good else None,
        )
        add_pair(found, record, decision.kind, part.without_mask(name))
    report_orphans(found, {name: mask for name, mask in part.drawn.items() if name not in used})


def _name_nearest(found: Found, image: Path, name: str, part: Part, used: set[str]) -> bool:
    """State an image without a mask with the mask that is called most like it; False where none is."""
    free = [other for other in part.drawn if other not in used]
    other = nearest(name, free)
    if other:
        near = PurePosixPath(part.drawn[other].name)
        message = f"{image}: expected a mask of the same name, found none; the nearest is {near}"
        found.problem(image, NO_MASK, message)
    return bool(other)

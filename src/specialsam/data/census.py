"""What a data set holds in numbers: images, objects, empty masks, problems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from specialsam.core.console import Progress
from specialsam.core.errors import DataError
from specialsam.core.types import Dataset, Problem, Record
from specialsam.data.headers import SUFFIXES
from specialsam.data.loading import load_masks
from specialsam.data.pairs import MISSING, NO_IMAGE, OTHER_FILE, UNREADABLE

_NOT_OF_AN_IMAGE = frozenset({MISSING, NO_IMAGE, OTHER_FILE})


def inspect_masks(
    records: Sequence[Record], progress: Progress | None = None, problems: list[Problem] | None = None
) -> dict[str, int]:
    """Objects of each record by id, 0 for labelled empty ones; unlabelled records are left out.

    Decodes the mask files. An unreadable one is appended to `problems` and left out of the answer, or, without such a
    list, raised as DataError.
    """
    out: dict[str, int] = {}
    for done, record in enumerate(records, 1):
        if record.mask_kind == "rle":
            out[record.id] = len(record.rles)
        elif record.mask_kind != "none":
            try:
                out[record.id] = len(load_masks(record))
            except DataError as error:
                if problems is None:
                    raise
                problems.append(Problem(record.image, UNREADABLE, f"{record.id}: {error}"))
        if progress:
            progress(done, len(records), record.id)
    return out


def counts(dataset: Dataset, objects: Mapping[str, int] | None = None) -> dict[str, int]:
    """Images on disk and what becomes of them.

    `images` = `usable` + `broken`, and `usable` = `with_objects` + `empty` + `unlabelled` + `not_inspected`. Whether a
    mask file is empty is known only from `objects`, the answer of `inspect_masks`; without it such records count as
    `not_inspected`. `problems` counts every problem stated, of images and of other files.
    """
    known = dict(objects or {})
    known.update({record.id: len(record.rles) for record in dataset.records if record.mask_kind == "rle"})
    usable = {record.image for record in dataset.records}
    unlabelled = sum(1 for record in dataset.records if record.mask_kind == "none")
    labelled = [record.id for record in dataset.records if record.mask_kind != "none"]
    with_objects = sum(1 for id in labelled if known.get(id, 0) > 0)
    empty = sum(1 for id in labelled if known.get(id) == 0)
    broken = len(set(_image_paths(dataset.problems)) - {str(path) for path in usable})
    return {
        "images": len(usable) + broken,
        "usable": len(usable),
        "with_objects": with_objects,
        "empty": empty,
        "unlabelled": unlabelled,
        "not_inspected": len(labelled) - with_objects - empty,
        "broken": broken,
        "problems": len(dataset.problems),
    }


def _image_paths(problems: Iterable[Problem]) -> Iterable[str]:
    """Paths of the images on disk that problems speak of."""
    for problem in problems:
        if problem.kind not in _NOT_OF_AN_IMAGE and problem.path.suffix.lower() in SUFFIXES:
            yield str(problem.path)

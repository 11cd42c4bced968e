"""All checks that can be made before anything is trained, in the order in which a fault hides the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from specialsam.advice.checks.data_checks import (
    contrast,
    data_volume,
    image_counts,
    mask_polarity,
    mask_values,
    object_size,
)
from specialsam.advice.checks.image_facts import ImageFacts, gather
from specialsam.advice.checks.label_checks import belonging, common_shift, label_noise, mask_alignment, masks_belong
from specialsam.advice.checks.meaning_checks import grey_levels, label_plausibility, objects_an_image
from specialsam.advice.checks.prompt_checks import prompt_frame
from specialsam.advice.checks.setup_checks import embedding_parity, encoder_mode, room_for_improvement
from specialsam.advice.checks.split_checks import class_mix, exact_duplicates, layout_shortcut, near_duplicates
from specialsam.advice.subject import Subject
from specialsam.core.console import Progress
from specialsam.core.errors import DataError
from specialsam.core.findings import Finding
from specialsam.core.types import Problem

CHECKS: dict[str, str] = {
    "image counts": "fewer images with objects than believed: empty masks, missing labels, broken files",
    "mask polarity": "masks with black and white swapped",
    "mask values": "mask files that hold something else than a mask",
    "grey levels": "images that use few grey levels: 12 bits read as 16, a wrong range",
    "objects an image": "more objects than anyone has drawn: shades of a lossy mask that were taken for labels",
    "label plausibility": "labels that are no objects: the background, a second annotator's, the whole image",
    "mask alignment": "all masks shifted against their images by the same step",
    "masks belong to images": "masks that belong to other images, as after sorting two lists differently",
    "label noise": "a share of wrong masks among right ones",
    "exact duplicates across splits": "test images that are training images",
    "near-duplicates across splits": "test images that are scaled, mirrored or neighbouring frames of training images",
    "class mix": "a validation or test split of other categories than the whole",
    "data volume": "too few training images",
    "object size": "objects too small for the model's frame",
    "contrast": "objects that hardly differ in colour from what surrounds them",
    "prompt frame": "prompts off their object: swapped coordinates, another frame, fixed places",
    "encoder mode": "a frozen encoder that is in training mode and changes",
    "embedding parity": "stored embeddings of another model, of old weights, or of another image",
    "room for improvement": "a base that is nearly perfect already, or labels that the model made itself",
    "layout shortcut": "masks that are the same in every image, so that the pixels need not be looked at",
}
"""What each check guards against, by its stable name, in the order of the findings."""


def audit(subject: Subject, progress: Progress | None = None, problems: Sequence[Problem] = ()) -> list[Finding]:
    """One finding for each of CHECKS, in their order.

    `progress` is called with (done, total, what): first image by image, then check by check. `problems` are those found
    beside `subject.dataset.problems`, for example by decoding masks. Raises DataError where no record is in any split.
    """
    if not subject.of():
        raise DataError(
            f"{subject.dataset.name}: expected records in the splits to check, got none; split the data first"
        )
    return audit_findings(subject, gather(subject, progress), progress, problems)


def audit_findings(
    subject: Subject, facts: Sequence[ImageFacts], progress: Progress | None = None, problems: Sequence[Problem] = ()
) -> list[Finding]:
    """The findings of `audit` from facts that were gathered already."""
    done: dict[str, Finding] = {}
    readable = _without_unreadable(subject, facts)

    def run(name: str, check: Callable[[], Finding]) -> Finding:
        done[name] = check()
        if progress:
            progress(len(done), len(CHECKS), name)
        return done[name]

    run("image counts", lambda: image_counts(subject, facts, problems))
    run("encoder mode", lambda: encoder_mode(readable))  # before any other check encodes, which would mend the mode
    polarity = run("mask polarity", lambda: mask_polarity(facts))
    run("mask values", lambda: mask_values(subject, problems))
    run("grey levels", lambda: grey_levels(facts))
    run("objects an image", lambda: objects_an_image(facts))
    run("label plausibility", lambda: label_plausibility(facts))
    alignment = run("mask alignment", lambda: mask_alignment(facts))
    found = belonging(facts, common_shift(alignment, facts))
    belong = run("masks belong to images", lambda: masks_belong(found))
    usual = polarity.level == belong.level == "pass"
    run("label noise", lambda: label_noise(found, readable if usual else None))
    run("exact duplicates across splits", lambda: exact_duplicates(facts))
    run("near-duplicates across splits", lambda: near_duplicates(facts))
    run("class mix", lambda: class_mix(facts))
    run("data volume", lambda: data_volume(facts))
    run("object size", lambda: object_size(subject, facts))
    run("contrast", lambda: contrast(facts))
    run("prompt frame", lambda: prompt_frame(readable))
    run("embedding parity", lambda: embedding_parity(readable))
    run("room for improvement", lambda: room_for_improvement(readable))
    run("layout shortcut", lambda: layout_shortcut(facts))
    return [done[name] for name in CHECKS]


def _without_unreadable(subject: Subject, facts: Sequence[ImageFacts]) -> Subject:
    """The subject without images that could not be loaded, which "image counts" names."""
    broken = {fact.id for fact in facts if fact.error}
    return replace(subject, splits={id: split for id, split in subject.splits.items() if id not in broken})

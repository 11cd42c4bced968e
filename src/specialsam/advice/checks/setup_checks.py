"""Is the model what it should be? Its mode, the embeddings that training will see, and room above the base's scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from specialsam.advice.checks.data_checks import named
from specialsam.advice.checks.prompt_checks import evenly
from specialsam.advice.subject import Subject
from specialsam.core.errors import DataError
from specialsam.core.findings import Finding, Level
from specialsam.core.geometry import BoolArray
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding, Sample
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.metrics.overlaps import overlap
from specialsam.models.segmenter import ALL
from specialsam.prompts import draw

PARITY_IMAGES = 6
PARITY_OFF, PARITY_WRONG = 0.03, 0.10
"""Relative error (Frobenius) of stored against fresh embeddings that makes a warning and a failure: half precision is
at 0.0002, 8 bits with a scale a channel at 0.005, another image of the same model far above 0.1."""

ROOM_IMAGES, ROOM_OBJECTS = 40, 3
SATURATED = 0.95
"""Mean IoU of the base from which tuning has nothing to gain: wood mosaics, a saturated task, are at 0.96 to 0.99."""
SELF_MADE, SELF_SHARE = 0.95, 0.5
"""Labels look made by the model where this share of images has an answer with at least this IoU. Exact masks of
generated scenes: no image of 24. Masks that the bundled model gave to a click: 12 %, because the click in the middle of
its answer is another one. Masks that it gives again to their own click: 92 %. So this finds labels that the model
stands by, not every label that it ever made."""


def encoder_mode(subject: Subject) -> Finding:
    """An encoder in training mode: dropout and batch statistics then change embeddings, and the encoder itself."""
    check = "encoder mode"
    encoder = subject.segmenter.encoder
    modules = [(name, module) for name, module in encoder.named_modules()]
    training = [f"{name or 'encoder'} ({type(module).__name__})" for name, module in modules if module.training]
    before = {name: buffer.detach().clone() for name, buffer in encoder.named_buffers()}
    modes = [module.training for _, module in modules]
    records = subject.of()
    image = subject.load(records[0]).image if records else np.zeros((32, 32, 3), np.uint8)
    try:
        with torch.no_grad():
            subject.segmenter.encode_pixels(subject.segmenter.pixels(image)[None])
        moved = [name for name, buffer in encoder.named_buffers() if not torch.equal(buffer, before[name])]
    finally:
        with torch.no_grad():
            for name, buffer in encoder.named_buffers():
                buffer.copy_(before[name])
        for (_, module), mode in zip(modules, modes, strict=True):
            module.training = mode
    numbers: dict[str, float | int | str] = {
        "modules": len(modules),
        "in training mode": len(training),
        "buffers changed by an encode": len(moved),
    }
    text = (
        f"{len(training)} of {len(modules)} encoder parts are in training mode, an encode changed {len(moved)} buffers"
    )
    if not training and not moved:
        return Finding(check, "pass", text, numbers)
    numbers["first"] = (training + moved)[0]
    remedy = "call encoder.eval() before encoding and after every train(), and do not hand the encoder to the optimiser"
    return Finding(check, "fail", text, numbers, remedy=remedy)


def embedding_parity(subject: Subject) -> Finding:
    """Stored embeddings that are not what the encoder says today: another model, stale weights, keys mixed up."""
    check = "embedding parity"
    errors: dict[str, float] = {}
    cosines, wrong = [], []
    for record in evenly(subject.of(), PARITY_IMAGES):
        sample = subject.load(record)
        fresh = subject.segmenter.encode(sample.image)
        stored = subject.embed(sample, subject.segmenter)
        if stored.tensor.shape != fresh.tensor.shape or stored.geometry != fresh.geometry:
            wrong.append(f"{record.image}: {_form(stored)} instead of {_form(fresh)}")
            continue
        a, b = stored.tensor.double().cpu().flatten(), fresh.tensor.double().cpu().flatten()
        errors[str(record.image)] = float((a - b).norm() / b.norm().clamp_min(1e-12))
        cosines.append(float(torch.nn.functional.cosine_similarity(a, b, 0)))
    if not errors and not wrong:
        return Finding(check, "pass", "no image to encode")
    remedy = "delete the stored embeddings and encode the images anew with the model that will be tuned"
    if wrong:
        text = f"{len(wrong)} of {len(wrong) + len(errors)} stored embeddings have another form: {wrong[0]}"
        return Finding(check, "fail", text, {"of another form": len(wrong)}, named(wrong), remedy)
    largest, lowest = max(errors.values()), min(cosines)
    if not np.isfinite(largest):
        largest = float("inf")
    level: Level = "fail" if largest > PARITY_WRONG else "warn" if largest > PARITY_OFF else "pass"
    text = (
        f"stored embeddings differ from fresh ones by {largest:.2%} at most (cosine {lowest:.4f}, {len(errors)} images)"
    )
    numbers = {"largest relative error": largest, "lowest cosine": lowest, "images": len(errors)}
    files = sorted(errors, key=lambda file: -errors[file]) if level != "pass" else []
    return Finding(check, level, text, numbers, named(files), "" if level == "pass" else remedy)


def _form(embedding: Embedding) -> str:
    shape = "x".join(map(str, embedding.tensor.shape))
    geometry = embedding.geometry
    return f"{shape} of {geometry.height}x{geometry.width} at {geometry.side}"


def room_for_improvement(subject: Subject) -> Finding:
    """A base that is nearly perfect already, or labels that the model itself has made: nothing is left to gain."""
    check = "room for improvement"
    scores: dict[str, list[float]] = {"click": [], "box": [], "best of three": [], "any answer": []}
    for record in evenly(subject.of(), ROOM_IMAGES):
        sample = subject.load(record)
        if len(sample.masks):
            for name, value in _answers(subject, sample).items():
                scores[name].append(value)
    if not scores["click"]:
        return Finding(check, "pass", "no image with an object to ask the base about")
    means = {name: bootstrap_mean(values) for name, values in scores.items()}
    click, box = means["click"], means["box"]
    same = float((np.array(scores["any answer"]) >= SELF_MADE).mean())
    numbers: dict[str, float | int | str] = {"images": click.n, "share of labels like the model's own": same}
    for name, mean in means.items():
        numbers |= {name: mean.mean, f"{name}, low": mean.low, f"{name}, high": mean.high}
    text = (
        f"the base reaches IoU {click.mean:.2f} with a click ({click.low:.2f} to {click.high:.2f}), "
        f"{means['best of three'].mean:.2f} with the best of three, {box.mean:.2f} with a box, on {click.n} images"
    )
    if same >= SELF_SHARE:
        remedy = "label a test set by hand, without this model's help: on its own labels no gain can be seen"
        return Finding(
            check,
            "fail",
            f"{text}; {same:.0%} of the labels are the model's own answers, nothing to gain",
            numbers,
            (),
            remedy,
        )
    if click.mean >= SATURATED:
        remedy = "use the base as it is, or look for harder images: tuning cannot add what is there already"
        return Finding(check, "fail", f"{text}; nothing to gain", numbers, (), remedy)
    if box.mean >= SATURATED:
        remedy = "with boxes there is nothing to gain: tune only if users will click"
        return Finding(check, "warn", f"{text}; nothing to gain with boxes", numbers, (), remedy)
    return Finding(check, "pass", text, numbers)


def _answers(subject: Subject, sample: Sample) -> dict[str, float]:
    """Mean IoU over an image's largest objects: one click, a box, best of three by own score, and the best of all."""
    order = np.sort(np.argsort(-sample.masks.sum((1, 2)), kind="stable")[:ROOM_OBJECTS])
    masks: BoolArray = sample.masks[order]
    embedding = subject.embed(sample, subject.segmenter)
    clicks = _ious(subject, embedding, masks, "interior", sample.id)
    boxes = _ious(subject, embedding, masks, "box", sample.id)
    return {
        "click": float(np.mean([values[0] for values, _ in clicks])),
        "box": float(np.mean([values[0] for values, _ in boxes])),
        "best of three": float(np.mean([values[1:][np.argmax(own[1:])] for values, own in clicks])),
        "any answer": float(np.mean([max(*a, *b) for (a, _), (b, _) in zip(clicks, boxes, strict=True)])),
    }


def _ious(
    subject: Subject, embedding: Embedding, masks: BoolArray, strategy: str, id: str
) -> Sequence[tuple[list[float], list[float]]]:
    """(IoU of each of the decoder's four masks, its own scores) of each object."""
    out: list[tuple[list[float], list[float]]] = [([], [])] * len(masks)
    for indices, prompts in draw(strategy, masks, generator(0, "room", id)):
        answer = subject.segmenter.decode_outputs(embedding, prompts, ALL)
        for row, (index, four) in enumerate(zip(indices, answer.masks(), strict=True)):
            out[index] = [overlap(one, masks[index])["iou"] for one in four], answer.scores[row].tolist()
    if not all(values for values, _ in out):
        raise DataError(f"{id}: expected a {strategy} prompt for each of {len(masks)} objects")
    return out

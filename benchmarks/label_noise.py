"""Which masks are wrong? The audit's order of suspects beside cleanlab's segmentation score, on planted noise.

    python benchmarks/label_noise.py OUT [SOURCE[@LIMIT] ...] [--seeds 5] [--shares 0.05 0.1 0.2]

In 80 generated scenes a seed (and the labelled images of each SOURCE) a share of the masks is exchanged among their
images, or loses its left half. Every score orders all images, worst first: AUROC, and the precision at the number that
was planted. Ours is what the check orders its suspects by: how the outline fits the edges, and the base's IoU in the
mask's box and click.
cleanlab's (Lad and Mueller 2023, softmin over pixels) gets the base's probabilities by the same box and click, and
those of a logistic regression from the base's embedding to the masks given, by five-fold cross validation, which needs
no prompt. Finished cells are lines of OUT/label_noise.jsonl. Needs `pip install cleanlab`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from specialsam.advice.checks.faults import Case, others_masks
from specialsam.advice.checks.image_facts import facts_of
from specialsam.advice.checks.label_checks import belonging, label_noise
from specialsam.advice.subject import Subject
from specialsam.core.console import say
from specialsam.core.errors import UsageError
from specialsam.core.ledger import Journal, digest
from specialsam.core.types import Embedding, Record, Sample, Truth
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.data.splits import split_records, stable_hash
from specialsam.evaluation.statistics import bootstrap_mean, points
from specialsam.metrics.overlaps import overlap
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import draw, generator
from specialsam.synth.scenes import write_dataset
from specialsam.training.settings import TrainSettings

Values = npt.NDArray[np.float64]
IMAGES, SIDE, CAMOUFLAGE = 80, 256, 0.3
GRID, FOLDS, CELLS = 64, 5, 0.25
"""Pixels a side at which cleanlab compares, folds of its logistic regression, and the share of cells it learns from."""
EDGES, BASE, OURS = "ours: edges alone", "ours: base's IoU alone", "ours: edges and base"
CLEANLAB, CLEANLAB_FOLDS = "cleanlab, base by box and click", "cleanlab, embedding cross-validated"


@dataclass(frozen=True)
class Asked:
    """What the base says of one image's mask: IoU in its box and click, and its probabilities float32 (GRID, GRID)."""

    iou: float
    probability: npt.NDArray[np.float32]


def small(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.resize(np.asarray(values, np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA))


def ask(subject: Subject, sample: Sample) -> Asked:
    """The base's answer to the box and one click of all of an image's objects, as the check asks it."""
    embedding, values = subject.embed(sample, subject.segmenter), []
    probability = np.zeros(sample.size, np.float32)
    for indices, prompts in draw("box_point", sample.masks, generator(0, "second opinion", sample.id)):
        said = subject.segmenter.decode(embedding, prompts).probabilities()[:, 0]
        values += [overlap(one > 0.5, sample.masks[index])["iou"] for index, one in zip(indices, said, strict=True)]
        probability = np.maximum(probability, said.max(0))
    return Asked(float(np.mean(values)), small(probability))


def cross_validated(subject: Subject, samples: Sequence[Sample]) -> npt.NDArray[np.float32]:
    """Probabilities (N, GRID, GRID) of a logistic regression on embedding cells, learned from the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features, target = [], []
    for sample in samples:
        embedding = subject.embed(sample, subject.segmenter)
        whole = embedding.tensor.float().numpy().reshape(-1, *embedding.tensor.shape[-2:])
        height, width = (max(1, round(side / 16)) for side in embedding.geometry.resized)
        features.append(cv2.resize(whole[:, :height, :width].transpose(1, 2, 0), (GRID // 2,) * 2).reshape(-1, 128))
        target.append(cv2.resize(small(sample.masks.any(0)), (GRID // 2,) * 2).ravel() > 0.5)
    fold = generator(0, "folds").permutation(len(samples)) % FOLDS
    out = np.zeros((len(samples), GRID, GRID), np.float32)
    for number in range(FOLDS):
        learned, asked = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        scale = StandardScaler().fit(np.concatenate([features[i] for i in learned]))
        cells = generator(0, "cells", number).random(len(learned) * (GRID // 2) ** 2) < CELLS
        known = np.concatenate([target[i] for i in learned])[cells]
        model = LogisticRegression(C=0.01, max_iter=1000, tol=1e-3)
        model.fit(scale.transform(np.concatenate([features[i] for i in learned])[cells]), known)
        for i in asked:
            said = model.predict_proba(scale.transform(features[i]))[:, 1].reshape((GRID // 2,) * 2)
            out[i] = cv2.resize(said.astype(np.float32), (GRID, GRID))
    return out


def cleanlab_scores(given: npt.NDArray[np.bool_], probability: npt.NDArray[np.float32]) -> Values:
    """cleanlab's quality of each image, low where the label is doubted, (N,)."""
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError as error:
        raise SystemExit("cleanlab is not installed; pip install cleanlab") from error
    both = np.stack([1 - probability, probability], 1)
    scores, _ = get_label_quality_scores(given.astype(np.int64), both, verbose=False)
    return np.asarray(scores, np.float64)


def standing(values: Values) -> Values:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9))


def judged(score: Values, wrong: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """AUROC of low scores being wrong, and the precision at as many as are wrong."""
    below = (score[wrong][:, None] < score[~wrong]).mean() + 0.5 * (score[wrong][:, None] == score[~wrong]).mean()
    first = np.argsort(score, kind="stable")[: int(wrong.sum())]
    return float(below), float(wrong[first].mean())


def subject_of(source: str, limit: int | None, segmenter: Segmenter) -> Subject:
    """A data set whose images are read and encoded once."""
    dataset = open_dataset(source)
    records = [record for record in dataset.records if record.mask_kind != "none"]
    splits = split_records(records, (0.7, 0.15, 0.15), 0)
    if limit:
        order = generator(0, "limit").permutation(len(records))[:limit]
        splits = {records[i].id: splits[records[i].id] for i in order}
    samples = {record.id: load(record) for record in records if record.id in splits}
    splits = {name: split for name, split in splits.items() if samples[name].masks.any()}
    made: dict[str, Embedding] = {}

    def embed(truth: Truth, model: Segmenter) -> Embedding:
        if truth.id not in made:
            made[truth.id] = model.encode(samples[truth.id].image)
        return made[truth.id]

    return Subject(dataset, splits, lambda record: samples[record.id], segmenter, embed)


def halved(case: Case, share: float) -> Case:
    """A share of the masks lack the half that is left of their middle."""
    records, before = case.subject.of(), case.subject.load
    chosen = sorted(records, key=lambda record: stable_hash(f"noise:{case.seed}:{record.id}"))
    wrong = {record.id for record in chosen[: round(share * len(records))]}

    def read(record: Record) -> Sample:
        sample = before(record)
        if record.id not in wrong:
            return sample
        masks = sample.masks.copy()
        for mask in masks:
            mask[:, : int(np.median(np.nonzero(mask)[1])) + 1] = False
        return replace(sample, masks=masks)

    return case.with_subject(load=read)


NOISE: dict[str, Callable[[Case, float], Case]] = {"another image's": others_masks, "halved": halved}


def cells(case: Case, noise: str, share: float) -> list[dict[str, Any]]:
    """All scores on one data set with a share of wrong masks of one kind."""
    planted = NOISE[noise](case, share).subject
    samples = [planted.load(record) for record in planted.of()]
    wrong = np.array([not np.array_equal(one.masks, case.subject.load(one.record).masks) for one in samples])
    found = belonging([facts_of(sample, planted.splits[sample.id]) for sample in samples])
    if not found.comparable:
        raise UsageError("expected data whose masks can be told apart, got too few images or one mask in all")
    own = {fact.id: value for fact, value in zip(found.facts, found.own, strict=True)}
    edges = np.array([own.get(sample.id, 0.0) for sample in samples])
    asked = [ask(planted, sample) for sample in samples]
    iou = np.array([one.iou for one in asked])
    given = np.array([small(sample.masks.any(0)) > 0.5 for sample in samples])
    scores = {
        OURS: standing(edges) + standing(iou),
        EDGES: edges,
        BASE: iou,
        CLEANLAB: cleanlab_scores(given, np.array([one.probability for one in asked])),
        CLEANLAB_FOLDS: cleanlab_scores(given, cross_validated(planted, samples)),
    }
    finding = label_noise(found, planted)
    named = np.array([str(sample.record.mask or sample.record.image) in finding.files for sample in samples])
    check = {"alarm": finding.level != "pass", "named": int(named.sum()), "right": int((named & wrong).sum())}
    rows = []
    for name, score in scores.items():
        area, precision = judged(score, wrong)
        row = {"noise": noise, "share": share, "score": name, "auroc": area, "precision": precision}
        rows.append(row | check)
    return rows


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over data sets by share and score, in percent, and the interval of ours minus each on the same sets."""
    lines = []
    for (noise, share, name), part in rows.groupby(["noise", "share", "score"], sort=False):
        ours = rows[(rows["noise"] == noise) & (rows["share"] == share) & (rows["score"] == OURS)]
        gap = np.asarray(ours.set_index("set")["auroc"] - part.set_index("set")["auroc"], np.float64)
        row = {
            "wrong masks": noise,
            "share": 100 * float(str(share)),
            "score": name,
            "AUROC": 100 * part["auroc"].mean(),
        }
        row |= {"precision": 100 * part["precision"].mean(), "sets": len(part)}
        lines.append(row | {"ours ahead": "" if name == OURS else points(bootstrap_mean(gap))})
    return pd.DataFrame(lines).round(1)


def main() -> None:
    """Plant, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    segmenter = load_model("nano")
    todo: dict[str, tuple[int, str, int | None]] = {f"scenes-{seed}": (seed, "", None) for seed in range(args.seeds)}
    for name in args.sources:
        source, _, limit = name.partition("@")
        todo[name] = (0, source, int(limit) if limit else None)
    journal = Journal(args.out / "label_noise.jsonl")
    wanted = {name: digest(name, args.shares, list(NOISE)) for name in todo}
    done = journal.finished(wanted)
    for name, (seed, source, limit) in todo.items():
        if name in done:
            continue
        if not source:
            source = str(args.out / "data" / name)
            write_dataset(Path(source), IMAGES, SIDE, 60_000 + 1000 * seed, CAMOUFLAGE)
        case = Case(subject_of(source, limit, segmenter), args.out, seed, TrainSettings())
        both = [(noise, share) for noise in NOISE for share in args.shares]
        journal.put(name, wanted[name], [row for each in both for row in cells(case, *each)])
        say(f"finished {name}")
    rows = pd.DataFrame([row | {"set": name} for name, answer in journal.answers(wanted) for row in answer])
    pd.set_option("display.width", 200, "display.max_columns", 20)
    parts = {"generated scenes": rows[rows["set"].str.startswith("scenes-")]}
    parts |= {name: rows[rows["set"] == name] for name in args.sources}
    for name, part in parts.items():
        if len(part):
            say(f"{name}, in percent\n{table(part).to_string(index=False)}")
            check = (
                part.drop_duplicates(["set", "noise", "share"])
                .groupby(["noise", "share"])[["alarm", "named", "right"]]
                .mean()
            )
            say(f"the check itself: share of alarms, masks named, of them wrong (means)\n{check.round(2).to_string()}")


if __name__ == "__main__":
    main()

"""Which masks are wrong? The audit's order of suspects beside cleanlab's segmentation score, on planted noise.

    python benchmarks/label_noise.py OUT [SOURCE[@LIMIT] ...] [--seeds 5] [--shares 0.05 0.1 0.2]

In 80 generated scenes a seed (and the labelled images of each SOURCE) a share of the masks is exchanged among their
images. Every score orders all images, worst first: AUROC, and the precision at the number that was planted. Ours is
what the check orders its suspects by: how the outline fits the edges, and the base's IoU in the mask's box and click.
cleanlab's (Lad and Mueller 2023, softmin over pixels) gets the base's probabilities by the same box and click, and
those of a logistic regression from the base's embedding to the masks given, by five-fold cross validation, which needs
no prompt. Finished cells are lines of OUT/label_noise.jsonl. Needs `pip install cleanlab`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
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
from specialsam.core.types import Embedding, Sample, Truth
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.data.splits import split_records
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.metrics.overlaps import overlap
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.prompts import draw, generator
from specialsam.synth.scenes import write_dataset
from specialsam.training.settings import TrainSettings

Values = npt.NDArray[np.float64]
IMAGES, SIDE, CAMOUFLAGE = 80, 256, 0.3
GRID, FOLDS = 64, 5
"""Pixels a side at which cleanlab compares, and folds of its logistic regression."""
EDGES, BASE, OURS = "ours: edges alone", "ours: base's IoU alone", "ours: edges and base"
CLEANLAB, CLEANLAB_FOLDS = "cleanlab, base by box and click", "cleanlab, embedding cross-validated"


@dataclass(frozen=True)
class Asked:
    """What the base says of one image's mask: IoU in its box and click, and its probabilities float32 (GRID, GRID)."""

    iou: float
    probability: npt.NDArray[np.float32]


def small(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.resize(values.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA))


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
        model = LogisticRegression(max_iter=200)
        known = np.concatenate([target[i] for i in learned])
        model.fit(scale.transform(np.concatenate([features[i] for i in learned])), known)
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
    return (values - values.mean()) / max(float(values.std()), 1e-9)


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


def cells(case: Case, shares: Sequence[float]) -> list[dict[str, Any]]:
    """All scores on one data set at every share of wrong masks."""
    known: dict[tuple[str, bytes], Asked] = {}
    rows = []
    for share in shares:
        planted = others_masks(case, share).subject
        records = planted.of()
        samples = [planted.load(record) for record in records]
        wrong = np.array([not np.array_equal(one.masks, case.subject.load(one.record).masks) for one in samples])
        found = belonging([facts_of(sample, planted.splits[sample.id]) for sample in samples])
        if not found.comparable:
            raise UsageError("expected data whose masks can be told apart, got too few images or one mask in all")
        own = {fact.id: value for fact, value in zip(found.facts, found.own, strict=True)}
        edges = np.array([own.get(sample.id, 0.0) for sample in samples])
        keys = [(sample.id, np.packbits(sample.masks).tobytes()) for sample in samples]
        for key, sample in zip(keys, samples, strict=True):
            known[key] = known.get(key) or ask(planted, sample)
        iou = np.array([known[key].iou for key in keys])
        given = np.array([small(sample.masks.any(0)) > 0.5 for sample in samples])
        scores = {
            EDGES: edges,
            BASE: iou,
            OURS: standing(edges) + standing(iou),
            CLEANLAB: cleanlab_scores(given, np.array([known[key].probability for key in keys])),
            CLEANLAB_FOLDS: cleanlab_scores(given, cross_validated(planted, samples)),
        }
        finding = label_noise(found, planted)
        named = np.array([str(sample.record.mask or sample.record.image) in finding.files for sample in samples])
        check = {"alarm": finding.level != "pass", "named": int(named.sum()), "right": int((named & wrong).sum())}
        for name, score in scores.items():
            area, precision = judged(score, wrong)
            rows.append({"share": share, "score": name, "auroc": area, "precision": precision, **check})
    return rows


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Means over data sets by share and score, in percent, and the interval of ours minus each on the same sets."""
    lines = []
    for (share, name), part in rows.groupby(["share", "score"], sort=False):
        ours = rows[(rows["share"] == share) & (rows["score"] == OURS)].set_index("set")["auroc"]
        gap = bootstrap_mean(np.asarray(ours - part.set_index("set")["auroc"], np.float64))
        row = {"share": 100 * float(str(share)), "score": name, "AUROC": 100 * part["auroc"].mean()}
        row |= {"precision": 100 * part["precision"].mean(), "ours ahead": 100 * gap.mean}
        lines.append(row | {"low": 100 * gap.low, "high": 100 * gap.high, "sets": len(part)})
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
    todo = {f"scenes-{seed}": (seed, "", None) for seed in range(args.seeds)}
    for name in args.sources:
        source, _, limit = name.partition("@")
        todo[name] = (0, source, int(limit) if limit else None)
    journal = Journal(args.out / "label_noise.jsonl")
    wanted = {name: digest(name, args.shares) for name in todo}
    done = journal.finished(wanted)
    for name, (seed, source, limit) in todo.items():
        if name in done:
            continue
        if not source:
            source = str(args.out / "data" / name)
            write_dataset(Path(source), IMAGES, SIDE, 60_000 + 1000 * seed, CAMOUFLAGE)
        case = Case(subject_of(source, limit, segmenter), args.out, seed, TrainSettings())
        journal.put(name, wanted[name], cells(case, args.shares))
        say(f"finished {name}")
    rows = pd.DataFrame([row | {"set": name} for name, answer in journal.answers(wanted) for row in answer])
    pd.set_option("display.width", 200, "display.max_columns", 20)
    parts = {"generated scenes": rows[rows["set"].str.startswith("scenes-")]}
    parts |= {name: rows[rows["set"] == name] for name in args.sources}
    for name, part in parts.items():
        if len(part):
            say(f"{name}, in percent\n{table(part).to_string(index=False)}")
            check = part.drop_duplicates(["set", "share"]).groupby("share")[["alarm", "named", "right"]].mean()
            say(f"the check itself: share of alarms, masks named, of them wrong (means)\n{check.round(2).to_string()}")


if __name__ == "__main__":
    main()

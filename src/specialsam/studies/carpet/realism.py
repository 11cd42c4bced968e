"""How well synthetic defects can be told from real ones in the frozen encoder's embeddings: the sim-to-real meter.

Each defect is one vector: the mean embedding inside its mask less the mean over a ring of ground around it, so that the
cloth and its light cancel. Its length is looked at beside it: what differs from its ground in any direction lies all
around what does not, and no plane divides them. A classifier that has not seen a defect says how real it looks; the
area under the ROC curve is 0.5 where it cannot tell and 1 where it always can (the classifier two-sample test of
Lopez-Paz and Oquab 2017, "Revisiting classifier two-sample tests"; the proxy A-distance of Ben-David et al. 2010, "A
theory of learning from different domains"). Two anchors make that readable: real defects against real ones, and bare
ground against real defects. A second measure needs no classifier: how far the nearest synthetic defect is, beside the
nearest real one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from specialsam.core.console import Progress
from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding
from specialsam.evaluation.statistics import Interval, bootstrap_mean

Origin = Literal["synthetic", "real", "clean"]
Question = Literal["kind", "kind and type", "real type", "real halves", "clean"]
Values = npt.NDArray[np.float64]

LEAST = 4
"""Defects a side below which nothing is said: folds would hold none of them."""
FOLDS, REPEATS, HALVES, BOOTSTRAP = 5, 4, 12, 1000
PER_COMPONENT = 5
"""Training defects for each principal component that the classifier sees."""
GAP, RING = 1, 3
"""Cells of the embedding between a mask and its ring of ground, and cells to the ring's far side."""
ALL = "all"
TOO_FEW = "too few"


@dataclass(frozen=True)
class Region:
    """One defect as the encoder sees it: `vector` float32 (C,), and `area`, the share of its picture that it covers.

    `kind` is the generator's name or the real type; `group` names the clean picture that it was painted on (a real
    one's own name), because what shares a ground must share a fold.
    """

    origin: Origin
    kind: str
    name: str
    group: str
    vector: FloatArray
    area: float


@dataclass(frozen=True)
class Answer:
    """One question answered: AUC with its interval, what the area alone and both together tell, the ratio of distances.

    `n` real defects stand against `m` others; NaN is what was not asked or, with the note "too few", not answered.
    """

    question: Question
    name: str
    against: str
    n: int
    m: int
    auc: float = math.nan
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    size: float = math.nan
    with_size: float = math.nan
    nearest: float = math.nan
    nearest_low: float = math.nan
    nearest_high: float = math.nan


def region_vector(embedding: Embedding, mask: BoolArray) -> FloatArray:
    """Mean embedding inside `mask` (bool (H, W)) less the mean over the ground around it: float32 (C,).

    Cells count by the share that the mask covers, so that a mask smaller than a cell still has its own. The ring lies
    `GAP` to `RING` cells off the mask and becomes all the rest of the picture where that leaves no cell. DataError for
    an empty mask and for one that leaves no ground at all.
    """
    if not mask.any():
        raise DataError("expected a defect to describe, got an empty mask")
    values = embedding.tensor.float().numpy()
    side = (values.shape[2], values.shape[1])
    on_image = cv2.resize(embedding.geometry.valid_logits(), side, interpolation=cv2.INTER_AREA)
    covered = embedding.geometry.masks_to_logits(mask[None])[0] * embedding.geometry.valid_logits()
    inside = cv2.resize(covered, side, interpolation=cv2.INTER_AREA)
    touched = (inside > 0).astype(np.uint8)
    near, far = (cv2.dilate(touched, np.ones((2 * cells + 1,) * 2, np.uint8)) for cells in (GAP, RING))
    for ground in ((far > 0) & (near == 0), touched == 0):
        around = on_image * ground
        if around.sum() > 0:
            return np.asarray(_weighted(values, inside) - _weighted(values, around), np.float32)
    raise DataError("expected ground around a defect, got a mask that touches every cell of the embedding")


def _weighted(values: FloatArray, weights: FloatArray) -> Values:
    """Mean of (C, h, w) over cells by their weights (h, w), float64 (C,)."""
    return np.asarray(np.tensordot(values.astype(np.float64), weights.astype(np.float64), 2) / weights.sum(), float)


def separability(regions: Sequence[Region], seed: int = 0, progress: Progress | None = None) -> tuple[Answer, ...]:
    """Every question answered.

    Questions: each synthetic kind (and all) against all real defects, each kind against each real type, each real type
    against the others, random halves of the real ones, bare ground against all real defects. `auc` rests on the vectors
    alone; `size` is what the area alone tells, `with_size` both. `nearest` is a ratio of distances (`nearest_ratio`). A
    question with fewer than 4 groups on a side says "too few" in `note`.
    """
    real = [region for region in regions if region.origin == "real"]
    made = [region for region in regions if region.origin == "synthetic"]
    clean = [region for region in regions if region.origin == "clean"]
    scale = _scale([*real, *made])
    asked = list(_asked(real, made, clean))
    answers = []
    for number, one in enumerate(asked, 1):
        answers.append(_answer(one, scale, seed))
        if progress:
            progress(number, len(asked), f"{one.name} against {one.against}")
    return (*answers, _halves(real, seed))


@dataclass(frozen=True)
class _Asked:
    question: Question
    name: str
    against: str
    real: list[Region]
    others: list[Region]


def _asked(real: list[Region], made: list[Region], clean: list[Region]) -> Iterator[_Asked]:
    kinds, types = (list(dict.fromkeys(region.kind for region in part)) for part in (made, real))
    for kind in (*kinds, ALL) if len(kinds) > 1 else kinds:
        own = [region for region in made if kind in (region.kind, ALL)]
        yield _Asked("kind", kind, ALL, real, own)
        for name in types:
            yield _Asked("kind and type", kind, name, [region for region in real if region.kind == name], own)
    if len(types) > 1:
        for name in types:
            others = [region for region in real if region.kind != name]
            yield _Asked("real type", name, "other types", [region for region in real if region.kind == name], others)
    yield _Asked("clean", "bare ground", ALL, real, clean)


def _answer(asked: _Asked, scale: Values, seed: int) -> Answer:
    real, others = asked.real, asked.others
    told = Answer(asked.question, asked.name, asked.against, len(real), len(others))
    if min(len({region.group for region in side}) for side in (real, others)) < LEAST:
        return replace(told, note=TOO_FEW)
    vectors, lengths, sizes, labels, groups = _stacked(real, others)
    found = auc(vectors, lengths, labels, groups, seed)
    told = replace(told, auc=found.mean, low=found.low, high=found.high)
    if asked.against == ALL:
        size = auc(vectors[:, :0], sizes, labels, groups, seed, bootstrap=0).mean
        both = auc(vectors, np.hstack([lengths, sizes]), labels, groups, seed, bootstrap=0).mean
        told = replace(told, size=size, with_size=both)
    if asked.question in ("kind", "clean"):
        near = nearest_ratio(vectors[labels] / scale, vectors[~labels] / scale, seed)
        told = replace(told, nearest=near.mean, nearest_low=near.low, nearest_high=near.high)
    return told


def _halves(real: list[Region], seed: int) -> Answer:
    """Random halves of the real defects against each other: what this measure says where there is no difference.

    `low` and `high` are the 2.5 and 97.5 % points over the draws, so they show what chance does with so few.
    """
    half = len(real) // 2
    told = Answer("real halves", "random halves", "real", half, len(real) - half)
    if half < LEAST:
        return replace(told, note=TOO_FEW)
    found = []
    for draw in range(HALVES):
        order = generator(seed, "halves", draw).permutation(len(real))
        first, second = ([real[i] for i in part] for part in np.array_split(order, 2))
        vectors, lengths, _, labels, groups = _stacked(first, second)
        found.append(auc(vectors, lengths, labels, groups, seed, bootstrap=0).mean)
    low, high = np.quantile(found, [0.025, 0.975])
    return replace(told, auc=float(np.mean(found)), low=float(low), high=float(high), note="spread over draws")


def _stacked(
    real: Sequence[Region], others: Sequence[Region]
) -> tuple[Values, Values, Values, BoolArray, npt.NDArray[np.str_]]:
    """Vectors (n, C), their log lengths (n, 1), log areas (n, 1), whether real (n,), and groups (n,)."""
    both = [*real, *others]
    vectors = np.stack([region.vector for region in both]).astype(np.float64)
    sizes = np.log([[region.area] for region in both])
    labels = np.array([index < len(real) for index in range(len(both))])
    lengths = np.log(np.linalg.norm(vectors, axis=1, keepdims=True).clip(np.finfo(np.float64).tiny))
    return vectors, lengths, sizes, labels, np.array([region.group for region in both])


def _scale(regions: Sequence[Region]) -> Values:
    """Standard deviation of each channel over all defects, 1 where it does not vary."""
    spread = np.stack([region.vector for region in regions]).astype(np.float64).std(0)
    return np.where(spread > 0, spread, 1.0)


def auc(
    vectors: Values,
    beside: Values,
    labels: BoolArray,
    groups: npt.NDArray[np.str_],
    seed: int = 0,
    bootstrap: int = BOOTSTRAP,
) -> Interval:
    """Cross-validated area under the ROC curve of a classifier of `labels`, with its interval over groups.

    `vectors` (n, C), `beside` (n, K), `labels` bool (n,), `groups` (n,): a group is never split between training and
    test. Logistic regression on the vectors' standardised principal components, at most a fifth as many as training
    defects, and on the columns of `beside`; all of it is fitted within the fold, and folds are drawn `REPEATS` times.
    Only pairs of one fold are compared, because scores of different classifiers have no common scale. The interval
    resamples the groups of either side while the classifiers stay: it leaves out what another training set would
    change, and is NaN without `bootstrap` draws. DataError with fewer than four groups on a side.
    """
    sides = [np.unique(groups[labels == side], return_inverse=True) for side in (True, False)]
    fewest = min(len(names) for names, _ in sides)
    if fewest < LEAST:
        raise DataError(f"expected at least {LEAST} groups on either side, got {fewest}")
    wins, compared = (np.zeros((int(labels.sum()), int((~labels).sum()))) for _ in range(2))
    place = np.where(labels, np.cumsum(labels), np.cumsum(~labels)) - 1
    for repeat in range(REPEATS):
        folds = _folds(labels, groups, min(FOLDS, fewest), generator(seed, "folds", repeat))
        for fold in range(min(FOLDS, fewest)):
            test = folds == fold
            seen = _features(vectors, beside, ~test)
            scores = _scores(seen[~test], labels[~test], seen[test])
            mine, theirs = labels[test], ~labels[test]
            cells = np.ix_(place[test][mine], place[test][theirs])
            gap = scores[mine][:, None] - scores[theirs][None]
            wins[cells] += (gap > 0) + 0.5 * (gap == 0)
            compared[cells] += 1
    value = float(wins.sum() / compared.sum())
    if not bootstrap:
        return Interval(value, float("nan"), float("nan"), len(labels))
    rng = generator(seed, "bootstrap")
    found = []
    for _ in range(bootstrap):
        weights = [rng.multinomial(len(names), np.full(len(names), 1 / len(names)))[at] for names, at in sides]
        total = weights[0] @ compared @ weights[1]
        if total > 0:
            found.append(weights[0] @ wins @ weights[1] / total)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high), len(labels))


def _folds(
    labels: BoolArray, groups: npt.NDArray[np.str_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """A fold 0..count-1 for each of (n,): the groups of either side are dealt out in turn, none is split."""
    fold_of: dict[str, int] = {}
    for side in (True, False):
        left = [str(name) for name in rng.permutation(np.unique(groups[labels == side])) if str(name) not in fold_of]
        fold_of |= {name: rank % count for rank, name in enumerate(left)}
    return np.array([fold_of[str(name)] for name in groups])


def _features(vectors: Values, beside: Values, train: BoolArray) -> Values:
    """What the classifier sees of all (n, k): whitened components of the vectors and `beside`, by the training part."""
    beside = _standardised(beside, train)
    if not vectors.shape[1]:
        return beside
    vectors = _standardised(vectors, train)
    _, sizes, axes = np.linalg.svd(vectors[train], full_matrices=False)
    kept = max(1, min(int(train.sum()) // PER_COMPONENT, int((sizes > 1e-9 * sizes[0]).sum())))
    return np.hstack([vectors @ (axes[:kept].T / sizes[:kept] * np.sqrt(train.sum())), beside])


def _standardised(values: Values, train: BoolArray) -> Values:
    spread = values[train].std(0)
    return np.asarray((values - values[train].mean(0)) / np.where(spread > 0, spread, 1.0), np.float64)


def _scores(train: Values, labels: BoolArray, test: Values) -> Values:
    """How real each of `test` (m, k) looks to a classifier of `train` (n, k) by `labels` (n,): (m,)."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(class_weight="balanced", max_iter=1000).fit(train, labels)
    return np.asarray(found.decision_function(test), np.float64)


def nearest_ratio(real: Values, others: Values, seed: int = 0) -> Interval:
    """Distance of a real defect to the nearest other one of `others`, over that to the nearest other real one.

    `real` (n, C) and `others` (m, C) in scaled channels. The geometric mean over real defects with its interval: 1
    where the others are as near as real ones are to each other, 2 where they are twice as far. Among more there is
    always a nearer one, so both distances are what is expected among equally many (the lesser of n - 1 and m).
    """
    among = min(len(real) - 1, len(others))
    to_real = np.linalg.norm(real[:, None] - real[None], axis=2)
    to_real = to_real[~np.eye(len(real), dtype=np.bool_)].reshape(len(real), -1)
    to_others = np.linalg.norm(real[:, None] - others[None], axis=2)
    tiny = np.finfo(np.float64).tiny
    logs = np.log(_nearest(to_others, among).clip(tiny)) - np.log(_nearest(to_real, among).clip(tiny))
    found = bootstrap_mean(logs, seed)
    mean, low, high = (float(np.exp(value)) for value in (found.mean, found.low, found.high))
    return Interval(mean, low, high, found.n)


def _nearest(distances: Values, among: int) -> Values:
    """Expected least of `among` distances drawn without replacement from each row of (n, m): (n,)."""
    count = distances.shape[1]
    left = 1.0
    weights = np.zeros(count)
    for rank in range(count - among + 1):
        weights[rank] = left * among / (count - rank)
        left -= weights[rank]
    return np.asarray(np.sort(distances, axis=1) @ weights, np.float64)

"""Finding without a prompt against pycocotools' COCOeval, scikit-learn on whole maps, and regions one by one."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from sklearn import metrics as sk

from specialsam.core.errors import DataError, UsageError
from specialsam.core.masks import to_rle
from specialsam.metrics import overlap
from specialsam.metrics.detection import (
    BINS,
    PixelCounts,
    aupro,
    auroc,
    average_precision,
    iou_at,
    match,
    pixel_auroc,
    pixel_f1max,
    recall_at,
)

SIDE = 12
Scene = tuple[np.ndarray, np.ndarray, np.ndarray]


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Filled boxes, bool (count, SIDE, SIDE), so few and so coarse that many overlap and many IoUs are equal."""
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask in masks:
        y, x = rng.integers(0, SIDE - 4, 2)
        height, width = rng.integers(2, 5, 2) * 2
        mask[y : y + height, x : x + width] = True
    return masks


def scenes(seed: int, images: int = 6) -> list[Scene]:
    """Found masks, their scores (many of them equal) and true masks; some images have none of one or the other."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(images):
        true = boxes(rng, int(rng.integers(0, 5)))
        near = [np.roll(mask, rng.integers(-1, 2, 2), (0, 1)) for mask in true if rng.random() < 0.8]
        found = np.concatenate([np.array(near, bool).reshape(-1, SIDE, SIDE), boxes(rng, int(rng.integers(0, 4)))])
        out.append((found, rng.integers(0, 6, len(found)) / 5, true))
    return out


def ious(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    packed = [[to_rle(mask) for mask in masks] for masks in (found, true)]
    both = len(found) and len(true)
    return np.asarray(coco_masks.iou(*packed, [0] * len(true))) if both else np.zeros((len(found), len(true)))


def coco(pictures: list[Scene], threshold: float, most: int = 1000) -> tuple[float, float]:
    """COCOeval's AP and recall of one class at one threshold with `most` finds an image, NaN for its -1."""
    gt, dt = [], []
    for image, (found, scores, true) in enumerate(pictures, 1):
        plain = {"image_id": image, "category_id": 1}
        for mask in true:
            area = int(mask.sum())
            gt.append({**plain, "id": len(gt) + 1, "segmentation": to_rle(mask), "area": area, "iscrowd": 0})
        for mask, score in zip(found, scores, strict=True):
            dt.append({**plain, "segmentation": to_rle(mask), "score": float(score)})
    truth = COCO()
    sizes = [{"id": image + 1, "height": SIDE, "width": SIDE} for image in range(len(pictures))]
    truth.dataset = {"info": {}, "images": sizes, "annotations": gt, "categories": [{"id": 1, "name": "thing"}]}
    truth.createIndex()
    judge = COCOeval(truth, truth.loadRes(dt), "segm")
    judge.params.iouThrs = np.array([threshold])
    judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [most]
    judge.evaluate()
    judge.accumulate()
    values = float(judge.eval["precision"].mean()), float(judge.eval["recall"].mean())
    return tuple(math.nan if value < 0 else value for value in values)


def some(seed: int) -> list[Scene]:
    """Scenes of a seed with at least one find, which COCO's reader asks for."""
    pictures = scenes(seed)
    if not any(len(found) for found, _, _ in pictures):
        pictures.append((np.ones((1, SIDE, SIDE), bool), np.ones(1), np.zeros((0, SIDE, SIDE), bool)))
    return pictures


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.75, 1.0]))
def test_average_precision_is_that_of_coco(seed: int, threshold: float) -> None:
    """Oracle: pycocotools' COCOeval on masks, ties of score and of IoU included."""
    pictures = some(seed)
    judged = [(scores, match(ious(found, true), scores, threshold) >= 0, len(true)) for found, scores, true in pictures]
    assert average_precision(judged) == pytest.approx(coco(pictures, threshold)[0], abs=1e-9, nan_ok=True)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.75]), st.sampled_from([1, 2, 5]))
def test_recall_is_that_of_coco(seed: int, threshold: float, count: int) -> None:
    """Oracle: pycocotools' COCOeval with that limit of detections."""
    pictures = some(seed)
    ordered = [ious(found[np.argsort(-scores, kind="stable")], true) for found, scores, true in pictures]
    wanted = coco(pictures, threshold, count)[1]
    assert recall_at(ordered, count, threshold) == pytest.approx(wanted, abs=1e-9, nan_ok=True)


def test_match_by_hand() -> None:
    """The surest find takes its best object, the next what is left of it, and nobody takes one twice."""
    table = np.array([[0.6, 0.9], [0.8, 0.95], [0.55, 0.7], [0.2, 0.1]], np.float32)
    assert match(table, [0.5, 0.9, 0.7, 0.8], 0.5).tolist() == [-1, 1, 0, -1]
    assert match(table, [0.5, 0.9, 0.7, 0.8], 0.6).tolist() == [0, 1, -1, -1]
    assert match(np.zeros((3, 0)), [1, 2, 3], 0.5).tolist() == [-1, -1, -1]
    assert match(np.zeros((0, 3)), [], 0.5).tolist() == []
    # single precision keeps an IoU that is the threshold itself
    assert match(np.array([[0.7]], np.float32), [1], 0.7).tolist() == [0]


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(P, T\) IoUs of the 2 found objects that have a score, got \(3, 1\)$"):
        match(np.zeros((3, 1)), [1, 2], 0.5)
    with pytest.raises(DataError, match=r"finite scores, got 1 of 2 NaN or infinite$"):
        match(np.zeros((2, 1)), [1, math.nan], 0.5)
    with pytest.raises(DataError, match=r"got 1 scores, 2 hits$"):
        average_precision([([0.5], [True, False], 1)])
    with pytest.raises(UsageError, match=r"first 1 or more found objects, got 0$"):
        recall_at([np.ones((1, 1))], 0)


def test_without_truth_there_is_no_number() -> None:
    assert math.isnan(average_precision([([0.5], [False], 0)]))
    assert math.isnan(average_precision([]))
    assert math.isnan(recall_at([np.zeros((2, 0))], 5))
    assert average_precision([([], [], 3)]) == recall_at([np.zeros((0, 2))], 5) == 0
    assert math.isnan(auroc([1, 2], [True, True]))
    assert math.isnan(auroc([], []))


@settings(max_examples=80)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2).filter(lambda rows: any(row[1] for row in rows))
)
def test_auroc_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    """Oracle: roc_auc_score, with many ties; turned around it is the rest to 1."""
    scores, positive = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if positive.all():
        return
    assert auroc(scores, positive) == pytest.approx(sk.roc_auc_score(positive, scores))
    assert auroc(-scores, positive) == pytest.approx(1 - auroc(scores, positive))


def test_auroc_needs_a_label_a_score() -> None:
    with pytest.raises(DataError, match=r"got 3 scores and 2 labels$"):
        auroc([1, 2, 3], [True, False])


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9))
levels = st.one_of(st.floats(0, 1, width=32), st.integers(0, 7).map(lambda level: level / 7))
pictures = st.lists(
    shapes.flatmap(
        lambda shape: st.tuples(hnp.arrays(np.float32, shape, elements=levels), hnp.arrays(np.bool_, shape))
    ),
    min_size=1,
    max_size=4,
)
Pictures = list[tuple[np.ndarray, np.ndarray]]


def pooled(maps: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """Labels and levels of all pixels."""
    scores = np.concatenate([score.ravel() for score, _ in maps]).astype(np.float64)
    return np.concatenate([truth.ravel() for _, truth in maps]), np.minimum(np.floor(scores * BINS), BINS - 1)


def counted(maps: Pictures) -> list[PixelCounts]:
    return [PixelCounts.of(score, truth) for score, truth in maps]


@settings(max_examples=80)
@given(pictures)
def test_best_f1_of_pixels(maps: Pictures) -> None:
    """Oracles: scikit-learn's precision-recall curve on levels, and the masks that the threshold makes of the maps."""
    truth, level = pooled(maps)
    best, threshold = pixel_f1max(counted(maps))
    if not truth.any():
        assert math.isnan(best)
        assert math.isnan(threshold)
        return
    precision, recall, _ = sk.precision_recall_curve(truth, level)
    assert best == pytest.approx(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))
    found = np.concatenate([(score >= threshold).ravel() for score, _ in maps])
    assert best == pytest.approx(sk.f1_score(truth, found))


@settings(max_examples=80)
@given(pictures)
def test_auroc_of_pixels(maps: Pictures) -> None:
    """Oracle: roc_auc_score on levels."""
    truth, level = pooled(maps)
    value = pixel_auroc(counted(maps))
    if truth.all() or not truth.any():
        assert math.isnan(value)
    else:
        assert value == pytest.approx(sk.roc_auc_score(truth, level))


def brute_aupro(maps: Pictures, limit: float) -> float:
    """Overlaps of regions found by SciPy at every threshold, and the area between thresholds piece by piece."""
    truth, level = pooled(maps)
    curve = [(0.0, 0.0)]
    for threshold in np.unique(level)[::-1]:
        shares = []
        for score, true in maps:
            found = np.minimum(np.floor(score.astype(np.float64) * BINS), BINS - 1) >= threshold
            labels, count = ndimage.label(true, np.ones((3, 3)))
            shares += [float(found[labels == region].mean()) for region in range(1, count + 1)]
        curve.append((float((level[~truth] >= threshold).mean()), float(np.mean(shares))))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        end = min(x1, limit)
        if end > x0:
            area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return area / limit


@settings(max_examples=80)
@given(pictures, st.sampled_from([0.05, 0.3, 1.0]))
def test_per_region_overlap(maps: Pictures, limit: float) -> None:
    """Oracle: the definition, region by region and threshold by threshold."""
    truth, _ = pooled(maps)
    value = aupro(counted(maps), limit)
    if truth.all() or not truth.any():
        assert math.isnan(value)
    else:
        assert value == pytest.approx(brute_aupro(maps, limit))


@pytest.mark.parametrize("limit", [0.1, 0.3, 1.0])
def test_of_one_region_the_overlap_is_the_roc_curve(limit: float) -> None:
    """Oracle: scikit-learn's area under the ROC curve up to a rate, its standardisation (McClish 1989) undone."""
    rng = np.random.default_rng(3)
    truth = np.zeros((40, 50), bool)
    truth[10:22, 20:41] = True
    score = np.clip(rng.normal(0.4, 0.15, truth.shape) + 0.15 * truth, 0, 1).astype(np.float32)
    counts = [PixelCounts.of(score, truth)]
    level = pooled([(score, truth)])[1]
    if limit == 1:
        assert aupro(counts, limit) == pytest.approx(sk.roc_auc_score(truth.ravel(), level)) == pixel_auroc(counts)
    standard = sk.roc_auc_score(truth.ravel(), level, max_fpr=limit)
    least, most = limit**2 / 2, limit
    wanted = least + (2 * standard - 1) * (most - least) if limit < 1 else standard
    assert aupro(counts, limit) == pytest.approx(wanted / limit)


def test_small_regions_count_as_much_as_large_ones() -> None:
    """By hand: one pixel is missed and a field of 50 found at no false positive, the overlap is a half until all is."""
    truth = np.zeros((20, 20), bool)
    truth[2:7, 2:12], truth[15, 15] = True, True
    score = np.where(truth, 0.9, 0.5).astype(np.float32)
    score[15, 15] = 0.0
    counts = [PixelCounts.of(score, truth)]
    assert [int(region.sum()) for region in counts[0].regions] == [50, 1]
    assert aupro(counts) == pytest.approx(0.5)
    assert pixel_auroc(counts) == pytest.approx(50 / 51)
    best, threshold = pixel_f1max(counts)
    assert best == pytest.approx(2 * 50 / (50 + 51))
    assert 0.6 < threshold < 0.8  # halfway between the levels of the ground and of the field


def test_corners_that_touch_are_one_region() -> None:
    assert len(PixelCounts.of(np.zeros((4, 4), np.float32), np.eye(4, dtype=bool)).regions) == 1


@settings(max_examples=80)
@given(pictures, st.integers(0, BINS - 1))
def test_iou_at_a_threshold(maps: Pictures, level: int) -> None:
    """Oracle: `overlap` of the mask that the threshold makes, exact at i / BINS."""
    for (score, truth), count in zip(maps, counted(maps), strict=True):
        assert iou_at(count, level / BINS) == overlap(score >= level / BINS, truth)["iou"]


def test_iou_at_the_ends() -> None:
    none, full = np.zeros((3, 3), bool), np.ones((3, 3), np.float32)
    assert iou_at(PixelCounts.of(full, none), 1) == 1
    assert iou_at(PixelCounts.of(full, none), 0.999) == 0
    assert iou_at(PixelCounts.of(full, ~none), 0.999) == 1
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match=r"threshold in 0\.\.1, got"):
            iou_at(PixelCounts.of(full, none), wrong)


@settings(max_examples=60)
@given(pictures)
def test_counts_are_kept_in_a_journal(maps: Pictures) -> None:
    """Oracle: the counts before; every pixel is in one of them, and the regions make up the inside."""
    for (score, truth), count in zip(maps, counted(maps), strict=True):
        again = PixelCounts.read(json.loads(json.dumps(count.as_json())))
        np.testing.assert_array_equal(again.inside, count.inside)
        np.testing.assert_array_equal(again.outside, count.outside)
        np.testing.assert_array_equal(np.array(again.regions), np.array(count.regions))
        assert count.inside.sum() == truth.sum()
        assert count.inside.sum() + count.outside.sum() == score.size
        assert count.inside.dtype == again.inside.dtype == np.int64
        assert all(region.any() for region in count.regions)


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"outside": [[0], [3]]},
        {"outside": [[0, 1], [3]], "regions": []},
        {"outside": [[BINS], [3]], "regions": []},
        {"outside": [[-1], [3]], "regions": []},
        {"outside": [[1], [-3]], "regions": []},
        {"outside": [[1], ["many"]], "regions": []},
        {"outside": [[1], [10**30]], "regions": []},
        {"outside": 3, "regions": []},
        {"outside": [[1], [3]], "regions": [[1, 2, 3]]},
    ],
)
def test_damaged_counts_are_refused(damaged: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"expected pixel counts as written, got others .* measure the image anew$"):
        PixelCounts.read(damaged)


def test_what_is_no_map_is_refused() -> None:
    truth = np.zeros((4, 4), bool)
    for wrong in (1.5, -0.1, np.nan):
        with pytest.raises(DataError, match=r"scores in 0\.\.1, got"):
            PixelCounts.of(np.full((4, 4), wrong, np.float32), truth)
    with pytest.raises(DataError, match=r"\(4, 4\), got \(4, 5\)"):
        PixelCounts.of(np.zeros((4, 5), np.float32), truth)
    for limit in (0, 1.1, math.nan):
        with pytest.raises(UsageError, match="largest false-positive rate above 0 and up to 1"):
            aupro([PixelCounts.of(np.zeros((4, 4), np.float32), truth)], limit)


def test_no_image_has_no_number() -> None:
    assert math.isnan(pixel_auroc([]))
    assert math.isnan(aupro([]))
    assert math.isnan(pixel_f1max([])[0])

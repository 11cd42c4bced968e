"""How much two masks overlap, and how far a soft map is from the truth.

One convention for empty masks, kept by every metric of this package: two empty masks agree perfectly (1), an empty mask
against one that is not shares nothing (0, precision and recall included, whichever of the two is empty).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray


def check_pair(mask: npt.NDArray[np.generic], truth: BoolArray) -> None:
    """Raise DataError unless `truth` is a bool (H, W) of at least one pixel and `mask` has the same shape."""
    if truth.ndim != 2 or truth.dtype != np.bool_ or not truth.size:
        raise DataError(f"expected a bool (H, W) true mask, got {truth.dtype} {truth.shape}")
    if mask.shape != truth.shape:
        raise DataError(f"expected a prediction of the truth's shape {truth.shape}, got {mask.shape}")


def empty_agreement(mask: BoolArray, truth: BoolArray) -> float | None:
    """What every metric says of bool (H, W) masks when one is empty: 1 for both, 0 for one, None for neither."""
    has_mask, has_truth = bool(mask.any()), bool(truth.any())
    if has_mask and has_truth:
        return None
    return 1.0 if has_mask == has_truth else 0.0


def overlap(mask: BoolArray, truth: BoolArray) -> dict[str, float]:
    """IoU (Jaccard), Dice, precision, recall and F1 of bool (H, W) masks, each in 0..1, higher is better.

    On binary masks F1 equals Dice; both names are kept because published tables use both.
    """
    check_pair(mask, truth)
    both = int(np.count_nonzero(mask & truth))
    predicted, true = int(np.count_nonzero(mask)), int(np.count_nonzero(truth))
    if not predicted or not true:
        same = float(predicted == true)
        return {"iou": same, "dice": same, "precision": same, "recall": same, "f1": same}
    dice = 2 * both / (predicted + true)
    return {
        "iou": both / (predicted + true - both),
        "dice": dice,
        "precision": both / predicted,
        "recall": both / true,
        "f1": dice,
    }


def mae(probability: FloatArray, truth: BoolArray) -> float:
    """Mean absolute error of probabilities float32 (H, W) in 0..1 against bool (H, W), in 0..1, lower is better.

    The map is taken as it is: stretching it to its minimum and maximum would turn a blank one into noise.
    """
    check_pair(probability, truth)
    return float(np.abs(probability - truth.astype(np.float32)).mean(dtype=np.float64))


def pairwise_iou(found: BoolArray, true: BoolArray) -> FloatArray:
    """IoU float32 (P, T) of each of the masks (P, H, W) with each of (T, H, W); of two empty ones it is 1."""
    one, other = (part.reshape(len(part), part.shape[1] * part.shape[2]).astype(np.float32) for part in (found, true))
    shared = one @ other.T
    union = one.sum(1)[:, None] + other.sum(1)[None] - shared
    return np.asarray(np.divide(shared, union, out=np.ones_like(shared), where=union > 0), np.float32)

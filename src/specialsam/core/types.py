"""One representation for each thing that flows through specialsam; all frozen, all checked on construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, FloatArray, Geometry, ImageArray
from specialsam.core.masks import RunLength
from specialsam.core.names import printable

if TYPE_CHECKING:
    import torch

Split = Literal["train", "val", "test"]
MaskKind = Literal["none", "binary", "index", "rle"]
_Value = TypeVar("_Value", bound=np.generic)


@dataclass(frozen=True)
class Look:
    """How some pictures look: how many were seen, the share without colour, their longest sides in pixels."""

    pictures: int
    grey: float
    smallest: int
    largest: int


@dataclass(frozen=True)
class Reading:
    """How the values in an image file become uint8 RGB where the file alone does not say: one way for a data set.

    `low` and `high` are the values that become 0 and 255, both None where the file's own depth says it. `nodata` are
    values that say nothing (they become 0). `bands` are the samples, or pages, taken as red, green and blue, one of
    them for grey; empty for the file's own.
    """

    low: float | None = None
    high: float | None = None
    nodata: tuple[float, ...] = ()
    bands: tuple[int, ...] = ()


@dataclass(frozen=True)
class MaskReading:
    """What the values in mask files mean where they are not simply binary, or labels with 0 as background.

    `background` is the value of a label map that is no object, `void` further ones that are neither. `levels` are the
    values (or colours, 0xRRGGBB) that a lossy file was drawn with: each pixel counts as one of them. With `alpha` the
    shape is in the alpha channel, with `pages` each page of a file is an object, with `parts` each connected part is.
    """

    background: int = 0
    void: tuple[int, ...] = ()
    levels: tuple[int, ...] = ()
    alpha: bool = False
    pages: bool = False
    parts: bool = False


@dataclass(frozen=True)
class Record:
    """One image of a data set, on disk: where its pixels and its masks are, and what is known of it.

    `mask_kind` says how `mask` (a file) or `rles` (COCO run-length dictionaries, one an object) become masks: "binary"
    is one object of all pixels above 127 of channel 0, "index" one object a value other than 0, "none" unlabelled.
    `more` are further mask files of the same image whose objects count as well. `reading` and `masks_as` say what the
    values in the image and the mask files mean, None: what their format says.
    `split` is the split that the data set itself states, if any. Texts become printable (`core.names`), whatever the
    file's name; `image` and `mask` stay the paths that open.
    """

    id: str
    image: Path
    mask: Path | None = None
    mask_kind: MaskKind = "none"
    rles: tuple[RunLength, ...] = ()
    labels: tuple[str, ...] = ()
    category: str = ""
    supercategory: str = ""
    split: Split | None = None
    group: str = ""
    more: tuple[Path, ...] = ()
    reading: Reading | None = None
    masks_as: MaskReading | None = None

    def __post_init__(self) -> None:
        if not self.id:
            raise DataError(f"expected a record id, got an empty one for {self.image}")
        if self.mask_kind in ("binary", "index") and self.mask is None:
            raise DataError(f"record {self.id}: mask kind {self.mask_kind} needs a mask file, got none")
        for name in ("id", "category", "supercategory", "group"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "labels", tuple(map(printable, self.labels)))


class Truth(Protocol):
    """What is true of one image, its pixels aside: masks bool (P, H, W), one an object, and their labels, or none."""

    @property
    def record(self) -> Record: ...

    @property
    def masks(self) -> BoolArray:
        """Bool (P, H, W) in original pixels, one an object, P = 0 allowed."""
        ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def id(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        ...


class _Labelled:
    """What `Objects` and `Sample` share."""

    record: Record
    masks: BoolArray
    labels: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.masks.shape[1], self.masks.shape[2]

    def _check_masks(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise DataError(f"{self.id}: expected bool (P, H, W) masks, got {self.masks.dtype} {self.masks.shape}")

    def _check_labels(self) -> None:
        if self.labels and len(self.labels) != len(self.masks):
            raise DataError(f"{self.id}: expected one label an object, got {len(self.labels)} for {len(self.masks)}")


@dataclass(frozen=True)
class Objects(_Labelled):
    """The objects of one image without its pixels: `masks` bool (P, H, W), one an object, P = 0 allowed."""

    record: Record
    masks: BoolArray
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_masks()
        self._check_labels()


@dataclass(frozen=True)
class Sample(_Labelled):
    """One loaded image: `image` uint8 (H, W, 3) RGB and `masks` bool (P, H, W), one an object, P = 0 allowed."""

    record: Record
    image: ImageArray
    masks: BoolArray
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DataError(f"{self.id}: expected a uint8 (H, W, 3) image, got {self.image.dtype} {self.image.shape}")
        self._check_masks()
        if self.masks.shape[1:] != self.image.shape[:2]:
            raise DataError(
                f"{self.id}: expected masks of the image's size {self.image.shape[0]}x{self.image.shape[1]}, "
                f"got {self.masks.shape[1]}x{self.masks.shape[2]}"
            )
        self._check_labels()


@dataclass(frozen=True)
class Prompts:
    """Prompts for the P objects of one image, in original-image pixels.

    `points` float32 (P, K, 2) as (x, y), `labels` int64 (P, K) with 1 foreground and 0 background, `boxes` float32
    (P, 4) as (x0, y0, x1, y1), `masks` float32 (P, L, L) low-res logits of an earlier answer. Each may be None, not all
    of them at once. K is the same for all objects of one `Prompts`: padding a point list changes SAM's answer.
    """

    strategy: str
    points: FloatArray | None = None
    labels: npt.NDArray[np.int64] | None = None
    boxes: FloatArray | None = None
    masks: FloatArray | None = None

    def __post_init__(self) -> None:
        given = [part for part in (self.points, self.boxes, self.masks) if part is not None]
        if not given:
            raise DataError("expected points, boxes or masks, got none of them")
        if (self.points is None) != (self.labels is None):
            raise DataError("expected points and labels together, got one without the other")
        if self.points is not None and self.labels is not None:
            if self.points.ndim != 3 or self.points.shape[2] != 2 or self.points.dtype != np.float32:
                raise DataError(f"expected float32 (P, K, 2) points, got {self.points.dtype} {self.points.shape}")
            if self.labels.shape != self.points.shape[:2]:
                raise DataError(f"expected labels {self.points.shape[:2]}, got {self.labels.shape}")
            if not np.isin(self.labels, (0, 1)).all():
                raise DataError(f"expected labels 0 (background) or 1 (foreground), got {np.unique(self.labels)}")
        boxes, masks = self.boxes, self.masks
        if boxes is not None and (boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype != np.float32):
            raise DataError(f"expected float32 (P, 4) boxes, got {boxes.dtype} {boxes.shape}")
        if masks is not None and (masks.ndim != 3 or masks.shape[1] != masks.shape[2] or masks.dtype != np.float32):
            raise DataError(f"expected square float32 (P, L, L) mask logits, got {masks.dtype} {masks.shape}")
        if len({len(part) for part in given}) != 1:
            raise DataError(f"expected the same number of objects everywhere, got {[len(part) for part in given]}")
        for part in given:
            if not np.isfinite(part).all():
                raise DataError(f"expected finite {self.strategy} prompts, got NaN or infinity")

    def __len__(self) -> int:
        part = next(p for p in (self.points, self.boxes, self.masks) if p is not None)
        return len(part)

    def __getitem__(self, index: slice | npt.NDArray[np.integer | np.bool_] | list[int]) -> Prompts:
        def take(part: npt.NDArray[_Value] | None) -> npt.NDArray[_Value] | None:
            return None if part is None else part[index]

        return replace(
            self, points=take(self.points), labels=take(self.labels), boxes=take(self.boxes), masks=take(self.masks)
        )


def joined(prompts: Sequence[Prompts]) -> Prompts:
    """All objects of several `Prompts` for one image, one after the other; they hold the same kinds and K."""
    if len(prompts) == 1:
        return prompts[0]

    def whole(parts: Sequence[npt.NDArray[_Value] | None]) -> npt.NDArray[_Value] | None:
        given = [part for part in parts if part is not None]
        if given and len(given) < len(parts):
            raise DataError("expected prompts of the same kinds, got some with points, boxes or masks and some without")
        return np.concatenate(given) if given else None

    points, labels = whole([p.points for p in prompts]), whole([p.labels for p in prompts])
    boxes, masks = whole([p.boxes for p in prompts]), whole([p.masks for p in prompts])
    return Prompts(prompts[0].strategy, points, labels, boxes, masks)


@dataclass(frozen=True)
class Embedding:
    """What the image encoder says of one image: `tensor` float (C, h, w), its frames, and its content key.

    Finer levels, which SAM 2 and 3 have, lie in further channels (`models.levels`).
    """

    tensor: torch.Tensor
    geometry: Geometry
    key: str = ""

    def __post_init__(self) -> None:
        if self.tensor.ndim != 3:
            raise DataError(f"expected a (C, h, w) embedding, got {tuple(self.tensor.shape)}")


@dataclass(frozen=True)
class Prediction:
    """What the mask decoder answers for P objects: `logits` (P, C, L, L) low-res, `scores` (P, C) predicted IoU.

    `present` (P,) are logits that the object is there at all, None for a SAM that does not say.
    """

    logits: torch.Tensor
    scores: torch.Tensor
    geometry: Geometry
    present: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.logits.ndim != 4 or tuple(self.scores.shape) != tuple(self.logits.shape[:2]):
            raise DataError(
                f"expected (P, C, L, L) logits and (P, C) scores, got {tuple(self.logits.shape)} "
                f"and {tuple(self.scores.shape)}"
            )

    def __len__(self) -> int:
        return len(self.logits)

    def best(self) -> Prediction:
        """Keep, for each object, the mask with the highest own score: (P, 1, L, L)."""
        import torch

        index = self.scores.argmax(1)
        rows = torch.arange(len(self))
        logits, scores = self.logits[rows, index][:, None], self.scores[rows, index][:, None]
        return Prediction(logits, scores, self.geometry, self.present)

    def masks(self, threshold: float = 0.0) -> BoolArray:
        """Masks in original pixels, bool (P, C, H, W): logits above `threshold`. The only place that thresholds."""
        return np.asarray((self.geometry.logits_to_original(self.logits) > threshold).cpu().numpy(), np.bool_)

    def probabilities(self) -> FloatArray:
        """Foreground probabilities in original pixels, float32 (P, C, H, W) in 0..1."""
        return np.asarray(self.geometry.logits_to_original(self.logits).sigmoid().cpu().numpy(), np.float32)


@dataclass(frozen=True)
class Row:
    """One number (or one failure) of an evaluation, in tidy form; `error` is "" when `value` counts.

    The protocol is stamped on every row: `prompt_source` (truth, detector, none), `resolution` at which it was scored
    ("original": the image's own), `soft` whether probabilities were scored or a mask, `subset` which images with what
    mix of categories; the variant of a metric is part of its name (canny_f1, e_max, e_mean).
    """

    run: str
    model: str
    dataset: str
    split: str
    record: str
    object: int
    strategy: str
    output: str
    metric: str
    value: float
    category: str = ""
    supercategory: str = ""
    prompt_source: str = "truth"
    resolution: str = "original"
    soft: bool = False
    subset: str = ""
    error: str = ""


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, and why; counted and shown, never dropped. The message is printable."""

    path: Path
    kind: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))


@dataclass(frozen=True)
class Dataset:
    """What an adapter found in a folder: usable records, the problems beside them, and where it all comes from.

    Texts become printable (`core.names`).
    """

    name: str
    root: Path
    layout: str
    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()
    licence: str = "unknown"
    citation: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("name", "licence", "citation"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))

    def __len__(self) -> int:
        return len(self.records)

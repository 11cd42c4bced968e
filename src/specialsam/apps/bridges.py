"""An answer as the values that other libraries work with: supervision, FiftyOne, napari.

`find` makes answers of pictures; those that `segment` and `spot` have written as COCO are read by CVAT, datumaro and
pycocotools. Nothing is imported but what a function gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from specialsam.apps.answers import Answer
from specialsam.apps.formats import polygon
from specialsam.apps.session import Asking, Session, find_in
from specialsam.core.errors import ModelError
from specialsam.core.geometry import ImageArray
from specialsam.core.masks import from_rles
from specialsam.models.traced import need

UNNAMED = "object"
"""What an object without a label is called."""


def find(session: Session, image: ImageArray, how: Asking | None = None, file: str = "") -> Answer:
    """What a session finds without a prompt in a picture uint8 (H, W, 3), the surest first."""
    objects, beside = find_in(session, image, how or Asking())
    return Answer(file, (image.shape[0], image.shape[1]), objects, beside=beside)


def to_supervision(answer: Answer, classes: Sequence[str] = ()) -> Any:
    """`supervision.Detections`: xyxy and mask of each object, its score as confidence, class_id and class_name.

    `classes` gives the numbers; without, the labels of this answer in their order. Raises ModelError without the
    library.
    """
    supervision = need("supervision", "bridges")
    names = [found.label or UNNAMED for found in answer.objects]
    numbers = {name: number for number, name in enumerate(classes or sorted(set(names)))}
    unknown = [name for name in names if name not in numbers]
    if unknown:
        raise ModelError(f"expected labels of {', '.join(numbers)}, got {unknown[0]!r}; add it to the classes")
    if not names:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([found.box for found in answer.objects], np.float32),
        mask=answer.masks(),
        confidence=np.array([found.score for found in answer.objects], np.float32),
        class_id=np.array([numbers[name] for name in names], np.int64),
        data={"class_name": np.array(names)},
    )


def to_fiftyone(answer: Answer) -> list[dict[str, Any]]:
    """The fields of a `fiftyone.Detection` for each object: `fo.Detection(**fields)`.

    `bounding_box` is (left, top, width, height) in shares of the picture, `mask` bool within that box, `confidence` the
    score.
    """
    height, width = answer.size or (1, 1)
    made: list[dict[str, Any]] = []
    for found in answer.objects:
        x0, y0, x1, y1 = (int(side) for side in found.box)
        mask = from_rles([found.rle], height, width)[0]
        made.append(
            {
                "label": found.label or UNNAMED,
                "bounding_box": [x0 / width, y0 / height, (x1 + 1 - x0) / width, (y1 + 1 - y0) / height],
                "mask": mask[y0 : y1 + 1, x0 : x1 + 1],
                "confidence": found.score,
            }
        )
    return made


def to_napari(answer: Answer) -> tuple[npt.NDArray[np.int32], list[npt.NDArray[np.float64]]]:
    """A label image (H, W), object n of the answer as n, and polygons (N, 2) as (row, column) of each.

    `viewer.add_labels(labels)` and `viewer.add_shapes(polygons, shape_type="polygon")`. The surer of two objects that
    overlap is on top in the label image; a polygon goes around the parts of an object as in YOLO's files.
    """
    height, width = answer.size or (0, 0)
    labels = np.zeros((height, width), np.int32)
    polygons: list[npt.NDArray[np.float64]] = []
    for found in answer.objects:
        mask = from_rles([found.rle], height, width)[0]
        polygons.append(polygon(mask)[0][:, ::-1].astype(np.float64))
    order = sorted(range(len(answer.objects)), key=lambda place: (answer.objects[place].score, -place))
    for place in order:
        labels[from_rles([answer.objects[place].rle], height, width)[0]] = place + 1
    return labels, polygons

"""Answers as other libraries' values. Oracles: the libraries themselves on the masks that were put in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import supervision
from pycocotools.coco import COCO
from small_models import found_objects, picture, small, specialist

from specialsam.apps.answers import Answer
from specialsam.apps.bridges import find, to_fiftyone, to_napari, to_supervision
from specialsam.apps.formats import write_coco
from specialsam.apps.session import Asking, Session, open_session
from specialsam.core.errors import ModelError
from specialsam.models.finder_files import FinderParts


def masks() -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    out = np.zeros((3, 20, 30), bool)
    out[0, 2:9, 3:12] = True
    out[1, 5:15, 8:20] = True  # over the first
    out[2, 19, 29] = True
    return out


def answer(labels: tuple[str, ...] = ("fox", "", "fox")) -> Answer:
    return Answer("a.jpg", (20, 30), found_objects(masks(), (0.9, 0.8, 0.7), labels))


def test_supervision_holds_the_masks_boxes_and_names() -> None:
    made = to_supervision(answer(), ["object", "fox"])
    np.testing.assert_array_equal(made.mask, masks())
    np.testing.assert_array_equal(made.xyxy, supervision.mask_to_xyxy(masks()))
    np.testing.assert_allclose(made.confidence, [0.9, 0.8, 0.7])
    assert made.class_id.tolist() == [1, 0, 1]
    assert made["class_name"].tolist() == ["fox", "object", "fox"]
    assert made[made.confidence > 0.75].area.tolist() == [63, 120]


def test_supervision_has_nothing_where_nothing_was_found() -> None:
    assert len(to_supervision(Answer("a.jpg", (20, 30)))) == 0


def test_a_label_that_the_classes_lack_is_named() -> None:
    with pytest.raises(ModelError, match="expected labels of cat, got 'fox'"):
        to_supervision(answer(), ["cat"])


def test_supervision_reads_the_coco_file_as_the_same_detections(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((20, 30, 3), np.uint8))
    write_coco([answer()], tmp_path)
    read = supervision.DetectionDataset.from_coco(str(tmp_path), str(tmp_path / "coco.json"), force_masks=True)
    ((_, _, found),) = list(read)
    np.testing.assert_array_equal(found.mask, masks())
    assert [read.classes[number] for number in found.class_id] == ["fox", "object", "fox"]


def test_cvat_s_way_into_coco_reads_the_same_masks(tmp_path: Path) -> None:
    """CVAT and datumaro read COCO by pycocotools: run lengths that are no crowds."""
    write_coco([answer()], tmp_path)
    read = COCO(str(tmp_path / "coco.json"))
    for found, mask in zip(read.loadAnns(read.getAnnIds()), masks(), strict=True):
        np.testing.assert_array_equal(read.annToMask(found), mask)
        assert found["iscrowd"] == 0


def test_fiftyone_s_fields_lie_where_the_masks_are() -> None:
    for fields, mask in zip(to_fiftyone(answer()), masks(), strict=True):
        left, top, width, height = fields["bounding_box"]
        x, y = round(left * 30), round(top * 20)
        assert fields["mask"].shape == (round(height * 20), round(width * 30))
        whole = np.zeros((20, 30), bool)
        whole[y : y + fields["mask"].shape[0], x : x + fields["mask"].shape[1]] = fields["mask"]
        np.testing.assert_array_equal(whole, mask)
    assert [fields["label"] for fields in to_fiftyone(answer())] == ["fox", "object", "fox"]


def test_napari_s_labels_and_shapes() -> None:
    labels, shapes = to_napari(answer())
    expected = np.zeros((20, 30), int)
    for place in (2, 1, 0):  # the surest on top
        expected[masks()[place]] = place + 1
    np.testing.assert_array_equal(labels, expected)
    for shape, mask in zip(shapes, masks(), strict=True):
        drawn = np.zeros((20, 30), np.uint8)
        cv2.fillPoly(drawn, [shape[:, ::-1].astype(np.int32)], 1)
        np.testing.assert_array_equal(drawn > 0, mask)


def test_find_answers_as_segment_does(tmp_path: Path) -> None:
    from small_models import finder

    session = open_session(specialist(tmp_path / "s", finder()))
    found = find(session, picture(3), Asking(most=3))
    assert found.size == (48, 64)
    assert len(found.objects) <= 3
    assert found.objects
    nothing = find(Session(small(), FinderParts()), picture(3), Asking(threshold=1.0))
    assert nothing.objects == ()

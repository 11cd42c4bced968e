"""Learning to find. Oracles: targets by hand; squares that stand out and are to be found; nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from square_data import SIDE, random_nano, square_sample

from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.types import Embedding
from specialsam.metrics.overlaps import pairwise_iou
from specialsam.models.finder import FEATURES, find, propose, valid_cells
from specialsam.training.finder import LEAST, calibrate, learn_finder, loss_of, targets
from specialsam.training.settings import FinderSettings
from specialsam.training.state import Item, TrainingData

QUICK = FinderSettings(width=16, blocks=1, epochs=30, batch=8, lr=5e-3, dropout=0.0)


def box_mask(height: int, width: int, x0: int, y0: int, x1: int, y1: int) -> BoolArray:
    mask = np.zeros((1, height, width), np.bool_)
    mask[0, y0:y1, x0:x1] = True
    return mask


def test_targets_of_a_square_by_hand() -> None:
    """A square of 64 px in the middle of 128: the deepest logit lies in its middle, 32 px from each side."""
    found = targets(box_mask(128, 128, 32, 32, 96, 96), Geometry(128, 128, SIDE))
    assert found.presence == 1
    assert (found.middle == 1).sum() == 1
    row, column = (int(i) for i in (found.middle == 1).nonzero()[0])
    assert row in (3, 4)
    assert column in (3, 4)
    left, top, right, bottom = found.sides[:, row, column].tolist()
    assert left + right == pytest.approx(64)
    assert top + bottom == pytest.approx(64)
    assert left == pytest.approx(16 * column + 8 - 32)
    assert float(found.dense.sum()) == pytest.approx(16 * 16)
    assert not found.middle[0].any()


def test_targets_of_nothing() -> None:
    found = targets(np.zeros((0, 60, 128), np.bool_), Geometry(60, 128, SIDE))
    assert found.presence == 0
    assert not found.middle.any()
    assert not found.near.any()
    assert not found.dense.any()
    np.testing.assert_array_equal(found.valid.numpy(), valid_cells(Geometry(60, 128, SIDE)))


@settings(max_examples=60)
@given(st.integers(8, 200), st.integers(8, 200), st.data())
def test_every_object_has_a_middle_however_small(height: int, width: int, data: st.DataObject) -> None:
    """Each object gives one cell of value 1 (two may share one), on the image, with a box whose sides are positive."""
    count = data.draw(st.integers(1, 3))
    masks = np.zeros((count, height, width), np.bool_)
    for mask in masks:
        y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        mask[y : y + data.draw(st.integers(1, 40)), x : x + data.draw(st.integers(1, 40))] = True
    found = targets(masks, Geometry(height, width, SIDE))
    assert 1 <= int((found.middle == 1).sum()) <= count
    assert found.near[found.middle == 1].all()
    assert (found.sides[:, found.near] > 0).all()
    assert found.valid[found.middle > 0].all()


def squares(count: int, blank: int) -> TrainingData:
    """Squares on noise, encoded by a random nano, and as many pictures of noise alone; a quarter is for validation."""
    segmenter = random_nano()
    samples = {f"r{n}": square_sample(n) for n in range(count)}
    embeddings: dict[str, Embedding] = {}
    masks: dict[str, BoolArray] = {}
    for name, sample in samples.items():
        embeddings[name], masks[name] = segmenter.encode(sample.image), sample.masks
    for number in range(blank):
        noise = np.random.default_rng(number).integers(0, 100, (96, 128, 3), dtype=np.uint8)
        embeddings[f"b{number}"] = segmenter.encode(noise)
        masks[f"b{number}"] = np.zeros((0, 96, 128), np.bool_)
    items = [Item(name, name) for name in embeddings]

    def read(chosen: Sequence[Item]) -> list[Embedding]:
        return [embeddings[item.id] for item in chosen]

    train = [item for place, item in enumerate(items) if place % 4]
    val = [item for place, item in enumerate(items) if not place % 4]
    return TrainingData(train, val, read, lambda item: masks[item.id])


def test_squares_are_found_and_nothing_is_nothing() -> None:
    """A square that stands out: its middle is found, the box around it is right, and noise scores less than any."""
    data = squares(40, 16)
    finder = learn_finder(data, QUICK, 128, torch.device("cpu"))
    inside, fits, scores = [], [], {True: [], False: []}
    for item in data.val:
        [embedding] = data.embeddings([item])
        found, masks = propose(finder, embedding, 1), data.masks(item)
        scores[len(masks) > 0].append(float(found.logits[0]))
        if len(masks):
            x, y = found.points[0].round().astype(int)
            inside.append(bool(masks[0][y, x]))
            x0, y0, x1, y1 = found.boxes[0].round().astype(int)
            fits.append(pairwise_iou(masks, box_mask(*masks.shape[1:], x0, y0, x1 + 1, y1 + 1))[0, 0])
    assert np.mean(inside) >= 0.9
    assert np.mean(fits) > 0.6
    assert min(scores[True]) > max(scores[False])


def test_the_same_seed_learns_the_same_finder() -> None:
    data = squares(8, 4)
    settings = QUICK.model_copy(update={"epochs": 2})
    first, second = (learn_finder(data, settings, 128, torch.device("cpu")).state_dict() for _ in range(2))
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=0, atol=0)


def test_a_perfect_answer_costs_less_than_any_other() -> None:
    """Oracle: the loss itself at maps that say what is true, and at maps that say nothing."""
    from dataclasses import fields

    from specialsam.models.finder import FinderMaps
    from specialsam.training.finder import FinderTargets

    one = targets(box_mask(128, 128, 32, 32, 96, 96), Geometry(128, 128, SIDE))
    truth = FinderTargets(*(getattr(one, part.name)[None] for part in fields(one)))
    right = FinderMaps(
        torch.where(truth.middle == 1, 12.0, -12.0), truth.sides, 24 * (truth.dense - 0.5), torch.tensor([12.0])
    )
    wrong = FinderMaps(-right.middle, truth.sides + 40, -right.dense, torch.tensor([-12.0]))
    assert float(loss_of(right, truth)) < 0.05
    assert float(loss_of(wrong, truth)) > 5


def test_calibration_belongs_to_a_decoder_and_leaves_the_head_alone() -> None:
    data = squares(24, 8)
    head = learn_finder(data, QUICK, 128, torch.device("cpu"))
    before = head.calibration.clone()
    fitted = calibrate(head, random_nano(), data)
    torch.testing.assert_close(head.calibration, before)
    assert fitted.calibration.shape == (len(FEATURES) + 1,)
    assert fitted.by in ("box", "point", "both")
    assert LEAST <= float(fitted.threshold) <= 0.95
    [embedding] = data.embeddings([data.val[0]])
    assert 0 <= find(fitted, random_nano(), embedding).score <= 1


@pytest.mark.parametrize(("asked", "batch", "steps"), [(2, 16, 2), (None, 16, 30), (None, 1, 180)])
def test_few_images_are_seen_more_often_where_no_epochs_are_asked_for(
    asked: int | None, batch: int, steps: int
) -> None:
    """Nine training images: one step an epoch takes 30 epochs, nine take the usual 20."""
    settings = QUICK.model_copy(update={"epochs": asked, "batch": batch, "width": 8, "blocks": 0})
    seen: list[int] = []
    learn_finder(squares(8, 4), settings, 128, torch.device("cpu"), lambda done, total, _: seen.append(total))
    assert seen == [steps] * steps

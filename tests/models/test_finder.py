"""The finder's head and what is made of its maps. Oracles: maps written by hand, masks drawn by hand, the geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.core.errors import ModelError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding, Prediction
from specialsam.models.finder import (
    FEATURES,
    Finder,
    FinderMaps,
    Found,
    Proposals,
    distinct,
    features,
    find,
    propose,
    valid_cells,
)
from specialsam.models.finder_files import FINDER, FinderParts
from specialsam.models.grid import find_on_grid, grid_points
from specialsam.models.memory import Memory
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import SpecialistCard, load_finder, read_card, save_specialist

SIDE, CELLS = 128, 8


class Written(Finder):
    """A finder whose maps are written by hand: one peak at `cell` (row, column), a box of `sides` around its centre."""

    def __init__(self, cell: tuple[int, int], sides: tuple[float, float, float, float]):
        super().__init__(4, 8, 0)
        self.cell, self.box = cell, sides

    def forward(self, embeddings: torch.Tensor, valid: torch.Tensor) -> FinderMaps:
        middle = torch.full((1, CELLS, CELLS), -5.0)
        middle[0, *self.cell] = 3.0
        sides = torch.tensor(self.box)[None, :, None, None].expand(1, 4, CELLS, CELLS)
        dense = torch.full((1, 4 * CELLS, 4 * CELLS), -4.0)
        dense[0, 4 * self.cell[0] + 1, 4 * self.cell[1] + 2] = 4.0
        return FinderMaps(middle.masked_fill(~valid, -30), sides, dense, torch.zeros(1))


def embedding(height: int, width: int, channels: int = 4) -> Embedding:
    rng = torch.Generator().manual_seed(0)
    return Embedding(torch.randn(channels, CELLS, CELLS, generator=rng), Geometry(height, width, SIDE))


def random_nano() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("nano", build_nano("conv", SIDE).eval(), SIDE)


def test_a_peak_becomes_a_point_and_a_box_in_original_pixels() -> None:
    """By hand: 64 x 128 px seen at side 128 (scale 1); the centre of cell (2, 3) is (56, 40), its surest logit is that
    of row 1 and column 2, whose middle is (57.5, 37.5) by pixel index."""
    found = propose(Written((2, 3), (10, 20, 30, 8)), embedding(64, 128), 1)
    np.testing.assert_allclose(found.boxes, [[46, 20, 86, 48]])
    np.testing.assert_allclose(found.points, [[57.5, 37.5]])
    assert found.prompts("point").boxes is None
    assert found.prompts("box").points is None
    assert len(found.prompts("both")) == 1


@settings(max_examples=60)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 3))
def test_proposals_lie_in_the_image_and_on_no_padding(height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    finder = Finder(4, 8, 1).eval()
    found = propose(finder, embedding(height, width), 20)
    assert 1 <= len(found) <= 20
    limit = np.array([width - 1, height - 1] * 2)
    assert (found.boxes >= 0).all()
    assert (found.boxes <= limit).all()
    assert (found.boxes[:, 2:] >= found.boxes[:, :2]).all()
    assert (found.points >= 0).all()
    assert (found.points <= limit[:2]).all()
    assert (np.diff(found.logits) <= 0).all()
    rows, columns = np.nonzero(~valid_cells(Geometry(height, width, SIDE)))
    assert not found.dense.reshape(CELLS, 4, CELLS, 4)[rows, :, columns].any() or found.dense.max() <= 1


def test_padding_changes_nothing() -> None:
    """What stands in cells beyond the image plays no part: one with other values there gives the same maps."""
    torch.manual_seed(0)
    finder = Finder(4, 8, 0).eval()
    one = embedding(64, 128)
    other = Embedding(one.tensor.clone(), one.geometry)
    other.tensor[:, 4:] = 1e3
    first, second = propose(finder, one), propose(finder, other)
    np.testing.assert_array_equal(first.logits, second.logits)
    assert first.presence == second.presence


def test_doubles_and_parts_of_a_surer_mask_go() -> None:
    """By hand: a square, nearly the same square, a part of it, another place, nothing at all."""
    masks = np.zeros((5, 20, 20), np.bool_)
    masks[0, 2:12, 2:12] = True
    masks[1, 2:12, 3:12] = True
    masks[2, 4:6, 4:6] = True
    masks[3, 15:18, 15:18] = True
    assert distinct(masks) == [0, 3]
    assert distinct(masks, 1) == [0]
    assert distinct(masks[[2, 0]]) == [0, 1]  # a surer part does not hide the whole
    assert distinct(masks[:0]) == []


def test_what_the_probability_is_made_of() -> None:
    """By hand: a mask over a quarter of the picture, on which the dense map is .8, and .2 elsewhere."""
    geometry = Geometry(SIDE, SIDE, SIDE)
    logits = torch.full((1, 1, 32, 32), -1.0)
    logits[0, 0, :16, :16] = 1.0
    dense = np.where(logits[0, 0].numpy() > 0, 0.8, 0.2).astype(np.float32)
    zeros = np.zeros((1, 4), np.float32)
    proposals = Proposals(zeros[:, :2], zeros, np.array([1.5], np.float32), dense, -0.5)
    known = features(proposals, Prediction(logits, torch.tensor([[0.6]]), geometry))
    assert known.shape == (1, len(FEATURES))
    np.testing.assert_allclose(known[0], [1.5, 0.6, 0.8, 0.6, -0.5], atol=1e-6)


def test_found_objects_are_sorted_once_and_cut_at_a_threshold() -> None:
    segmenter = random_nano()
    finder = Finder(128, 8, 1).eval()
    found = find(finder, segmenter, Embedding(torch.randn(128, CELLS, CELLS), Geometry(90, 128, SIDE)), 6)
    assert 1 <= len(found) <= 6
    assert (np.diff(found.probabilities) <= 0).all()
    assert found.score == found.probabilities[0]
    assert len(found.above(found.score)) == 1
    assert len(found.above(1.1)) == 0
    assert found.above(1.1).score == 0
    soft = found.soft()
    assert soft.shape == (90, 128)
    assert soft.min() >= 0
    assert soft.max() <= 1
    assert found.above(1.1).soft().max() <= 0.5  # the dense map alone counts for a half


def test_the_soft_map_by_hand() -> None:
    """An answer at half the threshold counts for half of its half, the dense map for the other."""
    logits = torch.full((1, 1, 32, 32), 20.0)
    geometry = Geometry(SIDE, SIDE, SIDE)
    found = Found(
        Prediction(logits, torch.ones(1, 1), geometry),
        np.array([0.2], np.float32),
        np.zeros((1, 2), np.float32),
        np.zeros((1, 4), np.float32),
        np.full((32, 32), 0.5, np.float32),
        0.4,
    )
    np.testing.assert_allclose(found.soft(), 0.5, atol=1e-6)


def test_a_grid_covers_the_image_evenly() -> None:
    """By hand: two by two points of a 40 x 80 image, by pixel index."""
    points = grid_points(Geometry(40, 80, SIDE), 2)
    np.testing.assert_allclose(points, [[19.5, 9.5], [59.5, 9.5], [19.5, 29.5], [59.5, 29.5]])
    segmenter, embedding = random_nano(), Embedding(torch.randn(128, CELLS, CELLS), Geometry(40, 80, SIDE))
    found, scores, prompts = find_on_grid(segmenter, embedding, 3, 4)
    assert len(found) == len(scores) == len(prompts) <= 3
    again = segmenter.decode(embedding, prompts, multimask=True).logits
    for one, three in zip(found.logits[:, 0], again, strict=True):
        assert any(torch.allclose(one, mask, atol=1e-4) for mask in three), "an answer to its own point"
    assert (np.diff(scores) <= 0).all()


def specialist(folder: Path, parts: FinderParts | None) -> Path:
    nano = random_nano()
    ids = {"base_encoder_id": nano.encoder_id, "base_decoder_id": nano.decoder_id, "side": SIDE}
    return save_specialist(nano, SpecialistCard(name="s", base="nano", tuned="decoder", **ids), folder, parts)


def test_finder_and_memory_are_saved_and_loaded_with_a_specialist(tmp_path: Path) -> None:
    """Oracle: the same maps and memory before and after."""
    torch.manual_seed(1)
    finder = Finder(4, 8, 1, "box").eval()
    finder.threshold.fill_(0.3)
    memory = Memory(torch.randn(5, 4), 2.0)
    folder = specialist(tmp_path, FinderParts(finder, memory, {"images": 3, "blank": 2}))
    found = load_finder(folder)
    assert found.finder is not None
    assert found.memory is not None
    assert found.finder.by == "box"
    assert found.learned_from == {"images": 3, "blank": 2}
    seen = embedding(64, 128)
    np.testing.assert_array_equal(propose(found.finder, seen).logits, propose(finder, seen).logits)
    assert float(found.finder.threshold) == pytest.approx(0.3)
    torch.testing.assert_close(found.memory.features, memory.features)
    specialist(tmp_path, None)  # a specialist without them leaves none behind
    assert load_finder(folder) == FinderParts()
    assert not (folder / FINDER).exists()


def test_a_damaged_or_exchanged_finder_is_one_line(tmp_path: Path) -> None:
    torch.manual_seed(5)
    folder = specialist(tmp_path / "one", FinderParts(Finder(4, 8, 1)))
    torch.manual_seed(6)
    other = specialist(tmp_path / "other", FinderParts(Finder(4, 8, 1)))
    whole = (folder / FINDER).read_bytes()
    (folder / FINDER).write_bytes((other / FINDER).read_bytes())
    with pytest.raises(ModelError, match=r"expected the weights that specialist.json was written for .* got others"):
        load_finder(folder)
    (folder / FINDER).write_bytes(whole[:-7])
    with pytest.raises(ModelError, match="expected readable weights"):
        load_finder(folder)
    (folder / FINDER).unlink()
    with pytest.raises(ModelError, match="expected readable weights"):
        load_finder(folder)
    assert read_card(folder).finder is not None


def test_the_surest_always_counts_where_nothing_was_never_seen() -> None:
    """By hand: two answers below the threshold; the surest counts by such a finder's own rule and by no other."""
    logits = torch.full((2, 1, 32, 32), 20.0)
    geometry = Geometry(SIDE, SIDE, SIDE)
    zeros, dense = np.zeros((2, 4), np.float32), np.zeros((32, 32), np.float32)
    answers = Prediction(logits, torch.ones(2, 1), geometry)
    for always in (False, True):
        found = Found(answers, np.array([0.3, 0.2], np.float32), zeros[:, :2], zeros, dense, 0.5, always)
        assert found.counted().tolist() == [always, False]
        assert len(found.above()) == int(always)
        assert len(found.above(0.4)) == 0
        assert len(found.above(0.25)) == 1

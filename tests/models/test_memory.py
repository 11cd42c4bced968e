"""The memory of good images against scikit-learn's neighbours, averages and selections by hand, and planted cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from specialsam.core.errors import DataError, ModelError, UsageError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding
from specialsam.models import memory as rooms
from specialsam.models.memory import Memory, anomaly_map, distances, fit, image_score, read, tensors

torch.set_num_threads(1)
SIDE, CELLS, CHANNELS = 128, 8, 6
WIDE = Geometry(60, 100, SIDE)
"""Resized to 77 x 128, so that 4.8 of 8 rows of cells lie on the image: 5 of them count."""
ROWS = 5


def embedding(seed: int, geometry: Geometry = WIDE, channels: int = CHANNELS, key: str | None = None) -> Embedding:
    tensor = torch.randn(channels, CELLS, CELLS, generator=torch.Generator().manual_seed(seed))
    return Embedding(tensor, geometry, f"image {seed}" if key is None else key)


def averaged(tensor: Tensor, rows: int = ROWS) -> np.ndarray:
    """Each cell's mean over its neighbours on the image, (rows, CELLS, C), one cell after the other."""
    seen = tensor.numpy()[:, :rows].transpose(1, 2, 0)
    out = np.zeros_like(seen)
    for y, x in np.ndindex(seen.shape[:2]):
        out[y, x] = seen[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((0, 1))
    return out


def rows_of(features: Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row) for row in features.tolist())


@pytest.fixture(scope="module")
def good() -> list[Embedding]:
    return [embedding(seed) for seed in range(6)]


@pytest.fixture(scope="module")
def memory(good: list[Embedding]) -> Memory:
    return fit(good)


def test_the_memory_holds_averages_of_the_cells_on_the_image(good: list[Embedding], memory: Memory) -> None:
    """Oracle: the average cell by cell; five rows of eight lie on the image, and all of them are kept."""
    wanted = np.concatenate([averaged(each.tensor).reshape(-1, CHANNELS) for each in good])
    assert memory.features.dtype == torch.float32
    np.testing.assert_allclose(rows_of(memory.features), rows_of(torch.from_numpy(wanted)), atol=1e-6)


def test_its_own_images_have_no_distance(good: list[Embedding], memory: Memory) -> None:
    for each in good:
        found = distances(memory, each)
        assert found.shape == (CELLS, CELLS)
        assert found.dtype == torch.float32
        assert found.max() == 0
        assert image_score(memory, each) == 0
        assert anomaly_map(memory, each).max() == 0


def test_distances_are_those_of_the_nearest_neighbour(memory: Memory) -> None:
    """Oracle: scikit-learn, by brute force in double precision."""
    other = embedding(99)
    judge = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(memory.features.double().numpy())
    wanted = judge.kneighbors(averaged(other.tensor).reshape(-1, CHANNELS).astype(np.float64))[0].reshape(ROWS, CELLS)
    found = distances(memory, other)
    np.testing.assert_allclose(found[:ROWS] * memory.scale, wanted, rtol=1e-4)
    assert (found[ROWS:] == 0).all()
    assert image_score(memory, other) == pytest.approx(wanted.max() / (memory.scale + wanted.max()), rel=1e-4)


def test_the_scale_is_a_quantile_of_left_out_images(good: list[Embedding], memory: Memory) -> None:
    """Oracle: scikit-learn on the cells of the other images; a new image is about as far as one left out."""
    cells = [averaged(each.tensor).reshape(-1, CHANNELS) for each in good]
    found = []
    for left, own in enumerate(cells):
        others = np.concatenate(cells[:left] + cells[left + 1 :])
        found.append(NearestNeighbors(n_neighbors=1).fit(others).kneighbors(own)[0].ravel())
    assert memory.scale == pytest.approx(np.quantile(np.concatenate(found), 0.99), rel=1e-4)
    new = np.concatenate([distances(memory, embedding(seed))[:ROWS].numpy().ravel() for seed in range(100, 120)])
    assert 0.9 < (new <= 1).mean() < 1


def test_of_a_single_image_each_cell_is_left_out_alone() -> None:
    """Oracle: scikit-learn, the second neighbour of each cell."""
    one = embedding(3)
    cells = averaged(one.tensor).reshape(-1, CHANNELS)
    second = NearestNeighbors(n_neighbors=2).fit(cells).kneighbors(cells)[0][:, 1]
    assert fit([one]).scale == pytest.approx(np.quantile(second, 0.99), rel=1e-4)


@settings(max_examples=30)
@given(st.integers(0, ROWS - 1), st.integers(0, CELLS - 1), st.integers(0, 1000))
def test_a_planted_cell_is_the_maximum(row: int, column: int, seed: int) -> None:
    """Oracle: where it was planted. Averages spread it by a cell; the map is highest in the planted cell's pixels."""
    memory = fit([embedding(number) for number in range(4)])
    odd = embedding(seed)
    odd.tensor[:, row, column] += 40
    found = distances(memory, odd)
    y, x = divmod(int(found.argmax()), CELLS)
    assert max(abs(y - row), abs(x - column)) <= 1
    assert found[row, column] > 2
    pixels = anomaly_map(memory, odd)
    assert pixels.shape == (60, 100)
    assert pixels.dtype == np.float32
    assert 0 <= pixels.min() < pixels.max() <= image_score(memory, odd) < 1
    cell = SIDE / CELLS * 100 / 128
    y, x = np.unravel_index(pixels.argmax(), pixels.shape)
    assert row - 1 <= y / cell <= row + 2
    assert column - 1 <= x / cell <= column + 2
    rest = np.ones(pixels.shape, bool)
    rest[
        max(int((row - 2) * cell), 0) : int((row + 3) * cell),
        max(int((column - 2) * cell), 0) : int((column + 3) * cell),
    ] = False
    if rest.any():
        assert pixels.max() > pixels[rest].max()


def test_the_map_of_even_distances_is_even() -> None:
    """By hand: every cell two scales away is 2/3 in every pixel, up to the border and beside the padding."""
    memory = Memory(torch.zeros(1, CHANNELS), 1.0)
    tensor = torch.zeros(CHANNELS, CELLS, CELLS)
    tensor[0] = 2
    for geometry in (WIDE, Geometry(100, 60, SIDE), Geometry(300, 300, SIDE), Geometry(1, 40, SIDE)):
        found = anomaly_map(memory, Embedding(tensor, geometry))
        assert found.shape == (geometry.height, geometry.width)
        np.testing.assert_allclose(found, 2 / 3, atol=1e-6)


@pytest.mark.parametrize("geometry", [WIDE, Geometry(100, 60, SIDE), Geometry(1, 40, SIDE)])
def test_padding_never_counts(geometry: Geometry) -> None:
    """Oracle: the same with other values on the padding, in the fit and in what is measured."""
    height, width = (math.floor(side * CELLS / SIDE + 0.5) for side in geometry.resized)
    height, width = max(height, 1), max(width, 1)

    def padded(each: Embedding, value: float) -> Embedding:
        tensor = torch.full_like(each.tensor, value)
        tensor[:, :height, :width] = each.tensor[:, :height, :width]
        return Embedding(tensor, geometry, each.key)

    zeros, junk = ([padded(embedding(seed, geometry), value) for seed in range(4)] for value in (0.0, 1e6))
    one, other = fit(zeros[:3]), fit(junk[:3])
    assert one.features.shape == (3 * height * width, CHANNELS)
    torch.testing.assert_close(one.features, other.features, rtol=0, atol=0)
    assert one.scale == other.scale
    torch.testing.assert_close(distances(one, zeros[3]), distances(one, junk[3]), rtol=0, atol=0)
    np.testing.assert_array_equal(anomaly_map(one, zeros[3]), anomaly_map(one, junk[3]))
    assert image_score(one, zeros[3]) == image_score(one, junk[3])


def test_the_selection_is_the_greedy_one(good: list[Embedding], memory: Memory) -> None:
    """Oracle: each the farthest from all before it, in NumPy, from the farthest from the mean on."""
    every = memory.features.double().numpy()
    chosen = [int(np.argmax(np.linalg.norm(every - every.mean(0), axis=1)))]
    while len(chosen) < 20:
        away = np.linalg.norm(every[:, None] - every[chosen][None], axis=2).min(1)
        chosen.append(int(away.argmax()))
    kept = fit(good, most=20)
    np.testing.assert_allclose(rows_of(kept.features), rows_of(torch.from_numpy(every[chosen])), atol=1e-6)
    assert kept.scale > memory.scale


def test_many_channels_are_projected_and_kept_whole() -> None:
    """Selected cells are cells of the images, no projections, and cover them better than cells drawn at random."""
    many = [embedding(seed, channels=200) for seed in range(6)]
    for each in many:
        each.tensor[:, 0, 0] += 3.0 * (1 + int(each.key[-1]))
    every, kept = fit(many), fit(many, most=30)
    assert kept.features.shape == (30, 200)
    assert set(rows_of(kept.features)) <= set(rows_of(every.features))
    away = torch.cdist(every.features, kept.features).min(1).values.max()
    drawn = every.features[torch.randperm(len(every.features), generator=torch.Generator().manual_seed(0))[:30]]
    assert away < torch.cdist(every.features, drawn).min(1).values.max()


@pytest.mark.parametrize("most", [20, 4096])
def test_a_seed_decides_and_the_order_of_images_does_not(good: list[Embedding], most: int) -> None:
    one, again, turned = fit(good, most, seed=4), fit(iter(good), most, seed=4), fit(good[::-1], most, seed=4)
    torch.testing.assert_close(one.features, again.features, rtol=0, atol=0)
    assert one.scale == again.scale
    torch.testing.assert_close(one.features, turned.features, rtol=0, atol=0)
    assert one.scale == pytest.approx(turned.scale)


def test_more_cells_than_candidates_are_drawn_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: 30 images of 40 cells of which 240 stay, 8 of each on average; keys or none, whatever the order."""
    monkeypatch.setattr(rooms, "CANDIDATES", 240)
    constant = [
        Embedding(torch.full((CHANNELS, CELLS, CELLS), float(number)), WIDE, f"image {number}") for number in range(30)
    ]
    kept = fit(constant)
    counts = torch.bincount(kept.features[:, 0].round().long(), minlength=30)
    assert counts.sum() == 240
    assert counts.min() >= 1
    assert counts.max() <= 17  # 8 and four standard deviations of a binomial, 2.3 each
    torch.testing.assert_close(fit(constant[::-1]).features, kept.features)
    other = fit(constant, seed=1)
    assert (torch.bincount(other.features[:, 0].round().long(), minlength=30) != counts).any()
    nameless = [Embedding(each.tensor, WIDE) for each in constant]
    torch.testing.assert_close(fit(nameless).features, fit(nameless).features)


def test_half_precision_and_equal_images_are_remembered() -> None:
    """Equal images have no distance to one another: the scale is 1."""
    same = [Embedding(torch.ones(CHANNELS, CELLS, CELLS, dtype=torch.float16), WIDE, str(key)) for key in range(3)]
    memory = fit(same, most=5)
    assert memory.scale == 1
    assert memory.features.shape == (5, CHANNELS)
    assert image_score(memory, same[0]) == 0


def test_tensors_are_the_memory(memory: Memory) -> None:
    again = read(tensors(memory))
    torch.testing.assert_close(again.features, memory.features, rtol=0, atol=0)
    assert again.scale == memory.scale


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"features": None}, "tensors features and scale of a memory, got scale$"),
        ({"features": torch.zeros(3)}, r"\(M, C\) features and one scale of a memory, got \(3,\) and \(\)"),
        ({"features": torch.zeros(0, 3)}, r"got \(0, 3\) and \(\); fit the memory anew$"),
        ({"features": torch.full((2, 3), math.nan)}, "finite features and a positive scale"),
        ({"scale": torch.zeros(())}, "finite features and a positive scale"),
        ({"scale": torch.ones(2)}, r"and \(2,\)"),
    ],
)
def test_damaged_tensors_are_refused(memory: Memory, damage: dict[str, Tensor | None], says: str) -> None:
    fields = {name: value for name, value in (tensors(memory) | damage).items() if value is not None}
    with pytest.raises(ModelError, match=says):
        read(fields)


def test_what_cannot_be_remembered_is_refused(memory: Memory) -> None:
    with pytest.raises(DataError, match=r"at least one good image to remember, got none$"):
        fit([])
    with pytest.raises(UsageError, match=r"at least 1 cell, got 0$"):
        fit([embedding(0)], most=0)
    with pytest.raises(DataError, match=r"embeddings of 6 channels, got one of 7$"):
        fit([embedding(0), embedding(1, channels=7)])
    with pytest.raises(DataError, match=r"of 6 channels like the memory, got 7$"):
        distances(memory, embedding(1, channels=7))
    broken = embedding(0)
    broken.tensor[0, 0, 0] = math.nan
    with pytest.raises(DataError, match="finite embedding, got NaN or infinity; encode the image anew"):
        fit([broken])

"""Near-duplicates. Oracles: scipy's cosine transform and connected components, brute-force bit counts, real copies."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from trees import real_data

from specialsam.core.errors import DataError
from specialsam.core.types import Problem, Record
from specialsam.data import duplicates, open_dataset
from specialsam.data.duplicates import (
    close_pairs,
    duplicate_groups,
    hash_records,
    near_duplicates,
    perceptual_hash,
    thumbnail,
)
from specialsam.data.images import write_png


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A smooth random picture with structure at all low frequencies, uint8 (H, W, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(path: Path, pixels: np.ndarray) -> Record:
    write_png(path, np.ascontiguousarray(pixels))
    return Record(path.stem, path)


@given(hnp.arrays(np.uint8, (32, 32)))
@settings(max_examples=40, deadline=None)
def test_hash_is_the_sign_pattern_of_the_cosine_transform(grey: np.ndarray) -> None:
    """Oracle: scipy.fft.dctn; bits whose frequency is too near the median for float32 are left out."""
    low = dctn(grey.astype(np.float64), norm="ortho")[:8, :8].ravel()[1:]
    low[np.abs(low) < 1e-2] = 0
    bits = np.unpackbits(perceptual_hash(grey)[:1].astype(">u8").view(np.uint8))
    clear = np.abs(low - np.median(low)) > 0.05
    assert bits[0] == 0
    assert np.array_equal(bits[1:][clear], (low > np.median(low))[clear])


def test_mirrored_hash_is_the_hash_of_the_mirrored_thumbnail() -> None:
    for seed in range(20):
        grey = cv2.resize(scene(seed)[..., 1], (32, 32), interpolation=cv2.INTER_AREA)
        one, other = perceptual_hash(grey), perceptual_hash(np.ascontiguousarray(grey[:, ::-1]))
        assert np.bitwise_count(one[1] ^ other[0]) <= 2
        assert np.bitwise_count(one[0] ^ other[1]) <= 2


def test_plain_images_have_one_hash() -> None:
    assert len({perceptual_hash(np.full((32, 32), level, np.uint8)).tobytes() for level in range(0, 256, 5)}) == 1


def test_thumbnail_shape_is_checked() -> None:
    with pytest.raises(DataError, match="expected a grey thumbnail of 32x32, got"):
        perceptual_hash(np.zeros((8, 8), np.uint8))


@pytest.mark.parametrize("block", [1, 7, 4_000_000])
def test_close_pairs_equal_brute_force(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Python's own bit counts over all pairs, whatever the block size."""
    monkeypatch.setattr(duplicates, "_BLOCK", block)
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, (40, 2), np.uint64)
    hashes[20:30] = hashes[:10] ^ np.uint64(0b1011)
    hashes[30:35, 0] = hashes[:5, 1]
    values = hashes.tolist()
    expected = {
        (i, j, min((values[i][0] ^ values[j][0]).bit_count(), (values[i][1] ^ values[j][0]).bit_count()))
        for i in range(40)
        for j in range(i + 1, 40)
    }
    found = close_pairs(hashes, 10)
    assert set(found) == {pair for pair in expected if pair[2] <= 10}
    assert len(found) == len(set(found)) >= 15
    assert close_pairs(hashes[:0], 10) == []
    assert close_pairs(hashes[:1], 10) == []


def test_copies_are_found_and_strangers_are_not(tmp_path: Path) -> None:
    original = scene(1)
    records = [saved(tmp_path / f"other{seed}.png", scene(seed)) for seed in range(10, 30)]
    records += [
        saved(tmp_path / "original.png", original),
        saved(tmp_path / "mirrored.png", original[:, ::-1]),
        saved(tmp_path / "half.png", cv2.resize(original, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
        saved(tmp_path / "darker.png", (original * 0.8).astype(np.uint8)),
    ]
    cv2.imwrite(str(tmp_path / "photo.jpg"), original[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])
    records.append(Record("photo", tmp_path / "photo.jpg"))
    seen: list[int] = []
    pairs = near_duplicates(records, progress=lambda done, total, _: seen.append(done))
    copies = {"original", "mirrored", "half", "darker", "photo"}
    assert {id for one, other, _ in pairs for id in (one, other)} == copies
    assert len(pairs) == 10, "every two of the five"
    assert [bits for *_, bits in pairs] == sorted(bits for *_, bits in pairs)
    assert set(duplicate_groups(pairs).values()) == {"darker"}
    assert seen == list(range(1, 26))


def test_unreadable_images_are_in_no_pair_and_stated(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    whole = saved(tmp_path / "a.png", scene(1))
    (tmp_path / "cut.png").write_bytes(whole.image.read_bytes()[:-2000])
    records = [whole, Record("bad", tmp_path / "bad.jpg"), Record("cut", tmp_path / "cut.png")]
    assert near_duplicates(records) == []
    problems: list[Problem] = []
    ids, hashes = hash_records(records, problems=problems)
    names = [problem.path.name for problem in problems]
    assert (ids, hashes.shape, names) == (["a"], (1, 2), ["bad.jpg", "cut.png"])
    with pytest.raises(DataError, match="at least 0 bits"):
        near_duplicates([], -1)
    assert near_duplicates([]) == []


def test_small_and_unusual_images_have_thumbnails(tmp_path: Path) -> None:
    write_png(tmp_path / "dot.png", np.array([[7]], np.uint8))
    assert (thumbnail(tmp_path / "dot.png") == 7).all()
    write_png(tmp_path / "deep.png", np.full((40, 40), 65535, np.uint16))
    assert (thumbnail(tmp_path / "deep.png") == 255).all()


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "webp", "gif"])
def test_thumbnails_of_all_formats_look_alike(tmp_path: Path, ending: str) -> None:
    """Oracle: OpenCV's own grey and area averaging of the pixels that were written."""
    Image.fromarray(scene(3, 300, 400)).save(tmp_path / f"x.{ending}")
    grey = cv2.cvtColor(scene(3, 300, 400), cv2.COLOR_RGB2GRAY)
    expected = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(int)
    assert np.abs(thumbnail(tmp_path / f"x.{ending}") - expected).max() <= (30 if ending == "gif" else 12), (
        "a GIF has 256 colours"
    )


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(lambda pair: pair[0] != pair[1]), max_size=15))
def test_groups_are_the_connected_components(edges: list[tuple[int, int]]) -> None:
    """Oracle: scipy.sparse.csgraph.connected_components; each group is named by its smallest id."""
    groups = duplicate_groups([(f"{i:02d}", f"{j:02d}", 0) for i, j in edges])
    nodes = sorted({node for edge in edges for node in edge})
    assert sorted(groups) == [f"{node:02d}" for node in nodes]
    if not edges:
        return
    rows, columns = np.array(edges).T
    _, labels = connected_components(coo_array((np.ones(len(edges)), (rows, columns)), shape=(13, 13)), directed=False)
    for node in nodes:
        smallest = min(other for other in nodes if labels[other] == labels[node])
        assert groups[f"{node:02d}"] == f"{smallest:02d}"


@pytest.mark.real
def test_real_camo_near_duplicates() -> None:
    """Oracle: the images themselves, looked at: three scenes of 6, 5 and 2 frames make all pairs up to 10 bits."""
    groups = duplicate_groups(near_duplicates(open_dataset(real_data("camo")).records))
    scenes = [{32, 216, 271, 451, 611, 879}, {201, 261, 401, 468, 596}, {373, 792}]
    for numbers in scenes:
        ids = {f"camourflage_{number:05d}" for number in numbers}
        assert {id for id, group in groups.items() if group == min(ids)} == ids
    assert len(groups) == 13


@pytest.mark.real
def test_real_grid_of_wires_has_no_false_pair() -> None:
    """Periodic textures look alike without being copies."""
    assert near_duplicates(open_dataset(real_data("mvtec_grid")).records[:120]) == []

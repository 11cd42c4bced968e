"""Features, clusters and their sheet, against scikit-learn, transformers' own ResNet and numbers worked out by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from specialsam.core.errors import DataError, ModelError, UsageError
from specialsam.core.types import Record
from specialsam.data.open import open_dataset
from specialsam.models.load import load_model
from specialsam.synth.clusters import (
    EXAMPLES,
    cluster,
    cluster_sheet,
    cluster_textures,
    look,
    texture_features,
)

NO_RESNET = "no-such-folder/resnet"


def textures(folder: Path, colours: list[tuple[int, int, int]], each: int = 4, side: int = 48) -> list[Record]:
    """Files of noise about a few colours: `each` of the first, then of the second, and so on."""
    folder.mkdir(exist_ok=True)
    out = []
    for number in range(len(colours) * each):
        rng = np.random.default_rng(number)
        pixels = rng.normal(colours[number // each], 6, (side, side, 3)).clip(0, 255).astype(np.uint8)
        path = folder / f"texture-{number:02d}.png"
        Image.fromarray(pixels).save(path)
        out.append(Record(path.stem, path))
    return out


def blobs(sizes: tuple[int, ...], gap: float = 10.0) -> npt.NDArray[np.float32]:
    """Groups of points around corners that are far apart."""
    rng = np.random.default_rng(0)
    centres = np.eye(len(sizes)) * gap
    return np.vstack(
        [rng.normal(centre, 0.2, (n, len(sizes))) for centre, n in zip(centres, sizes, strict=True)]
    ).astype(np.float32)


def test_clusters_are_the_groups_numbered_by_size() -> None:
    """Three groups of 4, 9 and 6 points are found whole; distances are those of numpy to the groups' means."""
    features = blobs((4, 9, 6))
    labels, distances, sizes = cluster(features, 3)
    assert labels.tolist() == [2] * 4 + [0] * 9 + [1] * 6
    assert sizes == (9, 6, 4)
    means = np.stack([features[labels == number].mean(0) for number in range(3)])
    assert np.allclose(distances, np.linalg.norm(features[:, None] - means, axis=2), atol=1e-4)


def test_clustering_follows_from_its_seed() -> None:
    features = np.random.default_rng(1).normal(size=(60, 8)).astype(np.float32)
    first, again = cluster(features, 5, seed=3), cluster(features, 5, seed=3)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


@pytest.mark.parametrize("k", [0, 1, 4])
def test_impossible_numbers_of_clusters(k: int) -> None:
    """Three different textures among six make two or three clusters."""
    with pytest.raises(UsageError, match=f"expected 2 to 3 clusters .*, got {k}"):
        cluster(np.repeat(np.eye(3, dtype=np.float32), 2, 0), k)


def test_table_says_what_was_measured(tmp_path: Path) -> None:
    """Silhouettes are scikit-learn's, shares add up, the nearest example is nearest, looks fit the colours drawn."""
    from sklearn.metrics import silhouette_score

    records = textures(tmp_path, [(250, 250, 250), (30, 25, 25), (200, 40, 30)])
    features = np.stack([np.asarray(Image.open(record.image)).mean((0, 1)) for record in records]).astype(np.float32)
    found = cluster_textures(records, features, "mean colours", 3)
    rows = found.rows()
    assert found.sizes == (4, 4, 4)
    assert sum(row.share for row in rows) == pytest.approx(1)
    assert np.mean([row.silhouette for row in rows]) == pytest.approx(
        silhouette_score(features, found.labels), abs=1e-5
    )
    assert {row.look for row in rows} == {"very light, greyish", "very dark, greyish", "medium, vivid"} or {
        row.look for row in rows
    } == {"very light, greyish", "very dark, greyish", "dark, vivid"}
    for row in rows:
        inside = found.members(row.cluster)
        assert row.n == len(inside) == 4
        assert row.nearest == tuple(found.ids[index] for index in inside[:EXAMPLES])
        assert found.ids[int(np.argmin(found.distances[:, row.cluster]))] == row.nearest[0]


def test_as_many_clusters_as_textures(tmp_path: Path) -> None:
    """Clusters of one have silhouette 0 by convention."""
    records = textures(tmp_path, [(200, 200, 200), (20, 20, 20), (200, 30, 30)], each=1)
    found = cluster_textures(records, np.eye(3, dtype=np.float32), "corners", 3)
    assert [row.silhouette for row in found.rows()] == [0, 0, 0]
    with pytest.raises(DataError, match="one row of features a texture, got 2 for 3"):
        cluster_textures(records, np.eye(2, dtype=np.float32), "corners", 2)


@pytest.mark.parametrize(
    ("lightness", "chroma", "words"),
    [(10, 3, "very dark, greyish"), (30, 15, "dark, muted"), (50, 30, "medium, coloured"), (70, 60, "light, vivid")],
)
def test_looks_in_words(lightness: float, chroma: float, words: str) -> None:
    assert look(lightness, chroma) == words


def test_features_of_the_given_model(tmp_path: Path) -> None:
    """Mean and spread of nano's embedding and of the colours, each part with a total variance of 1."""
    records = textures(tmp_path, [(220, 210, 190), (60, 40, 30)], each=3)
    calls: list[tuple[int, int, str]] = []
    nano = load_model("nano")
    features, name = texture_features(records, nano, lambda *call: calls.append(call), resnet=NO_RESNET)
    width = 2 * nano.encode(np.zeros((48, 48, 3), np.uint8)).tensor.shape[0]
    assert name == "the mean and spread of nano's embedding and of the colours"
    assert features.dtype == np.float32
    assert features.shape == (6, width + 6)
    assert calls[-1][:2] == (6, 6)
    assert features[:, :width].var(0).sum() == pytest.approx(1, abs=1e-3)
    assert features[:, width:].var(0).sum() == pytest.approx(1, abs=1e-3)
    means = np.stack([nano.encode(np.asarray(Image.open(r.image))).tensor.numpy().mean((1, 2)) for r in records])
    scale = np.linalg.norm(means) / np.linalg.norm(features[:, : width // 2])
    assert np.allclose(features[:, : width // 2] * scale, means, atol=1e-4)
    assert len(set(cluster(features, 2)[0][:3])) == 1


def test_padding_does_not_count(tmp_path: Path) -> None:
    """A plain image of 2:1 has nearly the spread of a square one: the padded half of its embedding is left out."""
    from specialsam.synth.clusters import _embedding_facts

    nano = load_model("nano")
    rng = np.random.default_rng(0)
    square = rng.normal(120, 8, (64, 64, 3)).astype(np.uint8)
    whole, half = _embedding_facts(nano, [square, square[:32]])
    tensor = nano.encode(square[:32]).tensor.numpy()
    assert np.allclose(half[: len(tensor)], tensor[:, : tensor.shape[1] // 2].mean((1, 2)), atol=1e-5)
    assert np.allclose(half[-6:], whole[-6:], atol=1.5)


def test_features_of_resnet(tmp_path: Path) -> None:
    """A ResNet in a folder answers as transformers' own call does; a plain image needs no resizing to compare."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config: Any = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    network = ResNetModel(config).eval()
    network.save_pretrained(tmp_path / "resnet")
    path = tmp_path / "plain.png"
    Image.fromarray(np.full((30, 40, 3), (200, 120, 40), np.uint8)).save(path)
    features, name = texture_features([Record("plain", path)], resnet=tmp_path / "resnet")
    pixels = torch.tensor([200, 120, 40]) / 255
    pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        truth = network(pixels[None, :, None, None].expand(1, 3, 224, 224)).pooler_output.flatten().numpy()
    assert name == "ResNet-18's pooled features"
    assert features.shape == (1, 12)
    assert np.allclose(features[0], truth, atol=1e-5)


def test_neither_resnet_nor_model_is_one_line(tmp_path: Path) -> None:
    records = textures(tmp_path, [(100, 100, 100)], each=1)
    with pytest.raises(ModelError, match="or a model to take features from; got neither") as caught:
        texture_features(records, None, resnet=NO_RESNET)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="at least one texture"):
        texture_features([], load_model("nano"), resnet=NO_RESNET)


def test_an_unreadable_texture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        texture_features([Record("broken", path)], load_model("nano"), resnet=NO_RESNET)


def test_sheet_has_a_row_a_cluster(tmp_path: Path) -> None:
    """Each row shows its cluster's colour where the textures are, and ink where the text is."""
    colours = [(240, 240, 240), (40, 40, 40), (200, 40, 30)]
    records = textures(tmp_path, colours)
    features = np.stack([np.asarray(Image.open(record.image)).mean((0, 1)) for record in records]).astype(np.float32)
    found = cluster_textures(records, features, "mean colours", 3)
    sheet = cluster_sheet(records, found, columns=6, side=60)
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] == 30 + 3 * 66 + 6
    for number in range(3):
        top = 30 + 66 * number
        first = found.ids.index(found.rows()[number].nearest[0])
        assert np.allclose(sheet[top + 5 : top + 55, 215:265].mean((0, 1)), colours[first // 4], atol=4)
        assert (sheet[top : top + 60, :200].min(2) < 120).any()


@pytest.mark.real
def test_wood_clusters_are_looks() -> None:
    """On real wood, lightness differs far more between the clusters than by chance (eta squared above a half)."""
    root = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2] / "../shared/data")).resolve() / "wood"
    if not root.is_dir():
        pytest.skip(f"real data set wood is not in {root.parent} (set SPECIALSAM_REAL_DATA)")
    records = open_dataset(root).records[::8]
    features, source = texture_features(records, load_model("nano"))
    found = cluster_textures(records, features, source, 5)
    means = np.array([found.lightness[found.labels == number].mean() for number in range(5)])
    between = ((means[found.labels] - found.lightness.mean()) ** 2).mean()
    assert between / found.lightness.var() > 0.5
    assert sum(found.sizes) == len(records)

"""Wood: textures to features, clusters and mosaics of graded difficulty (`prepare_wood`); each cell is an object."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from specialsam.core.console import say, stage
from specialsam.core.geometry import ImageArray
from specialsam.data.images import read_image
from specialsam.data.open import open_dataset
from specialsam.models.load import load_model
from specialsam.studies.recipe import Prepared, Sheet, WoodRecipe
from specialsam.synth.clusters import Clusters, cluster_sheet, cluster_textures, texture_features
from specialsam.synth.mosaic_data import WrittenMosaics, write_mosaics
from specialsam.synth.mosaic_plan import DIFFICULTIES

SHOWN, SHOWN_SIDE = 4, 220
"""Mosaics of each difficulty on the sheet of samples, and their side in pixels there."""


def prepare_wood(data: str, recipe: WoodRecipe, model: str, base: str | None, folder: Path) -> Prepared:
    """Write the recipe's mosaics of the textures in `data` to `folder` and say what they are.

    Textures are clustered by ResNet-18's features where these can be had here, else by the encoder of `model`. A folder
    that holds the same mosaics already is gone on with.
    """
    dataset = open_dataset(data)
    with stage("features of textures") as progress:
        features, source = texture_features(dataset.records, load_model(model, base), progress)
    clusters = cluster_textures(dataset.records, features, source, recipe.data.clusters)
    with stage("writing mosaics") as progress:
        written = write_mosaics(folder, dataset, recipe.data, clusters, progress)
    say(f"mosaics: {_split_sizes(written)}, textures clustered by {source}")
    sizes = ", ".join(str(size) for size in clusters.sizes)
    return Prepared(
        source=f"folder:{folder}",
        name=f"{dataset.name}, mosaics",
        licence=dataset.licence,
        citation=dataset.citation,
        facts=(
            ("textures", f"{len(dataset)} of {len({r.category for r in dataset.records})} species"),
            ("clusters", f"{clusters.count} by {source}, of {sizes} textures"),
            ("textures per split", ", ".join(f"{count} {split}" for split, count in written.textures.items())),
            ("mosaics", _split_sizes(written)),
        ),
        notes=(
            *(f"{difficulty}: {DIFFICULTIES[difficulty].says}" for difficulty in recipe.data.difficulties),
            *(f"{count} {what}" for what, count in written.notes.items()),
            *(problem.message for problem in dataset.problems),
        ),
        textures=written.made_of,
        sheets=(
            Sheet("clusters", cluster_sheet(dataset.records, clusters), _clusters_caption(clusters)),
            *_samples(folder, recipe),
        ),
        differences=(
            ("Textures on disk", "530", str(len(dataset))),
            ("Clustering features", "ResNet-18's pooled features at 224 px", source),
            (
                "Test mosaics",
                "50",
                ", ".join(f"{count} {name}" for name, count in written.mosaics.get("test", {}).items()),
            ),
        ),
    )


def _split_sizes(written: WrittenMosaics) -> str:
    return ", ".join(f"{sum(part.values())} {split}" for split, part in written.mosaics.items())


def _clusters_caption(clusters: Clusters) -> str:
    rows = "; ".join(f"cluster {row.cluster}: {row.n} ({row.share:.1%}), {row.look}" for row in clusters.rows())
    return f"Textures by cluster. {rows}. The words are measured: mean lightness and chroma in CIELAB."


def _samples(folder: Path, recipe: WoodRecipe) -> tuple[Sheet, ...]:
    """The first test mosaics of each difficulty, a row a difficulty."""
    names, rows = [], []
    for difficulty in recipe.data.difficulties:
        paths = sorted((folder / "images" / "test" / difficulty).glob("*.png"))[:SHOWN]
        if len(paths) == SHOWN:
            names.append(difficulty)
            rows.append(np.hstack([_small(read_image(path)) for path in paths]))
    if not rows:
        return ()
    return (Sheet("mosaics", np.vstack(rows), f"Test mosaics, a row a difficulty, from above: {', '.join(names)}."),)


def _small(image: ImageArray) -> ImageArray:
    """The mosaic at `SHOWN_SIDE` pixels with a white frame."""
    small = cv2.resize(image, (SHOWN_SIDE, SHOWN_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(np.pad(small, ((4, 4), (4, 4), (0, 0)), constant_values=255), np.uint8)

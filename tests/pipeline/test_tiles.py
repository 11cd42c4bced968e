"""Tiles through the jobs: learned from beside the whole image, in the store as views, answers put together.

The oracles: counts of encoder passes, the embedding of a cut image file, and objects that the whole frame cannot show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from disc_data import small
from PIL import Image

from specialsam.core.types import Record
from specialsam.core.windows import tiles
from specialsam.data.open import open_dataset
from specialsam.data.views import IDENTITY
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.evaluation.results import Results
from specialsam.pipeline.job import Request
from specialsam.pipeline.measure import Comparison, run_evaluate
from specialsam.pipeline.specialize import run_specialize

SIZE, TILE, OVERLAP = (320, 480), 192, 0.25
WINDOWS = len(tiles(SIZE, TILE, OVERLAP))


def specks(folder: Path, count: int) -> Path:
    """Large images, each with one bright disc of 5 to 8 pixels radius on noise."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for number in range(count):
        rng = np.random.default_rng(number)
        image = rng.integers(60, 120, (*SIZE, 3)).astype(np.uint8)
        x, y, radius = rng.uniform(20, SIZE[1] - 20), rng.uniform(20, SIZE[0] - 20), rng.uniform(5, 8)
        mask = (columns - x) ** 2 + (rows - y) ** 2 < radius**2
        image[mask] += 100
        Image.fromarray(image).save(folder / f"images/{number:03d}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"masks/{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return specks(tmp_path_factory.mktemp("specks") / "data", 8)


def mean(results: Results, model: str, output: str) -> float:
    chosen = results.only(model=model, output=output, metric="iou").frame
    assert len(chosen)
    return float(chosen["value"].mean())


def test_a_run_learns_from_tiles_and_answers_from_them(data: Path, tmp_path: Path) -> None:
    settings = small(
        tiles={"side": TILE, "overlap": OVERLAP},
        train={"epochs": 1},
        evaluate={"strategies": ["box"]},
        main_strategy="box",
    )
    outcome = run_specialize(Request(str(data), "nano", tmp_path / "run"), settings)
    assert outcome is not None
    results = Results.read(tmp_path / "run" / "results.parquet")
    assert set(results.only(model="specialist").frame["output"]) == {"single", "three_best", "three_oracle", "tiles"}
    for model in ("base", "specialist"):
        assert mean(results, model, "tiles") > mean(results, model, "single") + 0.05, "from near one sees more"
    assert "From tiles" in outcome.report.read_text()


def test_tiles_are_views_in_the_store(data: Path, tmp_path: Path, encoded: list[int]) -> None:
    """Oracle: the embedding of the cut-out pixels, to the store's precision; tiles without objects are not stored."""
    from specialsam.core.place import here
    from specialsam.data.loading import load
    from specialsam.pipeline.job import planned

    settings = small(tiles={"side": TILE, "overlap": OVERLAP})
    embedded = planned(Request(str(data), "nano", tmp_path / "run"), settings, here("cpu"))
    embedded.prepare()
    stored = sum(encoded)
    records = open_dataset(str(data)).records
    assert all(len([v for r, v in embedded.pairs if r == record]) == 1 + WINDOWS for record in records)

    def holding(record: Record) -> list[int]:
        masks = load(record).masks
        return [n for n, w in enumerate(tiles(SIZE, TILE, OVERLAP)) if masks[:, *w.slices].any()]

    assert stored == len(records) + sum(len(holding(record)) for record in records)
    record = records[0]
    for number in holding(record):
        window = tiles(SIZE, TILE, OVERLAP)[number]
        assert (record.id, IDENTITY.on(window).key) in embedded.keys
        found = embedded.tile(embedded.truth(record), embedded.segmenter, window)
        fresh = embedded.segmenter.encode(np.ascontiguousarray(load(record).image[window.slices]))
        assert found.geometry == fresh.geometry
        assert float((found.tensor.float() - fresh.tensor).abs().max()) < 0.02 * float(fresh.tensor.abs().max())
    before = sum(encoded)
    embedded.prepare()
    assert sum(encoded) == before


def test_small_images_are_left_whole(tmp_path: Path) -> None:
    from specialsam.core.place import here
    from specialsam.pipeline.job import planned

    data = specks(tmp_path / "data", 3)
    embedded = planned(Request(str(data), "nano", tmp_path / "run"), small(tiles={"side": 512}), here("cpu"))
    assert all(not view.key for _, view in embedded.pairs)


def test_evaluate_looks_closer_where_asked(data: Path, tmp_path: Path, encoded: list[int]) -> None:
    """Both closer looks stand beside the plain answer, which stays what it was."""
    plain = EvaluateSettings(strategies=("box", "clicks3"), groups=("overlap",))
    run_evaluate(Comparison(str(data), ["nano"], tmp_path / "plain", "all"), plain)
    assert sum(encoded) == 8
    closer = plain.model_copy(update={"zoom": True, "tiles": small(tiles={"side": TILE}).tiles})
    run_evaluate(Comparison(str(data), ["nano"], tmp_path / "closer", "all"), closer)
    before, after = (Results.read(tmp_path / name / "results.parquet") for name in ("plain", "closer"))
    for strategy in ("box", "clicks3"):
        assert mean(before.only(strategy=strategy), "nano", "single") == mean(
            after.only(strategy=strategy), "nano", "single"
        )
        assert len(after.only(strategy=strategy, output="zoom", metric="iou")) == 8
        assert len(after.only(strategy=strategy, output="tiles", metric="iou")) == 8
    boxed = after.only(strategy="box")
    assert mean(boxed, "nano", "zoom") > mean(boxed, "nano", "single") + 0.05
    assert mean(boxed, "nano", "tiles") > mean(boxed, "nano", "single") + 0.05


def test_a_failed_image_fails_in_every_look(data: Path, tmp_path: Path) -> None:
    from shutil import copytree

    broken = Path(copytree(data, tmp_path / "data"))
    (broken / "images" / "003.png").write_bytes(b"no image")
    closer = EvaluateSettings(
        strategies=("box",), groups=("overlap",), zoom=True, tiles=small(tiles={"side": TILE}).tiles
    )
    measured = run_evaluate(Comparison(str(broken), ["nano"], tmp_path / "run", "all"), closer)
    assert measured is not None
    own = measured.summary[(measured.summary.metric == "iou") & (measured.summary.model == "nano")]
    assert len(set(own["n"])) == 1
    assert set(own["output"]) == {"single", "three_best", "three_oracle", "zoom", "tiles"}
    assert len(set(own["failed"])) == 1

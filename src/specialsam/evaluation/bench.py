"""How well a model segments photographs that nobody tuned it on: BSDS500 segments and camouflaged animals, with rivals.

BSDS500: a click in the interior of each annotated segment above 0.5 % of the image. A click does not say which
annotator's segment is meant, so a mask counts by its best IoU over the annotators' segments that contain the click; a
box and correction clicks do say it, and count by the segment itself. CAMO: each animal, click and box.

GrabCut takes half a second of a core for each box of a small photograph and a BSDS500 image has about 45 segments, so a
stable random sample of segments can stand for all: every model and rival then answers for the same ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from specialsam.core.console import stage
from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import BoolArray, FloatArray, ImageArray, PixelArray
from specialsam.core.masks import interior_point, tight_boxes
from specialsam.core.types import Prediction, Prompts, Record, Row
from specialsam.data.images import read_image, read_mask_pixels
from specialsam.data.loading import load
from specialsam.data.open import open_dataset
from specialsam.data.splits import stable_hash
from specialsam.evaluation.clicking import clicked, clicks_needed
from specialsam.evaluation.region_rivals import FELZENSZWALB_SCALES, felzenszwalb_maps, grabcuts, regions_under
from specialsam.evaluation.rivals import disc, disc_radius, filled_box, relative_area
from specialsam.evaluation.statistics import bootstrap_mean
from specialsam.evaluation.tables import frame, summary
from specialsam.models.load import load_model
from specialsam.models.segmenter import ALL, Segmenter
from specialsam.models.zoom import zoom

SMALLEST = 0.005
"""Smallest segment that is clicked, as a share of the image."""
Scores = dict[tuple[str, str, str], Sequence[float] | FloatArray]
"""A value a segment by (model, prompt, output); the model under test is called `MODEL`."""
MODEL = "model"
GOALS = (0.85, 0.9)
"""IoU that clicks are counted to."""


@dataclass(frozen=True)
class BenchSettings:
    """`limit` images of each data set and `segments` of each image, stable random samples (None: all of them).

    `rivals` runs Felzenszwalb and GrabCut beside the rivals that see no pixel. `clicks` is the number of clicks that
    each segment gets one after the other, and `zoom` adds a second look at each first answer.
    """

    limit: int | None = None
    segments: int | None = None
    rivals: bool = True
    clicks: int = 5
    zoom: bool = False

    @property
    def subset(self) -> str:
        """Which images and segments were measured, in words; "" for all."""
        images = [] if self.limit is None else [f"{self.limit} images by stable hash"]
        few = [] if self.segments is None else [f"at most {self.segments} segments of each by stable hash"]
        return ", ".join(images + few)


def bsds_images(root: Path, split: str) -> list[tuple[Path, list[Path]]]:
    """Images of a split with their annotators' label maps, by name."""
    images = sorted((root / "images" / split).glob("*.jpg"))
    pairs = [(image, sorted((root / "masks" / split).glob(f"{image.stem}_a*.png"))) for image in images]
    if not pairs or not all(maps for _, maps in pairs):
        raise DataError(f"expected images/{split}/ID.jpg and masks/{split}/ID_aK.png in {root}, got something else")
    return pairs


def segments(maps: Sequence[PixelArray]) -> BoolArray:
    """Every annotated segment above `SMALLEST`, bool (P, H, W), annotator after annotator."""
    out = [m == value for m in maps for value in np.unique(m) if (m == value).mean() >= SMALLEST]
    return np.stack(out) if out else np.zeros((0, *maps[0].shape), np.bool_)


def sampled(truth: BoolArray, record: str, most: int | None) -> BoolArray:
    """At most `most` of the segments (P, H, W) of an image, a stable random sample in their own order; None: all."""
    if most is None or len(truth) <= most:
        return truth
    chosen = sorted(range(len(truth)), key=lambda index: stable_hash(f"segment {index} of {record}"))[:most]
    return truth[sorted(chosen)]


def iou(masks: BoolArray, truth: BoolArray) -> FloatArray:
    """IoU (...) of bool masks and truths (..., H, W), whose leading axes are broadcast."""
    overlap = (masks & truth).sum((-2, -1))
    return np.asarray(overlap / np.maximum((masks | truth).sum((-2, -1)), 1), np.float32)


def best_annotated(masks: BoolArray, point: FloatArray, maps: Sequence[PixelArray]) -> float:
    """Best IoU of any of the masks (M, H, W) with any annotator's segment that contains the click."""
    x, y = (int(value) for value in point)
    truths = np.stack([m == m[y, x] for m in maps])
    return float(iou(masks[:, None], truths[None]).max())


def bench_bsds(segmenter: Segmenter, root: Path, settings: BenchSettings) -> Iterator[list[Row]]:
    """Rows of one validation image after the other; the disc's radius is that of the training half."""
    pairs = sorted(bsds_images(root, "val"), key=lambda pair: stable_hash(pair[0].stem))[: settings.limit]
    few = [[read_mask_pixels(m) for m in maps] for _, maps in bsds_images(root, "train")[:40]]
    radius = disc_radius([relative_area(mask) for maps in few for mask in segments(maps)])
    for path, files in pairs:
        image, maps = read_image(path), [read_mask_pixels(file) for file in files]
        truth = sampled(segments(maps), path.stem, settings.segments)
        if not len(truth):
            continue
        points = np.array([interior_point(mask) for mask in truth], np.float32)[:, None]
        answers, scores = _model_scores(segmenter, image, truth, points, settings)
        three = answers.pop("three")
        for output, masks in answers.items():
            scores[MODEL, "click", output] = [
                best_annotated(m[None], p[0], maps) for m, p in zip(masks, points, strict=True)
            ]
        scores[MODEL, "click", "three_oracle"] = [
            best_annotated(m, p[0], maps) for m, p in zip(three, points, strict=True)
        ]
        scores |= _rival_scores(image, truth, points, radius, maps, settings.rivals)
        yield _rows(segmenter.name, "bsds500", "val", path.stem, settings.subset, scores)


def camo_animals(root: Path) -> list[Record]:
    """CAMO's camouflaged animals in the order of a stable hash."""
    records = [record for record in open_dataset(f"camo:{root}").records if record.category == "animal"]
    return sorted(records, key=lambda record: stable_hash(record.id))


def bench_camo(segmenter: Segmenter, root: Path, settings: BenchSettings) -> Iterator[list[Row]]:
    """Rows of one camouflaged animal after the other."""
    yield from bench_records(segmenter, camo_animals(root)[: settings.limit], settings)


def bench_records(segmenter: Segmenter, records: Sequence[Record], settings: BenchSettings) -> Iterator[list[Row]]:
    """Rows of one of CAMO's records after the other; the disc's radius is that of the first ones."""
    radius = disc_radius([relative_area(mask) for record in records[:60] for mask in load(record).masks])
    for record in records:
        sample = load(record)
        truth = sampled(sample.masks, record.id, settings.segments)
        if not len(truth):
            continue
        points = np.array([interior_point(mask) for mask in truth], np.float32)[:, None]
        answers, scores = _model_scores(segmenter, sample.image, truth, points, settings)
        scores[MODEL, "click", "three_oracle"] = iou(answers.pop("three"), truth[:, None]).max(1)
        for output, masks in answers.items():
            scores[MODEL, "click", output] = iou(masks, truth)
        scores |= _rival_scores(sample.image, truth, points, radius, None, settings.rivals)
        yield _rows(segmenter.name, "camo animals", "train", record.id, settings.subset, scores)


def _model_scores(
    segmenter: Segmenter, image: ImageArray, truth: BoolArray, points: FloatArray, settings: BenchSettings
) -> tuple[dict[str, BoolArray], Scores]:
    """Masks of the clicks by output, (P, H, W) and as "three" (P, 3, H, W); IoU by box and after each further click."""
    embedding = segmenter.encode(image)
    prompts = Prompts("click", points=points, labels=np.ones(points.shape[:2], np.int64))
    answer = segmenter.decode_outputs(embedding, prompts, ALL)
    masks = answer.masks()
    boxes = Prompts("box", boxes=tight_boxes(truth))
    boxed = segmenter.decode(embedding, boxes)
    scores: Scores = {(MODEL, "box", "single"): iou(boxed.masks()[:, 0], truth)}
    best = masks[np.arange(len(masks)), 1 + answer.scores[:, 1:].argmax(1).numpy()]
    answers = {"single": masks[:, 0], "three_best": best, "three": masks[:, 1:]}
    if settings.zoom:
        scores[MODEL, "box", "zoom"] = iou(zoom(segmenter, image, boxes, boxed).masks(), truth)
        first = Prediction(answer.logits[:, :1], answer.scores[:, :1], answer.geometry)
        answers["zoom"] = zoom(segmenter, image, prompts, first).masks()
    for number, (_, _, found) in enumerate(clicked(segmenter, embedding, truth, prompts, settings.clicks), 1):
        scores[MODEL, _after(number), "single"] = iou(found, truth)
    return answers, scores


def _after(number: int) -> str:
    """The prompt after so many clicks, in words."""
    return f"{number} click{'s' if number > 1 else ''}"


def curves(rows: pd.DataFrame, most: int) -> dict[str, pd.DataFrame]:
    """IoU after each of `most` clicks, a column each, of each segment (record, object), by data set."""
    wanted = [_after(number) for number in range(1, most + 1)]
    clicked = rows[rows["strategy"].isin(wanted)]
    return {
        str(dataset): part.pivot(index=["record", "object"], columns="strategy", values="value")[wanted]
        for dataset, part in clicked.groupby("dataset", sort=False)
    }


def clicks_to(rows: pd.DataFrame, most: int, seed: int = 0) -> list[str]:
    """A line for each data set: the mean number of clicks that 85 and 90 % IoU take (NoC), and how many never do."""
    lines = []
    for dataset, table in curves(rows, most).items():
        said = []
        for target in GOALS:
            needed = pd.Series([clicks_needed(curve, target) for curve in table.to_numpy(np.float32)], table.index)
            found = bootstrap_mean(needed.groupby(level="record").mean().to_numpy(float), seed)
            said.append(f"{target:.0%}: {found.mean:.2f} ({found.low:.2f} to {found.high:.2f})")
        never = float((table.to_numpy() < 0.9).all(1).mean())
        lines.append(
            f"{dataset}: clicks to {', to '.join(said)}; {never:.0%} of the segments never reach 90% in {most}"
        )
    return lines


def _rival_scores(
    image: ImageArray,
    truth: BoolArray,
    points: FloatArray,
    radius: float,
    maps: Sequence[PixelArray] | None,
    classical: bool,
) -> Scores:
    """The rivals on the same prompts: those that see no pixel, and where `classical` also Felzenszwalb and GrabCut."""
    size = (image.shape[0], image.shape[1])
    labels = np.ones(points.shape[:2], np.int64)
    boxes = tight_boxes(truth)
    discs = disc(Prompts("click", points=points, labels=labels), size, radius)
    filled = filled_box(Prompts("box", boxes=boxes), size)

    def clicked(masks: Sequence[BoolArray]) -> list[float]:
        if maps is None:
            return [float(iou(m, t[None]).max()) for m, t in zip(masks, truth, strict=True)]
        return [best_annotated(m, p[0], maps) for m, p in zip(masks, points, strict=True)]

    scores: Scores = {
        ("disc of median size", "click", "rival"): clicked([m[None] for m in discs]),
        ("filled box", "box", "rival"): [] if filled is None else iou(filled, truth),
    }
    if classical:
        graph = felzenszwalb_maps(image)
        regions = [regions_under(graph, p[0]) for p in points]
        scores[f"Felzenszwalb (best of {len(FELZENSZWALB_SCALES)})", "click", "rival"] = clicked(regions)
        for index, scale in enumerate(FELZENSZWALB_SCALES):
            scores[f"Felzenszwalb (scale {scale})", "click", "rival"] = clicked([r[index : index + 1] for r in regions])
        scores["GrabCut", "box", "rival"] = iou(grabcuts(image, boxes), truth)
    return scores


def _rows(model: str, dataset: str, split: str, record: str, measured: str, scores: Scores) -> list[Row]:
    return [
        Row(
            run="bench",
            model=model if name == MODEL else name,
            dataset=dataset,
            split=split,
            record=record,
            object=index,
            strategy=strategy,
            output=output,
            metric="iou",
            value=float(value),
            subset=measured,
        )
        for (name, strategy, output), values in scores.items()
        for index, value in enumerate(values)
    ]


class Benched(NamedTuple):
    """A row for each segment, prompt and output, and the means as text."""

    rows: pd.DataFrame
    text: str


def run_bench(
    model: str,
    bsds: Path | None,
    camo: Path | None,
    settings: BenchSettings,
    out: Path | None = None,
    trust_base: bool = False,
) -> Benched:
    """Measure on the folders that are given; a .csv of the means where asked for.

    The text says which images and segments were measured.
    """
    segmenter = load_model(model, trust_base=trust_base)
    limit = settings.limit
    jobs = []
    if bsds is not None:
        jobs.append((bench_bsds(segmenter, bsds, settings), len(bsds_images(bsds, "val")[:limit])))
    if camo is not None:
        jobs.append((bench_camo(segmenter, camo, settings), len(camo_animals(camo)[:limit])))
    if not jobs:
        raise UsageError("expected --bsds or --camo with a folder of real photographs, got neither")
    rows: list[Row] = []
    for job, total in jobs:
        with stage("measuring") as progress:
            progress(0, total, "the first image")
            for number, part in enumerate(job, 1):
                rows += part
                progress(number, total, part[0].record)
    table = frame(rows)
    means = summary(table, ("iou",))
    if out is not None:
        write_whole(out, lambda path: means.to_csv(path, index=False))
    lines = [f"measured: {settings.subset or 'every image and segment'}"]
    lines += [f"{'data':14}{'prompt':10}{'model':28}{'output':14}{'IoU':>6}  95 % interval    images"]
    for row in means.sort_values(["dataset", "strategy", "mean"], kind="stable").to_dict("records"):
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}"
        lines.append(
            f"{row['dataset']:14}{row['strategy']:10}{row['model']:28}{row['output']:14}{100 * row['mean']:6.1f}"
            f"  {interval:16}{row['n']:>6}"
        )
    return Benched(table, "\n".join([*lines, *clicks_to(table, settings.clicks)]))

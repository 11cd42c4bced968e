"""Scoring: one encoding an image, the same prompts for all models, no gaps where an image failed, and going on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Embedding, Prediction, Prompts, Record, Row, Sample, Truth
from specialsam.core.windows import Window
from specialsam.data.tiles import TileSettings
from specialsam.evaluation import evaluate as module
from specialsam.evaluation.evaluate import DISC, FILLED_BOX, EvaluateSettings, Measuring, clicks, evaluate, live_tile
from specialsam.metrics import METRICS, overlap
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone

torch.set_num_threads(1)
SIDE = 128
STAMP = {"run": "r", "dataset": "d", "split": "test"}
OVERLAP = {name for name, metric in METRICS.items() if metric.group == "overlap"}


@pytest.fixture(scope="module")
def base() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("base", build_nano("conv", SIDE), SIDE)


@pytest.fixture(scope="module")
def tuned(base: Segmenter) -> Segmenter:
    other = clone(base, "tuned")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.sam.mask_decoder.parameters():  # type: ignore[union-attr]
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return other


@pytest.fixture(scope="module")
def another_encoder() -> Segmenter:
    torch.manual_seed(5)
    return Segmenter("another", build_nano("conv", SIDE), SIDE)


def sample(name: str, objects: int = 2, empty: tuple[int, ...] = (), labels: bool = True) -> Sample:
    """Squares and rings on noise, some masks left empty."""
    rng = np.random.default_rng(sum(map(ord, name)))
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    masks = np.zeros((objects, 60, 80), np.bool_)
    for index in range(objects):
        y, x = int(rng.integers(0, 35)), int(rng.integers(0, 55))
        masks[index, y : y + 24, x : x + 24] = True
        if index % 2:
            masks[index, y + 8 : y + 16, x + 4 : x + 20] = False
    masks[list(empty)] = False
    record = Record(name, Path(f"{name}.png"), category="whole", supercategory="super")
    return Sample(record, image, masks, tuple(f"label {i}" for i in range(objects)) if labels else ())


class Bench:
    """Samples by record, and a count of encodings by encoder and image."""

    def __init__(self, *samples: Sample):
        self.samples = {s.id: s for s in samples}
        self.encoded: Counter[tuple[str, str]] = Counter()

    @property
    def records(self) -> list[Record]:
        return [s.record for s in self.samples.values()]

    def load(self, record: Record) -> Sample:
        return self.samples[record.id]

    def embed(self, sample: Sample, segmenter: Segmenter) -> Embedding:
        self.encoded[segmenter.encoder_id, sample.id] += 1
        return segmenter.encode(sample.image)

    def rows(self, models: dict[str, Segmenter], radius: float | None = None, **changes: Any) -> list[Row]:
        made = EvaluateSettings(**{"groups": ("overlap",)} | changes)
        parts = evaluate(models, self.records, Measuring(self.load, self.embed, made, STAMP), radius)
        return [row for part in parts for row in part]


def test_an_image_is_encoded_once_an_encoder(base: Segmenter, tuned: Segmenter, another_encoder: Segmenter) -> None:
    """Whatever the number of models, strategies and correction rounds: the seed encoded in its innermost loop."""
    bench = Bench(sample("a"), sample("b"))
    models = {"base": base, "tuned": tuned, "another": another_encoder}
    rows = bench.rows(models, strategies=("interior", "grid4", "box", "clicks3"))
    assert {row.model for row in rows} == set(models)
    ids = {base.encoder_id, another_encoder.encoder_id}
    assert bench.encoded == {(encoder, name): 1 for encoder in ids for name in ("a", "b")}


def test_a_tile_is_encoded_once_an_encoder(base: Segmenter, tuned: Segmenter, another_encoder: Segmenter) -> None:
    """Whatever the number of models and strategies: base and tuned share an encoder, and so a tile's embedding."""
    bench, asked = Bench(sample("a")), Counter[tuple[str, Window]]()

    def tile(truth: Truth, segmenter: Segmenter, window: Window) -> Embedding:
        asked[segmenter.encoder_id, window] += 1
        return live_tile(truth, segmenter, window)

    settings = EvaluateSettings(strategies=("interior", "box"), groups=("overlap",), tiles=TileSettings(side=32))
    how = Measuring(bench.load, bench.embed, settings, STAMP, tile)
    models = {"base": base, "tuned": tuned, "another": another_encoder}
    rows = [row for part in evaluate(models, bench.records, how, None) for row in part]
    assert {row.model for row in rows if row.output == "tiles"} == set(models)
    assert {encoder for encoder, _ in asked} == {base.encoder_id, another_encoder.encoder_id}
    assert set(asked.values()) == {1}


def test_tiles_too_small_are_refused_before_anything_is_measured() -> None:
    with pytest.raises(ValueError, match="expected tiles of 16 px or more, or 0 for none, got 8"):
        TileSettings(side=8)


def test_rows_for_every_strategy_output_and_metric(base: Segmenter, tuned: Segmenter) -> None:
    strategies = ("interior", "center_of_mass", "edge", "grid4", "box", "clicks2")
    bench = Bench(sample("a"))
    rows = bench.rows(
        {"base": base, "tuned": tuned}, 0.3, strategies=strategies, groups=("overlap", "boundary", "canny", "cod")
    )
    of = {
        group: {name for name, metric in METRICS.items() if metric.group == group}
        for group in ("overlap", "boundary", "canny", "cod")
    }
    expected: set[tuple[str, int, str, str, str]] = set()
    for index in (0, 1):
        for strategy in strategies:
            plain = of["overlap"] | of["boundary"] | of["canny"] | (of["cod"] if strategy == "interior" else set())
            outputs = {"single": plain}
            if strategy != "clicks2":
                outputs |= {"three_best": of["overlap"] | of["boundary"], "three_oracle": of["overlap"]}
                rivals = [DISC, FILLED_BOX] if strategy == "box" else [DISC]
                for rival in rivals:
                    names = of["overlap"] | of["boundary"]
                    expected |= {(rival, index, strategy, "rival", name) for name in names}
            for model in ("base", "tuned"):
                expected |= {(model, index, strategy, o, name) for o, names in outputs.items() for name in names}
    found = [(row.model, row.object, row.strategy, row.output, row.metric) for row in rows]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert all(math.isfinite(row.value) and 0 <= row.value <= 1 and not row.error for row in rows)
    assert {(row.run, row.dataset, row.split, row.record) for row in rows} == {("r", "d", "test", "a")}
    assert {(row.object, row.category, row.supercategory) for row in rows} == {
        (0, "label 0", "super"),
        (1, "label 1", "super"),
    }


def test_without_a_radius_the_trivial_rivals_stay_out(base: Segmenter) -> None:
    bench = Bench(sample("a", labels=False))
    rows = bench.rows({"base": base}, strategies=("box",))
    assert {row.model for row in rows} == {"base"}
    assert {row.category for row in rows} == {"whole"}


def test_values_are_those_of_the_decoder_on_the_same_prompts(base: Segmenter) -> None:
    """Oracle: decode the box of each mask alone, and score its three masks by hand."""
    one = sample("a")
    rows = Bench(one).rows({"base": base}, strategies=("box",))
    embedding = base.encode(one.image)
    for index, truth in enumerate(one.masks):
        ys, xs = np.nonzero(truth)
        box = np.array([[xs.min(), ys.min(), xs.max(), ys.max()]], np.float32)
        prompts = Prompts("box", boxes=box)
        single, three = base.decode(embedding, prompts), base.decode(embedding, prompts, multimask=True)
        ious = [overlap(mask, truth)["iou"] for mask in three.masks()[0]]
        expected = {
            "single": overlap(single.masks()[0, 0], truth)["iou"],
            "three_best": ious[int(three.scores[0].argmax())],
            "three_oracle": max(ious),
        }
        got = {row.output: row.value for row in rows if row.object == index and row.metric == "iou"}
        assert got == pytest.approx(expected)


class Spy:
    """A stand-in for a model's decoding that keeps every question, in original pixels."""

    def __init__(self, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch):
        self.asked: list[tuple[str, Prompts]] = []
        original = Segmenter.decode_each

        def decode_each(
            model: Segmenter, embeddings: Sequence[Embedding], prompts: Sequence[Prompts], *outputs: slice
        ) -> list[Prediction]:
            self.asked += [(model.name, one) for one in prompts]
            return original(model, embeddings, prompts, *outputs)

        monkeypatch.setattr(Segmenter, "decode_each", decode_each)

    def of(self, model: str) -> list[Prompts]:
        return [prompts for name, prompts in self.asked if name == model]


def same(one: Prompts, other: Prompts) -> bool:
    parts = ("points", "labels", "boxes", "masks")
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in parts)


def test_all_models_get_the_same_prompts(base: Segmenter, tuned: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random ones as well, together or in calls of their own: that is how base and specialist are measured."""
    strategies = ("random3", "box_jitter", "grid4", "interior")
    spy = Spy(base, monkeypatch)
    bench = Bench(sample("a", 3), sample("b"))
    bench.rows({"base": base, "tuned": tuned}, strategies=strategies)
    together = spy.of("base")
    assert len(together) == len(spy.of("tuned")) >= 2 * len(strategies)
    assert all(same(one, other) for one, other in zip(together, spy.of("tuned"), strict=True))
    spy.asked.clear()
    bench.rows({"tuned": tuned}, strategies=strategies[::-1])
    alone = {(p.strategy, i): p for i, p in enumerate(sorted(spy.of("tuned"), key=lambda p: p.strategy))}
    first = {(p.strategy, i): p for i, p in enumerate(sorted(together, key=lambda p: p.strategy))}
    assert alone.keys() == first.keys()
    assert all(same(first[key], alone[key]) for key in first)
    spy.asked.clear()
    bench.rows({"base": base}, strategies=strategies, seed=1)
    assert not all(same(one, other) for one, other in zip(spy.of("base"), together, strict=True))


def test_correction_rounds(base: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """clicks4: 1, 2, 3, 4 points, the first as `interior` has it; each answer's logits come back as mask prompt."""
    spy = Spy(base, monkeypatch)
    one = sample("a")
    rows = Bench(one).rows({"base": base}, strategies=("interior", "clicks4"))
    asked = spy.of("base")
    assert [p.points.shape[1] for p in asked if p.points is not None] == [1, 1, 2, 3, 4]
    assert same(asked[0], asked[1])
    for earlier, later in pairwise(asked[1:]):
        answer = base.decode(base.encode(one.image), earlier)
        assert earlier.points is not None
        assert later.points is not None
        assert later.labels is not None
        assert later.masks is not None
        np.testing.assert_array_equal(later.points[:, :-1], earlier.points)
        np.testing.assert_allclose(later.masks, answer.logits[:, 0].numpy(), rtol=1e-4, atol=1e-4)
        wrong = answer.masks()[:, 0] != one.masks
        for index, (x, y) in enumerate(later.points[:, -1].astype(int)):
            assert wrong[index, y, x]
            assert later.labels[index, -1] == one.masks[index, y, x]
    assert {row.output for row in rows if row.strategy == "clicks4"} == {"single"}


def test_what_all_strategies_ask_alike_takes_one_pass_of_the_decoder(
    base: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One click is asked at three places, a box is another form; the scores are those of a call a strategy."""
    passes: list[int] = []
    original = Segmenter._answers
    monkeypatch.setattr(Segmenter, "_answers", lambda *how: passes.append(sum(map(len, how[2]))) or original(*how))
    bench, strategies = Bench(sample("a", 3)), ("interior", "center_of_mass", "box", "random")
    together = bench.rows({"base": base}, strategies=strategies)
    assert sorted(passes) == [3, 9]
    alone = [row for name in strategies for row in bench.rows({"base": base}, strategies=(name,))]
    assert [(r.strategy, r.object, r.output, r.metric) for r in together] == [
        (r.strategy, r.object, r.output, r.metric) for r in alone
    ]
    assert [r.value for r in together] == pytest.approx([r.value for r in alone], abs=1e-3)


def test_the_object_index_counts_empty_masks(base: Segmenter) -> None:
    """Objects 0 and 2 of four are empty; the rows say 1 and 3, with the labels and values of these."""
    whole, gaps = sample("a", 4), sample("a", 4, empty=(0, 2))
    settings: dict[str, Any] = {"strategies": ("box", "grid4", "clicks2")}
    rows = Bench(gaps).rows({"base": base}, **settings)
    assert {(row.object, row.category) for row in rows} == {(1, "label 1"), (3, "label 3")}
    keyed = {(r.object, r.strategy, r.output, r.metric): r.value for r in Bench(whole).rows({"base": base}, **settings)}
    for row in rows:
        assert row.value == pytest.approx(keyed[row.object, row.strategy, row.output, row.metric], abs=1e-3)


def test_an_image_without_objects_has_no_rows(base: Segmenter) -> None:
    bench = Bench(sample("a", 1, empty=(0,)), sample("b", 0))
    made = EvaluateSettings(groups=("overlap",))
    parts = list(evaluate({"base": base}, bench.records, Measuring(bench.load, bench.embed, made, STAMP), 0.3))
    assert parts == [[], []]
    assert not bench.encoded


def test_a_failed_image_has_the_worst_values_and_its_error(base: Segmenter, tuned: Segmenter) -> None:
    """Whether it cannot be read or not encoded; the images after it are measured, and no row is missing."""

    class Failing(Bench):
        def load(self, record: Record) -> Sample:
            if record.id == "b":
                raise DataError("b: cannot be read")
            return super().load(record)

        def embed(self, sample: Sample, segmenter: Segmenter) -> Embedding:
            if sample.id == "c":
                raise DataError("c: was not encoded")
            return super().embed(sample, segmenter)

    bench = Failing(*(sample(name, 1, labels=False) for name in "abcd"))
    groups = ("overlap", "boundary", "canny", "cod")
    asked = ("interior", "box", "clicks2")
    rows = bench.rows({"base": base, "tuned": tuned}, 0.3, strategies=asked, groups=groups)
    errors = {row.record: row.error for row in rows}
    assert errors == {"a": "", "b": "b: cannot be read", "c": "c: was not encoded", "d": ""}

    def keys(record: str) -> Iterator[tuple[str, int, str, str, str, str, str]]:
        for row in rows:
            if row.record == record:
                yield (row.model, row.object, row.strategy, row.output, row.metric, row.category, row.supercategory)

    assert set(keys("a")) == set(keys("b")) == set(keys("c")) == set(keys("d"))
    for row in rows:
        if row.error:
            assert row.value == METRICS[row.metric].worst
    assert {row.value for row in rows if row.record == "b"} == {0.0, 1.0}
    assert {row.model for row in rows if row.error} == {"base", "tuned", DISC, FILLED_BOX}


def test_many_objects_are_measured_in_pieces(base: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows, however little memory there is."""
    bench = Bench(sample("a", 7))
    made: dict[str, Any] = {"strategies": ("interior", "grid4", "clicks2")}
    whole = bench.rows({"base": base}, 0.3, **made)
    spy = Spy(base, monkeypatch)
    monkeypatch.setattr(module, "PIECE_PIXELS", 2 * SIDE * SIDE + 1)
    pieces = bench.rows({"base": base}, 0.3, **made)
    assert max(len(prompts) for prompts in spy.of("base")) == 2

    def keyed(rows: list[Row]) -> dict[Any, float]:
        return {(r.model, r.object, r.strategy, r.output, r.metric): r.value for r in rows}

    assert len(whole) == len(pieces) == len(keyed(whole))
    assert keyed(pieces) == pytest.approx(keyed(whole), abs=1e-3)
    monkeypatch.setattr(module, "PIECE_PIXELS", 1)
    assert len(bench.rows({"base": base}, 0.3, **made)) == len(whole)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"strategies": ("middle",)}, "expected prompt strategies of .* got 'middle'"),
        ({"strategies": ("clicks1",)}, "got 'clicks1'"),
        ({"strategies": ("clicks99",)}, "got 'clicks99'"),
        ({"strategies": ()}, "expected one or more different prompt strategies, got none"),
        ({"strategies": ("box", "box")}, "expected one or more different prompt strategies, got box, box"),
        ({"cod": ("interiour",)}, "got 'interiour'"),
        ({"groups": ("colour",)}, "expected metric groups of overlap"),
    ],
)
def test_wrong_settings_are_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        EvaluateSettings(**changes)
    assert "\n" not in str(caught.value)


def test_names_of_correction_strategies() -> None:
    assert [clicks(name) for name in ("clicks2", "clicks50", "clicks1", "clicks51", "clicks", "box", "clicks-2")] == [
        2,
        50,
        None,
        None,
        None,
        None,
        None,
    ]

"""Results that grow on disk: what is measured again is exactly what changed. Oracle: a run from nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from specialsam.core.errors import DataError
from specialsam.core.geometry import BoolArray, Geometry
from specialsam.core.place import here
from specialsam.core.types import Embedding, Objects, Record, Row, Truth
from specialsam.data.content import Content
from specialsam.evaluation.evaluate import DISC, EvaluateSettings, Measuring
from specialsam.evaluation.results import Asked, Results, measure
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone

SIDE = 64
STAMP = {"run": "r", "dataset": "d", "split": "test", "subset": "4 images"}
SETTINGS = EvaluateSettings(strategies=("box", "interior"), groups=("overlap",), cod=())


def square(number: int, size: int = 20) -> BoolArray:
    mask = np.zeros((1, 48, 64), np.bool_)
    mask[0, 5 + number : 5 + number + size, 10 : 10 + size] = True
    return mask


class World:
    """Four images whose masks can change, and a note of every truth that was asked for."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.base = Segmenter("base", build_nano("conv", SIDE), SIDE)
        self.masks = {name: square(number) for number, name in enumerate("abcd")}
        self.content = {name: Content(f"image {name}", f"mask {name}") for name in "abcd"}
        self.asked: list[str] = []

    def truth(self, record: Record) -> Truth:
        self.asked.append(record.id)
        return Objects(record, self.masks[record.id])

    def embed(self, truth: Truth, segmenter: Segmenter) -> Embedding:
        rng = torch.Generator().manual_seed(ord(truth.id))
        return Embedding(torch.randn(128, 4, 4, generator=rng), Geometry(48, 64, SIDE))

    def wanted(self, names: str = "abcd", settings: EvaluateSettings = SETTINGS) -> Asked:
        records = [Record(name, Path(f"{name}.png")) for name in names]
        return Asked(records, self.content, Measuring(self.truth, self.embed, settings, STAMP))

    def run(
        self, file: Path, model: Segmenter | None = None, asked: Asked | None = None, radius: float | None = 0.2
    ) -> tuple[pd.DataFrame, int, list[str]]:
        """The rows, how many images were measured again, and whose truths were asked for."""
        self.asked = []
        results, again = measure({"base": model or self.base}, asked or self.wanted(), radius, file, here("cpu"), "x")
        return results.frame, again, sorted(set(self.asked))


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    key = ["model", "record", "object", "strategy", "output", "metric"]
    pd.testing.assert_frame_equal(
        one.sort_values(key, ignore_index=True), other.sort_values(key, ignore_index=True), check_dtype=False
    )


def moved(model: Segmenter) -> Segmenter:
    other = clone(model, "base")
    with torch.no_grad():
        other.sam.mask_decoder.mask_tokens.weight += 0.5  # type: ignore[operator, union-attr]
    return other


def test_a_second_call_measures_nothing(tmp_path: Path) -> None:
    world = World()
    first, again, asked = world.run(tmp_path / "rows.jsonl")
    assert (again, asked) == (0, ["a", "b", "c", "d"])
    assert set(first["model"]) == {"base", DISC, "filled box"}
    second, again, asked = world.run(tmp_path / "rows.jsonl")
    assert (again, asked) == (0, [])
    pd.testing.assert_frame_equal(first, second)


def test_a_corrected_mask_is_measured_again_and_nothing_else(tmp_path: Path) -> None:
    world = World()
    world.run(tmp_path / "rows.jsonl")
    world.masks["b"], world.content["b"] = square(9, 30), Content("image b", "another mask")
    found, again, asked = world.run(tmp_path / "rows.jsonl")
    assert (again, asked) == (1, ["b"])
    same(found, world.run(tmp_path / "fresh.jsonl")[0])


def test_rows_of_other_weights_are_measured_again_and_each_result_is_there_once(tmp_path: Path) -> None:
    world = World()
    world.run(tmp_path / "rows.jsonl")
    found, again, asked = world.run(tmp_path / "rows.jsonl", moved(world.base))
    assert (again, asked) == (4, ["a", "b", "c", "d"])
    assert not found.duplicated(["model", "record", "object", "strategy", "output", "metric"]).any()
    same(found, world.run(tmp_path / "fresh.jsonl", moved(world.base))[0])


def test_images_that_come_and_go(tmp_path: Path) -> None:
    """The stamp is that of the whole as it is now, also on rows that were measured before."""
    world = World()
    two = world.wanted("ab")
    restamped = replace(two, how=replace(two.how, stamp={**STAMP, "subset": "2 images"}))
    world.run(tmp_path / "rows.jsonl", asked=restamped)
    found, again, asked = world.run(tmp_path / "rows.jsonl")
    assert (again, asked) == (0, ["c", "d"])
    assert set(found["subset"]) == {"4 images"}
    found, again, asked = world.run(tmp_path / "rows.jsonl", asked=world.wanted("bd"))
    assert (again, asked, set(found["record"])) == (0, [], {"b", "d"})


def test_only_the_rivals_follow_the_radius(tmp_path: Path) -> None:
    world = World()
    before, _, _ = world.run(tmp_path / "rows.jsonl")
    after, again, asked = world.run(tmp_path / "rows.jsonl", radius=0.4)
    assert (again, asked) == (0, ["a", "b", "c", "d"])
    own = [frame[frame["model"] == "base"].reset_index(drop=True) for frame in (before, after)]
    pd.testing.assert_frame_equal(*own)
    discs = [frame[frame["model"] == DISC]["value"].to_numpy() for frame in (before, after)]
    assert not np.array_equal(*discs)


def test_other_settings_are_other_rows(tmp_path: Path) -> None:
    world = World()
    world.run(tmp_path / "rows.jsonl")
    _, again, _ = world.run(tmp_path / "rows.jsonl", asked=world.wanted(settings=replace_seed(SETTINGS)))
    assert again == 4


def replace_seed(given: EvaluateSettings) -> EvaluateSettings:
    return given.model_copy(update={"seed": 1})


def test_a_kill_between_two_rows_loses_no_row_and_doubles_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process stops after each possible number of lines; the next call ends with the rows of an unbroken one."""
    from specialsam.core.ledger import Journal

    world = World()
    whole, _, _ = world.run(tmp_path / "whole.jsonl")
    put = Journal.put
    for lines in range(1, 8):
        file, left = tmp_path / f"{lines}.jsonl", [lines]

        def struck(self: Journal, key: str, made_from: str, answer: Sequence[object], left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            put(self, key, made_from, answer)

        with monkeypatch.context() as patched:
            patched.setattr(Journal, "put", struck)
            with pytest.raises(KeyboardInterrupt):
                world.run(file)
        found, again, _ = world.run(file)
        assert again == 0
        same(found, whole)


def test_results_are_chosen_and_saved(tmp_path: Path) -> None:
    """Oracle: the rows that were put in."""
    rows = [
        Row(**STAMP, model=model, record=record, object=0, strategy="box", output="single", metric="iou", value=value)
        for model, values in {"base": (0.2, 0.4), "tuned": (0.5, 0.6)}.items()
        for record, value in zip("ab", values, strict=True)
    ]
    results = Results.of(rows)
    assert results.only(model="base", record=("a", "b")).frame["value"].tolist() == [0.2, 0.4]
    assert results.pairs("base", "tuned", "box")["gain"].tolist() == pytest.approx([0.3, 0.2])
    assert len(results + results) == 8
    results.save(tmp_path / "results.parquet")
    pd.testing.assert_frame_equal(Results.read(tmp_path / "results.parquet").frame, results.frame, check_dtype=False)
    with pytest.raises(DataError, match="without model"):
        Results(results.frame.drop(columns="model"))
    (tmp_path / "broken.parquet").write_text("no")
    with pytest.raises(DataError, match=r"expected results in .*broken\.parquet"):
        Results.read(tmp_path / "broken.parquet")

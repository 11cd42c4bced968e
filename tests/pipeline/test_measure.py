"""Measuring models without tuning, and the embedding store by itself, on hand-drawn discs.

The oracles: counts of encoder passes, an evaluation without a store, and the numbers of `specialize` itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from disc_data import discs
from PIL import Image

from specialsam.core.errors import ModelError, StoreError, UsageError
from specialsam.embeddings import EmbeddingStore
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.pipeline.job import Request
from specialsam.pipeline.measure import (
    Comparison,
    gains_table,
    means_table,
    names_of,
    price_embed,
    run_embed,
    run_evaluate,
    verify_store,
)
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize

IMAGES = 12
TUNING = SpecializeSettings.parse(
    {
        "seed": 3,
        "train": {"epochs": 1, "keep": "last"},
        "evaluate": {"strategies": ["interior", "box"], "groups": ["overlap"], "seed": 5},
        "duplicates": False,
        "guard": {"enabled": False},
        "probes": 0,
    }
)


def settings(**more: Any) -> EvaluateSettings:
    return EvaluateSettings(**{"strategies": ("interior",), "groups": ("overlap",), "seed": 5} | more)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("measure") / "data", IMAGES, first=100)


@pytest.fixture(scope="module")
def tuned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a specialist whose split is not the default one (another seed)."""
    folder = tmp_path_factory.mktemp("tuned") / "discs"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("specialsam.report.html.write_report", lambda *_: None)
        assert run_specialize(Request(str(data), "nano", folder), TUNING) is not None
    return folder


def test_base_and_specialist_on_three_strategies_encode_each_image_once(
    data: Path, tuned: Path, tmp_path: Path, encoded: list[int]
) -> None:
    models = ["nano", str(tuned / "specialist")]
    three = settings(strategies=("interior", "box", "clicks3"))
    measured = run_evaluate(Comparison(str(data), models, tmp_path / "run", "all"), three)
    assert sum(encoded) == IMAGES
    own = measured.summary[measured.summary.output != "rival"]
    assert set(own["model"]) == {"nano", "discs"}
    assert set(own["strategy"]) == {"interior", "box", "clicks3"}
    assert set(own["n"]) == {IMAGES}
    assert {"run.json", "results.parquet", "summary.csv", "means.csv", "comparison.csv", "rows.jsonl"} == {
        path.name for path in (tmp_path / "run").iterdir()
    }
    wide = own[(own.metric == "iou") & (own.output == "single")].pivot(index="strategy", columns="model", values="mean")
    gains = measured.gains[(measured.gains.metric == "iou") & (measured.gains.output == "single")].set_index("strategy")
    assert np.allclose(gains["gain"], (wide["discs"] - wide["nano"])[gains.index])
    assert set(gains["over"]) == {"nano"}
    lines = gains_table(measured.gains).splitlines()
    assert lines[0].endswith("over nano")
    assert [line.split()[:2] for line in lines[1:]] == [[strategy, "discs"] for strategy in gains.index]


def test_a_specialist_is_measured_on_its_own_test_split(
    data: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the run that tuned it, whose numbers come out again (half precision there, single here)."""
    splits = json.loads((tuned / "run.json").read_text())["splits"]
    unseen = {name for name, split in splits.items() if split == "test"}
    models = ["nano", str(tuned / "specialist")]
    run_evaluate(Comparison(str(data), models, tmp_path / "run", "test"), settings(strategies=("interior", "box")))
    rows = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert set(rows["record"]) == unseen
    assert "note:" not in capsys.readouterr().out
    names = ["model", "prompt_strategy"]
    theirs = pd.read_csv(tuned / "summary.csv").replace({"base": "nano", "specialist": "discs"})
    both = pd.read_csv(tmp_path / "run" / "summary.csv").merge(theirs, on=names, suffixes=("", "_run"))
    assert len(both) == 4
    np.testing.assert_allclose(both["iou_mean"], both["iou_mean_run"], atol=0.01)


def test_another_split_than_the_specialists_is_said(
    data: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shares = (0.4, 0.2, 0.4)
    run_evaluate(Comparison(str(data), [str(tuned / "specialist")], tmp_path / "run", "test", shares), settings())
    assert "note: discs was tuned on other images" in capsys.readouterr().out


def test_a_store_is_filled_and_read(data: Path, tmp_path: Path, encoded: list[int]) -> None:
    store = tmp_path / "store"
    live = run_evaluate(Comparison(str(data), ["nano"], tmp_path / "live", "test"), settings())
    count = sum(encoded)
    for name in ("first", "second"):
        stored = run_evaluate(Comparison(str(data), ["nano"], tmp_path / name, "test", store=store), settings())
        assert sum(encoded) == 2 * count, "encoded once for the live run, once for the store"
        assert len(list(store.rglob("*.safetensors"))) == 1, "one shard for all images, not one an image"
        np.testing.assert_allclose(stored.summary["mean"], live.summary["mean"], atol=0.01)


def test_all_images_are_measured_though_they_show_one_scene(tmp_path: Path) -> None:
    """Where nothing was learned nothing need be kept apart; cutting frames of a fixed camera would leave some out."""
    scene = discs(tmp_path / "data", 1)
    for number in range(1, 12):
        for part in ("images", "masks"):
            shutil.copy(scene / part / "000.png", scene / part / f"{number:03d}.png")
    measured = run_evaluate(Comparison(str(scene), ["nano"], tmp_path / "run", "all"), settings(strategies=("box",)))
    assert measured is not None
    assert set(measured.summary["n"]) == {12}


def test_killed_evaluation_goes_on(
    data: Path, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the unbroken evaluation."""
    whole = run_evaluate(Comparison(str(data), ["nano"], tmp_path / "whole", "all"), settings())
    assert sum(encoded) == IMAGES
    real, calls = Segmenter.encode, iter(range(100))

    def deadly(self: Segmenter, image: Any) -> Any:
        if next(calls) == 5:
            raise KeyboardInterrupt
        return real(self, image)

    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "encode", deadly)
        with pytest.raises(KeyboardInterrupt):
            run_evaluate(Comparison(str(data), ["nano"], tmp_path / "run", "all"), settings())
    assert not (tmp_path / "run" / "means.csv").exists()
    again = run_evaluate(Comparison(str(data), ["nano"], tmp_path / "run", "all"), settings())
    assert sum(encoded) == 2 * IMAGES, "five before the kill, the others after it"
    pd.testing.assert_frame_equal(again.summary, whole.summary)


def test_other_models_in_the_same_folder_are_refused(data: Path, tuned: Path, tmp_path: Path) -> None:
    run_evaluate(Comparison(str(data), ["nano"], tmp_path / "run", "val"), settings())
    with pytest.raises(UsageError, match=r"holds a run with another models\.nano, models\.discs; choose another --out"):
        run_evaluate(Comparison(str(data), [str(tuned / "specialist")], tmp_path / "run", "val"), settings())


def test_a_split_without_images_and_tables_without_iou_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected images in split test of .*, got none"):
        run_evaluate(Comparison(str(data), ["nano"], tmp_path / "run", "test", (0.8, 0.2, 0.0)), settings())
    with pytest.raises(UsageError, match="expected overlap among the groups"):
        run_evaluate(Comparison(str(data), ["nano"], tmp_path / "run", "test"), settings(groups=("boundary",)))


def test_names_are_short_and_differ() -> None:
    models = ["nano", "runs/leaves/specialist", "other/leaves/run/specialist", "weights/nano", "run"]
    assert list(names_of(models)) == ["nano", "leaves", "leaves (2)", "nano (2)", "run"]
    assert list(names_of(models).values()) == models


def test_table_for_the_terminal_shows_failures() -> None:
    row = {"strategy": "box", "model": "nano", "output": "single", "metric": "iou", "mean": 0.5, "low": 0.4}
    table = means_table(pd.DataFrame([row | {"high": 0.6, "n": 7, "failed": 2}]))
    assert table.splitlines()[1].split() == ["box", "nano", "single", "50.0", "40.0", "to", "60.0", "7,", "2", "failed"]


def flip_byte(store: Path) -> None:
    """Change one byte in the middle of the largest shard."""
    shard = max(store.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    content = bytearray(shard.read_bytes())
    content[-1000] ^= 0xFF
    shard.write_bytes(content)


def test_verify_names_the_damaged_entry_and_embed_mends_it(
    data: Path, tmp_path: Path, encoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    chosen = SpecializeSettings.parse({"duplicates": False})
    run_embed(Request(str(data), "nano", store, store=store), chosen)
    assert sum(encoded) == IMAGES
    verify_store(Request(str(data), "nano", store, store=store), chosen)
    assert capsys.readouterr().out.splitlines()[-1] == f"{store}: 0 damaged embeddings"
    flip_byte(store)
    verify_store(Request(str(data), "nano", store, store=store), chosen)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"{store}: 1 damaged embeddings"
    assert printed[-2].startswith("damaged: 0")
    run_embed(Request(str(data), "nano", store, store=store), chosen)
    assert sum(encoded) == IMAGES + 1
    assert "1 made" in capsys.readouterr().out
    verify_store(Request(str(data), "nano", store, store=store), chosen)
    assert capsys.readouterr().out.splitlines()[-1] == f"{store}: 0 damaged embeddings"


def test_price_of_a_store_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    price_embed(
        Request(str(data), "nano", tmp_path / "store", store=tmp_path / "store"), SpecializeSettings(duplicates=False)
    )
    assert f"{IMAGES} of {IMAGES} embeddings to make" in capsys.readouterr().out
    assert not (tmp_path / "store").exists()


def test_verify_of_another_encoders_store_says_whose_it_is(data: Path, tmp_path: Path) -> None:
    other = "0123456789abcdef"
    shard = tmp_path / "store" / other / "0123456789abcdef-01234567.safetensors"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"")
    own = load_model("nano").encoder_id
    with pytest.raises(StoreError, match=f"expected embeddings of encoder {own} in .*, found embeddings of {other}"):
        verify_store(Request(str(data), "nano", tmp_path / "store", store=tmp_path / "store"), SpecializeSettings())


def test_embeddings_of_two_encoders_in_one_store_stay_apart(data: Path, tmp_path: Path, encoded: list[int]) -> None:
    """A store that another encoder filled holds nothing for this one: all is encoded, and both remain."""
    import torch

    store, chosen = tmp_path / "store", SpecializeSettings(duplicates=False)
    other = load_model("nano")
    with torch.no_grad():
        next(other.encoder.parameters()).add_(0.1)
    other.forget_ids()
    image = np.asarray(Image.open(data / "images" / "000.png"))
    theirs = EmbeddingStore(store, other.encoder_id)
    with theirs.writer() as writer:
        writer.put(theirs.key("file:x"), other.encode(image), "000")
    before = sum(encoded)
    run_embed(Request(str(data), "nano", store, store=store), chosen)
    assert sum(encoded) - before == IMAGES
    assert len(EmbeddingStore(store, other.encoder_id)) == 1
    assert len(EmbeddingStore(store, load_model("nano").encoder_id)) == IMAGES


def test_a_decoder_is_measured_on_the_base_that_is_named(data: Path, tmp_path: Path) -> None:
    """nano's own decoder as a file of its own: on nano it answers as nano does, by itself it is refused."""
    state = load_model("nano").sam.state_dict()
    path = tmp_path / "decoder.pth"
    torch.save({name: value for name, value in state.items() if name.startswith("mask_decoder.")}, path)
    asked = Comparison(str(data), ["nano", str(path)], tmp_path / "run", base="nano")
    measured = run_evaluate(asked, settings())
    assert measured is not None
    assert measured.gains is not None
    assert np.allclose(measured.gains[["gain", "low", "high"]], 0)
    with pytest.raises(ModelError, match="--base"):
        run_evaluate(Comparison(str(data), [str(path)], tmp_path / "alone"), settings())

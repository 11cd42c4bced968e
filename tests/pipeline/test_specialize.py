"""The main job end to end on hand-drawn discs with the bundled model.

The oracles: the job's own unbroken run (for runs that were killed), a fresh call of the model (for the saved
specialist), counts of encoder passes, and the file formats that the documents promise. No score is asserted: the
bundled weights may change.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from disc_data import discs, small
from PIL import Image

from specialsam.core.console import say
from specialsam.core.errors import SpecialSamError, UsageError
from specialsam.core.types import Prompts
from specialsam.embeddings import EmbeddingStore
from specialsam.models.load import load_model
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import read_card
from specialsam.pipeline import specialize as job
from specialsam.pipeline.job import Request
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import price_specialize, resume, run_folder, run_specialize
from specialsam.training.settings import FinderSettings, TrainSettings
from specialsam.training.state import EpochFacts, TrainResult

SEED_COLUMNS = (
    "model,prompt_strategy,iou_mean,iou_std,dice_mean,dice_std,f1_mean,f1_std,"
    "boundary_prec_mean,boundary_prec_std,boundary_recall_mean,boundary_f1_mean,num_samples"
)
"""The 13 columns of the original study's results table."""
TABLES = ("summary.csv", "means.csv", "comparison.csv")
IMAGES = 12


def facts(*ious: float) -> TrainResult:
    history = [EpochFacts(epoch, None, 0.0, iou) for epoch, iou in enumerate(ious)]
    return TrainResult(history, len(ious) - 1, "", "", "", 0)


def rows(**ious: float) -> Any:
    return SimpleNamespace(rows=[SimpleNamespace(alpha=float(name[1:]) / 100, iou=iou) for name, iou in ious.items()])


@pytest.mark.parametrize(
    ("result", "kept", "alpha", "expected"),
    [
        (facts(0.7, 0.8, 0.6), None, 1.0, (0.7, 0.6)),  # train.keep=last: not the best that was seen
        (facts(0.7, 0.72), rows(a0=0.71, a50=0.73, a100=0.72), 0.5, (0.71, 0.73)),
        (facts(0.7, 0.72), rows(a0=0.71, a100=0.72), 0.0, (0.71, 0.71)),  # the guard hands on the base
        (facts(0.7, 0.6), None, 0.0, (0.7, 0.7)),
        (facts(math.nan, math.nan), None, 1.0, None),  # no validation split
    ],
)
def test_a_card_has_the_score_of_the_weights_handed_on(
    result: TrainResult, kept: Any, alpha: float, expected: tuple[float, float] | None
) -> None:
    said = dict(zip(("base", "kept"), expected, strict=True)) if expected else None
    assert job._validated(result, kept, alpha) == ({"val_iou": said} if said else {})


def test_one_seed_is_followed_by_those_that_are_not_given() -> None:
    made = SpecializeSettings.parse({"seed": 7, "evaluate": {"seed": 3}})
    assert (made.seed, made.train.seed, made.finder.seed, made.search.seed, made.evaluate.seed) == (7, 7, 7, 7, 3)
    assert SpecializeSettings.parse(made.model_dump(mode="json")) == made
    for lenient in (7.0, "7"):
        assert SpecializeSettings.parse({"seed": lenient, "evaluate": {"seed": 3}}) == made
    own = SpecializeSettings(seed=7, train=TrainSettings(epochs=2), finder=FinderSettings(seed=1))
    assert (own.train.seed, own.train.epochs, own.finder.seed, own.search.seed) == (7, 2, 1, 7)
    with pytest.raises(UsageError) as caught:
        SpecializeSettings.parse({"seed": -1})
    assert str(caught.value).count("seed") == 2, "one mistake, said once"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rows_of(folder: Path) -> Any:
    """All rows of a run in a stable order, without the column that holds the folder's name."""
    frame = pd.read_parquet(folder / "results.parquet").drop(columns="run")
    names = ["model", "record", "object", "strategy", "output", "metric"]
    return frame.sort_values(names, ignore_index=True)


def quiet_report(*_: Any, **__: Any) -> None:
    """Stands for the pictures of the report, where only the tables are looked at."""


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specialsam.report.html.write_report", quiet_report)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("discs") / "data", IMAGES)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one unbroken run, to be read only."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_specialize(Request(str(data), "nano", folder), small()) is not None
    return folder


def test_leaves_every_file_that_is_promised(whole: Path, data: Path) -> None:
    """The list is that of the module's docstring and of the seed's results table."""
    facts = json.loads((whole / "run.json").read_text())
    assert facts["identity"]["source"] == str(data)
    assert facts["identity"]["settings"] == small().model_dump(mode="json")
    assert len(facts["splits"]) == IMAGES
    assert set(facts["splits"].values()) == {"train", "val", "test"}
    steps = {
        "embed",
        "base evaluation",
        "general images",
        "train",
        "guard",
        "finder",
        "specialist evaluation",
        "report",
    }
    assert set(facts["seconds"]) == steps
    assert facts["encoder"]["before"] == facts["encoder"]["after"]
    assert facts["peak_memory_mb"] > 0
    assert (whole / "summary.csv").read_text().splitlines()[0] == SEED_COLUMNS
    summary = pd.read_csv(whole / "summary.csv")
    assert [tuple(pair) for pair in summary[["model", "prompt_strategy"]].to_numpy()] == [
        (model, strategy) for model in ("base", "specialist") for strategy in ("interior", "box")
    ]
    tests = sum(split == "test" for split in facts["splits"].values())
    assert set(summary["num_samples"]) == {tests}
    assert summary["boundary_f1_mean"].isna().all(), "the Canny boundary was not asked for"
    assert set(pd.read_csv(whole / "comparison.csv")["metric"]) == {"iou", "dice"}
    means = pd.read_csv(whole / "means.csv")
    assert {"base", "specialist", "disc of median size", "filled box"} == set(means["model"])
    assert list((whole / "figures").iterdir())
    assert "<html" in (whole / "report.html").read_text()
    history = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert history
    assert not list(whole.rglob("*.tmp*")), "nothing half-written is left"


def test_summary_is_the_mean_of_the_rows(whole: Path) -> None:
    """Oracle: the mean and standard deviation (ddof 0) by numpy over the raw rows of one object an image."""
    rows = rows_of(whole)
    line = pd.read_csv(whole / "summary.csv").iloc[-1]
    values = rows[
        (rows.model == "specialist") & (rows.strategy == "box") & (rows.output == "single") & (rows.metric == "iou")
    ]["value"]
    assert line["iou_mean"] == pytest.approx(np.mean(values))
    assert line["iou_std"] == pytest.approx(np.std(values))


def test_specialist_folder_gives_the_masks_that_were_measured(whole: Path, data: Path) -> None:
    """Oracle: the IoU in the results, made anew with the loaded folder on a freshly encoded image."""
    segmenter = load_model(whole / "specialist")
    rows = rows_of(whole)
    rows = rows[
        (rows.model == "specialist") & (rows.strategy == "box") & (rows.output == "single") & (rows.metric == "iou")
    ]
    assert len(rows)
    for row in rows.to_dict("records"):
        image = np.asarray(Image.open(data / "images" / f"{row['record']}.png"))
        truth = np.asarray(Image.open(data / "masks" / f"{row['record']}.png")) > 127
        columns, lines = np.flatnonzero(truth.any(0)), np.flatnonzero(truth.any(1))
        box = np.array([[columns[0], lines[0], columns[-1], lines[-1]]], np.float32)
        mask = segmenter.decode(segmenter.encode(image), Prompts("box", boxes=box)).masks()[0, 0]
        iou = (mask & truth).sum() / (mask | truth).sum()
        assert iou == pytest.approx(row["value"], abs=0.01), "half precision in the store, single precision here"


def test_saved_specialist_is_the_tuned_model_bit_for_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned: list[Segmenter] = []
    real = job.clone

    def kept(segmenter: Segmenter, name: str) -> Segmenter:
        tuned.append(real(segmenter, name))
        return tuned[-1]

    monkeypatch.setattr(job, "clone", kept)
    settings = small(train={"epochs": 1, "keep": "last"}, guard={"enabled": False})
    assert run_specialize(Request(str(data), "nano", tmp_path / "run"), settings, measured=False) is None
    loaded = load_model(tmp_path / "run" / "specialist").sam.state_dict()
    base = load_model("nano").sam.state_dict()
    expected = tuned[0].sam.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert any(not torch.equal(base[name], value) for name, value in expected.items() if "mask_decoder" in name)


def test_second_identical_call_encodes_nothing_and_gives_equal_tables(
    whole: Path, data: Path, encoded: list[int]
) -> None:
    before = {name: (whole / name).read_text() for name in TABLES}
    rows = rows_of(whole)
    outcome = run_specialize(Request(str(data), "nano", whole), small())
    assert outcome is not None
    assert encoded == []
    assert {name: (whole / name).read_text() for name in TABLES} == before
    pd.testing.assert_frame_equal(rows_of(whole), rows)


def test_other_settings_in_the_same_folder_are_refused_in_one_line(whole: Path, data: Path) -> None:
    before = (whole / "run.json").read_text()
    words = r"another settings\.seed, settings\.train\.seed, .* and 2 more; choose another --out"
    with pytest.raises(UsageError, match=words) as caught:
        run_specialize(Request(str(data), "nano", whole), small(seed=1))
    assert "\n" not in str(caught.value)
    assert (whole / "run.json").read_text() == before


def test_report_is_made_anew_from_the_folder_alone(whole: Path, encoded: list[int]) -> None:
    before = {name: (whole / name).read_text() for name in TABLES}
    for name in ("report.html", *TABLES):
        (whole / name).unlink()
    outcome = resume(whole)
    assert outcome is not None
    assert outcome.report.read_text().rstrip().endswith("</html>")
    assert encoded == []
    assert {name: (whole / name).read_text() for name in TABLES} == before


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"identity": 3}', "\x80"])
def test_report_of_a_damaged_run_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content, encoding="latin-1")
    with pytest.raises(SpecialSamError, match=r"expected a readable .*run\.json"):
        resume(tmp_path)


def test_report_of_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a run folder with run\.json, found none"):
        resume(tmp_path)


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("where", ["encoding", "measuring the base", "tuning", "measuring the specialist"])
def test_killed_run_goes_on_to_the_same_tables(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Oracle: the unbroken run. The kill comes with the second progress report of a stage."""
    from contextlib import contextmanager

    from specialsam.core.console import stage

    killed: list[str] = []

    @contextmanager
    def deadly(title: str) -> Iterator[Any]:
        calls = 0

        def progress(done: int, total: int, what: str = "") -> None:
            nonlocal calls
            calls += 1
            if title == where and calls == 2:
                killed.append(title)
                raise KeyboardInterrupt

        with stage(title):
            yield progress

    folder = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(job, "stage", deadly)
        patched.setattr("specialsam.pipeline.embedded.stage", deadly)
        patched.setattr("specialsam.evaluation.results.stage", deadly)
        with pytest.raises(KeyboardInterrupt):
            run_specialize(Request(str(data), "nano", folder), small())
    assert killed == [where]
    assert not (folder / "summary.csv").exists()
    assert run_specialize(Request(str(data), "nano", folder), small()) is not None
    for name in TABLES:
        pd.testing.assert_frame_equal(pd.read_csv(folder / name), pd.read_csv(whole / name), check_exact=True)
    pd.testing.assert_frame_equal(rows_of(folder), rows_of(whole), check_exact=True)


@pytest.mark.usefixtures("without_pictures")
def test_train_then_specialize_goes_on_in_the_same_folder(
    whole: Path, data: Path, tmp_path: Path, encoded: list[int]
) -> None:
    folder = tmp_path / "run"
    assert run_specialize(Request(str(data), "nano", folder), small(), measured=False) is None
    assert (folder / "specialist" / "specialist.json").exists()
    assert not (folder / "rows-base.jsonl").exists()
    assert sum(encoded) == IMAGES
    assert run_specialize(Request(str(data), "nano", folder), small()) is not None
    assert sum(encoded) == IMAGES
    pd.testing.assert_frame_equal(rows_of(folder), rows_of(whole), check_exact=True)


def test_unreadable_images_are_counted_and_shown(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truncated test image counts as failed with the worst value, a truncated training image is listed."""
    splits = json.loads((whole / "run.json").read_text())["splits"]
    test, train = (min(name for name, split in splits.items() if split == which) for which in ("test", "train"))
    data = discs(tmp_path / "data", IMAGES)
    truncate(data / "images" / f"{test}.png")
    truncate(data / "images" / f"{train}.png")
    folder = tmp_path / "run"
    outcome = run_specialize(Request(str(data), "nano", folder), small(train={"epochs": 1}))
    assert outcome is not None
    printed = capsys.readouterr().out
    assert f"failed: {train}: " in printed
    assert f"failed: {test}: " in printed
    rows = pd.read_parquet(folder / "results.parquet")
    failed = rows[rows.record == test]
    assert len(failed)
    assert failed["error"].str.contains("damaged or cut short").all()
    assert (failed["value"] == 0).all()
    means = pd.read_csv(folder / "means.csv")
    models = means[means.model.isin(["base", "specialist"])]
    assert (models["failed"] == 1).all()
    count = sum(split == "test" for split in splits.values())
    assert (models["n"] == count).all(), "the failed image stays in the mean"
    own = rows[(rows.model == "base") & (rows.metric == "iou") & (rows.output == "single") & (rows.strategy == "box")]
    line = models[(models.model == "base") & (models.metric == "iou") & (models.output == "single")]
    assert float(line[line.strategy == "box"]["mean"].iloc[0]) == pytest.approx(own["value"].sum() / count)
    comparison = pd.read_csv(folder / "comparison.csv")
    assert (comparison["failed_base"] == 1).all()
    page = (folder / "report.html").read_text()
    for name in (test, train):
        assert re.search(rf"{name}\.png</code></td><td[^>]*>not encoded<", page)


@pytest.mark.usefixtures("without_pictures")
def test_views_are_encoded_and_trained_on(data: Path, tmp_path: Path, encoded: list[int]) -> None:
    folder = tmp_path / "run"
    seen: list[int] = []
    real = job.train

    def spied(tuned: Any, items: Any, *rest: Any) -> Any:
        seen.extend((len(items.train), len(items.val)))
        names = [item.id for item in items.train]
        assert len({item.key for item in items.train}) == len(names) == len(set(names))
        return real(tuned, items, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(job, "train", spied)
        run_specialize(Request(str(data), "nano", folder), small(views="flip", train={"epochs": 1}), measured=False)
    assert small(views="flip") == small(views={"count": 1, "flip": 1.0})
    sizes = list(json.loads((folder / "run.json").read_text())["splits"].values())
    assert seen == [2 * sizes.count("train"), sizes.count("val")]
    assert sum(encoded) == IMAGES + sizes.count("train")


@pytest.mark.usefixtures("without_pictures")
def test_limit_takes_a_stable_subset(whole: Path, data: Path, tmp_path: Path, encoded: list[int]) -> None:
    for name in ("one", "two"):
        run_specialize(Request(str(data), "nano", tmp_path / name, limit=6), small(train={"epochs": 1}), measured=False)
    first, second = (json.loads((tmp_path / name / "run.json").read_text())["splits"] for name in ("one", "two"))
    assert first == second
    assert len(first) == 6
    assert sum(encoded) == 12
    assert set(first) < set(json.loads((whole / "run.json").read_text())["splits"])


def test_dry_run_prices_and_writes_nothing(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    say(price_specialize(Request(str(data), "nano", folder), small()))
    assert not folder.exists()
    line = capsys.readouterr().out.splitlines()[-1]
    assert re.search(rf"{IMAGES} of {IMAGES} embeddings to make \(0 stored\): \d+\.\d\d GB and about .*\d s", line)


@pytest.mark.usefixtures("without_pictures")
def test_whole_model_is_tuned_on_pixels(data: Path, tmp_path: Path) -> None:
    """Mode all: the encoder moves, the base does not, the folder holds every tensor and gives the masks measured."""
    base = load_model("nano")
    before = base.encoder_id
    settings = small(train={"epochs": 1, "mode": "all", "keep": "last", "lr": 1e-4})
    assert run_specialize(Request(str(data), "nano", tmp_path / "run", limit=8), settings) is not None
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    tuned = load_model(tmp_path / "run" / "specialist")
    assert tuned.encoder_id != before == load_model("nano").encoder_id
    assert facts["identity"]["encoder"] == before
    rows = rows_of(tmp_path / "run")
    row = rows[
        (rows.model == "specialist") & (rows.strategy == "box") & (rows.output == "single") & (rows.metric == "iou")
    ].iloc[0]
    image = np.asarray(Image.open(data / "images" / f"{row['record']}.png"))
    truth = np.asarray(Image.open(data / "masks" / f"{row['record']}.png")) > 127
    columns, lines = np.flatnonzero(truth.any(0)), np.flatnonzero(truth.any(1))
    box = np.array([[columns[0], lines[0], columns[-1], lines[-1]]], np.float32)
    mask = tuned.decode(tuned.encode(image), Prompts("box", boxes=box)).masks()[0, 0]
    assert (mask & truth).sum() / (mask | truth).sum() == pytest.approx(row["value"], abs=1e-6)


@pytest.mark.usefixtures("without_pictures")
def test_int8_embeddings_are_smaller_and_change_little(whole: Path, data: Path, tmp_path: Path) -> None:
    assert run_specialize(Request(str(data), "nano", tmp_path / "run"), small(precision="int8")) is not None
    encoder = load_model("nano").encoder_id
    sizes = [
        sum(entry.bytes for entry in EmbeddingStore(folder / "embeddings", encoder, precision).entries())
        for folder, precision in ((whole, "half"), (tmp_path / "run", "int8"))
    ]
    assert 0 < sizes[1] < 0.6 * sizes[0]
    base = [rows[rows.model == "base"]["value"].to_numpy() for rows in (rows_of(whole), rows_of(tmp_path / "run"))]
    assert np.median(np.abs(base[0] - base[1])) < 0.02


def test_headline_strategy_must_be_evaluated() -> None:
    with pytest.raises(
        UsageError, match=r"main_strategy: .*expected one of evaluate\.strategies \(box\), got 'interior'"
    ):
        small(evaluate={"strategies": ["box"]})
    assert small(evaluate={"strategies": ["box"]}, main_strategy="box").main_strategy == "box"


def test_tables_need_the_overlap_group() -> None:
    with pytest.raises(UsageError, match=r"evaluate: .*expected overlap among the groups"):
        small(evaluate={"groups": ["boundary"]})


def test_no_test_split_is_refused_before_the_work(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected images in the test split"):
        run_specialize(Request(str(data), "nano", tmp_path / "run"), small(fractions=(0.8, 0.2, 0.0)))
    assert not (tmp_path / "run").exists()


def test_run_folder_is_named_after_source_and_model(tmp_path: Path) -> None:
    assert run_folder(f"folder:{tmp_path / 'leaves'}", "nano", None) == Path("runs/leaves-nano")
    assert run_folder("leaves", "weights/sam_vit_b.pth", None) == Path("runs/leaves-sam_vit_b")
    assert run_folder("leaves", "nano", tmp_path) == tmp_path


MEMORY = """
import sys
from pathlib import Path
from specialsam.core.machine import peak_memory_mb
from specialsam.pipeline.measure import Comparison, run_evaluate
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.pipeline.job import Request
settings = EvaluateSettings(strategies=("interior",), groups=("overlap",))
for name in sys.argv[2:]:
    folder = Path(sys.argv[1])
    asked = Comparison(f"folder:{folder / name}", ["nano"], folder / f"run-{name}", "all", store=folder / "store")
    run_evaluate(asked, settings)
    print(f"peak {peak_memory_mb()}")
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Peak resident memory after 8 images and after 28 more of the same size, in one process.

    An image with its mask and probability maps takes 5 MB and more, so that keeping them would show as 140 MB.
    """
    discs(tmp_path / "few", 8, (512, 512))
    discs(tmp_path / "many", 28, (512, 511))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), "few", "many"], capture_output=True, text=True, check=True
    )
    few, many = (float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak"))
    assert many - few < 60


def rows_and_tables(folder: Path) -> list[pd.DataFrame]:
    return [rows_of(folder), *(pd.read_csv(folder / name) for name in TABLES)]


def as_fresh(folder: Path, fresh: Path) -> None:
    """The tables of a run that went on are those of a run from nothing; each result is there once."""
    for own, other in zip(rows_and_tables(folder), rows_and_tables(fresh), strict=True):
        pd.testing.assert_frame_equal(own, other, check_exact=True)
    cards = [read_card(place / "specialist") for place in (folder, fresh)]
    assert cards[0].model_dump(exclude={"version"}) == cards[1].model_dump(exclude={"version"})


def invert(path: Path) -> None:
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_corrected_masks_are_learned_and_measured_anew(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All masks were inverted and are put right; then the mask of one test image alone is changed."""
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    masks = sorted((copy / "masks").iterdir())
    for path in masks:
        invert(path)
    folder, settings = tmp_path / "run", small(train={"epochs": 1})
    first = run_specialize(Request(str(copy), "nano", folder), settings)
    assert first is not None
    wrong = read_card(folder / "specialist").data_fingerprint
    for path in masks:
        invert(path)
    capsys.readouterr()
    second = run_specialize(Request(str(copy), "nano", folder), settings)
    said = capsys.readouterr().out
    assert second is not None
    assert f"images or masks {IMAGES} changed since the last call; what they touch is done again" in said
    assert "embeddings: 0 made" in said
    assert run_specialize(Request(str(copy), "nano", tmp_path / "fresh"), settings) is not None
    as_fresh(folder, tmp_path / "fresh")
    assert read_card(folder / "specialist").data_fingerprint != wrong
    split = json.loads((folder / "run.json").read_text())["splits"]
    test = next(name for name, part in split.items() if part == "test")
    invert(copy / "masks" / f"{test}.png")
    capsys.readouterr()
    assert run_specialize(Request(str(copy), "nano", folder), settings) is not None
    said = capsys.readouterr().out
    assert "base: 1 of 2 test images measured again" in said
    assert "1 changed since" in said


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_added_images_join_and_each_prompt_has_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    later = discs(tmp_path / "later", 8, first=500)
    folder, settings = tmp_path / "run", small(train={"epochs": 1})
    assert run_specialize(Request(str(copy), "nano", folder), settings) is not None
    for kind in ("images", "masks"):
        for path in (later / kind).iterdir():
            shutil.copy(path, copy / kind / f"later-{path.name}")
    capsys.readouterr()
    assert run_specialize(Request(str(copy), "nano", folder), settings) is not None
    said = capsys.readouterr().out
    assert "images or masks 8 added since the last call" in said
    assert "embeddings: 8 made" in said
    assert run_specialize(Request(str(copy), "nano", tmp_path / "fresh"), settings) is not None
    as_fresh(folder, tmp_path / "fresh")
    summary = pd.read_csv(folder / "summary.csv")
    assert not summary.duplicated(["model", "prompt_strategy"]).any()

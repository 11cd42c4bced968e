"""The finder within the main job. Oracles: what the folder holds, how often something was learned, the journal."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from disc_data import discs, small
from PIL import Image

from specialsam.core.errors import UsageError
from specialsam.models.finder_files import FINDER, MEMORY, Alarm
from specialsam.models.specialist import load_finder, read_card, write_card
from specialsam.pipeline import finding
from specialsam.pipeline.job import Request, open_job
from specialsam.pipeline.measure import Comparison, names_of, run_evaluate_found
from specialsam.pipeline.plan import plan
from specialsam.pipeline.specialize import resume, run_specialize

OBJECTS, BLANK = 10, 20


def with_blanks(folder: Path) -> Path:
    """Discs, and pictures of the same ground with an empty mask each."""
    discs(folder, OBJECTS)
    for number in range(BLANK):
        rng = np.random.default_rng(900 + number)
        Image.fromarray(rng.integers(60, 120, (72, 96, 3)).astype(np.uint8)).save(folder / f"images/b{number:02d}.png")
        Image.fromarray(np.zeros((72, 96), np.uint8)).save(folder / f"masks/b{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    return with_blanks(tmp_path_factory.mktemp("blanks") / "set")


@pytest.fixture(scope="module")
def run(source: Path) -> Iterator[Path]:
    folder = source.parent / "run"
    run_specialize(Request(str(source), "nano", folder), small())
    return folder


def test_images_of_nothing_have_splits_of_their_own(source: Path) -> None:
    """Every labelled image is in one split; the objects' splits are those without the others; few are all learned."""
    layout = plan(str(source), (0.7, 0.15, 0.15), 0, duplicates=False)
    assert len(layout.splits) == OBJECTS
    assert len(layout.blank) == BLANK
    assert not layout.splits.keys() & layout.blank.keys()
    assert set(layout.blank.values()) == {"train", "val", "test"}
    assert layout.content.keys() == layout.splits.keys() | layout.blank.keys()
    limited = plan(str(source), (0.7, 0.15, 0.15), 0, limit=5, duplicates=False)
    assert len(limited.splits) == len(limited.blank) == 5


def test_a_run_leaves_a_finder_and_tells_what_it_finds(run: Path, source: Path) -> None:
    card, layout = read_card(run / "specialist"), plan(str(source), (0.7, 0.15, 0.15), 0, duplicates=False)
    assert card.finder is not None
    train = sum(split == "train" for split in layout.blank.values())
    assert card.finder.learned_from == {"images": len(layout.of("train")), "blank": train}
    assert (run / "specialist" / FINDER).exists()
    assert (run / "specialist" / MEMORY).exists()
    held = len(layout.blanks("val"))
    assert len(card.alarm.good_scores) == held - min(20, held // 3)
    table = pd.read_csv(run / "finding.csv")
    assert set(table.model) == {
        "specialist",
        "base",
        "nearest neighbours",
        "spectral residual",
        "minimum barrier",
        "point grid",
    }
    shown = table[table.model == "specialist"].set_index("metric")
    assert shown.loc["iou", "n"] == len(layout.of("test"))
    assert shown.loc["false_images", "n"] == len(layout.blanks("test"))
    assert {"pixel_f1max", "aupro", "iou_good", "image_auroc"} <= set(shown.index)
    page = (run / "report.html").read_text()
    assert "Without a prompt" in page
    assert "Images of nothing where something is found" in page


def test_a_second_call_learns_nothing_anew(run: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("learned again")

    before = (run / "finds.jsonl").read_bytes()
    monkeypatch.setattr(finding, "learn_finder", never)
    run_specialize(Request(str(source), "nano", run), small())
    assert (run / "finds.jsonl").read_bytes() == before
    assert load_finder(run / "specialist").finder is not None


def test_evaluate_without_prompts(run: Path, source: Path, tmp_path: Path) -> None:
    """Oracle: the run's own table, of the same images and weights (its embeddings are stored in half precision)."""
    asked = Comparison(str(source), [str(run / "specialist")], tmp_path / "found")
    table = run_evaluate_found(asked)
    assert table is not None
    [name] = names_of(asked.models)
    mine = table[table.model == name].set_index("metric")
    theirs = pd.read_csv(run / "finding.csv").query("model == 'specialist'").set_index("metric")
    for metric in ("iou", "s_measure", "image_auroc"):
        assert mine.loc[metric, "mean"] == pytest.approx(theirs.loc[metric, "mean"], abs=0.05)
    assert (tmp_path / "found" / "finding.csv").exists()


def test_a_model_without_a_finder_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a specialist with a finder among nano, got none"):
        run_evaluate_found(Comparison(str(source), ["nano"], tmp_path / "found"))


def test_without_a_finder_the_folder_has_none(source: Path, tmp_path: Path) -> None:
    run_specialize(Request(str(source), "nano", tmp_path), small(finder={"enabled": False}))
    assert read_card(tmp_path / "specialist").finder is None
    assert not (tmp_path / "finding.csv").exists()
    assert "Without a prompt" not in (tmp_path / "report.html").read_text()


def test_without_objects_to_validate_on_no_picture_of_nothing_is_learned_from(source: Path, tmp_path: Path) -> None:
    """All of them are for the alarms, and the finder is chosen and calibrated where there are objects."""
    settings = small(fractions=(0.8, 0.0, 0.2), train={"keep": "last", "epochs": 1})
    with open_job("specialize", Request(str(source), "nano", tmp_path / "run"), settings, {}) as job:
        job.prepare()
        data, held = job.embedded.finder_data()
    assert not data.val
    assert len(held) == len(job.plan.blanks("val"))
    assert len(data.train) == len(job.plan.of("train")) + len(job.plan.blanks("train"))


def test_calibrating_outlasts_writing_the_report_anew(run: Path, source: Path, tmp_path: Path) -> None:
    """The same weights and finder: what was told of pictures of nothing is still true of them."""
    own = tmp_path / "run"
    shutil.copytree(run, own)
    held = read_card(own / "specialist").alarm
    resume(own)
    assert read_card(own / "specialist").alarm == held
    told = Alarm(good_scores=[0.1, 0.2, 0.3], source="3 pictures of yard")
    write_card(own / "specialist", read_card(own / "specialist").model_copy(update={"alarm": told}))
    resume(own)
    assert read_card(own / "specialist").alarm == told

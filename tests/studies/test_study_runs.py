"""Studies from tiny raw data to their pages with the bundled model.

Oracles: counts of what was drawn by hand, the second run of the same command, masks read back, and formats that the
documents promise. No score is asserted: the bundled weights may change.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from specialsam.core.errors import DataError, UsageError
from specialsam.core.findings import Finding
from specialsam.core.types import Record
from specialsam.data.loading import load_masks
from specialsam.data.open import open_dataset
from specialsam.evaluation.results import COLUMNS, Results
from specialsam.evaluation.statistics import points
from specialsam.studies.camouflage.prepare import choose, clicked_shares, stratified
from specialsam.studies.carpet.prepare import prepare_carpet
from specialsam.studies.compare import compare
from specialsam.studies.measured import (
    Versus,
    by_group,
    by_prompt,
    complaints,
    doubts,
    over_textures,
    read_rows,
    rival,
    texture_notes,
    versus,
)
from specialsam.studies.page import Finished
from specialsam.studies.photos import parse_click, run_photos, specialist_folder
from specialsam.studies.published import published
from specialsam.studies.recipe import CamouflageData, load_recipe
from specialsam.studies.run import read_study, run_study

SIDE = 96
SMALL: dict[str, Any] = {
    "strategies": ["center_of_mass", "box"],
    "specialize": {
        "probes": 0,
        "views": "none",
        "train": {"epochs": 1, "batch": 4, "loss_at": "logits"},
        "evaluate": {"strategies": ["center_of_mass", "box"], "groups": ["overlap", "canny"], "cod": ["box"]},
        "finder": {"epochs": 2, "grid": 1},
        "guard": {"retention_images": 4},
    },
}
"""What makes a study's run short; the rest is the seed recipe's."""


def picture(path: Path, number: int) -> np.ndarray[Any, Any]:
    """A bright disc on noise, written to `path`; its mask, bool (SIDE, SIDE)."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    image = rng.integers(40, 110, (SIDE, SIDE, 3)).astype(np.uint8)
    x, y = rng.uniform(0.35, 0.65, 2) * SIDE
    mask = (columns - x) ** 2 + (rows - y) ** 2 < rng.uniform(10, 18) ** 2
    image[mask] += 100
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return np.asarray(mask)


def draw_mask(path: Path, mask: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def cod10k(root: Path) -> Path:
    """COD10K-v3 in small: 8 CAM and 2 NonCAM training images, 4 CAM and 2 NonCAM test images."""
    names = ("1-Aquatic-9-Crab", "3-Flying-55-Butterfly")
    number = 0
    for half, each in (("Train", 4), ("Test", 2)):
        for name in names:
            for _ in range(each):
                number += 1
                stem = f"COD10K-CAM-{name}-{number}"
                mask = picture(root / half / "Image" / f"{stem}.jpg", number)
                draw_mask(root / half / "GT_Object" / f"{stem}.png", mask)
        for _ in range(2):
            number += 1
            stem = f"COD10K-NonCAM-5-Background-5-Vegetation-{number}"
            picture(root / half / "Image" / f"{stem}.jpg", number)
            draw_mask(root / half / "GT_Object" / f"{stem}.png", np.zeros((SIDE, SIDE), np.bool_))
    return root


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    root = tmp_path_factory.mktemp("camouflage")
    return run_study(str(cod10k(root / "cod")), load_recipe("camouflage", "seed", SMALL), "nano", root / "out")


def test_a_study_leaves_its_page_its_report_and_its_numbers(finished: Finished) -> None:
    for name in (
        "study.html",
        "published.md",
        "study.json",
        "run/report.html",
        "run/summary.csv",
        "figures/answers.png",
    ):
        assert (finished.folder / name).stat().st_size > 100, name
    page = finished.page.read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'href="run/report.html"' in page
    assert not re.search(r'(src|href)="(http|//)', page)
    for text in ("Published against measured", "47.52", "66.35", "specialsam models fetch sam_vit_h", "False alarms"):
        assert text in page
    assert json.loads((finished.folder / "study.json").read_text())["finished"]["train"]["images"] == 8


def test_images_without_an_object_are_counted_and_left_out(finished: Finished) -> None:
    """8 + 4 images hold an object; 4 do not, 2 of them in the test half."""
    facts = dict(finished.prepared.facts)
    assert (facts["images on disk"], facts["with an object (usable)"]) == ("16", "12")
    assert facts["without an object"].startswith("4,")
    records = open_dataset(finished.prepared.source).records
    assert Counter(record.split for record in records) == {"train": 8, "test": 4}
    assert {record.category for record in records} == {"Aquatic/Crab", "Flying/Butterfly"}
    assert len(finished.prepared.negatives) == 2
    assert [(line.model, line.n) for line in finished.alarms] == [("base", 2), ("specialist", 2)]
    assert all(0 <= line.low <= line.mean <= line.high <= 1 for line in finished.alarms)


def test_linked_images_keep_their_masks(finished: Finished) -> None:
    source = {record.id: record for record in open_dataset(finished.data).records}
    for record in open_dataset(finished.prepared.source).records:
        before = source[Path(record.id).name]
        np.testing.assert_array_equal(load_masks(record), load_masks(before))
        assert record.image.read_bytes() == before.image.read_bytes()


def test_the_tables_agree_with_the_rows(finished: Finished) -> None:
    """Oracle: pandas means of the rows; every image has one object."""
    results = read_rows(finished.outcome.folder)
    line, rows = versus(results, "box", category="Aquatic"), results.frame
    chosen = rows[(rows.strategy == "box") & (rows.output == "single") & (rows.metric == "iou")]
    chosen = chosen[chosen.category == "Aquatic/Crab"]
    assert line is not None
    means = chosen.groupby("model")["value"].mean()
    assert (line.base, line.tuned, line.n) == pytest.approx((means["base"], means["specialist"], 2))
    assert line.gain == pytest.approx(line.tuned - line.base)
    rivals = rows[(rows.strategy == "box") & (rows.output == "rival") & (rows.metric == "iou")]
    best = rivals.groupby("model")["value"].mean()
    assert rival(results, "box") == (best.idxmax(), pytest.approx(best.max()))
    assert rival(results, "edge")[0] == ""
    assert versus(results, "edge") is None
    assert versus(results, "box", category="Aqua") is None
    lines = by_prompt(results, ("box", "edge", "center_of_mass"))
    assert [row["strategy"] for row in lines] == ["box", "center_of_mass"]
    assert {row["category"]: row["n"] for row in by_group(results, "box", outer=True)} == {"Aquatic": 2, "Flying": 2}


def test_checks_that_failed_or_warn_are_doubts() -> None:
    """One sentence for each check, failures first, the last where it spoke up in several epochs."""
    findings = [
        Finding("gain", "warn", "gain: small", remedy="wait"),
        Finding("loss", "fail", "epoch 4: low", remedy="stop"),
        Finding("loss", "fail", "epoch 5: lower", remedy="stop"),
        Finding("blind", "fail", "It answers without its image.", remedy="vary"),
        Finding("leak", "pass", "none"),
    ]
    assert complaints(findings) == [
        "The check “loss” failed: epoch 5: lower.",
        "The check “blind” failed: It answers without its image.",
        "The check “gain” warns: small.",
    ]
    assert complaints([]) == []


def test_doubts_name_rivals_and_better_prompts(finished: Finished) -> None:
    """Oracle: a specialist at 0 lies below every rival and every other prompt; one at 1 has only sure losses named."""
    rows, told = read_rows(finished.outcome.folder), published("camouflage")
    zeros, ones = Versus(*[0.0] * 11, n=4), Versus(*[1.0] * 11, n=4)
    said = doubts(told, rows, ("center_of_mass", "box"), zeros)
    assert "looks at no pixel" in said[0]
    assert "with another prompt (box)" in said[1]
    assert all("surely" in line for line in doubts(told, rows, ("center_of_mass", "box"), ones))


def test_the_same_command_goes_on_and_another_study_is_refused(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = finished.folder / "run" / "rows-specialist.jsonl"
    before = rows.read_bytes()
    again = run_study(finished.data, finished.recipe, "nano", finished.folder)
    assert rows.read_bytes() == before
    assert "embeddings: 0 made" in capsys.readouterr().out
    assert again.facts == finished.facts
    other = load_recipe("camouflage", "seed", {**SMALL, "data": {"seed": 3}})
    with pytest.raises(UsageError, match="another recipe"):
        run_study(finished.data, other, "nano", finished.folder)
    with pytest.raises(UsageError, match="holds no study"):
        run_study(finished.data, finished.recipe, "nano", finished.folder / "data")


def test_finished_studies_are_compared(finished: Finished, tmp_path: Path) -> None:
    page = compare([finished.folder], tmp_path).read_text(encoding="utf-8")
    assert f'<th scope="row">{finished.folder.name}' in page
    assert pd.read_csv(tmp_path / "compare.csv")["samples"].tolist() == [8]


def test_own_photographs_are_shown_side_by_side(finished: Finished, tmp_path: Path) -> None:
    for number in range(2):
        picture(tmp_path / "photos" / f"{number}.png", 90 + number)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    shots, failures = run_photos(finished.folder, tmp_path / "photos", "center", tmp_path / "out")
    assert [shot.record for shot in shots] == ["0", "1"]
    table = pd.read_csv(tmp_path / "out" / "photos.csv")
    image = np.asarray(Image.open(tmp_path / "photos" / "0.png"))
    from specialsam.models.load import load_model

    found = clicked_shares({"base": load_model("nano")}, image)
    assert table["base_share"][0] == pytest.approx(found["base"])
    assert "Nothing here is a score" in (tmp_path / "out" / "photos.html").read_text()
    assert not failures  # an unreadable header is a problem of the data set, not a photograph
    with pytest.raises(DataError, match="inside 96x96"):
        run_photos(finished.folder, tmp_path / "photos", "500,3", tmp_path / "far")
    assert specialist_folder(finished.folder / "run") == finished.folder / "run" / "specialist"
    with pytest.raises(UsageError, match="found none"):
        specialist_folder(tmp_path)


def test_clicks_are_pixels_or_the_centre() -> None:
    assert parse_click("3,4.5") == (3.0, 4.5)
    assert parse_click("center") is None
    for text in ("3", "a,b", "-1,2", "nan,1", "1,2,3"):
        with pytest.raises(UsageError, match="--click"):
            parse_click(text)


def records_of(counts: dict[str, int], split: str | None = None) -> list[Record]:
    return [
        Record(f"{name}-{number}", Path(f"{name}-{number}.png"), category=name, split=split)  # type: ignore[arg-type]
        for name, count in counts.items()
        for number in range(count)
    ]


def test_a_stratified_subset_is_seeded_and_in_proportion() -> None:
    """200 of 2,000 images: a tenth of each category to within one."""
    records = records_of({"a": 1000, "b": 700, "c": 295, "d": 5})
    chosen = stratified(records, 200, seed=0)
    counts = Counter(record.category for record in chosen)
    assert len(chosen) == 200
    assert all(abs(counts[name] - share) <= 1 for name, share in {"a": 100, "b": 70, "c": 29.5, "d": 0.5}.items())
    assert chosen == stratified(list(reversed(records)), 200, seed=0)[::-1]
    assert chosen != stratified(records, 200, seed=1)
    assert stratified(records, None, 0) == records


def test_stated_test_images_are_kept_and_an_own_split_is_asked_for() -> None:
    train, test = records_of({"a": 40, "b": 40}, "train"), records_of({"t": 10}, "test")
    recipe = CamouflageData(val=0.25, duplicates=False, train=20)
    chosen, left_out = choose([*train, *test], recipe)
    assert {record.id for record in chosen["test"]} == {record.id for record in test}
    assert (len(chosen["train"]), left_out) == (20, 0)
    assert 18 <= len(chosen["val"]) <= 22
    with pytest.raises(UsageError, match=re.escape("data.split=own")):
        choose(train, recipe)
    own, _ = choose(train, CamouflageData(split="own", own_test=0.5, val=0, duplicates=False))
    assert 38 <= len(own["test"]) <= 42
    assert len(own["test"]) + len(own["train"]) == 80
    assert own["val"] == []


def textures(root: Path) -> Path:
    """24 stripes and checks of their own colours: 12 training and test textures and more than 4 a cluster."""
    lines = ["image,species"]
    rows, columns = np.mgrid[:64, :64]
    (root / "images" / "images").mkdir(parents=True)
    for number in range(24):
        rng = np.random.default_rng(number)
        wave = np.sin((rows * rng.uniform(0.1, 0.9) + columns * rng.uniform(0.1, 0.9)) * rng.uniform(0.5, 1.5))
        image = rng.integers(60, 180, 3) + 40 * wave[..., None] + rng.normal(0, 12, (64, 64, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / "images" / "images" / f"t{number:02d}.png")
        lines.append(f"t{number:02d}.png,{'oak' if number % 2 else 'pine'}")
    (root / "wood.csv").write_text("\n".join(lines) + "\n")
    return root


def test_wood_makes_mosaics_and_reports_each_difficulty(tmp_path: Path) -> None:
    data = {"train": 4, "test": 4, "side": 128, "tile": 64, "clusters": 2, "duplicates": False}
    recipe = load_recipe("wood", "seed", {**SMALL, "data": data})
    found = run_study(str(textures(tmp_path / "wood")), recipe, "nano", tmp_path / "out")
    groups = by_group(found.rows, "center_of_mass")
    assert {row["category"]: row["n"] for row in groups} == {"standard": 2, "hard": 2}
    assert found.facts.what == "Hard mosaics"
    assert found.facts.train == {"images": 4, "objects": 16, "views": 4}
    page = found.page.read_text(encoding="utf-8")
    for text in ("95.80", "59.52", "Results by difficulty", "24 of 2 species"):
        assert text in page
    assert found.facts.notes[0] in page
    used = {name for record in set(found.rows.frame["record"]) for name in found.prepared.textures[str(record)]}
    assert f"which share {len(used)} textures; over other mosaics and other textures" in found.facts.notes[0]
    gain = over_textures(found.rows, found.prepared.textures, "center_of_mass")
    line = versus(found.rows, "center_of_mass")
    assert line is not None
    assert (gain.mean, gain.n) == (pytest.approx(line.gain), 4)
    assert f"all, click at centre of mass {points(gain)}" in found.facts.notes[0]
    hard = over_textures(found.rows, found.prepared.textures, "center_of_mass", "hard")
    assert (hard.mean, hard.n) == (pytest.approx(found.facts.scores.gain), 2)
    assert f"hard mosaics {points(hard)}" in found.facts.notes[0]


def test_a_gain_that_may_be_that_of_its_textures_is_a_doubt() -> None:
    """Ten images of four objects of the same two textures, one of which gains: sure of images, not of textures."""
    frame = pd.DataFrame(
        [
            dict.fromkeys(COLUMNS, "")
            | {"model": model, "record": f"m{image}", "object": number, "strategy": "box", "output": "single"}
            | {"metric": "iou", "value": 0.5 + (model == "specialist") * (number % 2) * (0.2 + image / 100)}
            for image in range(10)
            for number in range(4)
            for model in ("base", "specialist")
        ]
    )
    textures = {f"m{image}": ("oak", "pine") * 2 for image in range(10)}
    notes, unsure = texture_notes(Results(frame), textures, ("box", "interior"), published("wood").headline)
    assert "which share 2 textures" in notes[0]
    assert len(unsure) == 1
    assert unsure[0].startswith(
        "The gain may be that of these textures (all, box): over other textures as well it is +12"
    )
    assert texture_notes(Results(frame), {}, ("box",), published("wood").headline) == ([], [])
    frame.loc[(frame.record == "m3") & (frame.model == "base"), "error"] = "unreadable"
    failed, line = over_textures(Results(frame), textures | {"m4": ("oak",)}, "box"), versus(Results(frame), "box")
    assert line is not None
    assert failed.mean == pytest.approx(line.gain)


def category(root: Path) -> Path:
    """A category of MVTec AD in small: 6 clean training images, one clean test image, two holes and one cut."""
    for number in range(6):
        picture(root / "train" / "good" / f"{number:03d}.png", number)
    picture(root / "test" / "good" / "000.png", 6)
    for number, name in enumerate(("hole/000", "hole/001", "cut/000"), 7):
        draw_mask(root / "ground_truth" / f"{name}_mask.png", picture(root / "test" / f"{name}.png", number))
    return root


def test_carpet_trains_on_synthetic_defects_and_tests_on_every_real_one(tmp_path: Path) -> None:
    recipe = load_recipe("carpet", "seed", {**SMALL, "data": {"train": 6, "val": 2}})
    found = run_study(str(category(tmp_path / "carpet")), recipe, "nano", tmp_path / "out")
    every = open_dataset(found.prepared.source).records
    records = [record for record in every if record.category != "good"]
    assert Counter(record.split for record in records) == {"train": 6, "val": 2, "test": 3}
    clean = Counter(record.split for record in every if record.category == "good")
    assert clean == {"train": 5, "val": 1, "test": 1}  # the clean pictures themselves, with empty masks
    assert {record.category for record in records if record.split != "test"} <= {"patch", "scar", "stain_seed"}
    assert {row["category"]: row["n"] for row in by_group(found.rows, "box")} == {"hole": 2, "cut": 1}
    page = found.page.read_text(encoding="utf-8")
    left_out = ("6, and 1 for the test without prompts", "no sim-to-real meter: ")
    for text in ("29.43", "36.18", "Results by type", "3: 2 hole, 1 cut", *left_out):
        assert text in page


def test_carpet_says_how_real_its_defects_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real defects enough: the AUC of each kind of the recipe and of the anchors, and the figure."""
    monkeypatch.setattr("specialsam.studies.carpet.prepare.METERED", 4)
    root = category(tmp_path / "carpet")
    draw_mask(root / "ground_truth" / "cut" / "001_mask.png", picture(root / "test" / "cut" / "001.png", 10))
    recipe = load_recipe("carpet", "seed", {"data": {"train": 2, "kinds": {"patch": 1.0, "composite": 1.0}}})
    found = prepare_carpet(str(root), recipe, "nano", None, tmp_path / "out" / "data")  # type: ignore[arg-type]
    told = dict(found.facts)
    assert told["told from real defects (AUC)"].startswith("patch ")
    assert "composite" not in told["told from real defects (AUC)"]
    assert "bare ground" in told["for comparison (AUC)"]
    assert [sheet.name for sheet in found.sheets] == ["defects", "sim-to-real"]
    assert any("fewer than four defects a side" in note for note in found.notes)
    assert {record.split for record in open_dataset(found.source).records} == {"train", "test"}


Invoke = Callable[[list[str]], Any]


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    """The sub-app of the command line, whose jobs are replaced by what they were asked for."""
    from specialsam.cli.study import app

    return lambda arguments: CliRunner().invoke(app, arguments)


def test_the_command_line_passes_settings_on(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def fake(data: str, recipe: Any, model: str, folder: Path, base: str | None, device: str) -> Any:
        asked.update(data=data, recipe=recipe, model=model, folder=folder, base=base)
        raise UsageError("enough")

    monkeypatch.setattr("specialsam.studies.run.run_study", fake)
    result = invoke(["wood", "--data", "D", "--recipe", "revised", "--model", "mobile_sam", "-s", "data.train=300"])
    assert isinstance(result.exception, UsageError)
    assert (asked["data"], asked["model"], asked["recipe"].data.train) == ("D", "mobile_sam", 300)
    assert asked["folder"] == Path("runs/wood-revised-mobile_sam")
    assert isinstance(invoke(["carpet", "--data", "D", "-s", "data.trian=1"]).exception, UsageError)


def test_a_folder_without_a_study_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape("study.json")):
        read_study(tmp_path)

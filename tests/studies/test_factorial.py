"""The factorial experiment: effects against numbers made by hand, and a whole tiny run that goes on where it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from specialsam.core.errors import UsageError
from specialsam.prompts import draw, generator
from specialsam.studies.recipe import load_recipe
from specialsam.studies.wood.factorial import Cell, _settings, effects_of, half_frame, report_text, run_factorial
from specialsam.training.objective import draw_batch
from specialsam.training.state import Item

FRAME, LAYOUT, LOSS, SIZE = -0.4, 0.05, 0.02, 0.01


def made() -> pd.DataFrame:
    """IoU that is a sum of known effects, of each seed and of each mosaic, so that every mean is known."""
    rows = [
        {"frame": frame, "layout": layout, "loss": loss, "size": size, "seed": seed, "mosaic": f"m{mosaic}"}
        | {"iou": 0.8 + a * FRAME + b * LAYOUT + c * LOSS + d * SIZE + 0.001 * seed + 0.01 * mosaic, "base": 0.7}
        for a, frame in enumerate(("right", "half"))
        for b, layout in enumerate(("fixed", "random"))
        for c, loss in enumerate(("dice", "bce+dice"))
        for d, size in enumerate((500, 5000))
        for seed in range(3)
        for mosaic in range(5)
    ]
    blind = [
        {"frame": "blind", "layout": layout, "loss": "dice", "size": 500, "seed": seed, "mosaic": f"m{mosaic}"}
        | {"iou": 0.1, "base": 0.7}
        for layout in ("fixed", "random")
        for seed in range(3)
        for mosaic in range(5)
    ]
    table = pd.DataFrame(rows + blind)
    return table.assign(gain=table["iou"] - table["base"])


def test_effects_are_those_that_were_put_in_and_the_blind_decoder_is_not_among_them() -> None:
    effects = effects_of(made()).set_index("factor")
    assert effects["effect"].to_dict() == pytest.approx({"frame": FRAME, "layout": LAYOUT, "loss": LOSS, "size": SIZE})
    assert (effects["low"] <= effects["effect"] + 1e-12).all()
    assert (effects["high"] >= effects["effect"] - 1e-12).all()
    assert set(effects["n"]) == {5}


def test_cells_are_trained_as_the_published_recipe_says() -> None:
    """But for loss, seed and epochs: no correction click, for that one would be in the right frame."""
    published = load_recipe("wood", "seed").specialize.train.model_dump()
    for frame, size, epochs in (("half", 500, 5), ("right", 5000, 1)):
        own = _settings(Cell(frame, "fixed", "bce+dice", size, 2), 2500).model_dump()
        told = {name for name in published if own[name] != published[name]}
        assert told <= {"loss", "seed", "epochs"}
        assert (own["epochs"], own["seed"], own["corrections"]) == (epochs, 2, 0)


def test_a_seed_that_differs_widens_the_interval() -> None:
    table = made()
    unlucky = (table.frame == "half") & (table.seed == 2)
    table.loc[unlucky, "iou"] += 0.2
    line = effects_of(table).set_index("factor").loc["frame"]
    assert (line["seed_low"], line["seed_high"]) == pytest.approx((FRAME, FRAME + 0.2))
    assert line["high"] - line["low"] > 0.2


def test_the_text_names_both_frames_and_every_combination() -> None:
    table = made()
    text = report_text(table, effects_of(table), "nano")
    assert "| half | random | bce+dice | 5000 |" in text
    assert "| blind | fixed | dice | 500 | 10.0 | -60.0 [-60.0, -60.0] |" in text
    assert "points in the half frame -40.0 [-40.0, -40.0], layouts drawn anew +5.0 [+5.0, +5.0]" in text
    assert text.count("\n| right |") == text.count("\n| half |") == 8


def test_the_half_frame_halves_every_point_and_keeps_the_labels() -> None:
    """Oracle: the centres by hand, (5, 3) and (13, 9); boxes have no point to halve."""
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:5, 4:7], masks[1, 8:11, 12:15] = True, True
    [(indices, wrong)] = half_frame("center_of_mass", masks, generator(0))
    assert indices == [0, 1]
    assert wrong.points is not None
    assert wrong.points.tolist() == [[[2.5, 1.5]], [[6.5, 4.5]]]
    assert wrong.points.dtype == np.float32
    [(_, boxes)] = half_frame("box", masks, generator(0))
    assert boxes.points is None
    assert np.array_equal(boxes.boxes, draw("box", masks, generator(0))[0][1].boxes)


def test_a_step_places_its_prompts_by_the_draw_it_is_given() -> None:
    """The same step with either draw: same masks and objects, half the coordinates."""
    masks = np.zeros((3, 30, 30), bool)
    masks[0, 2:6, 4:8], masks[1, 8:12, 12:20], masks[2, 20:30, 1:3] = True, True, True
    settings = _settings(Cell("half", "fixed", "dice", 1, 0), 1)
    [right], [wrong] = (
        draw_batch([Item("a", "a")], [masks], settings, (1, 0), placed) for placed in (draw, half_frame)
    )
    assert np.array_equal(right.prompts[0].points, 2 * wrong.prompts[0].points)
    assert np.array_equal(right.masks[0], wrong.masks[0])


def textures(root: Path) -> Path:
    """60 noisy textures of five colours and two grains in the layout of wood data."""
    folder = root / "images" / "images"
    folder.mkdir(parents=True)
    rows, columns = np.mgrid[:64, :64]
    for number in range(60):
        rng = np.random.default_rng(number)
        wave = 30 * np.sin((columns if number % 2 else rows) / (2 + number % 5))
        base = np.array([210 - 30 * (number % 5), 150, 60 + 30 * (number % 5)])
        image = base + wave[..., None] + rng.normal(0, 12, (64, 64, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"t{number:02d}.png")
    (root / "wood.csv").write_text("image,species\n" + "".join(f"t{i:02d}.png,oak\n" for i in range(60)))
    return root


def test_a_tiny_experiment_runs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: two seeds are twice the cells of one, and cells of the first run keep their line."""
    from specialsam.studies.wood import factorial

    monkeypatch.setattr(factorial, "TEST", 3)
    data = f"wood:{textures(tmp_path / 'wood')}"
    out = tmp_path / "out"
    run_factorial(data, out, "nano", (2,), seeds=1, steps=2)
    cells = (out / "cells.jsonl").read_text().splitlines()
    assert len(cells) == 8 + 2
    text = run_factorial(data, out, "nano", (2,), seeds=2, steps=2)
    later = (out / "cells.jsonl").read_text().splitlines()
    assert len(later) == 2 * len(cells)
    assert later[: len(cells)] == cells
    table = pd.read_csv(out / "factorial.csv")
    assert len(table) == 20 * 3
    by_frame = table[table.frame != "blind"].pivot_table("iou", ["layout", "loss", "seed", "mosaic"], "frame")
    assert (by_frame["right"] != by_frame["half"]).any(), "the two frames train alike"
    assert table["iou"].between(0, 1).all()
    assert (out / "factorial.md").read_text() == text + "\n"
    assert (out / "figures" / "factorial.png").exists()


@pytest.mark.parametrize(("sizes", "steps"), [((0,), 2), ((), 2), ((2,), 0)])
def test_no_size_and_no_step_are_refused(tmp_path: Path, sizes: tuple[int, ...], steps: int) -> None:
    with pytest.raises(UsageError, match="from 1 on"):
        run_factorial("wood:nowhere", tmp_path, "nano", sizes, steps=steps)


def test_few_mosaics_are_seen_as_often_as_in_the_original_study_and_many_once() -> None:
    epochs = {size: _settings(Cell("right", "fixed", "dice", size, 0), 2500).epochs for size in (100, 500, 5000)}
    assert epochs == {100: 25, 500: 5, 5000: 1}

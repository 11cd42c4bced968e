"""The picture of a pre-training: images counted over stages, a step logged twice counts once, one line for a bad log.

Oracles are the small logs written here by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from specialsam.core.errors import DataError
from specialsam.report.pretraining import SCORES, pretraining_figure, read_stage


def run_folder(folder: Path, rows: list[dict[str, Any]], **settings: int) -> Path:
    """A run folder with a log of these lines and a state that holds the settings, as pre-training leaves it."""
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps({"time": 0.0, **row}) + "\n" for row in rows))
    torch.save({"step": 1, "settings": json.dumps(settings), "sam": {"w": torch.zeros(2)}}, folder / "state.pt")
    return folder


def line(step: int, loss: float) -> dict[str, Any]:
    return {"step": step, "lr": 0.001, "side": 160, "images_per_second": 9.0, "loss": loss}


def scores(step: int, value: float) -> dict[str, Any]:
    return {"step": step, "validation": dict.fromkeys(SCORES, value)}


def test_a_step_logged_twice_counts_by_its_last_line(tmp_path: Path) -> None:
    rows = [line(50, 4.0), line(100, 3.0), scores(100, 0.1), line(50, 3.5), line(100, 2.5), scores(100, 0.2)]
    stage = read_stage(run_folder(tmp_path / "a", rows, side=160, batch=16))
    assert [(row["step"], row["loss"]) for row in stage.training] == [(50, 3.5), (100, 2.5)]
    assert [row["box_single"] for row in stage.validation] == [0.2]
    assert stage.images == 1600


def test_images_add_up_over_stages(tmp_path: Path) -> None:
    first = run_folder(tmp_path / "a", [line(650, 4.0), scores(700, 0.1)], side=160, batch=16, start=600)
    second = run_folder(tmp_path / "b", [line(50, 3.0), line(100, 2.0), scores(100, 0.3)], side=256, batch=8)
    figure = pretraining_figure([read_stage(first), read_stage(second)])
    ious, losses, rates = figure.axes
    # 50 and 100 steps of 16 images after the start at 600; then 50 and 100 of 8 after these 1,600 images.
    seen = [np.asarray(drawn.get_xdata()).tolist() for drawn in losses.get_lines()[:2]]
    assert seen == [[0.8], [2.0, 2.4]]
    boundary = [drawn for drawn in rates.get_lines() if list(np.asarray(drawn.get_xdata())) == [1.6, 1.6]]
    assert len(boundary) == 1
    assert [text.get_text() for text in ious.texts] == ["a, 160 px", "b, 256 px"]
    drawn = {str(each.get_label()): each for each in ious.get_lines()}
    assert np.asarray(drawn["box"].get_ydata()).tolist() == [10.0]
    assert ious.get_legend_handles_labels()[1] == [name for name, *_ in SCORES.values()]


@pytest.mark.parametrize(
    ("text", "said"), [("", "at least one line"), ('{"step": 50}\n{"ste', "line 2"), ("[1]\n", "object with a step")]
)
def test_a_log_that_says_nothing_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    folder = run_folder(tmp_path / "a", [], side=160, batch=16)
    (folder / "log.jsonl").write_text(text)
    with pytest.raises(DataError, match=said):
        read_stage(folder)


def test_no_log_no_state_and_no_stage_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"without log\.jsonl"):
        read_stage(tmp_path)
    folder = run_folder(tmp_path / "a", [line(50, 1.0)], side=160, batch=16)
    (folder / "state.pt").write_bytes(b"half")
    with pytest.raises(DataError, match="unreadable"):
        read_stage(folder)
    (folder / "state.pt").unlink()
    with pytest.raises(DataError, match=r"no .*state\.pt"):
        read_stage(folder)
    with pytest.raises(DataError, match="at least one stage"):
        pretraining_figure([])

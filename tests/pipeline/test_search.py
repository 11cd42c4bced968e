"""The search of training settings: what it tries, that it goes on after a kill, and that it does not flatter itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from disc_data import discs, small

from specialsam.core.errors import UsageError
from specialsam.pipeline import search as search_module
from specialsam.pipeline.job import Request, open_job
from specialsam.pipeline.search import FEWEST, honest_gain, search
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize
from specialsam.training.settings import TrainSettings

torch.set_num_threads(1)


def settings(**changes: Any) -> SpecializeSettings:
    return small(fractions=(0.4, 0.4, 0.2), search={"minutes": 5, "trials": 3}, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    discs(folder, 24)
    return folder


def test_a_winner_among_equals_is_worth_nothing_and_one_that_leads_what_it_leads_by() -> None:
    """Forty trials of pure noise: the best looks better than the first by far, and honestly is not."""
    rng = np.random.default_rng(0)
    noise = 0.5 + 0.1 * rng.standard_normal((40, 20))
    seen, corrected = honest_gain(noise, np.zeros(40))
    assert seen.mean > 0.03
    assert abs(corrected.mean) < 0.02
    assert corrected.low < 0 < corrected.high
    noise[7] += 0.2
    seen, corrected = honest_gain(noise, np.zeros(40))
    assert corrected.mean == pytest.approx(0.2, abs=0.06)
    assert corrected.low > 0


def test_what_is_lost_elsewhere_counts_against_a_winner() -> None:
    ious = np.array([[0.5] * 10, [0.7] * 10, [0.6] * 10])
    seen, corrected = honest_gain(ious, np.array([0.0, -0.15, 0.0]))
    assert seen.mean == pytest.approx(0.1)
    assert corrected.mean == pytest.approx(0.1)


def test_the_run_is_tuned_with_the_best_trial_and_says_so(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    outcome = run_specialize(Request(str(data), "nano", folder), settings())
    assert outcome is not None
    table = pd.read_csv(folder / "search.csv")
    assert len(table) == 3
    assert table["trial"].tolist().count(0) == 1
    first, given = table[table["trial"] == 0].iloc[0], settings().train
    assert (first["lr"], first["mode"], first["epochs"]) == (given.lr, given.mode, given.epochs)
    assert (first["loss"], first["prompts"]) == ("as given", "as given")
    complete = table[table["state"] == "complete"]
    assert complete["worth"].iloc[0] == complete["worth"].max() >= first["worth"]
    assert outcome.result.history[outcome.result.best_epoch].val_iou == pytest.approx(
        complete["val_iou"].iloc[0], abs=1e-4
    )
    page = (folder / "report.html").read_text()
    assert "How its settings were found" in page
    assert "chosen and measured on different images" in page
    states = [path for path in (folder / "search").iterdir() if path.is_dir()]
    assert len(states) == 1  # the winner's alone


def test_a_killed_search_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[TrainSettings] = []
    real = search_module.train

    def once(model: Any, items: Any, chosen: TrainSettings, *rest: Any, **more: Any) -> Any:
        trained.append(chosen)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(model, items, chosen, *rest, **more)

    monkeypatch.setattr(search_module, "train", once)
    request = Request(str(data), "nano", tmp_path / "run")

    def searched() -> Any:
        with open_job("specialize", request, settings()) as job:
            job.embedded.prepare()
            return search(job, job.embedded.training_data(), None)

    with pytest.raises(KeyboardInterrupt):
        searched()
    found = searched()
    assert len(trained) == 4  # the killed one is trained again, the first is not
    assert trained[2] == trained[1]
    assert len(found.trials) == 3
    again = searched()
    assert len(trained) == 4
    assert again.train == found.train


def test_what_cannot_be_searched_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(**changes: Any) -> None:
        request = Request(str(data), "nano", tmp_path / ("all" if changes else "run"), store=tmp_path / "embeddings")
        with open_job("specialize", request, settings(**changes)) as job:
            job.embedded.prepare()
            search(job, job.embedded.training_data(), None)

    with pytest.raises(UsageError, match="frozen"):
        searched(train={"mode": "all"})
    monkeypatch.setattr(search_module, "FEWEST", 1000)
    with pytest.raises(UsageError, match="at least 1000 validation images"):
        searched()
    monkeypatch.setattr(search_module, "FEWEST", FEWEST)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"specialsam\[search\]"):
        searched()

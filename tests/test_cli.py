"""The command line on a good path: every command of the main job, from its arguments to its files and exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from PIL import Image

from specialsam import __version__, cli
from specialsam.models.zoo import CARDS

Call = Callable[..., str]
FAST = {
    "train": {"epochs": 1, "replay_pool": 4},
    "finder": {"epochs": 2, "grid": 1},
    "evaluate": {"strategies": ["interior"], "groups": ["overlap"]},
    "duplicates": False,
    "guard": {"retention_images": 4},
}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line, expect exit code 0 and nothing on standard error; standard output."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["specialsam", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert (end.value.code, err) == (0, "")
        return out

    return run


def test_version_and_help(call: Call) -> None:
    assert call("--version").strip() == f"specialsam {__version__}"
    listed = call("--help")
    for command in ("quickstart", "specialize", "embed", "train", "evaluate", "report", "models", "export"):
        assert command in listed


def test_no_arguments_show_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["specialsam"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 2
    assert "Usage" in out + err
    assert "error:" not in err


def test_models_are_listed_shown_and_verified(call: Call) -> None:
    listed = call("models", "list").splitlines()
    assert [line.split()[0] for line in listed] == ["nano", *CARDS]
    assert "bundled" in listed[0]
    assert CARDS["mobile_sam"].url in call("models", "show", "mobile_sam")
    assert "comes with the package" in call("models", "fetch", "nano")


def test_scenes_become_a_data_set_and_a_contact_sheet(call: Call, tmp_path: Path) -> None:
    call("synth", "scenes", "-o", tmp_path / "data", "--count", 2, "--side", 64)
    assert len(list((tmp_path / "data" / "images").iterdir())) == 2
    call("synth", "scenes", "-o", tmp_path / "sheet.png", "--count", 2, "--side", 64)
    assert Image.open(tmp_path / "sheet.png").size == (6 * 2 * 64, 64)


def test_the_whole_way_from_scenes_to_an_exported_specialist(call: Call, tmp_path: Path) -> None:
    """Price, embed, train, specialize on the same folder and store, report, evaluate, show, export."""
    data, store, run = tmp_path / "data", tmp_path / "store", tmp_path / "leaves"
    call("synth", "scenes", "-o", data, "--count", 10, "--side", 96)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(FAST))
    options = ("--config", tmp_path / "recipe.yaml", "--set", "train.lr=1e-5", "--set", "train.keep=last")
    main = (data, "--out", run, "--store", store, *options)
    priced = call("specialize", *main, "--dry-run")
    assert "GB" in priced
    assert not run.exists()
    assert "10 made" in call("embed", data, "--store", store, *options)
    assert "0 damaged" in call("embed", data, "--store", store, *options, "--verify")
    assert f"specialist: {run / 'specialist'}" in call("train", *main)
    assert not (run / "report.html").exists()
    told = call("specialize", *main)
    assert "0 made" in told
    assert f"report: {run / 'report.html'}" in told
    recipe = json.loads((run / "run.json").read_text())["identity"]["settings"]
    assert (recipe["train"]["lr"], recipe["train"]["epochs"]) == (1e-5, 1)
    (run / "report.html").unlink()
    call("report", run)
    assert (run / "report.html").exists()
    both = ("-m", "nano", "-m", run / "specialist", "--store", store)
    table = call(
        "evaluate", data, *both, "-o", tmp_path / "measured", "-s", "groups=[overlap]", "-s", "strategies=[box]"
    )
    assert "nano" in table
    assert set(pd.read_csv(tmp_path / "measured" / "summary.csv")["model"]) == {"nano", "leaves"}
    assert json.loads(call("models", "show", run / "specialist"))["base"] == "nano"
    assert str(tmp_path / "exported") in call("export", run / "specialist", "-o", tmp_path / "exported")
    assert (tmp_path / "exported" / "config.json").exists()

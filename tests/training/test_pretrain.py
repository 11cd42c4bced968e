"""Pre-training: the stream repeats itself, a stopped run goes on as if unbroken, the result loads as a model."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from specialsam.core.errors import UsageError
from specialsam.core.settings import parse_settings
from specialsam.models.folder import load_pretrained
from specialsam.models.load import load_model
from specialsam.models.nano import build_nano
from specialsam.models.zoo import NANO
from specialsam.training.pretrain import AuxiliaryHead, Learner, _groups, _scenes, bundle, learning_rate, pretrain
from specialsam.training.pretrain_settings import PretrainSettings
from specialsam.training.scene_stream import AUX_CLICKS, Scenes, batches

TINY = {"side": 64, "render": 64, "batch": 2, "objects": 2, "workers": 0, "reuse": 2, "warmup": 2}


def test_an_image_of_the_stream_is_the_same_in_any_order() -> None:
    first, second = Scenes(5, 100, 64, 3, 64, 2), Scenes(5, 100, 64, 3, 64, 2)
    later = first[70]
    for number in (3, 70):
        for name, value in second[number].items():
            assert torch.equal(value, first[number][name])
    assert torch.equal(later["pixels"], second[70]["pixels"])


def test_the_order_of_what_is_learned_is_the_same_in_every_process() -> None:
    """Adam's moments are restored by place: the groups follow the model's own order, which no address decides."""
    sam, head = build_nano("lite", 64).requires_grad_(True), AuxiliaryHead()
    groups = _groups(sam, head, PretrainSettings(**TINY, backbone=0.1))
    order = {id(weight): place for place, weight in enumerate([*sam.parameters(), *head.parameters()])}
    places = [[order[id(weight)] for weight in group["params"]] for group in groups]
    assert [group["share"] for group in groups] == [1.0, 1.0, 0.1, 0.1]
    assert all(place == sorted(place) for place in places)
    assert sorted(chain.from_iterable(places)) == list(range(len(order)))


def test_prompts_lie_on_their_objects() -> None:
    scenes = Scenes(11, 100, 64, 4, 64, 1)
    for number in range(8):
        row = scenes[number]
        assert row["pixels"].shape == (3, 64, 64)
        assert row["targets"].shape == (4, 16, 16)
        assert row["cells"].shape == (AUX_CLICKS,)
        for target, click, box in zip(row["targets"], row["clicks"], row["boxes"], strict=True):
            x, y = (int(value) // 4 for value in click[0])
            assert target[y, x] > 0  # a quarter-resolution cell that a foreground pixel lies in is covered in part
            assert box[0] <= box[2]
            assert box[1] <= box[3]


TWICE = """
import sys
from pathlib import Path
from specialsam.training import pretrain as module
from specialsam.training.pretrain import Learner, _scenes, pretrain
from specialsam.training.pretrain_settings import PretrainSettings
module.validate = lambda *_: {}
for name in "ab":
    pretrain(Path(sys.argv[1]) / name, PretrainSettings(side=64, render=64, batch=2, objects=2, steps=1, reuse=1))
print("both")
"""


def test_a_second_run_in_one_process_gets_its_scenes(tmp_path: Path) -> None:
    """Workers forked after a first training waited for ever for a lock that the fork had copied closed."""
    command = [sys.executable, "-c", TWICE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.endswith("both\n"), done.stderr


def test_learning_rate_rises_then_falls_as_a_cosine() -> None:
    settings = PretrainSettings(steps=100, warmup=10, lr=1.0)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[4] == 0.5
    assert max(rates) == rates[9] == 1.0
    assert all(np.diff(rates[10:]) < 0)
    assert rates[-1] < 0.03


@pytest.mark.parametrize(("kinds", "asked"), [(("box",), {"box"}), (("box", "click"), {"box", "click"})])
def test_a_step_prompts_with_what_is_asked_for(kinds: Any, asked: set[str]) -> None:
    settings = PretrainSettings(steps=12, kinds=kinds, corrections=0.0, **TINY)
    learner, seen = Learner.fresh(settings, "cpu"), set[str]()
    for step, batch in enumerate(batches(_scenes(settings), settings.batch, 0, settings.steps, 0)):
        facts = learner.learn(batch, settings, step)
        seen |= {name.removesuffix("_iou_single") for name in facts if name.endswith("_iou_single")}
    assert seen == asked
    with pytest.raises(UsageError, match="kinds"):
        parse_settings(PretrainSettings, {"kinds": []})


@pytest.mark.parametrize("learn", ["decoder", "scores"])
def test_a_later_phase_moves_what_it_should_and_nothing_else(tmp_path: Path, learn: Any) -> None:
    """Oracle: the tensors of the stage that it begins with."""
    settings = PretrainSettings(steps=2, **TINY)
    pretrain(tmp_path / "first", settings, validate_every=1000)
    later = settings.model_copy(update={"learn": learn, "seed": 7})
    pretrain(tmp_path / "later", later, initial=tmp_path / "first" / "state.pt", validate_every=1000)
    first, second = (torch.load(tmp_path / name / "state.pt", weights_only=True)["sam"] for name in ("first", "later"))
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    parts = ("mask_decoder.iou_prediction_head",) if learn == "scores" else ("mask_decoder", "prompt_encoder")
    assert moved
    assert all(name.startswith(parts) for name in moved), sorted(moved)
    assert any(name.startswith("mask_decoder.iou_prediction_head") for name in moved)


def test_a_stage_may_begin_with_a_model(tmp_path: Path) -> None:
    """Oracle: after one step at a rate of nearly nothing the weights are still those of the model."""
    nano = load_model("nano").sam.state_dict()
    kind = {"encoder": NANO.encoder, "lr": 1e-12, "steps": 1, "weight_decay": 0.0}
    pretrain(tmp_path, PretrainSettings(**TINY | kind), initial=Path("nano"), validate_every=1000)
    later = torch.load(tmp_path / "state.pt", weights_only=True)["sam"]
    learned = [name for name, value in later.items() if value.is_floating_point() and "running" not in name]
    assert learned
    for name in learned:
        torch.testing.assert_close(later[name], nano[name], atol=1e-6, rtol=0)


def test_a_stopped_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    settings = PretrainSettings(steps=4, corrections=0.5, **TINY)
    pretrain(tmp_path / "whole", settings, validate_every=1000)
    # A run of two steps with the same schedule, then the rest.
    pretrain(tmp_path / "broken", settings, minutes=0.0, validate_every=1000)
    state = torch.load(tmp_path / "broken" / "state.pt", weights_only=True)
    assert state["step"] == 1
    pretrain(tmp_path / "broken", settings, validate_every=1000)
    whole, broken = (load_file(tmp_path / name / "nano.safetensors") for name in ("whole", "broken"))
    assert all(torch.allclose(whole[name], broken[name], atol=1e-6) for name in whole)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert {"click_single", "box_single"} <= set(rows[-1]["validation"])
    model = load_pretrained(bundle(tmp_path / "whole" / "nano.safetensors", "lite", tmp_path / "nano", 64))
    assert model.side == 64
    assert model.encode(np.zeros((48, 64, 3), np.uint8)).tensor.shape == (128, 4, 4)

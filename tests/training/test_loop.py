"""Tuning on bright squares: it learns, a kill leaves no trace, and the base is kept where tuning does not help."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from square_data import SIDE, SquareData, random_nano, weights

from specialsam.core.errors import TrainingError, UsageError
from specialsam.core.place import Place
from specialsam.core.types import Embedding
from specialsam.models.segmenter import Segmenter, fingerprint
from specialsam.models.specialist import clone
from specialsam.training import loop
from specialsam.training.loop import Tuning, learning_rate, train
from specialsam.training.objective import draw_batch
from specialsam.training.settings import TrainSettings
from specialsam.training.state import EpochFacts, Item, TrainingData, TrainResult
from specialsam.training.tuning import prepare

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return random_nano()


@pytest.fixture(scope="module")
def squares(base: Segmenter) -> SquareData:
    return SquareData(base)


@pytest.fixture(scope="module")
def several(base: Segmenter) -> SquareData:
    """One to three objects an image, some of them rings, so that `grid4` places varying numbers of points."""
    return SquareData(base, train=4, val=2, objects=3)


def settings(**changes: Any) -> TrainSettings:
    fields: dict[str, Any] = {
        "epochs": 2,
        "batch": 2,
        "lr": 1e-3,
        "validation": ("interior",),
        "prompts": {"random": 1.0},
        "corrections": 0,
        "replay": 0.0,
    }
    return TrainSettings(**fields | changes)


def run(base: Segmenter, data: TrainingData, folder: Path, **changes: Any) -> tuple[Segmenter, TrainResult]:
    tuned = clone(base)
    return tuned, train(tuned, data, settings(**changes), folder, Place(Accelerator(cpu=True)))


def facts_of(history: list[EpochFacts]) -> list[EpochFacts]:
    """The history without what a clock says."""
    return [replace(facts, seconds=0.0, read_seconds=0.0) for facts in history]


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def test_it_learns_and_the_encoder_does_not_move(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    before, ids = fingerprint(base.sam), (base.encoder_id, base.decoder_id)
    seen: list[tuple[int, int, str]] = []
    tuned = clone(base)
    assert tuned.decoder_id == ids[1]
    result = train(
        tuned, squares.data, settings(epochs=6), tmp_path, Place(Accelerator(cpu=True)), lambda *a: seen.append(a)
    )
    losses = [facts.train_loss for facts in result.history]
    assert losses[0] is None
    first, last = losses[1], losses[-1]
    assert first is not None
    assert last is not None
    assert last < 0.3 * first
    assert result.history[-1].val_loss < result.history[0].val_loss
    assert result.history[-1].val_iou > 0.7 > 0.3 > result.history[0].val_iou
    # Trap 2: every parameter and buffer of the encoder, and the whole base, are what they were.
    assert result.encoder_unchanged
    assert fingerprint(base.sam) == before
    assert tuned.encoder is base.encoder
    assert (tuned.encoder_id, base.decoder_id) == ids
    assert tuned.decoder_id != ids[1]
    assert not any(p.requires_grad for p in tuned.sam.parameters())
    assert [done for done, _, _ in seen] == list(range(1, 25))
    assert result.steps == seen[0][1] == 24
    assert result.stop == "all 6 epochs done"
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["val_iou"] for line in lines] == [facts.val_iou for facts in result.history[1:]]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "lora", "lora_rank": 2},
        {"mode": "decoder+prompt", "corrections": 1, "masks": "three", "prompts": {"grid4": 1.0, "box": 1.0}},
        {"replay": 0.5, "replay_truth": "base", "anchor": 10.0},
    ],
    ids=["decoder", "lora", "corrections", "replay"],
)
def test_a_killed_run_ends_as_an_unbroken_one(
    base: Segmenter, several: SquareData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Killed in the middle of an epoch, and again when an epoch's steps are done but not its validation."""
    fields = {"epochs": 3, "batch": 2, "keep": "last"} | changes
    data = replace(several.data, general=several.data)
    unbroken, expected = run(base, data, tmp_path / "unbroken", **fields)
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1.0)

    def start(progress: Callable[[int, int, str], None] | None = None) -> tuple[Segmenter, TrainResult]:
        torch.manual_seed(int(np.random.default_rng().integers(1 << 30)))  # No run leans on torch's own numbers.
        tuned = clone(base)
        made = settings(**fields)
        return tuned, train(tuned, data, made, tmp_path / "broken", Place(Accelerator(cpu=True)), progress)

    def kill(step: int) -> Callable[[int, int, str], None]:
        def progress(done: int, total: int, what: str) -> None:
            if done == step:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt):
        start(kill(4))  # The fourth step is lost, the third was saved.
    calls: list[int] = []

    def validate(*args: Any) -> tuple[float, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", validate)
        with pytest.raises(KeyboardInterrupt):
            start(lambda done, total, what: calls.append(done))
    assert calls == [4]
    tuned, result = start()
    assert facts_of(result.history) == facts_of(expected.history)
    assert difference(weights(tuned), weights(unbroken)) == 0
    assert (result.steps, result.stop, result.best_epoch) == (expected.steps, expected.stop, expected.best_epoch)
    # Once more, with nothing left to do: the same weights without a step.
    again, repeated = start(kill(1))
    assert difference(weights(again), weights(unbroken)) == 0
    assert repeated.history == result.history


def test_other_settings_data_or_base_start_anew(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    """Weights that were tuned from another base's must not slip in."""
    run(base, squares.data, tmp_path, epochs=1)
    other = clone(base)
    with torch.no_grad():
        other.sam.mask_decoder.iou_token.weight.add_(1)  # type: ignore[union-attr, operator]
    for start, changes in ((base, {"seed": 1}), (other, {})):
        _, result = run(start, squares.data, tmp_path, epochs=1, **changes)
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
        assert result.history[1].seconds == json.loads(lines[-1])["seconds"]
        assert len(lines) == 1


def test_a_damaged_state_is_one_line(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    run(base, squares.data, tmp_path, epochs=1)
    path = tmp_path / "training.pt"
    for content in (b"", b"no state", path.read_bytes()[: path.stat().st_size // 2]):
        path.write_bytes(content)
        with pytest.raises(TrainingError, match=r"expected the state of a tuning run in .*delete it") as caught:
            run(base, squares.data, tmp_path, epochs=1)
        assert "\n" not in str(caught.value)


def test_tuning_that_only_hurts_keeps_the_base(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    """A hundred times too high a rate, on a base that is good already; patience stops it."""
    good, _ = run(base, squares.data, tmp_path / "good", epochs=6)
    tuned, result = run(good, squares.data, tmp_path / "bad", epochs=20, lr=0.5, warmup=0.0, patience=2, clip=0.0)
    ious = [facts.val_iou for facts in result.history]
    assert ious[0] > 0.7 > max(ious[1:])
    assert result.best_epoch == 0
    assert result.stop == "no better validation IoU for 2 epochs (best: epoch 0)"
    assert len(result.history) == 3
    assert difference(weights(tuned), weights(good)) == 0


def test_the_best_epoch_is_kept_or_the_last(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    """Oracle: the same prompts on the weights handed on give the validation IoU of that epoch again."""
    fields: dict[str, Any] = {"epochs": 5, "lr": 3e-3, "schedule": "constant", "patience": 0}
    for keep in ("best", "last"):
        tuned, result = run(base, squares.data, tmp_path / keep, keep=keep, **fields)
        ious = [facts.val_iou for facts in result.history]
        assert result.best_epoch == (int(np.argmax(ious)) if keep == "best" else 5)
        made = settings(keep=keep, **fields)
        assert loop.validate(tuned, squares.data, made)[1] == pytest.approx(ious[result.best_epoch], abs=1e-6)


def test_without_validation_images_the_last_epoch_is_kept(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    data = replace(squares.data, val=())
    tuned, result = run(base, data, tmp_path, patience=1, epochs=3)
    assert (len(result.history), result.best_epoch) == (4, 3)
    assert math.isnan(result.history[-1].val_iou)
    assert difference(weights(tuned), weights(base)) > 0


def test_the_monitor_sees_the_history_and_can_stop(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    def watch(history: list[EpochFacts]) -> tuple[list[str], bool]:
        return ["it is enough"] if len(history) == 3 else [], len(history) == 3

    tuned = clone(base)
    made = settings(epochs=9)
    result = train(tuned, squares.data, made, tmp_path, Place(Accelerator(cpu=True)), watch=watch)
    assert len(result.history) == 3
    assert result.history[-1].warnings == ["it is enough"]
    assert result.stop == "stopped by the monitor after epoch 2: it is enough"


def test_a_loss_that_is_not_finite_is_one_line(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    bad = squares.data.train[3].id

    def embeddings(items: Any) -> list[Embedding]:
        found = squares.embeddings(items)
        return [
            replace(e, tensor=torch.full_like(e.tensor, math.nan)) if item.id == bad else e
            for e, item in zip(found, items, strict=True)
        ]

    tuned = clone(base)
    with pytest.raises(
        TrainingError, match=rf"expected a finite loss, got nan at epoch 1, .*{bad}.*train\.lr"
    ) as caught:
        train(tuned, replace(squares.data, embeddings=embeddings), settings(), tmp_path, Place(Accelerator(cpu=True)))
    assert "\n" not in str(caught.value)
    assert all(torch.isfinite(value).all() for value in weights(tuned).values())


def test_nothing_to_train_on_is_one_line(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="expected at least one training image with an object, got none") as caught:
        run(base, replace(squares.data, train=()), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"prompts": {"grid4": 1.0}},
        {"prompts": {"grid4": 1.0}, "corrections": 2, "correction_share": 1.0},
        {"prompts": {"box_point": 1.0}, "corrections": 1, "correction_share": 1.0, "masks": "three"},
        {"loss_at": "image", "loss": "dice", "iou_head": 0.0},
        {"loss_at": "image", "masks": "three", "loss": "half_boundary"},
        {"mode": "lora", "loss": "sam"},
        {"mode": "decoder+prompt", "prompts": {"box": 1.0, "points3": 1.0}},
        {"mode": "all", "lr": 3e-4},
        {"mode": "all", "lr": 3e-4, "prompts": {"grid4": 1.0}, "corrections": 1, "correction_share": 1.0},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_way_of_training_lowers_its_loss(
    base: Segmenter, several: SquareData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    before = fingerprint(base.sam)
    tuned, result = run(base, several.data, tmp_path, **{"epochs": 4, "patience": 0, "keep": "last"} | changes)
    losses = [facts.train_loss or 0.0 for facts in result.history[1:]]
    assert min(losses[1:]) < losses[0]
    assert result.encoder_unchanged == (changes.get("mode") != "all")
    assert fingerprint(base.sam) == before
    assert tuned.sam.state_dict().keys() == base.sam.state_dict().keys()
    assert difference(weights(tuned), weights(base)) > 0


def test_grid_prompts_differ_in_number_within_a_batch(several: SquareData) -> None:
    """What the test above leans on: objects of one step with 2, 3 or 4 points, each object once."""
    items = list(several.data.train)
    masks = [several.masks(item) for item in items]
    batches = draw_batch(items, masks, settings(prompts={"grid4": 1.0}), (1, 0))
    counts = {p.points.shape[1] for batch in batches for p in batch.prompts if p.points is not None}
    assert len(counts) > 1
    assert sum(len(p) for batch in batches for p in batch.prompts) == sum(len(m) for m in masks)
    for batch in batches:
        assert len({p.points.shape[1] for p in batch.prompts if p.points is not None}) == 1
        for row, prompts, truth in zip(batch.rows, batch.prompts, batch.masks, strict=True):
            assert prompts.points is not None
            for points, mask in zip(prompts.points.astype(int), truth, strict=True):
                assert any((mask == other).all() for other in masks[row])
                assert all(mask[y, x] for x, y in points) or len(points) == 1


def test_at_most_so_many_objects_an_image_a_step(several: SquareData) -> None:
    items = list(several.data.train)
    masks = [several.masks(item) for item in items]
    chosen = [
        [batch.masks[0].shape[0] for batch in draw_batch(items[2:3], masks[2:3], settings(objects=2), (1, step))]
        for step in range(3)
    ]
    assert chosen == [[2], [2], [2]]


def test_the_gradient_of_a_batch_is_the_mean_over_its_objects(base: Segmenter, several: SquareData) -> None:
    """A step on images of one to three objects, in groups by number of points, against one object at a time."""

    class Recorder(Accelerator):  # type: ignore[misc]
        def clip_grad_norm_(self, parameters: Any, limit: float, norm_type: int = 2) -> torch.Tensor:
            self.gradient: torch.Tensor = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
            norm: torch.Tensor = self.gradient.norm()
            return norm

    accelerator = Recorder(cpu=True)
    made = settings(prompts={"grid4": 1.0}, batch=4)
    tuned = clone(base)
    parameters = prepare(tuned.sam, "decoder")
    optimizer = accelerator.prepare(torch.optim.SGD(parameters, lr=0.0))
    items = several.data.train

    def step(data: TrainingData) -> tuple[float, float]:
        tuning = Tuning(tuned, data, made, optimizer, accelerator, parameters, [])
        return loop._step(tuning, tuning.parts(1, tuning.order(1), 0), (1, 0))

    loss, norm = step(several.data)
    losses, gradients = [], []
    for item in items:
        for index in range(len(several.masks(item))):
            masks = lambda it, i=index: several.masks(it)[i : i + 1]  # type: ignore[misc]  # noqa: E731
            losses.append(step(replace(several.data, train=[item], masks=masks))[0])
            gradients.append(accelerator.gradient)
    assert loss == pytest.approx(float(np.mean(losses)), rel=1e-4)
    mean = torch.stack(gradients).mean(0)
    assert norm == pytest.approx(float(mean.norm()), rel=1e-3)


def stepped(
    model: Segmenter, data: TrainingData, made: TrainSettings, base: Segmenter | None = None
) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the first step, without a change of weights."""
    accelerator = Accelerator(cpu=True)
    parameters = prepare(model.sam, "decoder")
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    tuning = Tuning(model, data, made, optimizer, accelerator, parameters, [], base)
    loss, _ = loop._step(tuning, tuning.parts(1, tuning.order(1), 0), (1, 0))
    return loss, torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def test_replayed_images_add_their_weighted_gradient(base: Segmenter, several: SquareData, squares: SquareData) -> None:
    """One step on both against one on each: gradients add up, and the loss that is told is the domain's alone."""
    made = settings(batch=4, clip=0.0, replay_images=8, objects=3)
    both = replace(several.data, general=squares.data)
    loss, own = stepped(clone(base), several.data, made)
    _, general = stepped(clone(base), squares.data, made.model_copy(update={"batch": 8}))
    told, found = stepped(clone(base), both, made.model_copy(update={"replay": 0.25, "replay_truth": "masks"}))
    assert told == pytest.approx(loss, rel=1e-6)
    assert torch.allclose(found, own + 0.25 * general, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(found, own, rtol=1e-3, atol=1e-5)
    assert torch.equal(stepped(clone(base), both, made)[1], own)


def test_the_base_differs_from_its_own_answers_by_nothing(base: Segmenter, several: SquareData) -> None:
    """Towards its own probabilities the base stands at the minimum of the cross-entropy, its scores at theirs."""
    made = settings(batch=4, clip=0.0, replay=1.0, replay_images=4, objects=3, loss={"bce": 1.0})
    made = made.model_copy(update={"replay_truth": "base"})
    both = replace(several.data, general=several.data)
    _, own = stepped(clone(base), several.data, made)
    model, kept = clone(base), clone(base)
    _, found = stepped(model, both, made, kept)
    assert torch.allclose(found, own, atol=1e-6)
    with torch.no_grad():
        next(kept.sam.mask_decoder.parameters()).add_(1.0)
    assert not torch.allclose(stepped(clone(base), both, made, kept)[1], own, atol=1e-6)


def test_an_anchored_run_stays_near_the_base(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    """Weights move less the stronger the pull; at lr * anchor = 1 each step ends where it began."""
    moved = {}
    for anchor in (0.0, 300.0, 1e6):
        tuned, _ = run(base, squares.data, tmp_path / str(anchor), epochs=3, keep="last", anchor=anchor)
        moved[anchor] = difference(weights(tuned), weights(base))
    assert moved[0.0] > 1.5 * moved[300.0] > 0
    assert moved[1e6] == 0


def test_embeddings_are_read_once_an_item_and_step(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    squares.reads = 0
    run(base, squares.data, tmp_path, epochs=2, corrections=2, correction_share=1.0)
    assert squares.reads == 2 * 8 + 3 * 3  # Two epochs of 8 items, and 3 validation items before and after each.


def test_mode_all_needs_the_images(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="expected the images themselves to tune the whole model"):
        run(base, replace(squares.data, pixels=None), tmp_path, mode="all")


def test_bf16_trains_nearly_as_single_precision_does(base: Segmenter, squares: SquareData, tmp_path: Path) -> None:
    """On a CPU; a bfloat16 has 8 bits, so that losses agree to a few percent."""
    _, plain = run(base, squares.data, tmp_path / "plain", epochs=3)
    tuned = clone(base)
    AcceleratorState._reset_state(reset_partial_state=True)  # Precision is one for all accelerators of a process.
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        half = train(tuned, squares.data, settings(epochs=3), tmp_path / "half", Place(accelerator))
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    for one, other in zip(plain.history[1:], half.history[1:], strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=0.1)
        assert other.train_loss != one.train_loss
    assert all(value.dtype != torch.bfloat16 for value in weights(tuned).values())


def launched(folder: Path, count: int, changes: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of `count` processes on this CPU has left; they find each other by environment, as torchrun's do."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    command = [sys.executable, str(Path(__file__).with_name("two_processes.py")), str(folder), json.dumps(changes)]
    running = []
    for rank in range(count):
        own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        running.append(subprocess.Popen(command, env=own, stderr=subprocess.PIPE, text=True))
    try:
        for process in running:
            _, complaints = process.communicate(timeout=200)
            assert process.returncode == 0, complaints[-3000:]
    finally:
        for process in running:
            process.kill()
    return [torch.load(folder / f"process-{rank}.pt", weights_only=True) for rank in range(count)]


def test_two_processes_end_as_one_with_the_same_batch(tmp_path: Path, base: Segmenter) -> None:
    """Five images in batches of four: the second process has no image in each epoch's last step.

    With all that makes processes differ: objects an image, points an object, corrections, and when they would save.
    """
    changes = {
        "epochs": 2,
        "batch": 4,
        "lr": 1e-3,
        "mode": "decoder+prompt",
        "prompts": {"grid4": 0.5, "box": 0.5},
        "corrections": 1,
        "validation": ["interior"],
        "keep": "last",
        "replay": 0.5,
        "replay_images": 1,
        "anchor": 5.0,
    }
    first, second = launched(tmp_path / "two", 2, changes)
    assert first["processes"] == second["processes"] == 2
    assert difference(first["weights"], second["weights"]) == 0
    assert first["history"] == second["history"]
    data = replace(SquareData(base, train=5, val=2, objects=3).data, general=SquareData(base, train=3).data)
    tuned = clone(base)
    result = train(tuned, data, TrainSettings(**changes), tmp_path / "one", Place(Accelerator(cpu=True)))
    alone = weights(tuned)
    assert difference(alone, weights(base)) > 1e-3
    assert difference(first["weights"], alone) < 1e-4
    for facts, other in zip(result.history[1:], first["history"][1:], strict=True):
        assert other["train_loss"] == pytest.approx(facts.train_loss, rel=1e-3)
        assert other["grad_norm"] == pytest.approx(facts.grad_norm, rel=1e-2)


def test_the_learning_rate_by_hand() -> None:
    """Linear warm-up over a tenth of 100 steps, half a cosine to 1 % of the peak, or constant."""
    cosine = settings(lr=1.0, warmup=0.1)
    assert learning_rate(0, 100, cosine) == pytest.approx(1 / 11)
    assert learning_rate(9, 100, cosine) == pytest.approx(10 / 11)
    assert learning_rate(10, 100, cosine) == pytest.approx(1.0)
    assert learning_rate(55, 100, cosine) == pytest.approx(0.01 + 0.99 / 2)
    assert learning_rate(99, 100, cosine) < 0.011
    constant = settings(lr=1.0, warmup=0.0, schedule="constant")
    assert [learning_rate(step, 100, constant) for step in (0, 50, 99)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prompts": {"middle": 1.0}}, "expected prompt strategies of .* got 'middle'"),
        ({"prompts": {"box": 0.0}}, "expected prompt probabilities with a positive sum"),
        ({"validation": ("middle",)}, "expected prompt strategies"),
        ({"validation": ()}, "expected prompt probabilities with a positive sum"),
        ({"loss": "mse"}, "expected a loss of"),
        ({"loss": {"mse": 1.0}}, "expected weights of 0 or more"),
    ],
)
def test_wrong_settings_are_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        settings(**changes)
    assert "\n" not in str(caught.value)


def test_an_item_is_a_record_in_a_view() -> None:
    assert Item("a|flip", "a") == Item("a|flip", "a", "")
    assert SIDE == 128

"""The monitor on the study's three published training logs, on histories made up for one fault each, and on real runs.

Oracles: the thresholds and the losses that the study prints; for the made-up histories, the fault that was put in.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from accelerate import Accelerator
from pydantic import ValidationError

from specialsam.advice.probes.monitor import MonitorSettings, monitor, review
from specialsam.core.findings import alarms
from specialsam.core.place import Place
from specialsam.models.specialist import clone
from specialsam.training.loop import train
from specialsam.training.settings import TrainSettings
from specialsam.training.state import EpochFacts

WOOD = (0.1570, 0.0125, 0.0426, 0.0002, 0.0001)
CARPET = (0.2544, 0.2006, 0.1818, 0.1639, 0.1527)
CAMOUFLAGE = (0.1420, 0.1272, 0.1172, 0.1140, 0.1113, 0.1081, 0.1059)
REAL = {
    0.0001: (
        (0.498, 0.506, 0.433, 0.392, 0.355, 0.412),
        (0.336, 0.314, 0.301, 0.292, 0.290, 0.290),
        (0.491, 0.501, 0.512, 0.511, 0.510, 0.510),
    ),
    0.0005: (
        (0.444, 0.441, 0.369, 0.380, 0.319, 0.350),
        (0.314, 0.324, 0.306, 0.296, 0.303, 0.303),
        (0.483, 0.460, 0.493, 0.499, 0.493, 0.492),
    ),
    0.01: (
        (0.662, 0.519, 0.500, 0.495, 0.467, 0.448),
        (0.630, 0.507, 0.513, 0.473, 0.434, 0.438),
        (0.220, 0.153, 0.133, 0.335, 0.318, 0.315),
    ),
    0.05: (
        (1.093, 0.692, 0.678, 0.643, 0.642, 0.639),
        (0.740, 0.704, 0.629, 0.626, 0.627, 0.624),
        (0.039, 0.000, 0.000, 0.000, 0.000, 0.000),
    ),
}
"""By learning rate: training losses, validation losses and validation IoU of nano (base IoU 0.458), tuned for 6 epochs
on 60 generated scenes of 160 px."""
CHECKS = ["training loss", "training stability", "overfitting", "gradient norm", "validation gain"]


def history(losses, ious=None, base=0.5, val_losses=None, norms=None) -> list[EpochFacts]:
    """Epoch 0 (the base) and one epoch a training loss; validation rises a little where nothing else is said."""
    count = len(losses)
    ious = ious or [base + 0.02 + 0.01 * index for index in range(count)]
    val_losses = val_losses or [1.1 * loss for loss in losses]
    norms = norms or [1.0] * count
    facts = zip(range(1, count + 1), losses, val_losses, ious, norms, strict=True)
    return [
        EpochFacts(0, None, 0.3, base),
        *(EpochFacts(epoch, loss, val, iou, 1e-4, norm) for epoch, loss, val, iou, norm in facts),
    ]


def levels(facts) -> dict[str, str]:
    return {finding.check: finding.level for finding in review(facts)}


def said(facts, check) -> str:
    return next(finding.says for finding in review(facts) if finding.check == check)


def watched(facts, **settings) -> list[tuple[list[str], bool]]:
    """What the training loop hears after each epoch."""
    watch = monitor(MonitorSettings(**settings))
    return [watch(facts[: end + 1]) for end in range(1, len(facts))]


def test_the_wood_collapse_raises_what_the_study_names():
    facts = history(WOOD)
    assert levels(facts)["training loss"] == "fail"
    assert levels(facts)["training stability"] == "fail"
    heard = [" ".join(warnings) for warnings, _ in watched(facts)]
    assert heard[0] == ""
    assert "epoch 2: training loss 0.1570 to 0.0125 (-92 %), a collapse" in heard[1]
    assert "epoch 3: training loss 0.0125 to 0.0426 (+241 %), a rise after a fall" in heard[2]
    assert "epoch 4: training loss 0.0002, by the study's thresholds this is certainly overfitting" in heard[3]
    assert "epoch 5: training loss 0.0001, by the study's thresholds the training set is memorised" in heard[4]


@pytest.mark.parametrize("losses", [CARPET, CAMOUFLAGE])
def test_the_studys_healthy_runs_raise_no_alarm(losses):
    facts = history(losses)
    assert [finding.check for finding in review(facts)] == CHECKS
    assert alarms(review(facts)) == []
    assert all(heard == ([], False) for heard in watched(facts))


@pytest.mark.parametrize(("lr", "clean"), [(1e-4, True), (5e-4, True), (1e-2, False), (5e-2, False)])
def test_measured_runs_raise_an_alarm_only_where_the_learning_rate_was_too_high(lr, clean):
    losses, val_losses, ious = REAL[lr]
    facts = history(losses, ious, 0.458, val_losses)
    wanted = [] if clean else [("validation gain", "fail")]
    assert [(finding.check, finding.level) for finding in alarms(review(facts))] == wanted
    warned = [warnings for warnings, _ in watched(facts)]
    assert all("below the base's 0.458" in text for (text,) in warned) if not clean else warned == [[]] * 6


def test_a_slow_end_is_said_and_no_alarm():
    """The study prints 1.8 % for camouflage's last fall; its own losses, .1081 to .1059, make 2.04 %."""
    assert "6 of 6 epochs fell by the study's healthy 2 to 25 %" in said(history(CAMOUFLAGE), "training stability")
    slow = history((*CAMOUFLAGE, 0.1045, 0.1040))
    assert "6 of 8 epochs fell by the study's healthy 2 to 25 %" in said(slow, "training stability")
    assert alarms(review(slow)) == []


@pytest.mark.parametrize(
    ("loss", "level", "words"),
    [
        (0.0101, "pass", "ended at 0.0101"),
        (0.0099, "warn", "probably overfitting"),
        (0.00101, "warn", "probably overfitting"),
        (0.00099, "fail", "certainly overfitting"),
        (0.0001, "fail", "memorised"),
    ],
)
def test_the_studys_thresholds_on_the_loss(loss, level, words):
    facts = history([loss * 1.05, loss])
    facts[1].train_loss = max(loss * 1.05, 0.0102)
    found = next(finding for finding in review(facts) if finding.check == "training loss")
    assert (found.level, words in found.says) == (level, True)


def test_a_fall_of_ninety_percent_is_the_limit_of_a_collapse():
    assert levels(history([0.5, 0.051]))["training stability"] == "pass"
    assert levels(history([0.5, 0.049]))["training stability"] == "fail"


def test_a_rise_counts_from_ten_percent_where_validation_rose_with_it():
    assert levels(history([0.2, 0.18, 0.19]))["training stability"] == "pass"
    assert levels(history([0.2, 0.18, 0.21]))["training stability"] == "warn"
    assert levels(history([0.2, 0.18, 0.4]))["training stability"] == "fail"


def test_a_rise_that_validation_does_not_share_is_noise_up_to_a_doubling():
    calm = [0.22, 0.2, 0.2]
    assert levels(history([0.2, 0.18, 0.22], val_losses=calm))["training stability"] == "pass"
    assert levels(history([0.2, 0.18, 0.35], val_losses=calm))["training stability"] == "pass"
    assert levels(history([0.2, 0.18, 0.37], val_losses=calm))["training stability"] == "fail"
    unknown = [math.nan] * 3
    assert levels(history([0.2, 0.18, 0.22], val_losses=unknown))["training stability"] == "pass"
    assert levels(history(WOOD[:3], val_losses=unknown))["training stability"] == "fail"


def test_validation_that_stays_below_its_best_is_overfitting():
    losses = [0.2, 0.18, 0.16, 0.14, 0.12, 0.1]
    falling = history(losses, [0.60, 0.65, 0.61, 0.62, 0.60, 0.59])
    assert levels(falling)["overfitting"] == "warn"
    assert "for 3 epochs below the best, 0.650 of epoch 2" in said(falling, "overfitting")
    assert levels(history(losses, [0.60, 0.65, 0.61, 0.64, 0.61, 0.66]))["overfitting"] == "pass"
    plateau = history(losses, [0.60, 0.65, 0.645, 0.648, 0.646, 0.647])
    assert levels(plateau)["overfitting"] == "pass"


def test_a_growing_gap_between_the_losses_is_overfitting():
    losses = [0.2, 0.15, 0.1, 0.07, 0.05]
    grown = history(losses, val_losses=[0.22, 0.2, 0.21, 0.24, 0.27])
    assert levels(grown)["overfitting"] == "warn"
    assert "times that of epoch 1" in said(grown, "overfitting")
    assert levels(history(losses, val_losses=[0.22, 0.2, 0.19, 0.185, 0.18]))["overfitting"] == "pass"


def test_an_exploding_gradient_is_named_with_its_factor():
    facts = history([0.2, 0.19, 0.18, 0.17], norms=[1.0, 1.2, 0.8, 30.0])
    assert levels(facts)["gradient norm"] == "fail"
    assert "epoch 4: gradient norm 30, 30 times the median before" in said(facts, "gradient norm")
    assert levels(history([0.2, 0.19, 0.18], norms=[1.0, 1.2, 9.0]))["gradient norm"] == "pass"


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_fails_from_the_first_epoch(norm):
    facts = history([0.2], norms=[norm])
    assert levels(facts)["gradient norm"] == "fail"
    assert watched(facts, stops=("gradient norm",))[0][1] is True


def test_a_run_that_is_never_above_the_base_fails():
    facts = history([0.2, 0.19, 0.18], [0.40, 0.42, 0.41])
    assert levels(facts)["validation gain"] == "fail"
    assert "tuning made it worse" in said(facts, "validation gain")
    assert "epoch 1: validation IoU 0.400, below the base's 0.500" in watched(facts)[0][0][0]
    level = history([0.2, 0.19], [0.495, 0.498])
    assert levels(level)["validation gain"] == "pass"
    assert "best of 2 epochs has a validation IoU of 0.498, the base 0.500" in said(level, "validation gain")


def test_without_validation_images_it_is_said_that_nothing_was_compared():
    facts = history(CARPET, [math.nan] * 5, base=math.nan, val_losses=[math.nan] * 5)
    assert levels(facts) == dict.fromkeys(CHECKS[:4], "pass") | {"validation gain": "warn"}
    assert "no validation images" in said(facts, "validation gain")


def test_only_the_chosen_checks_stop_and_only_when_they_fail():
    facts = history(WOOD)
    assert not any(stop for _, stop in watched(facts))
    assert [stop for _, stop in watched(facts, stops=("training loss",))] == [False, False, False, True, True]
    assert [stop for _, stop in watched(facts, stops=("overfitting",))] == [False] * 5
    with pytest.raises(ValidationError, match="stops"):
        MonitorSettings(stops=("loss",))
    with pytest.raises(ValidationError, match="Extra inputs"):
        MonitorSettings(patience=3)


def test_the_signals_of_validation_stop_a_run_once_they_last():
    below = history([0.2] * 5, [0.40, 0.42, 0.41, 0.43, 0.42])
    assert [stop for _, stop in watched(below, stops=("validation gain",))] == [False, False, True, True, True]
    late = history([0.2] * 5, [0.55, 0.42, 0.41, 0.43, 0.42])
    assert not any(stop for _, stop in watched(late, stops=("validation gain",)))
    assert [stop for _, stop in watched(late, stops=("overfitting",))] == [False, False, False, True, True]
    still_gained = history([0.2] * 5, [0.60, 0.55, 0.54, 0.53, 0.52])
    assert not any(stop for _, stop in watched(still_gained, stops=("overfitting",)))
    assert levels(still_gained)["overfitting"] == "warn"


@pytest.mark.parametrize(
    "losses",
    [
        (0.313, 0.283, 0.234, 0.341, 0.230, 0.213, 0.229, 0.287),  # 10 images, rate 5e-4: +46 %
        (0.431, 0.452, 0.618, 0.422, 0.404, 0.525, 0.420, 0.497),  # 10 images, rate 1e-4: +37 %
        (0.331, 0.329, 0.315, 0.333, 0.257, 0.354, 0.301, 0.309),  # 56 images, rate 1e-4: +38 %
        (0.667, 0.205, 0.260, 0.191, 0.211, 0.196, 0.239),  # 9 photographs: -69 %, then +27 %
    ],
)
def test_the_noise_of_few_images_is_no_instability(losses):
    """Training losses measured on clean runs with new prompts each step; the validation loss is put level."""
    facts = history(losses, val_losses=[0.31] * len(losses))
    assert levels(facts)["training stability"] == "pass"
    assert all(heard == ([], False) for heard in watched(facts))


def test_training_stops_where_a_chosen_check_fails_and_not_otherwise(tmp_path, monkeypatch):
    """A learning rate that ruins the decoder, on bright squares."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "training"))
    from square_data import SquareData, random_nano

    base = random_nano()
    data = SquareData(base, train=4, val=2).data
    made = {"batch": 2, "patience": 0, "validation": ("interior",), "prompts": {"random": 1.0}}
    learned = clone(base, "learned")
    calm = TrainSettings(lr=2e-3, epochs=8, **made)
    assert train(learned, data, calm, tmp_path, Place(Accelerator(cpu=True))).best_epoch > 0
    results = {}
    for stop in (("validation gain",), ("training loss",)):
        watch = monitor(MonitorSettings(stops=stop))
        folder = tmp_path / stop[0]
        folder.mkdir()
        wild = TrainSettings(lr=1.0, epochs=4, **made)
        results[stop[0]] = train(clone(learned, "wild"), data, wild, folder, Place(Accelerator(cpu=True)), watch=watch)
    halted, ran_on = results["validation gain"], results["training loss"]
    assert len(halted.history) == 1 + 3
    assert halted.stop.startswith("stopped by the monitor after epoch 3: epoch 3: validation IoU")
    assert halted.best_epoch == 0
    assert len(ran_on.history) == 1 + 4
    assert any("below the base's" in warning for warning in ran_on.history[-1].warnings)


def test_every_warning_names_the_epoch_a_number_and_a_remedy_in_one_line():
    facts = history(WOOD, [0.40, 0.39, 0.38, 0.37, 0.36], norms=[1, 1, 1, 1, 40])
    heard = [warning for warnings, _ in watched(facts) for warning in warnings]
    assert len(heard) >= 8
    for warning in heard:
        assert warning.startswith("epoch ")
        assert "\n" not in warning
        assert "; " in warning
        assert any(letter.isdigit() for letter in warning.partition(":")[2])


@dataclass
class WithSensitivity(EpochFacts):
    """An epoch of a run that also measured how much the mask follows the prompt."""

    sensitivity: float | None = None


def test_a_model_that_goes_deaf_to_the_prompt_is_named_where_it_was_measured():
    def run(*values):
        return [WithSensitivity(i, 0.2 if i else None, 0.2, 0.5, sensitivity=value) for i, value in enumerate(values)]

    deaf = levels(run(0.6, 0.5, 0.2))
    assert deaf["prompt sensitivity"] == "warn"
    assert "prompt sensitivity" not in levels(run(0.6, 0.5, 0.4))
    assert "prompt sensitivity" not in levels(run(0.6, None, None))
    assert "prompt sensitivity" not in levels(history(CARPET))


def test_nothing_to_say_before_the_first_epoch():
    base = [EpochFacts(0, None, 0.3, 0.5)]
    assert monitor(MonitorSettings())(base) == ([], False)
    assert levels(base)["validation gain"] == "warn"

"""Watch a training run: the study's thresholds on the training loss, and signals that say more.

The thresholds of the study that this follows: a training loss under 0.01 probably means overfitting, under 0.001
certainly, at 0.0001 the training set is memorised; a fall of more than 90 % in one epoch and a rise after a fall mean
instability; 2 to 25 % an epoch is healthy. They depend on the loss and its scale; whether the model generalises is
seen on validation alone, which is what the other signals look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from pydantic import Field

from specialsam.core.findings import Finding, Level
from specialsam.core.settings import Settings
from specialsam.training.state import EpochFacts

LOSS, STABILITY, OVERFITTING, NORM, GAIN, PROMPT = (
    "training loss",
    "training stability",
    "overfitting",
    "gradient norm",
    "validation gain",
    "prompt sensitivity",
)
PROBABLY, CERTAINLY, MEMORISED = 0.01, 0.001, 0.00015
"""Training losses under which the study sees overfitting; its third limit is 0.0001 as printed with four digits."""
COLLAPSE = 0.9
"""Fall of the training loss within one epoch, as a share, that the study calls a collapse."""
HEALTHY = (0.02, 0.25)
"""Fall of the training loss in one epoch, as a share, that the study calls healthy."""
RISE, ALONE = 0.1, 1.0
"""Rise of the training loss in one epoch, as a share, from which it is no noise: where the validation loss rose with it
(by more than TOGETHER), and where it did not. Clean runs of nano (generated scenes of 176 px, 8 epochs, rates 1e-4 and
5e-4, prompts drawn anew each step) rose by up to 46 % on 10 images, 22 % on 20 and 38 % on 56; the logarithm of the
change from epoch to epoch had a standard deviation of 0.23, 0.12 and 0.14. So 50 % alone is still noise, a doubling is
three standard deviations. In the same runs the validation loss rose with it by 7 % at most."""
TOGETHER = 0.1
HARM = 0.02
"""Validation IoU below the base's by which an epoch is worse and not just noisy."""
EXPLOSION = 10.0
"""Gradient norm over the median of the epochs before."""
DEAF = 0.5
"""Share of the base's sensitivity to the prompt below which a model is going deaf to it."""

Signal = Literal[
    "training loss", "training stability", "overfitting", "gradient norm", "validation gain", "prompt sensitivity"
]


class MonitorSettings(Settings):
    """What may stop a run; everything else only warns."""

    stops: tuple[Signal, ...] = Field((), description="checks whose failure stops the run")
    falling: int = Field(3, description="epochs since the best validation IoU that count as overfitting", ge=2)
    gap: float = Field(1.5, description="growth of validation over training loss that counts as overfitting", gt=1)


@dataclass(frozen=True)
class _Epoch:
    number: int
    loss: float
    val_loss: float
    val_iou: float
    norm: float
    sensitivity: float | None


def monitor(settings: MonitorSettings) -> Callable[[list[EpochFacts]], tuple[list[str], bool]]:
    """What `training.loop.train` calls after each epoch: warnings about that epoch, and whether to stop."""

    def watch(history: list[EpochFacts]) -> tuple[list[str], bool]:
        findings = [finding for finding in _newest(history, settings) if finding.level != "pass"]
        stop = any(finding.level == "fail" and finding.check in settings.stops for finding in findings)
        return [f"{finding.says}; {finding.remedy}" for finding in findings], stop

    return watch


def review(history: Sequence[EpochFacts], settings: MonitorSettings | None = None) -> list[Finding]:
    """One finding a check over the whole run: the worst epoch of each, or what was seen when all were well."""
    settings = settings or MonitorSettings()
    trained = [facts for facts in history if facts.epoch > 0]
    out: list[Finding] = []
    every = [f for end in range(len(history)) if history[end].epoch for f in _newest(history[: end + 1], settings)]
    for check in (LOSS, STABILITY, OVERFITTING, NORM, GAIN):
        own = [finding for finding in every if finding.check == check and finding.level != "pass"]
        failed = [finding for finding in own if finding.level == "fail"]
        if check == GAIN:
            out.append(_gain(history))
        elif own:
            worst = (failed or own)[0]
            more = f" (and {len(own) - 1} more epochs)" if len(own) > 1 else ""
            out.append(Finding(check, worst.level, worst.says + more, worst.numbers, (), worst.remedy))
        else:
            out.append(Finding(check, "pass", _fine(check, trained), {"epochs": len(trained)}))
    deaf = [finding for finding in every if finding.check == PROMPT]
    return [*out, *deaf[-1:]]


def _newest(history: Sequence[EpochFacts], settings: MonitorSettings) -> list[Finding]:
    """What is to be said of the last epoch of `history`."""
    epochs = [_read(facts) for facts in history]
    if not epochs or epochs[-1].number == 0:
        return []
    found = [_loss(epochs[-1]), _fall(epochs), _overfit(epochs, settings), _norm(epochs)]
    found += [_harm(epochs, settings), _deaf(epochs)]
    return [finding for finding in found if finding is not None]


def _read(facts: EpochFacts) -> _Epoch:
    """An epoch as the checks see it; `sensitivity` is there where the run measured it."""
    loss = math.nan if facts.train_loss is None else facts.train_loss
    sensitivity: float | None = getattr(facts, "sensitivity", None)
    return _Epoch(facts.epoch, loss, facts.val_loss, facts.val_iou, facts.grad_norm, sensitivity)


def _loss(epoch: _Epoch) -> Finding | None:
    remedy = "read the validation IoU; add data or views, combine the losses, lower the learning rate"
    limits: tuple[tuple[float, str, Level], ...] = (
        (MEMORISED, "the training set is memorised", "fail"),
        (CERTAINLY, "this is certainly overfitting", "fail"),
        (PROBABLY, "this is probably overfitting", "warn"),
    )
    for limit, word, level in limits:
        if epoch.loss < limit:
            says = f"epoch {epoch.number}: training loss {epoch.loss:.4f}, by the study's thresholds {word}"
            numbers = {"epoch": epoch.number, "loss": epoch.loss}
            return Finding(LOSS, level, says, numbers, (), remedy)
    return None


def _fall(epochs: Sequence[_Epoch]) -> Finding | None:
    """A collapse (a fall of more than 90 %) or a rise after a fall."""
    losses = [epoch.loss for epoch in epochs if epoch.number > 0]
    if len(losses) < 2 or not all(math.isfinite(loss) for loss in losses[-2:]) or losses[-2] <= 0:
        return None
    change = losses[-1] / losses[-2] - 1
    numbers = {"epoch": epochs[-1].number, "loss": losses[-1], "change": change}
    remedy = "lower the learning rate, raise the batch, or use a warm-up"
    text = f"epoch {epochs[-1].number}: training loss {losses[-2]:.4f} to {losses[-1]:.4f} ({100 * change:+.0f} %)"
    if change < -COLLAPSE:
        return Finding(STABILITY, "fail", f"{text}, a collapse", numbers, (), remedy)
    before, after = epochs[-2].val_loss, epochs[-1].val_loss
    if change > (RISE if after > (1 + TOGETHER) * before else ALONE):
        fell = len(losses) > 2 and losses[-2] < losses[-3]
        level: Level = "fail" if change > 1 else "warn"
        return Finding(STABILITY, level, f"{text}, a rise{' after a fall' if fell else ''}", numbers, (), remedy)
    return None


def _overfit(epochs: Sequence[_Epoch], settings: MonitorSettings) -> Finding | None:
    """Validation IoU well under its best for some epochs, or validation loss that leaves the training loss behind.

    It is a failure where those epochs are all well under the base too: what was gained is lost again.
    """
    remedy = "stop at the best epoch (that is what is kept), add data or views, or tune less"
    best = max((e for e in epochs if math.isfinite(e.val_iou)), key=lambda e: e.val_iou, default=None)
    recent = epochs[-settings.falling :]
    if best is not None and best.number > 0 and epochs[-1].number - best.number >= settings.falling:
        ious = [epoch.val_iou for epoch in recent]
        if max(ious) < best.val_iou - HARM:
            says = f"epoch {epochs[-1].number}: validation IoU {ious[-1]:.3f}, for {settings.falling} epochs below "
            says += f"the best, {best.val_iou:.3f} of epoch {best.number}"
            numbers = {"epoch": epochs[-1].number, "val_iou": ious[-1], "best": best.val_iou}
            lost = epochs[0].number == 0 and max(ious) < epochs[0].val_iou - HARM
            return Finding(OVERFITTING, "fail" if lost else "warn", says, numbers, (), remedy)
    first, last = next((e for e in epochs if e.number == 1), None), epochs[-1]
    if first is None or last.number < 3 or min(first.loss, last.loss, first.val_loss) <= 0:
        return None
    growth = (last.val_loss / last.loss) / (first.val_loss / first.loss)
    if math.isfinite(growth) and growth > settings.gap and last.val_loss > 1.1 * min(e.val_loss for e in epochs):
        says = f"epoch {last.number}: validation over training loss grew to {growth:.1f} times that of epoch 1"
        return Finding(OVERFITTING, "warn", says, {"epoch": last.number, "growth": growth}, (), remedy)
    return None


def _norm(epochs: Sequence[_Epoch]) -> Finding | None:
    """A gradient norm that is not finite, or far above the median of the epochs before."""
    remedy = "lower the learning rate or clip the gradients (train.clip)"
    last = epochs[-1]
    if not math.isfinite(last.norm):
        says = f"epoch {last.number}: gradient norm {last.norm}, not a finite number"
        return Finding(NORM, "fail", says, {"epoch": last.number, "norm": str(last.norm)}, (), remedy)
    before = [epoch.norm for epoch in epochs[:-1] if epoch.number > 0 and math.isfinite(epoch.norm) and epoch.norm > 0]
    if len(before) < 2 or last.norm <= EXPLOSION * float(np.median(before)):
        return None
    ratio = last.norm / float(np.median(before))
    says = f"epoch {last.number}: gradient norm {last.norm:.3g}, {ratio:.0f} times the median before"
    return Finding(NORM, "fail", says, {"epoch": last.number, "ratio": ratio}, (), remedy)


def _harm(epochs: Sequence[_Epoch], settings: MonitorSettings) -> Finding | None:
    """Validation IoU below the base's: a failure where it stays there for some epochs and none before was better."""
    base, last = next((e for e in epochs if e.number == 0), None), epochs[-1]
    if base is None or not math.isfinite(base.val_iou) or last.val_iou >= base.val_iou - HARM:
        return None
    says = f"epoch {last.number}: validation IoU {last.val_iou:.3f}, below the base's {base.val_iou:.3f}"
    numbers = {"epoch": last.number, "val_iou": last.val_iou, "base": base.val_iou}
    recent = [epoch for epoch in epochs if epoch.number > 0][-settings.falling :]
    below = len(recent) == settings.falling and all(epoch.val_iou < base.val_iou - HARM for epoch in recent)
    lasting = below and all(epoch.val_iou <= base.val_iou for epoch in epochs)
    remedy = "lower the learning rate (try a tenth) or check the prompts' frame"
    return Finding(GAIN, "fail" if lasting else "warn", says, numbers, (), remedy)


def _deaf(epochs: Sequence[_Epoch]) -> Finding | None:
    """Sensitivity (how much the mask changes with the prompt, 0 for a model that ignores it) far below the base's."""
    base, last = next((e.sensitivity for e in epochs if e.number == 0), None), epochs[-1]
    if base is None or last.sensitivity is None or not base > 0 or last.sensitivity >= DEAF * base:
        return None
    says = f"epoch {last.number}: the mask follows the prompt {last.sensitivity:.2f}, the base's {base:.2f}"
    remedy = "train on images with several objects and prompts all over them, and check the prompts' frame"
    numbers = {"epoch": last.number, "sensitivity": last.sensitivity, "base": base}
    return Finding(PROMPT, "warn", says, numbers, (), remedy)


def _gain(history: Sequence[EpochFacts]) -> Finding:
    """Whether tuning ever came above the base on validation, and whether most epochs were below it."""
    base = next((f.val_iou for f in history if f.epoch == 0), math.nan)
    later = [f.val_iou for f in history if f.epoch > 0]
    if not later or not math.isfinite(base):
        says = "validation gain: nothing to compare, for there are no validation images"
        return Finding(GAIN, "warn", says, {}, (), "give the data a validation split")
    best = max(later)
    worse = sum(value < base - HARM for value in later)
    numbers = {"base": base, "best": best, "epochs": len(later), "worse": worse}
    says = f"the best of {len(later)} epochs has a validation IoU of {best:.3f}, the base {base:.3f}"
    remedy = "lower the learning rate (try a tenth), check the data with an audit, or use the base"
    if best <= base and worse:
        return Finding(GAIN, "fail", f"{says}: tuning made it worse", numbers, (), remedy)
    if 2 * worse > len(later):
        return Finding(GAIN, "warn", f"{says}, but {worse} epochs were worse than the base", numbers, (), remedy)
    return Finding(GAIN, "pass", says, numbers)


def _fine(check: str, trained: Sequence[EpochFacts]) -> str:
    losses = [facts.train_loss for facts in trained if facts.train_loss is not None]
    if check == LOSS and losses:
        return f"the training loss ended at {losses[-1]:.4f} after {len(losses)} epochs"
    if check == STABILITY and len(losses) > 1:
        falls = [1 - b / a for a, b in pairwise(losses) if a > 0]
        healthy = sum(HEALTHY[0] <= fall <= HEALTHY[1] for fall in falls)
        return f"the training loss made no jump; {healthy} of {len(falls)} epochs fell by the study's healthy 2 to 25 %"
    if check == OVERFITTING:
        return "validation IoU did not fall for long, and the losses stay together"
    return f"{len(trained)} epochs without an alarm"

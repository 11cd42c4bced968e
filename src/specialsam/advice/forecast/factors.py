"""The five factors that the study names, each with its rule as stated and with what this data says instead.

The rules rest on three experiments with faults of their own (a coordinate bug, a shortcut, a base scored in its
weakest mode), so each is computed and shown, and beside it what was measured here decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specialsam.advice.forecast.curve import Forecast
from specialsam.core.findings import Factor, Finding
from specialsam.evaluation.statistics import Interval, points

ROOM, SAMPLES, CAPACITY = 0.75, 5_000, 100_000_000
"""Base IoU below which the study sees room, samples that it wants, and parameters between its two models."""


@dataclass(frozen=True)
class Case:
    """What is to be tuned, and on what.

    `base` is the base's IoU by the prompt of the forecast, `best` the name and IoU of its best mode, `samples` training
    images, objects and views, `loss` the weights of the mix, `parameters` those of the encoder and of what is tuned.
    """

    base: float
    best: tuple[str, float]
    samples: Mapping[str, int]
    loss: Mapping[str, float]
    parameters: tuple[int, int]


def factors(case: Case, now: Forecast, doubled: Forecast, stability: Finding | None) -> tuple[Factor, ...]:
    """The five factors in the study's order.

    `now` and `doubled` are the forecast gain at the training images that there are and at twice as many, `stability`
    what the monitor said of the largest pilot (None: none was trained).
    """
    base, best, samples, loss, parameters = case.base, case.best, case.samples, case.loss, case.parameters
    forecast = points(Interval(now.gain, now.low, now.high, now.n))
    gain = f"the pilots forecast {forecast} IoU points at {now.n:,} training images"
    helps = now.low > 0 or (False if now.high <= 0 else None)
    views = samples["views"]
    pixel = any(loss.get(name, 0) > 0 for name in ("bce", "focal", "boundary"))
    region = any(loss.get(name, 0) > 0 for name in ("dice", "iou"))
    parts = " + ".join(f"{weight:g} {name}" for name, weight in loss.items())
    return (
        Factor(
            "room for improvement",
            "specialise only where the base is below 75 % mIoU",
            base < ROOM,
            f"the base reaches {100 * base:.1f} % IoU and, {best[0]}, {100 * best[1]:.1f} %; {gain}",
            helps,
        ),
        Factor(
            "data volume",
            "at least 5,000 diverse samples",
            views >= SAMPLES,
            f"{samples['images']:,} images with {samples['objects']:,} objects, {views:,} samples with their views; "
            f"{gain}, and {100 * doubled.gain:+.1f} at twice as many",
            helps,
        ),
        Factor(
            "loss composition",
            "never one loss alone: a pixel loss beside a region loss",
            pixel and region,
            f"the mix is {parts or 'empty'}; whether another mix would do better here was not measured",
            None,
        ),
        Factor(
            "model capacity",
            "the largest model that can be had for complex tasks",
            parameters[0] >= CAPACITY,
            f"{parameters[0] / 1e6:.1f} M parameters in the frozen encoder, {parameters[1] / 1e6:.1f} M tuned; {gain}",
            helps,
        ),
        Factor(
            "training stability",
            "a loss that falls gradually: not under 0.01, no fall above 90 %, no rise after a fall",
            None if stability is None else stability.level == "pass",
            "no pilot was trained" if stability is None else f"in the largest pilot: {stability.says}",
            None if stability is None else stability.level != "fail",
        ),
    )

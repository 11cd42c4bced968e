"""Whether more prompts help: three clicks should beat one, five three, and a box a click.

Tuning on single clicks can teach a decoder to answer the first click and to ignore what comes after it.
"""

from __future__ import annotations

import pandas as pd

from specialsam.advice.probes.promptability import BOX_SCALE
from specialsam.core.findings import LEVELS, Finding, Level
from specialsam.evaluation.statistics import Interval, flat, paired_bootstrap, points

CHECK = "more prompts"
STEPS = (("1 click", "3 clicks"), ("3 clicks", "5 clicks"), ("1 click", "box"))
"""What should not be worse: the second of each pair."""


def more_prompts(model: str, curve: pd.DataFrame, quality: pd.DataFrame, seed: int = 0) -> Finding:
    """Does `model` answer better the more it is told? Of `Clicks.curve` and the rows of `promptability`.

    Each step is a paired bootstrap over images. "fail" where a step is shown to lead down (the whole interval below 0),
    "warn" where its mean does, "pass" otherwise.
    """
    own, boxes = curve[curve["model"] == model], quality[quality["model"] == model]
    seen = {f"{n} click{'s' if n > 1 else ''}": _by_image(own[own["click"] == n]) for n in (1, 3, 5)}
    seen["box"] = _by_image(boxes[(boxes["axis"] == BOX_SCALE) & (boxes["value"] == 1.0)])
    changes: dict[str, Interval] = {}
    for fewer, more in STEPS:
        both = pd.concat([seen[fewer], seen[more]], axis=1, join="inner")
        if len(both):
            changes[f"{fewer} to {more}"] = paired_bootstrap(both.iloc[:, 0], both.iloc[:, 1], seed)
    down = {name: found for name, found in changes.items() if found.mean < 0}
    levels: list[Level] = ["fail" if found.high < 0 else "warn" for found in down.values()]
    level: Level = max(levels, key=LEVELS.index, default="pass")
    told = ", ".join(f"{name} {points(found)}" for name, found in (down or changes).items())
    says = f"{'More prompts make it worse' if down else 'More prompts never make it worse'}: {told} IoU points"
    remedy = "add correction rounds (train.corrections=1), points3 and box_jitter to train.prompts" if down else ""
    numbers: dict[str, float] = {}
    for name, found in changes.items():
        numbers |= flat(name, found)
    return Finding(CHECK, level, says, numbers | {"n": min((c.n for c in changes.values()), default=0)}, (), remedy)


def _by_image(rows: pd.DataFrame) -> pd.Series[float]:
    """Mean IoU of each record's objects."""
    return rows.groupby("record")["iou"].mean()

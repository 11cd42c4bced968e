"""Numbers and names as the report prints them: percent points with one decimal, true minus signs, a dash for NaN."""

from __future__ import annotations

import math
from typing import SupportsFloat

from specialsam.core.names import printable
from specialsam.metrics import METRICS
from specialsam.prompts import STRATEGIES

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"

RAW = frozenset({"mae"})
"""Metrics that are printed as they are, with three decimals, as the field does."""


def number(value: object) -> float:
    """A float of anything that a table or a dictionary may hold; NaN for None and for what is no number."""
    try:
        return float(value) if isinstance(value, str | SupportsFloat) else math.nan
    except (TypeError, ValueError):
        return math.nan


def words(key: object) -> str:
    """A table's key as words: "wood_oak" to "wood oak", a dash for nothing."""
    return " ".join(printable(str(key)).replace("_", " ").split()) or DASH


def brief(name: str, most: int = 34) -> str:
    """A name as a figure shows it: one line of at most `most` characters, an ellipsis for the rest.

    A first underscore gets a space before it, for matplotlib leaves names that begin with one out of a legend.
    """
    text = " ".join(printable(str(name)).split())
    text = f" {text}" if text.startswith("_") else text
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}{ELLIPSIS}"


def metric_name(key: str) -> str:
    """A metric's title: "iou" to "IoU"."""
    return METRICS[key].title if key in METRICS else words(key)


def strategy_name(key: str) -> str:
    """A prompt strategy in words: "clicks3" to "1 click and 2 corrections", "box_point" to "box and click"."""
    digits = key.removeprefix("clicks")
    if digits != key and digits.isdigit() and int(digits) > 1:
        return f"1 click and {int(digits) - 1} correction{'s' if int(digits) > 2 else ''}"
    return STRATEGIES[key].title if key in STRATEGIES else words(key)


def _finish(text: str, sign: bool) -> str:
    if not text.strip("-0."):
        return text.lstrip("-")
    if text.startswith("-"):
        return MINUS + text[1:]
    return "+" + text if sign else text


def score(value: object, metric: str = "iou", *, sign: bool = False) -> str:
    """A metric's value: "66.4" for a share 0.664, "0.031" for a raw metric, a dash for NaN; `sign` adds a plus."""
    figure = number(value)
    if not math.isfinite(figure):
        return DASH
    return _finish(f"{figure:.3f}" if metric in RAW else f"{100 * figure:.1f}", sign)


def interval(low: object, high: object, metric: str = "iou", *, sign: bool = False) -> str:
    """A confidence interval as "[64.1, 68.7]", empty when an end is not known."""
    if not (math.isfinite(number(low)) and math.isfinite(number(high))):
        return ""
    return f"[{score(low, metric, sign=sign)}, {score(high, metric, sign=sign)}]"


def probability(value: object) -> str:
    """A p-value: three decimals, "< 0.001" below."""
    figure = number(value)
    if not math.isfinite(figure):
        return DASH
    return "< 0.001" if figure < 0.001 else f"{figure:.3f}"


def count(value: object) -> str:
    """A whole number with thousands separators, a dash when unknown."""
    figure = number(value)
    return f"{round(figure):,}" if math.isfinite(figure) else DASH


def duration(seconds: object) -> str:
    """Seconds as people say them: "0.4 s", "48 s", "12 min 5 s", "3 h 2 min"."""
    figure = number(seconds)
    if not math.isfinite(figure):
        return DASH
    if figure < 10:
        return f"{figure:.1f} s"
    whole = round(figure)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def lead(value: object, other: object, metric: str = "iou") -> float:
    """By how much `value` is better than `other` (negative: worse), also for metrics where lower is better."""
    difference = number(value) - number(other)
    return difference if metric not in METRICS or METRICS[metric].higher_is_better else -difference


def trend(low: object, high: object) -> str:
    """A gain's interval in a word: "up" when all of it is above zero, "down" when below, "flat" when it includes zero.

    Gains are positive when the specialist is better, whatever the metric (`evaluation.tables.comparison`).
    """
    if not (math.isfinite(number(low)) and math.isfinite(number(high))):
        return "unknown"
    return "up" if number(low) > 0 else "down" if number(high) < 0 else "flat"

"""GO, NO-GO or UNSURE, before tuning: one decision, and the reasons in words that a manager understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from specialsam.advice.forecast import Forecast, Needed
from specialsam.core.findings import Finding, alarms

Decision = Literal["GO", "NO-GO", "UNSURE"]

SPOILS: frozenset[str] = frozenset(
    {
        "image counts",
        "mask polarity",
        "mask alignment",
        "masks belong to images",
        "label noise",
        "exact duplicates across splits",
        "near-duplicates across splits",
        "prompt frame",
        "encoder mode",
        "embedding parity",
        "layout shortcut",
        "blind decoder",
    }
)
"""Checks whose failure makes every number below them worthless: mend it first."""


@dataclass(frozen=True)
class Judgement:
    """What to do, in one headline, and why; each reason carries its number."""

    decision: Decision
    headline: str
    reasons: tuple[str, ...]


def judge_before(
    findings: Sequence[Finding], now: Forecast, doubled: Forecast, needed: Needed, best_mode: tuple[str, float, float]
) -> Judgement:
    """The advice from the checks, the forecast at the images that there are and at twice as many, and what is wished.

    `best_mode` is the name of the base's best other mode, its IoU, and the base's IoU by the prompt that the forecast
    is about: a gain that a better prompt already gives is no reason to tune. GO: the interval of the forecast lies
    above 0 and its mean reaches the wished gain. NO-GO: the whole interval lies below the wished gain. Else UNSURE.
    """
    spoiled = [finding for finding in alarms(findings) if finding.level == "fail" and finding.check in SPOILS]
    reasons = [f"{finding.check}: {finding.says}. {_sentence(finding.remedy)}" for finding in spoiled]
    wished = needed.wished
    expected = f"{100 * now.gain:+.1f} IoU points ({100 * now.low:+.1f} to {100 * now.high:+.1f})"
    reasons.append(f"Short pilot runs forecast {expected} with the {now.n} training images that there are.")
    reasons.append(
        f"With twice as many images the forecast is {100 * doubled.gain:+.1f} "
        f"({100 * doubled.low:+.1f} to {100 * doubled.high:+.1f}); {needed.says}."
    )
    name, other, own = best_mode
    if other - own > 0:
        reasons.append(
            f"Without any tuning the base gains {100 * (other - own):+.1f} points {name} instead of by one click"
            + (": more than tuning is expected to bring." if other - own > now.gain else ".")
        )
    if spoiled:
        return Judgement("NO-GO", "Mend the data first: what failed spoils every result.", tuple(reasons))
    if now.low > 0 and now.gain >= wished:
        return Judgement("GO", f"Specialising is expected to be worth it: {expected}.", tuple(reasons))
    if now.high < wished:
        words = f"Not worth it: even the upper limit of the forecast is below the {100 * wished:.0f} points wished for."
        return Judgement("NO-GO", words, tuple(reasons))
    words = f"It cannot be told yet: {expected} expected, {100 * wished:.0f} points wished for."
    return Judgement("UNSURE", words, tuple(reasons))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"

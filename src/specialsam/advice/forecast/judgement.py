"""GO, NO-GO or UNSURE, before tuning: one decision, and the reasons in words that a manager understands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from specialsam.advice.forecast.curve import Forecast, Needed
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
"""Checks whose failure makes every number worthless: mend that first."""


@dataclass(frozen=True)
class Judgement:
    """What to do, in one headline, and why; each reason carries its number."""

    decision: Decision
    headline: str
    reasons: tuple[str, ...]


def decide(
    findings: Sequence[Finding], now: Forecast, doubled: Forecast, needed: Needed, best_mode: tuple[str, float, float]
) -> Judgement:
    """The advice from the checks, the forecast at the images that there are and at twice as many, and what is wished.

    `best_mode` is the name of the base's best other mode, its IoU, and the base's IoU by the prompt that the forecast
    is about. GO: the interval of the forecast lies above 0 and its mean reaches the wished gain. NO-GO: the whole
    interval lies below the wished gain, or something is to be mended first. Else UNSURE. What the base gains by the
    better mode without tuning changes no decision, since that mode may cost more clicks, but the headline of a GO says
    it where it is more than tuning is expected to bring.
    """
    spoiled = [finding for finding in alarms(findings) if finding.level == "fail" and finding.check in SPOILS]
    reasons = [f"{finding.check}: {finding.says}. {_sentence(finding.remedy)}" for finding in spoiled]
    wished = f"{100 * needed.wished:.3g} points wished for"
    expected = f"{100 * now.gain:+.1f} IoU points ({100 * now.low:+.1f} to {100 * now.high:+.1f})"
    reasons.append(
        f"Short pilot runs forecast a change of {expected} with the {now.n:,} training images that there are; "
        "the brackets hold what 95 of 100 such runs would show."
    )
    reasons.append(
        f"With twice as many images the forecast is {100 * doubled.gain:+.1f} "
        f"({100 * doubled.low:+.1f} to {100 * doubled.high:+.1f}); {needed.says}."
    )
    name, other, own = best_mode
    free = other - own
    more = free > max(now.gain, 0)
    if free > 0:
        reasons.append(
            f"Without any tuning the base reaches {100 * other:.1f} % IoU {name}, {100 * free:.1f} points above the "
            f"{100 * own:.1f} % of the prompt that the forecast is about"
            + (": more than tuning is expected to bring." if more else ".")
        )
    if spoiled:
        names = ", ".join(finding.check for finding in spoiled)
        return Judgement("NO-GO", f"Mend this first, for it spoils every number: {names}.", tuple(reasons))
    if now.low > 0 and now.gain >= needed.wished:
        words = f"Specialising is expected to be worth it: {expected}"
        words += f"; but try the base {name} first, which gains {100 * free:.1f} without tuning." if more else "."
        return Judgement("GO", words, tuple(reasons))
    if now.high < needed.wished:
        words = (
            f"Not worth it: even the upper end of the forecast, {100 * now.high:+.1f} IoU points, is below the {wished}"
        )
        return Judgement("NO-GO", f"{words}.", tuple(reasons))
    words = (
        f"It cannot be told yet: {expected} expected, {wished}; more pilots or more labelled images would narrow it."
    )
    return Judgement("UNSURE", words, tuple(reasons))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"

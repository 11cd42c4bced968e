"""Never hand on a worse model: mix base and tuned weights, keep the mixture that validation and memory support.

Base and tuned weights of one training path can be mixed linearly, and mixtures often keep most of the gain and lose
less elsewhere (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", WiSE-FT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from specialsam.advice.guard.retention import ALLOWED_LOSS, GENERATED, NONE, Part, retention_iou, retention_set
from specialsam.core.errors import ModelError
from specialsam.core.findings import Finding, Level
from specialsam.core.place import Spread, alone
from specialsam.core.settings import Settings
from specialsam.embeddings import EmbeddingStore
from specialsam.evaluation.statistics import Interval, flat, paired_bootstrap, points
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone

Kept = Literal["base", "tuned", "mixture"]
ENOUGH = 0.95
"""Share of the largest gain with which a mixture nearer to the base is preferred."""
Measure = Callable[[Segmenter], Sequence[float]]
"""From a model to one IoU in 0..1 an image, the same images in the same order every time."""


class GuardSettings(Settings):
    """Which mixtures are tried, and what a specialist may lose."""

    enabled: bool = Field(True, description="choose among mixtures; off hands on the tuned model whatever it does")
    alphas: tuple[float, ...] = Field((0, 0.25, 0.5, 0.75, 1), description="shares of the tuned weights; 0 is the base")
    allowed_loss: float = Field(ALLOWED_LOSS, description="IoU (0.05 is 5 points) that may be lost elsewhere", ge=0)
    level: float = Field(0.95, description="confidence of the intervals", gt=0, lt=1)
    retention: str = Field(GENERATED, description="general images: generated, a labelled data set's folder, or none")
    retention_images: int = Field(40, description="most general images", ge=1)

    @field_validator("alphas")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(0 <= alpha <= 1 for alpha in value) or max(value) == 0:
            raise ValueError(f"expected shares in 0..1, one of them above 0, got {value}")
        return tuple(sorted({0.0, *value}))


@dataclass(frozen=True)
class MixtureRow:
    """One mixture: validation IoU, its gain over the base, and the drop on general images (None: not asked)."""

    alpha: float
    iou: float
    gain: Interval
    drop: Interval | None

    def plain(self) -> dict[str, float]:
        """Flat, for tables and JSON; differences are IoU in -1..1, and what is not known is left out."""
        numbers = {"alpha": self.alpha, "iou": self.iou} | flat("gain", self.gain)
        return numbers | (flat("drop", self.drop) if self.drop else {})


@dataclass(frozen=True)
class Guarded:
    """What is handed on: `segmenter` with the share `alpha` of the tuned weights, and why."""

    alpha: float
    segmenter: Segmenter
    rows: tuple[MixtureRow, ...]
    kept: Kept
    says: str
    finding: Finding


def interpolate(base: Segmenter, tuned: Segmenter, alpha: float) -> Segmenter:
    """The weights (1 - alpha) base + alpha tuned; at 0 and 1 the very models that were given.

    Only tensors that differ are mixed. The encoder is shared with the base where tuning left it as it was, and mixed
    into a copy otherwise; counters (integer tensors) come from the nearer model. Raises ModelError for models of
    another architecture, input side, or with low-rank terms that were not merged.
    """
    if not 0 <= alpha <= 1:
        raise ModelError(f"expected a share of the tuned weights in 0..1, got {alpha}")
    first, second = base.sam.state_dict(), tuned.sam.state_dict()
    _check_same(base, tuned, first, second)
    if alpha in (0, 1):
        return tuned if alpha else base
    differ = [name for name, value in first.items() if not torch.equal(value, second[name].to(value.device))]
    shared = not any(name.startswith("vision_encoder.") for name in differ)
    mixture = clone(base, tuned.name, share_encoder=shared)
    state = mixture.sam.state_dict()
    with torch.no_grad():
        for name in differ:
            one, other = first[name], second[name].to(first[name].device)
            if one.is_floating_point():
                state[name].copy_(torch.lerp(one.float(), other.float(), alpha))
            else:
                state[name].copy_(other if alpha >= 0.5 else one)
    mixture.sam.eval().requires_grad_(False)
    return mixture


def _check_same(base: Segmenter, tuned: Segmenter, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    wrong = sorted(first.keys() ^ second.keys())
    wrong += [name for name in first.keys() & second.keys() if first[name].shape != second[name].shape]
    if wrong or base.side != tuned.side:
        what = f"{len(wrong)} tensors differ in name or shape, the first {wrong[0]}" if wrong else "the sides differ"
        raise ModelError(f"expected base and tuned model of one architecture, got {base.name} and {tuned.name}: {what}")


def retention_measure(
    base: Segmenter,
    settings: GuardSettings,
    seed: int = 0,
    machine: EmbeddingStore | None = None,
    spread: Spread = alone,
    part: Part = "all",
) -> Measure | None:
    """What `guard` asks about general images by its settings; None where they say "none".

    `part` is "measured" where others of them were replayed in tuning, `machine` a store of `retention_set`. They are
    made when they are first asked about.
    """
    if settings.retention == NONE or not settings.enabled:
        return None
    how = settings.retention, settings.retention_images, seed
    general = cache(lambda: retention_set(base, *how, part=part, machine=machine))
    return lambda segmenter: retention_iou(segmenter, general(), spread=spread).tolist()


def guard(
    base: Segmenter,
    tuned: Segmenter,
    validation: Measure,
    retention: Measure | None,
    settings: GuardSettings,
    seed: int = 0,
) -> Guarded:
    """Choose on validation among mixtures of `base` and `tuned`; the base where none of them is shown to be better.

    A mixture may be kept if the lower limit of its paired bootstrap gain on validation is above 0 and its mean loss on
    general images is within `allowed_loss`; of these the one nearest to the base is kept that has ENOUGH of the largest
    gain: the last few per cent of a gain cost most elsewhere. General images are asked only about mixtures that this
    rule turns on, the largest gain first. The gain of the chosen one is optimistic, because it was
    chosen on the same images: only a test split that took no part says how large it is. Four chances are more than one:
    of models that gain nothing, 5 to 6 % were kept at a level of 0.95 (8 to 60 images resampled from nano's own gains
    with their mean removed; nominal 2.5 %).
    """
    if not settings.enabled:
        says = "The guard is off: the tuned model is handed on without comparing it with the base."
        remedy = "switch the guard on, or read the comparison on the test split"
        return Guarded(1.0, tuned, (), "tuned", says, Finding("guard", "warn", says, {"alpha": 1.0}, (), remedy))
    gains = _gains(base, tuned, validation, settings, seed)
    shown = sorted((row for row in gains if row.alpha and row.gain.low > 0), key=lambda row: -row.gain.mean)
    asked = _General(base, tuned, retention, settings, seed)
    most = next(filter(asked.allows, shown), None)
    if most is None:
        return _keep_base(base, gains, shown, asked, settings)
    enough = [row for row in shown if row.alpha < most.alpha and row.gain.mean >= ENOUGH * most.gain.mean]
    best = asked.with_drop(next(filter(asked.allows, sorted(enough, key=lambda row: row.alpha)), most))
    rows = asked.with_drops(gains)
    kept: Kept = "tuned" if best.alpha == 1 else "mixture"
    says = (
        f"Kept: {_name(best)}, {points(best.gain)} IoU points over the base on {best.gain.n} validation images, "
        f"{_memory(best)}; it was chosen on these images among {len(rows)} shares, so the gain is optimistic and only "
        "the test split tells its size." + _forgone(best, rows, settings)
    )
    finding = Finding("guard", "pass", says, _numbers(best, kept, settings))
    return Guarded(best.alpha, interpolate(base, tuned, best.alpha), rows, kept, says, finding)


def _gains(
    base: Segmenter, tuned: Segmenter, validation: Measure, settings: GuardSettings, seed: int
) -> tuple[MixtureRow, ...]:
    """A row an alpha, without what is lost elsewhere; one mixture at a time is in memory."""
    before = validation(base)
    rows = []
    for alpha in settings.alphas:
        after = validation(interpolate(base, tuned, alpha)) if alpha else before
        gain = paired_bootstrap(before, after, seed, level=settings.level)
        rows.append(MixtureRow(alpha, sum(after) / len(after), gain, None))
    return tuple(rows)


class _General:
    """What mixtures lose on general images: each is measured when it is first asked for, for it takes a while."""

    def __init__(
        self, base: Segmenter, tuned: Segmenter, retention: Measure | None, settings: GuardSettings, seed: int
    ):
        self.base, self.tuned, self.retention, self.settings, self.seed = base, tuned, retention, settings, seed
        self.known: dict[float, Sequence[float]] = {}
        """IoU of general images by the alphas that were asked for."""

    def with_drop(self, row: MixtureRow) -> MixtureRow:
        """The row with what its mixture loses, None where no general images are asked about."""
        if self.retention is None:
            return row
        for alpha in {0.0, row.alpha} - self.known.keys():
            self.known[alpha] = self.retention(interpolate(self.base, self.tuned, alpha))
        drop = paired_bootstrap(self.known[row.alpha], self.known[0.0], self.seed, level=self.settings.level)
        return replace(row, drop=drop)

    def with_drops(self, rows: Sequence[MixtureRow]) -> tuple[MixtureRow, ...]:
        """The rows, with what is lost where it is known."""
        return tuple(self.with_drop(row) if row.alpha in self.known else row for row in rows)

    def allows(self, row: MixtureRow) -> bool:
        """Whether the row's mixture loses no more than it may."""
        drop = self.with_drop(row).drop
        return drop is None or drop.mean <= self.settings.allowed_loss


def _keep_base(
    base: Segmenter, gains: Sequence[MixtureRow], shown: list[MixtureRow], asked: _General, settings: GuardSettings
) -> Guarded:
    """The base, with the reason: no gain that is shown, harm, or a gain that costs too much elsewhere."""
    rows = asked.with_drops(gains)
    mixtures = [row for row in rows if row.alpha]
    full = mixtures[-1]
    level: Level = "fail" if full.gain.high < 0 else "warn"
    if shown:
        best = asked.with_drop(shown[0])
        why = f"{_name(best)} gains {points(best.gain)} IoU points on validation, but {_memory(best)}"
        why += f", more than the {100 * settings.allowed_loss:.1f} that are allowed"
        remedy = "tune less (lower learning rate, fewer epochs, low-rank terms), or allow a larger loss elsewhere"
    else:
        best = max(mixtures, key=lambda row: (row.gain.mean, -row.alpha))
        why = f"no share of the tuned weights is shown to be better on {best.gain.n} validation images; "
        why += f"{_name(best)} gains {points(best.gain)} IoU points"
        why += "" if best is full else f", {_name(full)} {points(full.gain)}"
        remedy = "use the base; more labelled images, or a lower learning rate if tuning made it worse"
    says = f"The base is kept: {why}."
    finding = Finding("guard", level, says, _numbers(best, "base", settings) | {"alpha": 0.0}, (), remedy)
    return Guarded(0.0, base, rows, "base", says, finding)


def _forgone(kept: MixtureRow, rows: Sequence[MixtureRow], settings: GuardSettings) -> str:
    """What the limit on losses elsewhere costs: the largest gain of a mixture that surely gains more than `kept`."""
    more = max(rows, key=lambda row: row.gain.mean)
    if more.gain.low <= kept.gain.high:
        return ""
    return (
        f" {_name(more)[0].upper()}{_name(more)[1:]} would gain {points(more.gain)} points, but {_memory(more)}: where "
        f"nothing but this domain matters, allow more than {100 * settings.allowed_loss:.1f} (guard.allowed_loss)."
    )


def _name(row: MixtureRow) -> str:
    return "the tuned model" if row.alpha == 1 else f"a mixture with {row.alpha:g} of the tuned weights"


def _memory(row: MixtureRow) -> str:
    if row.drop is None:
        return "what it lost on general images was not measured"
    return f"it loses {points(row.drop, '-')} points on {row.drop.n} general images"


def _numbers(row: MixtureRow, kept: Kept, settings: GuardSettings) -> dict[str, float | int | str]:
    """Numbers of the best mixture; `alpha` is what is handed on, `best_alpha` whose numbers these are."""
    more = {"best_alpha": row.alpha, "n": row.gain.n, "kept": kept}
    return {**row.plain(), **more, "allowed_loss": settings.allowed_loss, "level": settings.level}

"""Do the masks lie on what is in their images? All shifted, all shuffled, or a share of them wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from specialsam.advice.checks.data_checks import named
from specialsam.advice.checks.edges import REACH, agreement, best_shift
from specialsam.advice.checks.image_facts import ImageFacts, usable
from specialsam.advice.checks.second_opinion import ASKED, second_opinion
from specialsam.advice.subject import Subject
from specialsam.core.findings import Finding, Level
from specialsam.core.randomness import generator

_Values = npt.NDArray[np.float64]

FEWEST = 8
"""Images below which nothing is said about the labels as a whole."""
SHIFT, SURELY = 3.0, 2.0
"""Working pixels from which masks count as shifted, and by which nearly all resamples must be off. Best mean shifts on
clean data: 0 px for generated scenes and CAMO, 1 px for MVTec grid, 2 px for 25 images of a fabric, labelled widely;
shifts of 3 to 10 px planted into 48 to 80 scenes are found to the pixel."""
RESAMPLES, CERTAIN = 400, 0.975
"""Bootstrap resamples of the images, and the share of them that must agree that the masks are shifted."""

FOREIGN = 40
"""Other images whose outlines are laid on each image: the chance level is known to a sixth of its spread."""
BELONG_CHANCE = 0.05
"""Share of shuffled assignments that may agree with the edges as well as the masks given."""
BELONG_LEAST = 0.8
"""Mean advantage of the own mask in spreads of chance: 3.0 to 5.6 on clean data, 0.0 when shuffled."""

NOISE_QUANTILE = 0.7
"""Masks below this quantile of foreign ones are doubtful: 70 % of the wrong ones are."""
NOISE_CLEAN, NOISE_LIMIT = 0.05, 0.085
"""Share of doubtful masks in clean data, and the share that the lower limit must pass for an alarm. Doubtful in clean
data: 2 to 6 of 80 generated scenes, 13 of 200 of CAMO, 1 of 30 of MVTec grid, 0 of 25 of a fabric. With 20 % wrong
masks 14 to 18 of 80 scenes, 35 of 200 of CAMO; with 10 % wrong 8 to 14 of 80, which is found sometimes."""
NOISE_LIKELY, NOISE_DISAGREES = 0.05, 0.7
"""Estimated share of wrong masks from which the base is asked although the limit is not passed, and the share of its
IoU on the others below which its IoU on the suspects makes an alarm of it. Clean data have a share of 0.04 at most;
with 20 % wrong masks in 80 scenes it is 0.06 to 0.25, and nano's IoU on the suspects .43 to .74 of that on others."""
NOISE_FAIL = 0.35
"""Estimated share of wrong masks from which it is a failure; below, a warning."""
NOISE_LEVEL = 0.05
"""Error of the one-sided lower limit (Clopper and Pearson 1934)."""


@dataclass(frozen=True)
class Belonging:
    """Advantage of each image's own mask over foreign ones in spreads of chance (`own`), and the same of foreign masks.

    `chance` is the share of shuffled assignments that agree with the edges as well as the true one.
    """

    facts: tuple[ImageFacts, ...]
    own: _Values
    foreign: _Values
    chance: float
    comparable: bool


def mask_alignment(facts: Sequence[ImageFacts]) -> Finding:
    """All masks shifted by the same step against their images."""
    check = "mask alignment"
    kept = [fact for fact in usable(facts) if fact.sketch is not None and len(fact.sketch.outline)]
    if len(kept) < FEWEST:
        return Finding(check, "pass", f"{len(kept)} images with an outline, too few to measure a common shift")
    maps = np.stack([fact.sketch.shifts.ravel() for fact in kept if fact.sketch is not None]).astype(np.float64)
    spread = maps.std(1, keepdims=True)
    maps = (maps - maps.mean(1, keepdims=True)) / np.where(spread > 0, spread, 1)
    side = 2 * REACH + 1
    dx, dy = best_shift(maps.mean(0).reshape(side, side).astype(np.float32))
    rng = generator(0, "mask alignment")
    weights = rng.multinomial(len(kept), np.full(len(kept), 1 / len(kept)), RESAMPLES)
    rows, columns = np.divmod((weights @ maps).argmax(1), side)
    off = np.hypot(rows - REACH, columns - REACH)
    sure = float((off >= SURELY).mean())
    scale = float(np.median([fact.scale for fact in kept]))
    numbers = {
        "images": len(kept),
        "shift in x": dx / scale,
        "shift in y": dy / scale,
        "resamples that agree": sure,
        "smallest shift (2.5 %)": float(np.quantile(off, 0.025)) / scale,
        "largest shift (97.5 %)": float(np.quantile(off, 0.975)) / scale,
    }
    text = (
        f"the masks fit the edges of {len(kept)} images best when moved by {dx / scale:+.0f} px in x "
        f"and {dy / scale:+.0f} px in y"
    )
    if np.hypot(dx, dy) < SHIFT or sure < CERTAIN:
        return Finding(check, "pass", text, numbers)
    remedy = (
        f"move all masks by {dx / scale:+.0f} px in x (right is +) and {dy / scale:+.0f} px in y (down is +); look for "
        "a crop, a padding or another scaling that was applied to images and masks differently"
    )
    return Finding(
        check, "fail", f"{text} ({sure:.0%} of resamples agree)", numbers, named([f.file for f in kept]), remedy
    )


def common_shift(finding: Finding, facts: Sequence[ImageFacts]) -> tuple[float, float]:
    """The shift in working pixels that a failed `mask_alignment` found, (0, 0) from a passed one."""
    if finding.level == "pass":
        return 0.0, 0.0
    scale = float(np.median([f.scale for f in usable(facts) if f.sketch is not None and len(f.sketch.outline)]))
    return float(finding.numbers["shift in x"]) * scale, float(finding.numbers["shift in y"]) * scale


def belonging(facts: Sequence[ImageFacts], shift: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> Belonging:
    """Lay each outline on its own image and on up to 40 others, and each image under as many foreign outlines.

    What an image gives to any outline (texture) and an outline to any image (length, place) is taken off, so that only
    the pair counts. `shift` (x, y) in working pixels is applied to all outlines first. About 1 ms an image.
    """
    kept = [fact for fact in usable(facts) if fact.sketch is not None and len(fact.sketch.outline)]
    order = generator(seed, "belonging").permutation(len(kept))
    kept = [kept[i] for i in order]
    n = len(kept)
    if n < FEWEST:
        return Belonging(tuple(kept), np.zeros(n), np.zeros(0), 1.0, False)
    turns = np.unique(np.linspace(1, n - 1, min(FOREIGN, n - 1)).astype(np.int64))
    own = np.array([_laid(fact, fact, shift) for fact in kept])
    foreign = np.array([[_laid(kept[i], kept[(i + turn) % n], shift) for i in range(n)] for turn in turns])
    by_outline = np.array([np.roll(row, turn) for row, turn in zip(foreign, turns, strict=True)]).mean(0)
    by_image, whole = foreign.mean(0), foreign.mean()
    left = np.array(
        [row - by_image - np.roll(by_outline, -turn) + whole for row, turn in zip(foreign, turns, strict=True)]
    )
    spread = float(left.std())
    chance = float(((foreign.mean(1) >= own.mean()).sum() + 1) / (len(turns) + 1))
    if spread < 1e-3:
        return Belonging(tuple(kept), np.zeros(n), np.zeros(0), 1.0, False)
    return Belonging(tuple(kept), (own - by_image - by_outline + whole) / spread, left.ravel() / spread, chance, True)


def _laid(image: ImageFacts, outline: ImageFacts, shift: tuple[float, float]) -> float:
    """Agreement of the outline of one image with the edges of another, at the sketch's resolution."""
    assert image.sketch is not None
    assert outline.sketch is not None
    height, width = image.sketch.rank.shape
    working = np.array([outline.size[1], outline.size[0]]) * outline.scale
    relative = outline.sketch.outline + np.array(shift, np.float32) / working
    return agreement(image.sketch.rank, (relative * np.array([width, height])).astype(np.int64))


def masks_belong(found: Belonging) -> Finding:
    """Masks that were shuffled among the images: they fit no better than those of other images."""
    check = "masks belong to images"
    if not found.comparable:
        return Finding(check, "pass", "too few images, or the same masks in all of them: masks cannot be told apart")
    mean = float(found.own.mean())
    numbers = {"images": len(found.own), "advantage of the own mask": mean, "chance": found.chance}
    text = (
        f"the own mask lies on the image's edges {mean:.1f} spreads better than masks of other images "
        f"({len(found.own)} images, chance {found.chance:.3f})"
    )
    if mean >= BELONG_LEAST and found.chance <= max(BELONG_CHANCE, 1 / len(found.own) + 1e-9):
        return Finding(check, "pass", text, numbers)
    order = np.argsort(found.own)
    remedy = (
        "the masks seem to belong to other images: check that both lists are sorted alike and paired by name, and look "
        "at a few masks laid over their images"
    )
    return Finding(check, "fail", text, numbers, named([found.facts[i].file for i in order]), remedy)


def label_noise(found: Belonging, subject: Subject | None = None) -> Finding:
    """A share of masks that are wrong: those of other images, or moved far off.

    Wrong masks agree with the edges as foreign ones do, so 70 % of them lie below the 70 % quantile of foreign masks,
    where clean ones hardly ever are; from the share that does follows the share of wrong masks (after Storey 2002, "A
    direct approach to false discovery rates"). With `subject` the base model gives a second opinion, by which
    twice as many suspects are put in order: of those named first, half to all were wrong where 20 % of the masks are.
    """
    check = "label noise"
    if not found.comparable:
        return Finding(check, "pass", "too few images, or the same masks in all of them: masks cannot be told apart")
    n = len(found.own)
    below = int((found.own < np.quantile(found.foreign, NOISE_QUANTILE)).sum())
    share = float(np.clip((below / n - NOISE_CLEAN) / (NOISE_QUANTILE - NOISE_CLEAN), 0, 1))
    numbers: dict[str, float | int | str] = {
        "images": n,
        "doubtful": below,
        "estimated share of wrong masks": share,
        "lower limit": _lower(below, n),
    }
    text = f"{below} of {n} masks fit the edges of their image hardly better than masks of other images do"
    clear = _lower(below, n) > NOISE_LIMIT
    if not clear and (subject is None or share < NOISE_LIKELY):
        return Finding(check, "pass", text, numbers)
    order, count = np.argsort(found.own), max(1, round(share * n))
    if subject is not None:
        asked = order[: min(2 * count, ASKED)]
        others = [found.facts[i] for i in order[::-1][: len(asked)]]
        opinion = second_opinion(subject, [found.facts[i] for i in asked], others)
        by_edges = (found.own[asked] - found.own.mean()) / max(float(found.own.std()), 1e-9)
        order = np.concatenate([asked[np.argsort(by_edges + opinion.standing)], order[len(asked) :]])
        numbers |= {"base model on suspects (IoU)": opinion.suspects, "base model on others (IoU)": opinion.others}
        text += (
            f"; the base model finds them in their boxes to IoU {opinion.suspects:.2f}, others to {opinion.others:.2f}"
        )
        if not clear and opinion.suspects > NOISE_DISAGREES * opinion.others:
            return Finding(check, "pass", text, numbers)
    files = [found.facts[i].file for i in order[:count]]
    level: Level = "fail" if share >= NOISE_FAIL else "warn"
    remedy = (
        f"about {share:.0%} of the masks may be wrong: open the masks named, worst first, and redraw or remove them"
    )
    return Finding(check, level, text, numbers, named(files), remedy)


def _lower(count: int, n: int) -> float:
    """One-sided lower limit of a share (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(NOISE_LEVEL, count, n - count + 1)) if count else 0.0

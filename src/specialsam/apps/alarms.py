"""Alarms with a promise: scores of pictures of nothing, kept in a specialist, and whether new ones look like them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from specialsam.apps.appearance import Appearance, appearance_of, common
from specialsam.apps.photographs import gather, register_heif
from specialsam.apps.session import Session, open_session
from specialsam.core.console import complain, stage
from specialsam.core.errors import DataError, UsageError
from specialsam.core.geometry import ImageArray
from specialsam.core.names import printable
from specialsam.data.images import read_image
from specialsam.metrics.conformal import Drift, drift
from specialsam.models.finder import find
from specialsam.models.finder_files import Alarm
from specialsam.models.specialist import SpecialistCard, read_card, write_card


def calibrate(
    specialist: Path, places: Sequence[Path], *, device: torch.device | str = "cpu", trust_base: bool = False
) -> str:
    """Score pictures of nothing and keep the scores in the specialist's card; what they are enough for, in a line.

    They must be none that the specialist learned from: their scores would be too low and the promise would not hold.
    """
    seen: list[Appearance] = []
    session = open_session(specialist, device=device, trust_base=trust_base)
    scores = score_pictures(session, places, lambda image: seen.append(appearance_of(image)))
    source = f"{len(scores)} pictures of {', '.join(printable(path.resolve().name) for path in places)}"
    alike = common(seen)
    kind = {} if alike is None else {"size": alike.size, "grey": alike.grey}
    alarm = Alarm(good_scores=scores, source=source, **kind)
    write_card(specialist, read_card(specialist).model_copy(update={"alarm": alarm}))
    return f"{source}: enough for a share of false alarms of {_least(len(scores)):.2%} and above"


def score_pictures(
    session: Session, places: Sequence[Path], seen: Callable[[ImageArray], None] | None = None
) -> list[float]:
    """The finder's score of each readable picture; what is left out is said. UsageError where there is none.

    `seen` is called with each picture uint8 (H, W, 3) that has a score.
    """
    if session.parts.finder is None:
        source = session.segmenter.source or session.segmenter.name
        raise UsageError(f"expected a specialist with a finder in {source}, got one without; specialize anew")
    register_heif()
    files, problems = gather(places)
    for problem in problems:
        complain(f"left out: {problem.message}")
    scores, failed = [], 0
    with stage("looking at pictures of nothing") as progress:
        for number, (name, path) in enumerate(files.items(), 1):
            try:
                image = read_image(path)
                scores.append(find(session.parts.finder, session.segmenter, session.segmenter.encode(image)).score)
                if seen is not None:
                    seen(image)
            except DataError as error:
                failed += 1
                complain(f"left out: {error}")
            progress(number, len(files), name)
    if not scores:
        raise UsageError(f"expected readable pictures, got {failed} that are not")
    return scores


def _least(count: int) -> float:
    """The smallest rate that so many pictures can promise, 1 / (n + 1), rounded up to a hundredth of a percent."""
    return math.ceil(10_000 / (count + 1)) / 10_000


def drifted(card: SpecialistCard, scores: Iterable[float]) -> Drift:
    """Whether recent pictures' scores are still like those of the pictures that a specialist's threshold is set on.

    UsageError for a specialist that has none.
    """
    if not card.alarm.good_scores:
        raise UsageError("expected a specialist that knows pictures of nothing, got one without; calibrate it first")
    return drift(card.alarm.good_scores, list(scores))

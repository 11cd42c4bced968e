"""`specialsam segment`: masks for new images, from prompts in a table or by the finder, in the formats others read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from specialsam.apps.answering import JOURNAL, Answered, PictureFiles, answer_all
from specialsam.apps.asked import locate, match
from specialsam.apps.boxes import read_prompts
from specialsam.apps.formats import FORMATS, files_of
from specialsam.apps.photographs import gather, register_heif
from specialsam.apps.session import Asking, Session, sped_up
from specialsam.core.cluster import ClusterSettings, in_order
from specialsam.core.console import say
from specialsam.core.errors import UsageError
from specialsam.core.files import keep_only
from specialsam.core.ledger import Ledger, open_ledger
from specialsam.core.place import Spread, alone
from specialsam.data.look import look_at, unlike
from specialsam.models.backends import PLAIN

FILES = "files.txt"
"""Lists what a folder holds for each image, so that a later call can take away what is no longer so."""
NAMED = 3
"""Names that a line gives as examples."""


@dataclass(frozen=True)
class Order:
    """What is asked for: image files and folders, where everything lands, and prompts of another tool or a table.

    Of a detector's boxes those below `least_score` are left out. `backend` is how the encoder runs (`models.backends`).
    The workers of a `cluster` answer, each with the session as it is.
    """

    places: Sequence[Path]
    out: Path
    prompts: Path | None = None
    least_score: float = 0.0
    backend: str = PLAIN
    cluster: ClusterSettings | None = None


def spread_by(order: Order) -> Spread:
    """Who answers: this process, or the workers of a cluster, which see the same folders."""
    return alone if order.cluster is None else partial(_by_cluster, order.cluster)


def _by_cluster(cluster: ClusterSettings, work: Callable[[Any], Any], items: Sequence[Any], /) -> Iterator[Any]:
    return in_order(partial(_registered, work), [question.anywhere() for question in items], cluster)


def _registered(work: Callable[[Any], Any], item: object) -> object:
    register_heif()
    return work(item)


def segment(session: Session, order: Order, how: Asking, formats: Sequence[str] = ("png",)) -> Answered:
    """Write masks of all images into `order.out`, in each of the `formats`; UsageError for an unknown one.

    Goes on where an earlier call with the same model and question stopped; formats are written anew, and files of an
    earlier call that nothing answers to any more are removed.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise UsageError(f"expected formats of {', '.join(FORMATS)}, got {', '.join(unknown) or 'none'}")
    files = look_up(order)
    session = ready(session, order, files)
    with folder(order, "segment", session, how):
        answered = answer_all(session, files, how, order.out, spread=spread_by(order))
        for name in formats:
            for note in FORMATS[name](answered, order.out):
                say(f"note: {name}: {note}")
        keep_only(order.out, files_of(answered, formats), FILES)
    say(told(answered))
    return answered


def look_up(order: Order) -> PictureFiles:
    """The files that are asked for with their prompts; what is left out is said."""
    register_heif()
    files, problems = gather(order.places, leave_out=[order.out])
    for problem in problems[:NAMED]:
        say(f"note: {problem.message}")
    if len(problems) > NAMED:
        say(f"note: {len(problems) - NAMED} more were left out")
    if order.prompts is None:
        return PictureFiles(files)
    table = read_prompts(order.prompts, order.least_score)
    for note in table.notes:
        say(f"note: {order.prompts}: {note}")
    names = list(files)
    prompts, strangers = match(table, names)
    places, _ = locate(list(table.failures), names)
    failures = {places[name]: f"{table.kind}: {why}" for name, why in table.failures.items() if name in places}
    if not prompts and not failures:
        first = f" (first: {strangers[0]})" if strangers else ""
        raise UsageError(f"expected prompts in {order.prompts} for the images given, got none{first}")
    if strangers:
        say(f"note: {len(strangers)} names of {order.prompts.name} are of no image here (first: {strangers[0]})")
    lacking = len(names) - len(prompts.keys() | failures.keys())
    if lacking:
        say(f"note: {lacking} of {len(names)} images have no line in {order.prompts.name}; nothing is asked of them")
    return PictureFiles(files, prompts, failures)


def ready(session: Session, order: Order, files: PictureFiles) -> Session:
    """The session by the order's backend; says where pictures are unlike those that the specialist learned from."""
    paths = list(files.files.values())
    known = session.card.look if session.card else None
    seen = look_at(paths) if known else None
    if known and seen:
        for line in unlike(known, seen):
            say(f"warning: {line}: is it the right specialist for them?")
    return sped_up(session, order.backend, paths)


@contextmanager
def folder(order: Order, job: str, session: Session, how: Asking) -> Iterator[Ledger]:
    """The folder of such a job, locked; another job's folder is refused, as is a promise that cannot be kept."""
    threshold = session.threshold(how) if order.prompts is None else None
    with open_ledger(order.out, {"job": job}, welcome=(JOURNAL,)) as ledger:
        model = {"name": session.segmenter.name, "source": session.segmenter.source, "ids": session.identity}
        ledger.save(model=model, threshold=threshold)
        yield ledger


def told(answered: Answered) -> str:
    """What a run did, in a line; failures are counted over all pictures."""
    failed = [answer for answer in answered if answer.error]
    objects = sum(len(answer.objects) for answer in answered)
    line = f"{answered.made + answered.kept} pictures ({answered.kept} from before): {objects} objects"
    if failed:
        line += f"; {len(failed)} failed (first: {failed[0].file}: {failed[0].error})"
    return line


__all__ = ["FILES", "Order", "folder", "look_up", "ready", "segment", "spread_by", "told"]

"""The loop over picture files: each is answered once, whatever fails or is killed in between.

A folder keeps a journal of answers, a line a picture, with a digest of the picture's bytes, the model and how it was
asked: a changed photograph under an old name, or another specialist, is answered anew, everything else is kept. A
picture that fails is an answer with its error; one that failed for want of memory or of a package is tried again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from specialsam.apps.answers import Answer
from specialsam.apps.asked import Asked
from specialsam.apps.photographs import HEIF_PACKAGE, exif_of, reason_for
from specialsam.apps.session import Asking, Session, answer_asked, find_in
from specialsam.core.console import say, stage
from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.geometry import ImageArray
from specialsam.core.ledger import Journal, digest
from specialsam.core.place import Spread, alone
from specialsam.core.types import Reading, Record
from specialsam.data.content import digest_file
from specialsam.data.headers import depth_of
from specialsam.data.images import read_image
from specialsam.data.ranges import with_readings

VERSION = 1
"""Of what an answer holds: part of what it is made from."""
JOURNAL = "answers.jsonl"
_LACKING = "not enough memory"
_PASSING = (_LACKING, f"needs the package {HEIF_PACKAGE}")
"""What the errors say that a later call may not meet."""
_NO_ROOM = re.compile("out of memory|allocate memory")
"""Of torch's errors."""
Save = Callable[[ImageArray, Answer], None]
"""What is done with a picture while it is at hand, before its answer counts as finished."""


@dataclass(frozen=True)
class PictureFiles:
    """Picture files by the names that answers give them; `failures` are those that another tool failed on, and why.

    `prompts` by name, or None where everything is to be found without.
    """

    files: Mapping[str, Path]
    prompts: Mapping[str, Sequence[Asked]] | None = None
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """What a run did: `made` pictures now, `kept` from before, `wanted` reads their answers."""

    made: int
    kept: int
    journal: Journal
    wanted: Mapping[str, str]

    @property
    def failed(self) -> int:
        """Pictures that failed, now or before."""
        return sum(bool(answer.error) for answer in self)

    def __iter__(self) -> Iterator[Answer]:
        """All answers, in the order of the files; read from the journal one by one."""
        for _, kept in self.journal.answers(self.wanted):
            yield Answer.read(kept)


@dataclass(frozen=True)
class _Question:
    """One picture, how its values are read, and what is asked of it; None: everything."""

    name: str
    path: Path
    reading: Reading | None
    asked: Sequence[Asked] | None
    failure: str

    def anywhere(self) -> _Question:
        """The same for a process that runs in another folder."""
        return replace(self, path=self.path.absolute())


def answer_all(
    session: Session,
    pictures: PictureFiles,
    how: Asking,
    out: Path,
    save: Save | None = None,
    spread: Spread = alone,
) -> Answered:
    """Answer every picture that `out` does not hold yet; a second call goes on where the first was stopped.

    Answers come by `spread`; where its workers are other processes `session` and `save` are pickled.
    """
    journal = Journal(out / JOURNAL)
    wanted: dict[str, str] = {}
    todo: list[_Question] = []
    how_asked = [VERSION, session.identity, asdict(how), session.threshold(how) if pictures.prompts is None else 0]
    readings = _readings(session, pictures.files)
    with stage("looking") as progress:
        for name, path in pictures.files.items():
            asked = None if pictures.prompts is None else list(pictures.prompts.get(name, ()))
            reading = readings.get(name)
            wanted[name] = digest(_bytes_of(path), how_asked, _plain(asked), pictures.failures.get(name, ""))
            if reading is not None:
                wanted[name] = digest(wanted[name], asdict(reading))
            if not journal.has(name, wanted[name]):
                todo.append(_Question(name, path, reading, asked, pictures.failures.get(name, "")))
        kept = len(pictures.files) - len(todo)
        answers = spread(partial(_answer, session, how, save), todo) if todo else iter(())
        for number, (question, answer) in enumerate(zip(todo, answers, strict=True), kept + 1):
            name = question.name
            if any(words in answer.error for words in _PASSING):
                wanted[name] = digest(wanted[name], "for now")  # which no later call asks for
            journal.put(name, wanted[name], answer.as_json())
            progress(number, len(pictures.files), name)
    journal.forget(wanted)
    return Answered(len(todo), kept, journal, wanted)


def _readings(session: Session, files: Mapping[str, Path]) -> dict[str, Reading]:
    """How each deep picture is read: as those that the specialist learned from, else by one range for all of them."""
    if (learned := session.reading) is not None:
        return {name: learned for name, path in files.items() if _is_deep(path)}
    records, notes = with_readings([Record(str(number), path) for number, path in enumerate(files.values())])
    found = {name: one.reading for name, one in zip(files, records, strict=True) if one.reading is not None}
    for note in notes if found else ():
        say(note)
    return found


def _is_deep(path: Path) -> bool:
    try:
        return not depth_of(path).plain
    except DataError:
        return False


def _answer(session: Session, how: Asking, save: Save | None, question: _Question) -> Answer:
    """The answer to one picture; whatever is wrong with it is the answer's error."""
    answer, path, reading, asked = Answer(question.name), question.path, question.reading, question.asked
    try:
        image = read_image(path) if reading is None else read_image(path, reading)
        exif = exif_of(path)
        size = (image.shape[0], image.shape[1])
        answer = replace(answer, size=size, taken=exif.taken, latitude=exif.latitude, longitude=exif.longitude)
        if question.failure:
            raise DataError(question.failure)
        if asked is None:
            objects, beside = find_in(session, image, how)
        elif asked:
            objects, beside = answer_asked(session, image, [one.in_pixels(*size) for one in asked], how)
        else:
            objects, beside = (), ()
        answer = replace(answer, objects=objects, beside=beside)
        if save:
            save(image, answer)
        return answer
    except DataError as error:
        return replace(answer, objects=(), beside=(), error=reason_for(path, error))
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or _NO_ROOM.search(str(error))):
            raise
        reason = f"{_LACKING} ({' '.join(str(error).split())[:200] or 'of this machine'})"
        return replace(answer, objects=(), beside=(), error=f"{reason}; cut it into tiles or scale it down")


def _bytes_of(path: Path) -> str:
    try:
        return digest_file(path)
    except SpecialSamError as error:
        return f"unreadable: {error}"


def _plain(asked: Sequence[Asked] | None) -> list[object] | None:
    """Prompts as plain values, for a digest."""
    if asked is None:
        return None
    return [
        [
            None if one.points is None else one.points.tolist(),
            None if one.point_labels is None else one.point_labels.tolist(),
            one.box,
            one.relative,
            one.label,
        ]
        for one in asked
    ]

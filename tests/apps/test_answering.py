"""The loop over picture files. Oracles: the promise that each picture is answered once whatever fails, files broken by
hand in known ways, and runs without interruption or failure.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_models import answers_of, broken, finder, photographs, picture, small, specialist

from specialsam.apps import answering
from specialsam.apps.answering import JOURNAL, Answered, PictureFiles, answer_all
from specialsam.apps.answers import Answer
from specialsam.apps.asked import Asked
from specialsam.apps.photographs import HEIF_PACKAGE, gather
from specialsam.apps.session import Asking, Session, find_in, open_session
from specialsam.core.errors import DataError, SpecialSamError
from specialsam.core.geometry import ImageArray
from specialsam.data.headers import ON_REQUEST
from specialsam.data.images import read_image
from specialsam.models.finder_files import FinderParts

HOW = Asking()


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(small(), FinderParts(finder()))


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    names: list[str] = []

    def counted(path: Path) -> ImageArray:
        names.append(path.name)
        return read_image(path)

    monkeypatch.setattr(answering, "read_image", counted)
    return names


def files(folder: Path) -> PictureFiles:
    return PictureFiles(gather([folder])[0])


def test_every_picture_is_answered_as_it_would_be_alone(session: Session, tmp_path: Path) -> None:
    photographs(tmp_path / "in", "cam1/10.png", "cam1/2.png", "b.png")
    done = answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out")
    assert (done.made, done.kept, done.failed) == (3, 0, 0)
    assert [answer.file for answer in done] == ["b.png", "cam1/2.png", "cam1/10.png"]
    for answer in done:
        image = read_image(tmp_path / "in" / answer.file)
        assert answer == Answer(answer.file, (48, 64), find_in(session, image, HOW)[0])
        assert answer.objects
    assert answers_of(tmp_path / "out") == {answer.file: answer for answer in done}


def test_a_second_call_looks_at_nothing(session: Session, tmp_path: Path, looked_at: list[str]) -> None:
    photographs(tmp_path / "in", "1.png", "2.png")
    first = answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out")
    lines = (tmp_path / "out" / JOURNAL).read_bytes()
    looked_at.clear()
    again = answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out")
    assert (again.made, again.kept) == (0, 2)
    assert looked_at == []
    assert list(again) == list(first)
    assert (tmp_path / "out" / JOURNAL).read_bytes() == lines


def test_a_changed_photograph_is_looked_at_anew_and_it_alone(
    session: Session, tmp_path: Path, looked_at: list[str]
) -> None:
    """Of the same name, size and time of change, as a card that was filled anew may have it."""
    photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    first = list(answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out"))
    changed = tmp_path / "in" / "2.png"
    when = changed.stat()
    Image.fromarray(picture(50)).save(changed)
    os.utime(changed, ns=(when.st_atime_ns, when.st_mtime_ns))
    looked_at.clear()
    done = answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out")
    assert (done.made, done.kept, looked_at) == (1, 2, ["2.png"])
    now = list(done)
    assert [now[0], now[2]] == [first[0], first[2]]
    assert now[1] == Answer("2.png", (48, 64), find_in(session, picture(50), HOW)[0])
    assert now[1] != first[1]
    assert len(answers_of(tmp_path / "out")) == 3


def test_pictures_that_come_and_go(session: Session, tmp_path: Path, looked_at: list[str]) -> None:
    photographs(tmp_path / "in", "1.png", "2.png")
    answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out")
    (tmp_path / "in" / "1.png").rename(tmp_path / "in" / "5.png")
    photographs(tmp_path / "in", "3.png", first=7)
    looked_at.clear()
    done = answer_all(session, files(tmp_path / "in"), HOW, tmp_path / "out")
    assert (done.made, done.kept, looked_at) == (2, 1, ["3.png", "5.png"])
    assert [answer.file for answer in done] == ["2.png", "3.png", "5.png"] == sorted(answers_of(tmp_path / "out"))


@pytest.mark.parametrize("what", ["finder", "decoder", "base", "threshold", "most", "zoom"])
def test_another_model_or_another_question_answers_all_anew(tmp_path: Path, what: str) -> None:
    photographs(tmp_path / "in", "1.png", "2.png")
    first = specialist(tmp_path / "first", finder())
    other = specialist(tmp_path / "other", finder(seed=8 if what == "finder" else 1), seed=5 * (what == "decoder"))
    answer_all(open_session(first), files(tmp_path / "in"), HOW, tmp_path / "out")
    how = {"threshold": Asking(threshold=0.9), "most": Asking(most=1), "zoom": Asking(zoom=True)}.get(what, HOW)
    opened = open_session(other, with_base=what == "base")
    done = answer_all(opened, files(tmp_path / "in"), how, tmp_path / "out")
    assert (done.made, done.kept) == (2, 0)
    again = answer_all(opened, files(tmp_path / "in"), how, tmp_path / "out")
    assert (again.made, again.kept) == (0, 2)


def test_the_same_specialist_saved_again_is_no_other(tmp_path: Path) -> None:
    photographs(tmp_path / "in", "1.png")
    for name in ("first", "copy"):
        opened = open_session(specialist(tmp_path / name, finder(), seed=2))
        done = answer_all(opened, files(tmp_path / "in"), HOW, tmp_path / "out")
    assert (done.made, done.kept) == (0, 1)


def test_prompts_that_change_are_answered_anew_where_they_do(session: Session, tmp_path: Path) -> None:
    photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    one, two = Asked("1.png", box=(2, 2, 30, 30)), Asked("2.png", box=(5, 5, 40, 40))
    asked = replace(files(tmp_path / "in"), prompts={"1.png": [one], "2.png": [two]})
    first = list(answer_all(session, asked, HOW, tmp_path / "out"))
    assert [len(answer.objects) for answer in first] == [1, 1, 0], "nothing is asked of the third"
    for changed in (replace(two, box=(6, 5, 40, 40)), replace(two, label="fox"), replace(two, relative=True)):
        if changed.relative:
            changed = replace(changed, box=(0.1, 0.1, 0.5, 0.5))
        asked = replace(asked, prompts={"1.png": [one], "2.png": [changed]})
        done = answer_all(session, asked, HOW, tmp_path / "out")
        assert (done.made, done.kept) == (1, 2)


def test_broken_files_are_rows_and_the_rest_goes_on(session: Session, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", "1.png", "z.png", "caf\udce9.png")
    said = broken(folder)
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    answers = {answer.file: answer for answer in done}
    assert answers.keys() == {"1.png", "z.png", "caf\\xe9.png", *said}
    assert (done.made, done.failed) == (len(said) + 3, len(said))
    for name, answer in answers.items():
        if name in said:
            assert said[name] in answer.error
            assert "\n" not in answer.error
            assert str(tmp_path) not in answer.error
            assert (answer.objects, answer.size) == ((), None)
        else:
            assert answer.error == ""
            assert answer.objects


def test_failures_of_earlier_calls_count(session: Session, tmp_path: Path) -> None:
    """`failed` is said to be of all pictures, whether they were looked at now or before."""
    folder = photographs(tmp_path / "in", "1.png")
    said = broken(folder)
    answer_all(session, files(folder), HOW, tmp_path / "out")
    again = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert (again.made, again.kept, again.failed) == (0, len(said) + 1, len(said))


def test_a_mended_file_is_looked_at(session: Session, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", "1.png")
    broken(folder)
    answer_all(session, files(folder), HOW, tmp_path / "out")
    Image.fromarray(picture(3)).save(folder / "void.jpg")
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert done.made == 1
    assert answers_of(tmp_path / "out")["void.jpg"].error == ""


def test_a_photograph_that_goes_while_it_waits_is_a_row(session: Session, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    found = files(folder)
    (folder / "2.png").unlink()
    done = answer_all(session, found, HOW, tmp_path / "out")
    assert [bool(answer.error) for answer in done] == [False, True, False]
    assert "found nothing there" in list(done)[1].error
    photographs(folder, "2.png", first=1)
    assert answer_all(session, found, HOW, tmp_path / "out").failed == 0


def test_what_a_detector_failed_on_is_a_failed_answer(session: Session, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", "1.png", "2.png")
    asked = replace(
        files(folder), prompts={"1.png": [Asked("1.png", box=(2, 2, 30, 30))]}, failures={"2.png": "MD: no"}
    )
    one, two = answer_all(session, asked, HOW, tmp_path / "out")
    assert (one.error, len(one.objects)) == ("", 1)
    assert (two.error, two.objects, two.size) == ("MD: no", (), (48, 64))


def test_a_prompt_outside_of_its_picture_is_a_row_that_names_it(session: Session, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", "1.png", "2.png")
    inside, outside = Asked("1.png", box=(2, 2, 30, 30)), Asked("2.png", box=(90, 2, 99, 30), source="row 3")
    asked = replace(files(folder), prompts={"1.png": [inside], "2.png": [outside]})
    one, two = answer_all(session, asked, HOW, tmp_path / "out")
    assert one.error == ""
    assert "2.png (row 3): expected a box" in two.error
    assert "64x48 pixels" in two.error
    assert two.objects == ()


class Stop:
    """Reads pictures until it has read so many, then fails as it is told."""

    def __init__(self, after: int, error: BaseException):
        self.after, self.error, self.read = after, error, 0

    def __call__(self, path: Path) -> ImageArray:
        if self.read == self.after:
            raise self.error
        self.read += 1
        return read_image(path)


def test_what_was_finished_before_an_interrupt_is_kept(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photographs(tmp_path / "in", *(f"{number}.png" for number in range(6)))
    unbroken = list(answer_all(session, files(folder), HOW, tmp_path / "unbroken"))
    monkeypatch.setattr(answering, "read_image", Stop(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        answer_all(session, files(folder), HOW, tmp_path / "out")
    assert sorted(answers_of(tmp_path / "out")) == ["0.png", "1.png"]
    monkeypatch.setattr(answering, "read_image", read_image)
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert (done.made, done.kept) == (4, 2)
    assert list(done) == unbroken


def test_a_line_that_a_kill_cut_short_is_answered_again(session: Session, tmp_path: Path) -> None:
    folder = photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    unbroken = list(answer_all(session, files(folder), HOW, tmp_path / "out"))
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-7])
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert (done.made, done.kept) == (1, 2)
    assert list(done) == unbroken


def test_a_picture_is_saved_before_its_answer_counts(session: Session, tmp_path: Path) -> None:
    """A disk that is full while pictures are drawn ends the run; nothing is said to be finished that is not."""
    folder = photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    saved: list[str] = []

    def save(image: ImageArray, answer: Answer) -> None:
        assert image.shape[:2] == answer.size
        if len(saved) == 1:
            raise SpecialSamError("cannot write x (No space left on device)")
        saved.append(answer.file)

    with pytest.raises(SpecialSamError, match="No space left"):
        answer_all(session, files(folder), HOW, tmp_path / "out", save)
    assert sorted(answers_of(tmp_path / "out")) == saved == ["1.png"]
    answer_all(session, files(folder), HOW, tmp_path / "out", lambda image, answer: saved.append(answer.file))
    assert saved == ["1.png", "2.png", "3.png"]


def test_a_failed_answer_has_no_objects(session: Session, tmp_path: Path) -> None:
    """Also where it fails after they were found; files whose pictures cannot be read are never saved."""
    folder = photographs(tmp_path / "in", "1.png")
    broken(folder)

    def save(image: ImageArray, answer: Answer) -> None:
        assert answer.file == "1.png"
        raise DataError("expected something else")

    answers = {answer.file: answer for answer in answer_all(session, files(folder), HOW, tmp_path / "out", save)}
    assert answers["1.png"] == Answer("1.png", (48, 64), error="expected something else")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,) and data type float64"),
        torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 20.00 GiB.\n GPU 0 has a total capacity of 8 GiB"
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: 3 bytes"
        ),
        MemoryError(),
    ],
    ids=["numpy", "cuda", "torch", "plain"],
)
def test_a_picture_too_large_for_this_machine_is_a_row_until_there_is_room(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    real, shown = answering.find_in, {tuple(picture(1)[0, 0])}

    def greedy(opened: Session, image: ImageArray, how: Asking) -> Any:
        if tuple(image[0, 0]) in shown:
            raise error
        return real(opened, image, how)

    monkeypatch.setattr(answering, "find_in", greedy)
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert [bool(answer.error) for answer in done] == [False, True, False]
    second = list(done)[1]
    assert "not enough memory" in second.error
    assert "cut it into tiles or scale it down" in second.error
    assert "\n" not in second.error
    again = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert (again.made, again.kept, again.failed) == (1, 2, 1)
    shown.clear()
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert (done.made, done.kept, done.failed) == (1, 2, 0)
    assert len(answers_of(tmp_path / "out")) == 3


def test_an_error_of_the_code_is_no_row(session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand rows that say the same would hide it."""
    folder = photographs(tmp_path / "in", "1.png")

    def wrong(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(answering, "find_in", wrong)
    with pytest.raises(RuntimeError, match="mat1"):
        answer_all(session, files(folder), HOW, tmp_path / "out")


def test_a_heic_photograph_is_tried_again_once_its_package_is_there(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says what to install; the same command must then read it."""
    monkeypatch.delitem(Image.OPEN, ON_REQUEST, raising=False)
    folder = photographs(tmp_path / "in", "1.png")
    (folder / "2.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 500)
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert HEIF_PACKAGE in list(done)[1].error

    def installed(path: Path) -> ImageArray:
        return picture(1) if path.suffix == ".heic" else read_image(path)

    monkeypatch.setattr(answering, "read_image", installed)
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert (done.made, done.kept, done.failed) == (1, 1, 0)


def test_many_pictures_need_the_memory_of_one(session: Session, tmp_path: Path) -> None:
    """Answers are read from the journal one by one: what is held of a picture is its name and a digest."""
    folder = photographs(tmp_path / "in", *(f"{number}.png" for number in range(12)))
    done = answer_all(session, files(folder), HOW, tmp_path / "out")
    assert isinstance(done, Answered)
    held = vars(done)
    assert not [value for value in held.values() if isinstance(value, Sequence) and len(value) > 0]
    assert iter(done) is not iter(done)
    assert len(list(done)) == len(list(done)) == 12


def test_the_encoder_runs_once_a_picture(session: Session, tmp_path: Path, encoded: list[int]) -> None:
    folder = photographs(tmp_path / "in", "1.png", "2.png", "3.png")
    prompts = {"1.png": [Asked("1.png", box=(2, 2, 30, 30)), Asked("1.png", box=(9, 9, 30, 40))], "3.png": []}
    answer_all(session, replace(files(folder), prompts=prompts), HOW, tmp_path / "asked")
    assert encoded == [1], "nothing is asked of the second and the third"
    encoded.clear()
    answer_all(session, files(folder), HOW, tmp_path / "found")
    assert encoded == [1, 1, 1]

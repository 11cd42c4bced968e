"""The ledger: who may go on in a folder, and what in it is still worth something. Oracle: what was put in, and a
second process of the operating system's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from specialsam.core import ledger as module
from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.ledger import Journal, Lock, differences, digest, open_ledger, read_facts, remove_leftovers, settle

PLAIN = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3),
    max_leaves=8,
)


def begin(folder: Path, **identity: object) -> None:
    with open_ledger(folder, identity) as ledger:
        ledger.save(more=1)


def test_the_same_identity_goes_on_and_another_is_named(tmp_path: Path) -> None:
    begin(tmp_path / "run", settings={"train": {"lr": 1e-4, "loss": "dice"}}, model="nano")
    begin(tmp_path / "run", model="nano", settings={"train": {"loss": "dice", "lr": 1e-4}})
    with pytest.raises(UsageError, match=r"run with another settings\.train\.lr, model; choose another --out$"):
        begin(tmp_path / "run", settings={"train": {"lr": 1e-5, "loss": "dice"}}, model="other")
    assert read_facts(tmp_path / "run")["more"] == 1


def test_a_stage_that_is_only_read_again_keeps_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after 2 s, ended after 5 more, and twice read again in 1 s each."""
    clock = iter([0.0, 2.0, 10.0, 15.0, 20.0, 21.0, 30.0, 31.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    for wrong in (True, False, False, False):
        with suppress(KeyboardInterrupt), open_ledger(tmp_path / "run", {}) as ledger, ledger.timed("train"):
            if wrong:
                raise KeyboardInterrupt
    assert read_facts(tmp_path / "run")["seconds"] == {"train": 7.0}


def test_a_folder_of_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match=r"is not empty and holds no run \(letter\.txt\)"):
        begin(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"letter.txt"}
    (tmp_path / "other" / "embeddings").mkdir(parents=True)
    with open_ledger(tmp_path / "other", {}, welcome=("embeddings",)) as ledger:
        assert ledger.facts["identity"] == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"identity": 3}', "[" * 100_000, "\x00"])
def test_a_damaged_ledger_is_one_line(tmp_path: Path, text: str) -> None:
    begin(tmp_path)
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"expected a readable .*run\.json, got a damaged one") as caught:
        begin(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_process_that_has_no_lock_gives_none_back(tmp_path: Path) -> None:
    """As every process but the main one does at the end of a job."""
    with Lock(tmp_path):
        Lock(tmp_path).release()
        with pytest.raises(UsageError, match="is at work in"):
            begin(tmp_path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_flipped_bit_of_a_ledger_changes_a_fact(tmp_path: Path, place: int, bit: int) -> None:
    path = tmp_path / "run.json"
    path.unlink(missing_ok=True)
    begin(tmp_path, model="nano", numbers=[1, 2.5, 31])
    right = read_facts(tmp_path)
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(bytes(whole))
    try:
        found = read_facts(tmp_path)
    except DataError:
        found = right
    assert found == right


HOLD = """
import sys, time
from pathlib import Path
from specialsam.core.ledger import Lock
with Lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_pid_of_the_first_until_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=rf"another process \(pid {holder.pid}\) is at work in .*; wait for it"):
            begin(tmp_path)
        holder.kill()
        holder.wait()
    begin(tmp_path)


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_ledger(tmp_path, {}):
        raise ZeroDivisionError
    with Lock(tmp_path):
        pass


def test_only_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    """The pid of a process that has ended is free; that of the test runner's parent is not."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / "figures" / f".a.png.{ended.pid}.tmp.png"
    live = tmp_path / f".run.json.{os.getppid()}.tmp.json"
    for path in (dead, live, tmp_path / ".hidden", tmp_path / "a.tmp"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    assert remove_leftovers(tmp_path) == 1
    assert not dead.exists()
    assert live.exists()
    assert (tmp_path / ".hidden").exists()


def test_a_folder_that_is_removed_meanwhile_is_said(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "run", {}) as ledger:
        ledger.save()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(SpecialSamError, match="was removed while a job was at work in it"):
            ledger.save(more=1)
    assert not (tmp_path / "run").exists()


@given(PLAIN, PLAIN)
def test_differences_are_none_exactly_for_equal_values(one: object, other: object) -> None:
    """Oracle: equality of the values (without None, which a missing name stands for), and of their digests."""
    assert (differences(one, other) == []) == (one == other)
    assert differences(one, one) == []
    assert digest(one) == digest(json.loads(json.dumps(one)))


def test_digests_tell_values_apart_and_not_the_order_of_names() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(value) for value in (1, "1", [1], None, 1.5, {"a": 1}, {"a": 2})}) == 7
    assert digest("a", "b") != digest("ab")


def test_a_journal_gives_what_was_put_by_what_it_was_made_from(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "rows.jsonl")
    journal.put("a", "1", [0.25, "Käfer \N{BEETLE}", "one\nline"])
    journal.put("b", "1", [])
    journal.put("a", "2", {"later": True})
    again = Journal(journal.path)
    assert dict(again.answers({"a": "2", "b": "1", "c": "1"})) == {"a": {"later": True}, "b": []}
    assert again.finished({"a": "1", "b": "1"}) == {"b"}
    assert again.stale({"a": "1", "b": "1", "c": "1"}) == {"a"}
    again.forget({"b": "1", "c": "9"})
    assert len(journal.path.read_text().splitlines()) == 1
    assert dict(Journal(journal.path).answers({"b": "1"})) == dict(again.answers({"b": "1"})) == {"b": []}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200))
def test_a_line_cut_short_is_dropped_and_only_that(tmp_path: Path, left: int) -> None:
    """Killed while writing, after any number of bytes of the last line."""
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    journal.put("a", "1", "first")
    whole = path.read_bytes()
    journal.put("b", "1", "x" * 100)
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line[: min(left, len(line))])
    again = Journal(path)
    assert again.finished({"a": "1", "b": "1"}) == ({"a", "b"} if left >= len(line) else {"a"})
    again.put("b", "1", "anew")
    assert dict(Journal(path).answers({"a": "1", "b": "1"})) == {"a": "first", "b": "anew"}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(tmp_path: Path, place: int, bit: int) -> None:
    """A flip ends in one line, or in a record less where it hits a line's end; never in another answer."""
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal(path)
    for name in ("a", "b"):
        journal.put(name, "1", [1.5, "text"])
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] ^= 1 << bit
    path.write_bytes(bytes(whole))
    try:
        found = dict(Journal(path).answers({"a": "1", "b": "1"}))
    except DataError as error:
        found, said = {}, str(error)
    else:
        said = "damaged; delete the file"
    assert all(value == [1.5, "text"] for value in found.values())
    assert "damaged; delete the file" in said
    assert "\n" not in said


def test_a_full_disk_leaves_a_whole_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.put("a", "1", "first")
    opened = Path.open

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def tell(self) -> int:
            return self.file.tell()  # type: ignore[attr-defined, no-any-return]

        def write(self, line: bytes) -> None:
            self.file.write(line[:9])  # type: ignore[attr-defined]
            self.file.flush()  # type: ignore[attr-defined]
            raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, mode="r": Full(opened(self, mode)))
        with pytest.raises(SpecialSamError, match=r"cannot write .*rows\.jsonl .*make room and go on"):
            journal.put("b", "1", "second")
    journal.put("c", "1", "third")
    assert dict(Journal(journal.path).answers(dict.fromkeys("abc", "1"))) == {"a": "first", "c": "third"}


def test_a_journal_that_cannot_be_opened_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "rows.jsonl")
    journal.put("a", "1", 1)

    def none_left(self: Path, *more: object) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", none_left)
        with pytest.raises(SpecialSamError, match=r"\(Too many open files\); put that right and go on"):
            journal.put("b", "1", 2)
    journal.put("c", "1", 3)
    assert dict(Journal(tmp_path / "rows.jsonl").answers({"a": "1", "b": "1", "c": "1"})) == {"a": 1, "c": 3}


def test_the_plan_of_generated_data_is_settled_once(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    settle(path, {"recipe": {"tile": 1}, "note": "a"}, "mosaics", ("recipe",))
    settle(path, {"recipe": {"tile": 1}, "note": "b"}, "mosaics", ("recipe",))
    with pytest.raises(UsageError, match=r"holds mosaics with another recipe\.tile; choose another folder"):
        settle(path, {"recipe": {"tile": 2}}, "mosaics", ("recipe",))
    path.unlink()
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"holds images without plan\.json"):
        settle(path, {"recipe": {}}, "mosaics", ("recipe",))

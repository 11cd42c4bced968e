"""The model's process is stopped, killed and starved while it works: who gets an error, and who is served in turn."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from small_models import picture
from web_parts import Site, packed, until

from specialsam.apps.web.desk import Desk
from specialsam.apps.web.limits import Limits
from specialsam.apps.web.turns import Full, Job, Turns


def job(session: str, kind: str = "ask", name: str = "") -> Job:
    return Job(session, {"kind": kind, "name": name or session})


def names(jobs: list[Job]) -> list[str]:
    return [str(one.body["name"]) for one in jobs]


def test_sessions_take_turns() -> None:
    turns = Turns(Limits())
    for number in range(5):
        turns.put(job("a", name=f"a{number}"))
    turns.put(job("b", name="b0"))
    turns.put(job("c", name="c0"))
    turns.put(job("b", name="b1"))
    order = [names(turns.take(0))[0] for _ in range(8)]
    assert order == ["a0", "b0", "c0", "a1", "b1", "a2", "a3", "a4"]
    assert turns.take(0) == []


def test_pictures_that_wait_are_taken_together_and_others_are_not_passed() -> None:
    turns = Turns(Limits(batch=3))
    turns.put(job("a", "encode", "a0"))
    turns.put(job("a", "ask", "a1"))
    turns.put(job("b", "ask", "b0"))
    for session in "cdef":
        turns.put(job(session, "encode", f"{session}0"))
    assert names(turns.take(0)) == ["a0", "c0", "d0"]
    assert names(turns.take(0)) == ["b0"]
    assert names(turns.take(0)) == ["e0", "f0"]
    assert names(turns.take(0)) == ["a1"]


def test_what_killed_a_batch_is_tried_alone_and_first() -> None:
    turns = Turns(Limits())
    for session in "ab":
        turns.put(job(session, "encode"))
    turns.put(job("c", "encode"))
    taken = turns.take(0)[:2]
    for one in taken:
        one.alone = True
    turns.put(job("d", "encode"))
    turns.back(taken)
    assert [names(turns.take(0)) for _ in range(3)] == [["a"], ["b"], ["d"]]
    assert turns.waiting == 0


def test_waiting_lines_are_bounded() -> None:
    turns = Turns(Limits(queue=4, own_queue=3))
    for _ in range(3):
        turns.put(job("a"))
    with pytest.raises(Full):
        turns.put(job("a"))
    turns.put(job("b"))
    with pytest.raises(Full):
        turns.put(job("c"))
    turns.take(0)
    turns.put(job("c"))


@contextmanager
def held(site: Site) -> Iterator[None]:
    """The model's process stands still meanwhile."""
    pid = site.server.desk.pid
    assert pid is not None
    until(lambda: site.server.desk.working == 0)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def busy(site: Site, number: int) -> None:
    """Wait until so many questions wait."""
    until(lambda: site.server.desk.turns.waiting == number)


def test_too_many_questions_are_sent_away_and_the_others_are_answered(site: Site) -> None:
    known = [site.upload(packed(picture(seed))).json() for seed in range(3)]
    with ThreadPoolExecutor(30) as pool:
        with held(site):
            first = pool.submit(site.post, "find", {"image": known[0]["image"]})
            until(lambda: site.server.desk.working == 1)
            own = [pool.submit(site.post, "find", {"image": known[0]["image"]}) for _ in range(6)]
            busy(site, 6)
            refused = site.post("find", {"image": known[0]["image"]})  # a seventh of one session
            others = [pool.submit(site.post, "find", {"image": known[1]["image"]}) for _ in range(6)]
            busy(site, 12)
            also = site.post("find", {"image": known[2]["image"]})  # a thirteenth of all
        answers = [one.result() for one in (first, *own, *others)]
    for answer in (refused, also):
        assert answer.status == 429
        assert answer.headers["retry-after"] == "1"
    assert [answer.status for answer in answers] == [200] * 13


def test_one_session_with_many_questions_holds_up_nobody(site: Site) -> None:
    known = [site.upload(packed(picture(seed))).json()["image"] for seed in range(2)]
    order: list[str] = []

    def asked(name: str, image: str) -> None:
        assert site.post("find", {"image": image}).status == 200
        order.append(name)

    with ThreadPoolExecutor(10) as pool:
        with held(site):
            waiting = [pool.submit(asked, "first", known[0])]
            until(lambda: site.server.desk.working == 1)
            waiting += [pool.submit(asked, "many", known[0]) for _ in range(5)]
            busy(site, 5)
            waiting.append(pool.submit(asked, "one", known[1]))
            busy(site, 6)
        for one in waiting:
            one.result()
    assert order.index("one") <= 2  # after the one under way and at most one more


def test_pictures_that_wait_are_encoded_as_one_batch(site: Site) -> None:
    contents = [packed(picture(seed)) for seed in range(10, 14)]
    with ThreadPoolExecutor(6) as pool:
        with held(site):
            first = pool.submit(site.upload, packed(picture(9)))
            until(lambda: site.server.desk.working == 1)
            rest = [pool.submit(site.upload, content) for content in [*contents, b"no picture"]]
            busy(site, 5)
        answers = [one.result() for one in (first, *rest)]
    assert [answer.status for answer in answers] == [201] * 5 + [422]
    assert [answer.json()["batch"] for answer in answers[1:5]] == [5] * 4
    alone = site.upload(contents[0]).json()
    question = {"prompts": [{"box": [4, 4, 40, 30]}]}
    one, other = (
        site.post("segment", {"image": known["image"], **question}).json() for known in (alone, answers[1].json())
    )
    assert one["objects"] == other["objects"]


def test_who_kills_the_process_gets_an_error_and_nobody_else(site: Site) -> None:
    known = [site.upload(packed(picture(seed))).json()["image"] for seed in (20, 21)]
    before = site.post("find", {"image": known[1]}).json()["objects"]
    pid = site.server.desk.pid
    assert pid is not None
    with ThreadPoolExecutor(3) as pool:
        os.kill(pid, signal.SIGSTOP)
        guilty = pool.submit(site.post, "find", {"image": known[0]})
        until(lambda: site.server.desk.working == 1)
        innocent = pool.submit(site.post, "find", {"image": known[1]})
        busy(site, 1)
        os.kill(pid, signal.SIGKILL)
        answer, other = guilty.result(), innocent.result()
    assert answer.status == 422
    assert "the model gave up on this: its process died" in answer.json()["error"]
    assert other.status == 200
    assert other.json()["objects"] == before  # encoded again, from what was uploaded
    assert site.server.desk.pid != pid
    assert site.post("find", {"image": known[0]}).status == 200


def test_pictures_that_died_together_are_tried_one_by_one(tmp_path: Path) -> None:
    desk = Desk(Limits(), tmp_path)
    jobs = [job(session, "encode") for session in "ab"]
    desk._blame(jobs, "its process died")
    assert [names(desk.turns.take(0)) for _ in range(2)] == [["a"], ["b"]]
    assert not any(one.answer.done() for one in jobs)
    desk._blame(jobs[:1], "its process died")
    assert jobs[0].answer.result(0)["status"] == 422
    assert not jobs[1].answer.done()


def test_what_takes_too_long_is_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    known = site.upload(packed(picture(1))).json()["image"]
    desk = site.server.desk
    with monkeypatch.context() as patched:
        patched.setattr(desk, "limits", desk.limits.model_copy(update={"seconds": 0.5}))
        assert desk.pid is not None
        os.kill(desk.pid, signal.SIGSTOP)
        answer = site.post("find", {"image": known})
    assert answer.status == 422
    assert "longer than 0.5 s" in answer.json()["error"]
    assert site.post("segment", {"image": known, "prompts": [{"points": [[9, 9]]}]}).status == 200


def test_an_idle_process_that_dies_is_started_again_and_keeps_to_its_memory(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = site.upload(packed(picture(40))).json()["image"]
    little = site.server.limits.model_copy(update={"memory_gb": 0.15, "megapixels": 100})
    with monkeypatch.context() as patched:
        patched.setitem(site.server.desk._order, "limits", little.model_dump(mode="json"))
        killed(site)
        assert site.post("find", {"image": known}).status == 200
        wide = packed(np.zeros((9000, 9000, 3), np.uint8))
        assert len(wide) < 1_000_000
        assert site.upload(wide).status == 422
        assert site.upload(packed(picture(1))).status == 201
    killed(site)
    assert site.upload(wide).status == 413  # by its header, under the usual limits


def killed(site: Site) -> None:
    """Kill the model's process while it has nothing to do, and wait for the next."""
    pid = site.server.desk.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: site.server.desk.pid not in (pid, None) and site.server.desk.ready.is_set())

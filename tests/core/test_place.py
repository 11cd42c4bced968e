"""One owner of device and rank. Oracle: what one process would have done, and which process did what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from specialsam.core.console import QUIET, TERMINAL, _sink
from specialsam.core.errors import UsageError
from specialsam.core.place import USE_CPU, alone, here

RANKS = """
import json, os, sys
from pathlib import Path
from specialsam.core.errors import DataError
from specialsam.core.console import say
from specialsam.core.place import here
place, folder = here(sys.argv[2]), Path(sys.argv[1])
did = []
def work(item):
    did.append(item)
    if item == 13:
        raise DataError("expected no 13, got it")
    return item * item
answers = list(place.spread(work, list(range(12))))
try:
    list(place.spread(work, list(range(10, 20))))
    raised = ""
except DataError as error:
    raised = str(error)
first = place.first(lambda: f"made by {place.index}")
try:
    place.first(lambda: 1 // 0)
    failed = ""
except ZeroDivisionError as error:
    failed = str(error)
say(f"said by {place.index}")
found = {"answers": answers, "did": did, "raised": raised, "first": first, "failed": failed, "main": place.main,
         "shared": place.share(list(range(5))), "gathered": place.gather(place.index)}
(folder / f"{place.index}.json").write_text(json.dumps(found))
"""


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_two_processes_share_the_work_and_have_all_answers(tmp_path: Path, device: str) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--standalone", str(tmp_path / "ranks.py"), str(tmp_path), device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["answers"] == two["answers"] == [number * number for number in range(12)]
    assert sorted(one["did"][:6] + two["did"][:6]) == list(range(12))
    assert one["raised"] == two["raised"] == "expected no 13, got it"
    assert one["first"] == two["first"] == "made by 0"
    assert one["failed"] == two["failed"] != ""
    assert (one["main"], two["main"]) == (True, False)
    assert (one["shared"], two["shared"]) == ([0, 2, 4], [1, 3])
    assert one["gathered"] == two["gathered"] == [0, 1]
    assert "said by 0" in done.stdout
    assert "said by 1" not in done.stdout


GROUP = """
import atexit, os, sys
from pathlib import Path
def threads():
    return [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
def end():  # registered before the place's own, so it runs behind it
    Path(sys.argv[1], os.environ["RANK"]).write_text(f"{during} {sum('gloo' in name for name in threads())}")
atexit.register(end)
from specialsam.core.place import here
place = here("cpu")
import torch
import torch._dynamo
place.gather(place.index)
during = sum("gloo" in name for name in threads())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="names of threads are read from Linux's /proc")
def test_no_thread_of_the_group_outlasts_it(tmp_path: Path) -> None:
    """One that does aborts a process in a hundred at its end: "terminate called without an active exception"."""
    (tmp_path / "group.py").write_text(GROUP)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--standalone", str(tmp_path / "group.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for rank in ("0", "1"):
        during, behind = map(int, (tmp_path / rank).read_text().split())
        assert (during > 0, behind) == (True, 0)


def test_one_process_does_all_in_order() -> None:
    place = here("cpu")
    assert (place.main, place.count, str(place.device)) == (True, 1, "cpu")
    assert list(place.spread(str, [3, 1, 2])) == list(alone(str, [3, 1, 2])) == ["3", "1", "2"]
    assert place.share([1, 2]) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        place.first(lambda: 1 // 0)
    assert _sink.get() is TERMINAL is not QUIET


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x"])
def test_an_unknown_device_is_one_line(device: str) -> None:
    with pytest.raises(UsageError, match="expected a --device of auto, cpu, cuda, mps, got") as caught:
        here(device)
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="expected a machine with cuda for --device cuda, found none"):
        here("cuda")


def test_a_job_on_the_cpu_leaves_no_later_one_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, as in a notebook; without a GPU accelerate is only asked which device it would take."""
    import torch
    from accelerate.state import AcceleratorState

    monkeypatch.delenv(USE_CPU, raising=False)
    try:
        assert here("cpu").device.type == "cpu"
        assert USE_CPU not in os.environ
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        assert here("cuda").device.type == "cuda"
        assert here("cpu").device.type == "cpu"
        assert here("auto").device.type == "cuda"
    finally:
        monkeypatch.undo()
        AcceleratorState._reset_state(reset_partial_state=True)

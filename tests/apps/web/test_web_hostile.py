"""A sample of the hostile requests that `benchmarks/serve.py --hostile` sends by the thousand."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest
from small_models import picture
from web_parts import Site, files_below, packed

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def hostile() -> ModuleType:
    found = importlib.util.spec_from_file_location("hostile", BENCHMARKS / "hostile.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["hostile"] = module
    found.loader.exec_module(module)
    return module


def test_nothing_is_told_and_nothing_falls(site: Site, place: Path, hostile: ModuleType) -> None:
    before = files_below(place.parent)
    pid = site.server.desk.pid
    counted: Counter[str] = Counter()
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda case: (case, hostile.send(site.port, case)), hostile.cases(250, seed=7)))
    for case, reply in replies:
        assert reply.status < 500, case
        assert not reply.told, case
        counted[case.kind] += 1
        if case.kind == "pixel bombs":
            assert reply.status >= 400, case
    assert len(counted) == 10
    assert site.server.desk.pid == pid
    assert files_below(place.parent) == before
    known = site.upload(packed(picture(1)))
    assert known.status == 201
    uploads = site.server.visits.root
    assert len(files_below(uploads)) == len(site.server.visits.pictures)  # what was refused was not kept


def test_a_word_of_a_file_outside_would_be_noticed(hostile: ModuleType) -> None:
    assert hostile.Reply(200, b"... the secret outside ...").told
    assert hostile.Reply(200, b"root:x:0:0").told
    assert len({case.raw for case in hostile.cases(200)}) > 150

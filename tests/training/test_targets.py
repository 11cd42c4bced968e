"""True masks of training items on disk: what goes in comes out."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from specialsam.core.errors import DataError, SpecialSamError
from specialsam.training.targets import TargetFile

MASKS = arrays(np.bool_, st.tuples(st.integers(0, 4), st.integers(1, 33), st.integers(1, 33)))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MASKS, st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_there_and_back(tmp_path: Path, masks: npt.NDArray[np.bool_], item: str) -> None:
    """The file is closed and opened again in between."""
    file = TargetFile(tmp_path / "masks.sqlite")
    file.put(item, masks)
    file.close()
    file = TargetFile(tmp_path / "masks.sqlite")
    found = file.get(item)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, masks)
    assert file.items()[item] == masks.any((1, 2)).sum()
    file.close()


def test_later_masks_replace_earlier_ones(tmp_path: Path) -> None:
    file = TargetFile(tmp_path / "new" / "masks.sqlite")
    file.put("a", np.ones((2, 3, 5), np.bool_))
    file.put("b", np.ones((1, 3, 5), np.bool_))
    file.put("a", np.zeros((1, 7, 4), np.bool_))
    np.testing.assert_array_equal(file.get("a"), np.zeros((1, 7, 4), np.bool_))
    assert file.items() == {"a": 0, "b": 1}


def test_a_missing_item_is_one_line(tmp_path: Path) -> None:
    file = TargetFile(tmp_path / "masks.sqlite")
    with pytest.raises(DataError, match=r"expected masks of a\|flip in .*masks\.sqlite, found none; prepare") as caught:
        file.get("a|flip")
    assert "\n" not in str(caught.value)


def test_large_masks_are_small_on_disk(tmp_path: Path) -> None:
    """About 1 KB an object: a disc of 1000 x 1000 pixels."""
    rows, columns = np.mgrid[:1000, :1000]
    disc = (rows - 480) ** 2 + (columns - 520) ** 2 < 300**2
    file = TargetFile(tmp_path / "masks.sqlite")
    for number in range(20):
        file.put(str(number), disc[None])
    file.close()
    assert (tmp_path / "masks.sqlite").stat().st_size / 20 < 5000


def test_what_was_put_is_there_for_another_reader_at_once(tmp_path: Path) -> None:
    """Durable after every `put`: a second connection, in another thread, sees it without a close."""
    file = TargetFile(tmp_path / "masks.sqlite")
    file.put("a", np.ones((1, 3, 5), np.bool_))
    seen: list[dict[str, int]] = []
    thread = threading.Thread(target=lambda: seen.append(TargetFile(tmp_path / "masks.sqlite").items()))
    thread.start()
    thread.join()
    assert seen == [{"a": 1}]


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "masks.sqlite"
    path.write_text("not a database, and long enough not to be taken for an empty one" * 20)
    with pytest.raises(SpecialSamError, match=r"expected packed masks in .*masks\.sqlite.*delete it") as caught:
        TargetFile(path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_the_earlier_masks(tmp_path: Path) -> None:
    """SQLite's own limit on pages stands for the disk's."""
    file = TargetFile(tmp_path / "masks.sqlite")
    file.put("a", np.ones((1, 3, 5), np.bool_))
    file._connection.execute("pragma max_page_count = 3")
    noise = np.random.default_rng(0).random((4, 300, 300)) > 0.5
    with pytest.raises(DataError, match=r"cannot use .*masks\.sqlite .*full.*make room") as caught:
        file.put("a", noise)
    assert "\n" not in str(caught.value)
    assert file.items() == {"a": 1}

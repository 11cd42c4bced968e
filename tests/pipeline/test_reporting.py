"""What a report says of the data. Oracle: the images laid out here, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from specialsam.core.types import Problem
from specialsam.data.images import write_png
from specialsam.pipeline.plan import plan
from specialsam.pipeline.reporting import data_facts


def test_what_could_not_be_encoded_is_taken_from_where_it_was_counted(tmp_path: Path) -> None:
    """Five images with an object, three labelled as empty: one of the first and two of the others are broken."""
    rng = np.random.default_rng(0)
    for number in range(8):
        write_png(tmp_path / "images" / f"{number}.png", rng.integers(0, 255, (40, 40, 3)).astype(np.uint8))
        mask = np.zeros((40, 40), np.bool_)
        mask[10:20, 10:20] = number < 5
        write_png(tmp_path / "masks" / f"{number}.png", mask)
    layout = plan(f"folder:{tmp_path}", (0.6, 0.2, 0.2), 0)
    lost = [Problem(tmp_path / "images" / f"{number}.png", "unreadable", "cut short") for number in (0, 6, 7, 7)]
    facts = data_facts(layout, np.array([0.1]), lost)
    assert (facts.on_disk, facts.usable, facts.with_objects, facts.labelled_empty, facts.broken) == (8, 5, 4, 1, 3)

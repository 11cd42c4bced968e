"""The picture of clicks. Oracle: means and shares of the rows, taken by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from specialsam.core.errors import DataError
from specialsam.report.clicking import clicks_figure


def rows() -> pd.DataFrame:
    """Two images, the first of two segments, each of three clicks."""
    curves = {("a", 0): (0.2, 0.86, 0.8), ("a", 1): (0.4, 0.5, 0.6), ("b", 0): (0.9, 0.91, 0.95)}
    lines = [
        {"dataset": "animals", "record": record, "object": place, "strategy": name, "value": value}
        for (record, place), curve in curves.items()
        for name, value in zip(("1 click", "2 clicks", "3 clicks"), curve, strict=True)
    ]
    return pd.DataFrame([*lines, lines[0] | {"strategy": "box"}])


def test_lines_are_means_over_images_and_shares_of_segments() -> None:
    ious, shares = clicks_figure(rows(), 3).axes
    [mean] = ious.lines
    assert np.allclose(mean.get_ydata(), [60, 79.5, 82.5])  # type: ignore[arg-type]
    reached = [np.asarray(line.get_ydata()) for line in shares.lines]
    assert np.allclose(reached, [[100 / 3, 200 / 3, 200 / 3], [100 / 3] * 3])


def test_rows_without_clicks_are_refused() -> None:
    with pytest.raises(DataError, match="clicks one after the other"):
        clicks_figure(rows().query("strategy == 'box'"), 3)

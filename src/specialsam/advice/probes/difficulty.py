"""Where tuning helps and where it hurts: gain by category, size, contrast and boundary length, with intervals.

The image is the unit: objects of one image that fall in the same group are averaged first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from specialsam.core.errors import DataError
from specialsam.evaluation.statistics import holm, paired_bootstrap, wilcoxon
from specialsam.evaluation.tables import pairs

QUARTERS: dict[str, tuple[str, tuple[str, str, str, str]]] = {
    "size": ("area", ("smallest quarter", "second quarter", "third quarter", "largest quarter")),
    "contrast": ("contrast", ("lowest quarter", "second quarter", "third quarter", "highest quarter")),
    "boundary": ("boundary", ("shortest quarter", "second quarter", "third quarter", "longest quarter")),
}
"""Factor: the column of the facts that it is read from, and its bins from low to high."""
UNKNOWN = "unknown"
"""Bin of the objects that have no such fact (or no category)."""
LEVEL = 0.05
"""p below which, adjusted for the number of groups, a loss or a smaller gain is said."""
COLUMNS = ["factor", "bin", "n", "base", "tuned", "gain", "low", "high", "p", "rest", "p_rest"]


def by_difficulty(
    rows: pd.DataFrame,
    facts: pd.DataFrame,
    base: str,
    tuned: str,
    strategy: str,
) -> pd.DataFrame:
    """IoU of base against tuned, their single masks, in groups of objects, one line a group.

    `rows` has the columns of `core.types.Row` (several runs of a model are averaged, failures count as the worst
    value), `facts` the columns record, object, area, contrast, boundary, one line an object. Quarters are of all
    measured objects; equal values stay together. A factor that puts all objects into one group has no line.

    Columns: factor (category, size, contrast, boundary), bin, n (images), base, tuned (means), gain (positive is
    better), low, high (paired 95 % bootstrap), p (Wilcoxon against no gain), rest (the gain of all other objects, NaN
    where there are none), p_rest (one-sided Mann-Whitney, whether the gain is below that of the rest). Raises DataError
    for missing columns, facts given twice, or models measured on different images.
    """
    wanted = ["record", "object", *(column for column, _ in QUARTERS.values())]
    missing = [name for name in wanted if name not in facts.columns]
    if missing:
        raise DataError(f"expected facts with the columns {', '.join(wanted)}, missing: {', '.join(missing)}")
    if facts.duplicated(["record", "object"]).any():
        raise DataError("expected one line of facts an object, got an object twice")
    objects = _objects(rows, base, tuned, strategy).merge(facts[wanted], on=["record", "object"], how="left")
    groups: list[tuple[str, list[str], pd.Series[str]]] = []
    names = objects["category"].where(objects["category"] != "", UNKNOWN)
    groups.append(("category", sorted(set(names)), names))
    for factor, (column, bins) in QUARTERS.items():
        groups.append((factor, [*bins, UNKNOWN], _quarters(objects[column], bins)))
    lines = [
        {"factor": factor, "bin": name} | _line(objects, (place == name).to_numpy())
        for factor, names, place in groups
        for name in names
        if (place == name).any() and place.nunique() > 1
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def _objects(rows: pd.DataFrame, base: str, tuned: str, strategy: str) -> pd.DataFrame:
    """One line an object: record, object, category, base, tuned, gain.

    `tables.pairs` gives one line a record; each object goes through it as a record of its own, so that failures,
    several runs and models measured on different images are treated as in every other table.
    """
    absent = [name for name in ("record", "object", "category") if name not in rows.columns]
    if absent:
        raise DataError(f"expected result rows with the columns of Row, missing: {', '.join(absent)}")
    single = rows.assign(record=rows["object"].astype(int).astype(str) + "@" + rows["record"].astype(str))
    table = pairs(single, base, tuned, strategy)
    if table["record"].duplicated().any():
        raise DataError("expected rows of one data set, split and prompt source, got several: filter them first")
    categories = single["category"].astype(object).fillna("").groupby(single["record"]).first()
    table["category"] = table["record"].map(categories)
    split = table["record"].str.partition("@")
    return table.assign(record=split[2], object=split[0].astype("int64"))


def _quarters(values: pd.Series[float], bins: tuple[str, str, str, str]) -> pd.Series[str]:
    """The bin of each value by its rank; equal values share their mean rank and so their bin."""
    ranks = values.astype(float).rank(pct=True)
    place = pd.Series(np.ceil(ranks * 4 - 1e-9), values.index).clip(1, 4)
    return place.map(dict(enumerate(bins, 1))).fillna(UNKNOWN)


def _line(objects: pd.DataFrame, inside: npt.NDArray[np.bool_]) -> dict[str, float | int]:
    from scipy import stats

    images = objects[inside].groupby("record")[["base", "tuned", "gain"]].mean()
    others = objects[~inside].groupby("record")["gain"].mean().to_numpy(float)
    gain = images["gain"].to_numpy(float)
    interval = paired_bootstrap(np.zeros_like(gain), gain)
    return {
        "n": len(images),
        "base": float(images["base"].mean()),
        "tuned": float(images["tuned"].mean()),
        "gain": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "p": wilcoxon(np.zeros_like(gain), gain),
        "rest": float(others.mean()) if len(others) else float("nan"),
        "p_rest": float(stats.mannwhitneyu(gain, others, alternative="less").pvalue) if len(others) else 1.0,
    }


def where_it_loses(frame: pd.DataFrame) -> list[str]:
    """Sentences for the groups of `by_difficulty` that lose, and for those that gain significantly less than the rest.

    A group loses where its interval lies below zero and its p, adjusted for all groups (Holm), is below LEVEL; it
    gains less where p_rest, adjusted alike, is. [] where nothing of the kind can be said, which is no proof that
    nothing is lost: groups are small.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"expected the columns of by_difficulty, missing: {', '.join(missing)}")
    lines = frame.to_dict("records")
    p = holm({str(number): line["p"] for number, line in enumerate(lines)})
    p_rest = holm({str(number): line["p_rest"] for number, line in enumerate(lines)})
    said = []
    for number, line in enumerate(lines):
        name = f"{line['factor']}, {line['bin']} ({line['n']} images)"
        if line["high"] < 0 and p[str(number)] < LEVEL:
            said.append(
                f"{name}: tuning loses, {_percent(line['base'])} to {_percent(line['tuned'])} "
                f"({_points(line['gain'])}, 95 % interval {_points(line['low'])} to {_points(line['high'])})"
            )
        elif p_rest[str(number)] < LEVEL:
            said.append(f"{name}: {_points(line['gain'])} where the rest gains {_points(line['rest'])}")
    return said


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"

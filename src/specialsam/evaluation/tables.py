"""From tidy rows to the tables that people read: a summary, means with intervals, base against specialist.

`rows` is always a DataFrame whose columns are the fields of `core.types.Row`. The image is the unit of every mean,
interval and test: values of the objects of one image (and of several runs of one model) are averaged first. A row whose
`error` is set is a failure and counts with the worst value of its metric (0, or 1 for MAE), never as missing. Where a
failure leaves `model`, `strategy`, `output` or `metric` "", it counts for each of them that the other rows measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Literal

import numpy as np
import pandas as pd

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Row
from specialsam.evaluation.statistics import bootstrap_mean, holm, paired_bootstrap, wilcoxon, wins
from specialsam.metrics import METRICS
from specialsam.prompts import SEED_TITLES

Category = Literal["category", "supercategory"]

COLUMNS = [field.name for field in fields(Row)]

PLACE = ["dataset", "split", "prompt_source", "resolution", "subset"]
_WHAT = ["model", "strategy", "output", "metric"]
_SEED_METRICS = {
    "iou": "iou",
    "dice": "dice",
    "f1": "f1",
    "boundary_prec": "canny_precision",
    "boundary_recall": "canny_recall",
    "boundary_f1": "canny_f1",
}
_SEED_COLUMNS = [
    *("model", "prompt_strategy", "iou_mean", "iou_std", "dice_mean", "dice_std", "f1_mean", "f1_std"),
    *("boundary_prec_mean", "boundary_prec_std", "boundary_recall_mean", "boundary_f1_mean", "num_samples"),
]


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns that the tables expect, also when there are none."""
    return pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)


def per_image(rows: pd.DataFrame, by: Category | None = None) -> pd.DataFrame:
    """One line an image: the protocol, model, strategy, output, metric, record, value, failed.

    `value` is the mean over the image's objects, failures at the worst value; `failed` says that there was one. With
    `by` the objects of each category of an image make a line of their own, in a further column `category`. DataError
    for missing columns, unknown metrics, repeated rows, or a NaN that no error explains.
    """
    if by not in (None, "category", "supercategory"):
        raise UsageError(f"expected category or supercategory, got {by!r}")
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataError(f"expected result rows with the columns {', '.join(COLUMNS)}, missing: {', '.join(missing)}")
    table = rows[COLUMNS].reset_index(drop=True)
    texts = [name for name in COLUMNS if name not in ("object", "value")]
    for name in texts:
        if not isinstance(table[name].dtype, pd.CategoricalDtype):  # as `Results` holds them, whole and small
            table[name] = table[name].astype(object).fillna("")
    table["failed"] = table["error"] != ""
    table = _spread_failures(table)
    unknown = sorted(set(table["metric"]) - set(METRICS))
    if unknown:
        raise DataError(f"expected metrics of {', '.join(METRICS)}, got {', '.join(map(repr, unknown))}")
    key = [*PLACE, *_WHAT, "record"]
    _refuse(table, table.duplicated([*key, "run", "object"]), "each result once", "repeated ones")
    worst = table["metric"].astype(object).map({name: metric.worst for name, metric in METRICS.items()}).astype(float)
    table["value"] = table["value"].astype(float).where(~table["failed"], worst)
    _refuse(table, ~np.isfinite(table["value"]), "a finite value or an error in each result", "neither")
    if by is not None:
        table["category"] = table[by]
        key.append("category")
    grouped = table.groupby(key, sort=False, observed=True)
    result: pd.DataFrame = grouped.agg(value=("value", "mean"), failed=("failed", "any")).reset_index()
    return result.astype(dict.fromkeys(key, object))


def seed_summary(rows: pd.DataFrame, output: str = "single", prompt_source: str = "truth") -> pd.DataFrame:
    """The summary of the original study in its 13 columns, one line a model and strategy.

    Mean and standard deviation (ddof 0) over images of each image's mean over its objects; the boundary columns are the
    Canny variant and stay empty (NaN) where it was not measured. Failed images count as 0. Only rows of one `output`
    and one `prompt_source` enter, because the study has no other; the rows must be of one data set and split.
    """
    images = per_image(rows)
    images = images[(images["output"] == output) & (images["prompt_source"] == prompt_source)]
    places = images[["dataset", "split"]].drop_duplicates()
    if len(places) > 1:
        raise DataError(f"expected rows of one data set and split, got {places.to_numpy().tolist()}: filter them first")
    lines: list[dict[str, object]] = []
    for (model, strategy), part in images.groupby(["model", "strategy"], sort=False):
        by_metric = {str(name): group["value"].to_numpy(float) for name, group in part.groupby("metric")}
        if "iou" not in by_metric:
            raise DataError(f"expected IoU among the results of {model} with {strategy}, got {', '.join(by_metric)}")
        line: dict[str, object] = {"model": model, "prompt_strategy": SEED_TITLES.get(str(strategy), strategy)}
        for column, metric in _SEED_METRICS.items():
            values = by_metric.get(metric)
            line[f"{column}_mean"] = float("nan") if values is None else float(values.mean())
            line[f"{column}_std"] = float("nan") if values is None else float(values.std(ddof=0))
        lines.append(line | {"num_samples": len(by_metric["iou"])})
    return pd.DataFrame(lines, columns=_SEED_COLUMNS)


def summary(
    rows: pd.DataFrame,
    metrics: tuple[str, ...] | None = None,
    level: float = 0.95,
    seed: int = 0,
    by: Category | None = None,
) -> pd.DataFrame:
    """Means over images with bootstrap intervals: model, strategy, output, metric, mean, low, high, n, failed.

    `n` images, of which `failed` had a failure; failed images count as 0 (MAE: 1) in the mean. Then the protocol
    (dataset, split, prompt_source, resolution, subset), whose values are never mixed into one mean. `metrics` None
    means all that were measured. With `by` there is a line for each category, named in the column `category` ("" for
    objects without one).
    """
    images = _chosen(per_image(rows, by), metrics)
    extra = [] if by is None else ["category"]
    key = [*PLACE, *_WHAT, *extra]
    lines: list[dict[str, object]] = []
    for names, part in images.groupby(key, sort=False):
        interval = bootstrap_mean(part["value"].to_numpy(float), seed, level=level)
        lines.append(dict(zip(key, names, strict=True)) | asdict(interval) | {"failed": int(part["failed"].sum())})
    return pd.DataFrame(lines, columns=[*_WHAT, *extra, "mean", "low", "high", "n", "failed", *PLACE])


def comparison(
    rows: pd.DataFrame,
    base: str,
    tuned: str,
    metrics: tuple[str, ...] | None = None,
    level: float = 0.95,
    seed: int = 0,
    tie: float = 0.001,
    by: Category | None = None,
) -> pd.DataFrame:
    """Tuned against base on the same images, one line a strategy, output and metric.

    Columns: strategy, output, metric, base, tuned (means), gain, low, high, p_wilcoxon, p_holm, wins, losses, ties, n,
    failed_base, failed_tuned (images); then the protocol (dataset, split, prompt_source, resolution, subset). `gain` is
    the mean improvement with its paired bootstrap interval, positive when tuned is better (also for MAE). `p_holm` is
    adjusted for all lines of the table: choose `metrics` to keep that family small. Combinations that only one of the
    models was evaluated on are left out, images that only one of them was evaluated on raise DataError.
    """
    pairs = _paired(_chosen(per_image(rows, by), metrics), base, tuned)
    extra = [] if by is None else ["category"]
    key = [*PLACE, "strategy", "output", "metric", *extra]
    lines: list[dict[str, object]] = []
    for names, part in pairs.groupby(key, sort=False):
        named = dict(zip(key, names, strict=True))
        before, after = part["base"].to_numpy(float), part["tuned"].to_numpy(float)
        sign = 1.0 if METRICS[str(named["metric"])].higher_is_better else -1.0
        gain = paired_bootstrap(sign * before, sign * after, seed, level=level)
        won, lost, tied = wins(sign * before, sign * after, tie)
        lines.append(
            named
            | {"base": before.mean(), "tuned": after.mean(), "gain": gain.mean, "low": gain.low, "high": gain.high}
            | {"p_wilcoxon": wilcoxon(before, after), "wins": won, "losses": lost, "ties": tied, "n": gain.n}
            | {"failed_base": int(part["failed_base"].sum()), "failed_tuned": int(part["failed_tuned"].sum())}
        )
    adjusted = holm({str(index): float(str(line["p_wilcoxon"])) for index, line in enumerate(lines)})
    for index, line in enumerate(lines):
        line["p_holm"] = adjusted[str(index)]
    numbers = ["base", "tuned", "gain", "low", "high", "p_wilcoxon", "p_holm", "wins", "losses", "ties", "n"]
    columns = ["strategy", "output", "metric", *extra, *numbers, "failed_base", "failed_tuned", *PLACE]
    return pd.DataFrame(lines, columns=columns)


def leads(
    rows: pd.DataFrame, base: str, tuned: str, metric: str = "iou", level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """`tuned` against what needs no tuning, on the same images, one line a strategy, output and rival.

    Columns: strategy, output, metric, rival, lead, low, high, n; then the protocol. `lead` is how much better `tuned`
    is in the mean (negative: worse) with its paired bootstrap interval over the images that both have. Its single mask
    is held against each rival that looks at no pixel. The rival named `base` is that model's best of three masks by its
    own score, against which both the single mask and the best of three of `tuned` are held.
    """
    images = _chosen(per_image(rows), (metric,))
    rivals = images[images["output"] == "rival"].assign(rival=lambda table: table["model"], output="single")
    three = images[(images["model"] == base) & (images["output"] == "three_best")].assign(rival=base)
    every = pd.concat([rivals, *(three.assign(output=output) for output in ("single", "three_best"))])
    every = every[[*PLACE, "strategy", "output", "record", "rival", "value"]]
    both = images[images["model"] == tuned].merge(
        every, on=[*PLACE, "strategy", "output", "record"], suffixes=("", "_rival")
    )
    sign, key = 1.0 if METRICS[metric].higher_is_better else -1.0, [*PLACE, "strategy", "output", "rival"]
    lines: list[dict[str, object]] = []
    for names, part in both.groupby(key, sort=False):
        sides = (sign * part["value_rival"].to_numpy(float), sign * part["value"].to_numpy(float))
        ahead = paired_bootstrap(*sides, seed, level=level)
        named = dict(zip(key, names, strict=True))
        lines.append(named | {"metric": metric, "lead": ahead.mean, "low": ahead.low, "high": ahead.high, "n": ahead.n})
    return pd.DataFrame(lines, columns=["strategy", "output", "metric", "rival", "lead", "low", "high", "n", *PLACE])


def by_category(
    rows: pd.DataFrame,
    base: str,
    tuned: str,
    metrics: tuple[str, ...] | None = ("iou",),
    level: float = 0.95,
    seed: int = 0,
    by: Category = "category",
) -> pd.DataFrame:
    """`comparison` for each category or supercategory, in the column `category`; "" stands for objects without one."""
    return comparison(rows, base, tuned, metrics, level, seed, by=by)


def pairs(
    rows: pd.DataFrame, base: str, tuned: str, strategy: str, metric: str = "iou", output: str = "single"
) -> pd.DataFrame:
    """Base against tuned, one line an image: record, base, tuned, gain (positive is better) and failures."""
    table = _paired(_chosen(per_image(rows), (metric,)), base, tuned)
    table = table[(table["strategy"] == strategy) & (table["output"] == output)].reset_index(drop=True)
    if not len(table):
        raise DataError(f"expected {metric} of {base} and {tuned} with {strategy}, output {output}, got none")
    table["gain"] = (table["tuned"] - table["base"]) * (1 if METRICS[metric].higher_is_better else -1)
    return table[["record", "base", "tuned", "gain", "failed_base", "failed_tuned", *PLACE]]


def _paired(images: pd.DataFrame, base: str, tuned: str) -> pd.DataFrame:
    """Lines of `per_image` of two models side by side: base, tuned, failed_base, failed_tuned, and their key."""
    known = sorted(set(images["model"]))
    for name in (base, tuned):
        if name not in known:
            raise UsageError(f"expected a model of {', '.join(known) or 'the results (none)'}, got {name!r}")
    what = [*PLACE, "strategy", "output", "metric"]
    sides = [images[images["model"] == name].drop(columns="model") for name in (base, tuned)]
    shared = sides[0][what].drop_duplicates().merge(sides[1][what].drop_duplicates(), on=what)
    if not len(shared):
        raise DataError(f"expected a strategy and an output that both {base} and {tuned} were evaluated on, got none")
    first, second = (side.merge(shared, on=what) for side in sides)
    key = [name for name in first.columns if name not in ("value", "failed")]
    every = first.merge(second, on=key, how="outer", indicator=True)
    alone = every[every["_merge"] != "both"]
    if len(alone):
        line = alone.iloc[0]
        raise DataError(
            f"expected {base} and {tuned} on the same images, got {len(alone)} of {len(every)} results on one side, "
            f"first: {line['record']} ({line['strategy']}, {line['output']}, {line['metric']})"
        )
    both = first.merge(second, on=key, suffixes=("_base", "_tuned"))
    return both.rename(columns={"value_base": "base", "value_tuned": "tuned"})


def _spread_failures(table: pd.DataFrame) -> pd.DataFrame:
    """Replace each failure that leaves model, strategy, output or metric "" by one for each measured combination."""
    open_ends = table["failed"] & (table[_WHAT] == "").any(axis=1)
    if not open_ends.any():
        return table
    measured = table.loc[~open_ends, [*PLACE, *_WHAT]].drop_duplicates()
    parts = [table[~open_ends]]
    for _, failure in table[open_ends].iterrows():
        given = [name for name in [*PLACE, *_WHAT] if failure[name]]
        fits = measured[(measured[given] == failure[given]).all(axis=1)]
        if not len(fits):
            raise DataError(
                f"expected other results to say what the failure of {failure['record']} counts for, got none with "
                f"{', '.join(f'{name} {failure[name]!r}' for name in given)}"
            )
        rest = failure.drop(labels=[*PLACE, *_WHAT])
        parts.append(fits.assign(**{str(name): value for name, value in rest.items()}))
    return pd.concat(parts, ignore_index=True)


def _chosen(images: pd.DataFrame, metrics: tuple[str, ...] | None) -> pd.DataFrame:
    if metrics is None:
        return images
    absent = [name for name in metrics if name not in set(images["metric"])]
    if absent:
        raise DataError(f"expected results of {', '.join(metrics)}, got none of {', '.join(absent)}")
    return images[images["metric"].isin(metrics)].copy()


def _refuse(table: pd.DataFrame, wrong: pd.Series[bool], expected: str, got: str) -> None:
    if wrong.any():
        line = table[wrong].iloc[0]
        raise DataError(
            f"expected {expected}, got {got} in {int(wrong.sum())} rows, first: {line['metric']} of {line['model']} "
            f"with {line['strategy']} on {line['record']} object {line['object']} in run {line['run']!r}"
        )

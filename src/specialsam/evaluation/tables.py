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

COLUMNS = [field.name for field in fields(Row)]

_PLACE = ["dataset", "split", "prompt_source"]
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
    "model",
    "prompt_strategy",
    "iou_mean",
    "iou_std",
    "dice_mean",
    "dice_std",
    "f1_mean",
    "f1_std",
    "boundary_prec_mean",
    "boundary_prec_std",
    "boundary_recall_mean",
    "boundary_f1_mean",
    "num_samples",
]


def frame(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns that the tables expect, also when there are none."""
    return pd.DataFrame([asdict(row) for row in rows], columns=COLUMNS)


def per_image(rows: pd.DataFrame) -> pd.DataFrame:
    """One line an image: dataset, split, prompt_source, model, strategy, output, metric, record, value, failed.

    `value` is the mean over the image's objects, failures at the worst value; `failed` says that there was one. Also
    carries `category` and `supercategory`. DataError for missing columns, unknown metrics, repeated rows, or a NaN that
    no error explains.
    """
    missing = [name for name in COLUMNS if name not in rows.columns]
    if missing:
        raise DataError(f"expected result rows with the columns {', '.join(COLUMNS)}, missing: {', '.join(missing)}")
    table = rows[COLUMNS].reset_index(drop=True)
    table["failed"] = table["error"].fillna("").astype(str) != ""
    table = _spread_failures(table)
    unknown = sorted(set(table["metric"]) - set(METRICS))
    if unknown:
        raise DataError(f"expected metrics of {', '.join(METRICS)}, got {', '.join(map(repr, unknown))}")
    key = [*_PLACE, *_WHAT, "record"]
    repeated = table.duplicated([*key, "run", "object"])
    if repeated.any():
        first = table[repeated].iloc[0]
        raise DataError(
            f"expected each result once, got {int(repeated.sum())} repeated rows, first: {first['metric']} of "
            f"{first['model']} on {first['record']} object {first['object']} in run {first['run']!r}"
        )
    worst = table["metric"].map({name: metric.worst for name, metric in METRICS.items()})
    table["value"] = table["value"].astype(float).where(~table["failed"], worst)
    lost = ~np.isfinite(table["value"])
    if lost.any():
        first = table[lost].iloc[0]
        raise DataError(
            f"expected a finite value or an error in each row, got neither in {int(lost.sum())} rows, first: "
            f"{first['metric']} of {first['model']} on {first['record']}"
        )
    grouped = table.groupby(key, sort=False, dropna=False)
    result: pd.DataFrame = grouped.agg(
        value=("value", "mean"),
        failed=("failed", "any"),
        category=("category", "first"),
        supercategory=("supercategory", "first"),
    ).reset_index()
    return result


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
        line: dict[str, object] = {
            "model": model,
            "prompt_strategy": SEED_TITLES.get(str(strategy), strategy),
            "num_samples": int(part["record"].nunique()),
        }
        for column, metric in _SEED_METRICS.items():
            values = by_metric.get(metric)
            line[f"{column}_mean"] = float("nan") if values is None else float(values.mean())
            line[f"{column}_std"] = float("nan") if values is None else float(values.std(ddof=0))
        lines.append(line)
    return pd.DataFrame(lines, columns=_SEED_COLUMNS)


def summary(
    rows: pd.DataFrame, metrics: tuple[str, ...] | None = None, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Means over images with bootstrap intervals: model, strategy, output, metric, mean, low, high, n, failed.

    `n` images, of which `failed` had a failure; failed images count as 0 (MAE: 1) in the mean. Then dataset, split and
    prompt_source, which are never mixed into one mean. `metrics` None means all that were measured.
    """
    return _means(_chosen(per_image(rows), metrics), [*_PLACE, *_WHAT], level, seed, [*_WHAT], [*_PLACE])


def by_category(
    rows: pd.DataFrame,
    metrics: tuple[str, ...] | None = ("iou",),
    column: Literal["category", "supercategory"] = "category",
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """`summary` for each category or supercategory, in a column of its own; "" stands for images without one."""
    if column not in ("category", "supercategory"):
        raise UsageError(f"expected the column category or supercategory, got {column!r}")
    images = _chosen(per_image(rows), metrics)
    images[column] = images[column].fillna("")
    return _means(images, [*_PLACE, *_WHAT, column], level, seed, [*_WHAT, column], [*_PLACE])


def comparison(
    rows: pd.DataFrame,
    base: str,
    tuned: str,
    metrics: tuple[str, ...] | None = None,
    level: float = 0.95,
    seed: int = 0,
    tie: float = 0.001,
) -> pd.DataFrame:
    """Tuned against base on the same images, one line a strategy, output and metric.

    Columns: strategy, output, metric, base, tuned (means), gain, low, high, p_wilcoxon, p_holm, wins, losses, ties, n,
    failed_base, failed_tuned (images); then dataset, split and prompt_source.

    `gain` is the mean improvement with its paired bootstrap interval, positive when tuned is better (also for MAE).
    `p_holm` is adjusted for all lines of the table: choose `metrics` to keep that family small. Combinations that only
    one of the models was evaluated on are left out, images that only one of them was evaluated on raise DataError.
    """
    images = _chosen(per_image(rows), metrics)
    known = sorted(set(images["model"]))
    for name in (base, tuned):
        if name not in known:
            raise UsageError(f"expected a model of {', '.join(known) or 'the results (none)'}, got {name!r}")
    key = [*_PLACE, "strategy", "output", "metric"]
    sides = [dict(list(images[images["model"] == name].groupby(key, sort=False))) for name in (base, tuned)]
    lines: list[dict[str, object]] = []
    for combination, first in sides[0].items():
        if combination not in sides[1]:
            continue
        pairs = first.merge(
            sides[1][combination], on="record", how="outer", suffixes=("_base", "_tuned"), indicator=True
        )
        alone = pairs[pairs["_merge"] != "both"]
        named = dict(zip(key, combination, strict=True))
        if len(alone):
            raise DataError(
                f"expected {base} and {tuned} on the same images, got {len(alone)} of {len(pairs)} on one side only "
                f"({named['strategy']}, {named['output']}, {named['metric']}), first: {alone['record'].iloc[0]}"
            )
        before, after = pairs["value_base"].to_numpy(float), pairs["value_tuned"].to_numpy(float)
        sign = 1.0 if METRICS[str(named["metric"])].higher_is_better else -1.0
        gain = paired_bootstrap(sign * before, sign * after, seed, level=level)
        won, lost, tied = wins(sign * before, sign * after, tie)
        lines.append(
            named
            | {"base": before.mean(), "tuned": after.mean(), "gain": gain.mean, "low": gain.low, "high": gain.high}
            | {"p_wilcoxon": wilcoxon(before, after), "wins": won, "losses": lost, "ties": tied, "n": gain.n}
            | {"failed_base": int(pairs["failed_base"].sum()), "failed_tuned": int(pairs["failed_tuned"].sum())}
        )
    if not lines:
        raise DataError(f"expected a strategy and an output that both {base} and {tuned} were evaluated on, got none")
    adjusted = holm({str(index): float(str(line["p_wilcoxon"])) for index, line in enumerate(lines)})
    for index, line in enumerate(lines):
        line["p_holm"] = adjusted[str(index)]
    columns = ["strategy", "output", "metric", "base", "tuned", "gain", "low", "high", "p_wilcoxon", "p_holm"]
    return pd.DataFrame(
        lines, columns=[*columns, "wins", "losses", "ties", "n", "failed_base", "failed_tuned", *_PLACE]
    )


def _spread_failures(table: pd.DataFrame) -> pd.DataFrame:
    """Replace each failure that leaves model, strategy, output or metric "" by one for each measured combination."""
    open_ends = table["failed"] & (table[_WHAT].fillna("") == "").any(axis=1)
    if not open_ends.any():
        return table
    measured = table.loc[~open_ends, [*_PLACE, *_WHAT]].drop_duplicates()
    parts = [table[~open_ends]]
    for _, failure in table[open_ends].iterrows():
        given = [name for name in [*_PLACE, *_WHAT] if failure[name]]
        fits = measured[(measured[given] == failure[given]).all(axis=1)] if given else measured
        if not len(fits):
            raise DataError(
                f"expected other results to say what the failure of {failure['record']} counts for, got none with "
                f"{', '.join(f'{name} {failure[name]!r}' for name in given)}"
            )
        rest = failure.drop(labels=[*_PLACE, *_WHAT])
        parts.append(fits.assign(**{str(name): value for name, value in rest.items()}))
    return pd.concat(parts, ignore_index=True)


def _chosen(images: pd.DataFrame, metrics: tuple[str, ...] | None) -> pd.DataFrame:
    if metrics is None:
        return images
    absent = [name for name in metrics if name not in set(images["metric"])]
    if absent:
        raise DataError(f"expected results of {', '.join(metrics)}, got none of {', '.join(absent)}")
    return images[images["metric"].isin(metrics)].copy()


def _means(
    images: pd.DataFrame, key: list[str], level: float, seed: int, front: list[str], back: list[str]
) -> pd.DataFrame:
    lines: list[dict[str, object]] = []
    for names, part in images.groupby(key, sort=False, dropna=False):
        interval = bootstrap_mean(part["value"].to_numpy(float), seed, level=level)
        failed = int(part["failed"].sum())
        lines.append(dict(zip(key, names, strict=True)) | asdict(interval) | {"failed": failed})
    return pd.DataFrame(lines, columns=[*front, "mean", "low", "high", "n", "failed", *back])

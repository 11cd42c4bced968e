"""Tables against numbers worked by hand on a handful of rows."""

import numpy as np
import pandas as pd
import pytest

from specialsam.core.errors import DataError, UsageError
from specialsam.core.types import Row
from specialsam.evaluation.statistics import bootstrap_mean, paired_bootstrap
from specialsam.evaluation.statistics import wilcoxon as wilcoxon_p
from specialsam.evaluation.tables import by_category, comparison, frame, leads, pairs, per_image, seed_summary, summary

ALL = ("iou", "dice", "f1", "canny_precision", "canny_recall", "canny_f1")


def row(model: str, record: str, value: float, metric: str = "iou", **changes) -> Row:
    given = {
        "run": "r",
        "model": model,
        "dataset": "d",
        "split": "test",
        "record": record,
        "object": 0,
        "strategy": "grid4",
        "output": "single",
        "metric": metric,
        "value": value,
    }
    return Row(**(given | changes))


def two_models(**changes) -> list[Row]:
    """Ten images; tuned is better by .1 on nine of them and worse by .2 on the last."""
    base = [0.05 * index for index in range(10)]
    tuned = [value + 0.1 for value in base[:9]] + [base[9] - 0.2]
    return [
        row(model, f"i{index}", value, **changes)
        for model, side in (("base", base), ("tuned", tuned))
        for index, value in enumerate(side)
    ]


def test_a_lead_over_a_rival_is_paired_image_by_image():
    """Each image is ahead by .1 whatever its own level, so that the lead is sure though both spread over half."""
    rows = [row("tuned", f"i{i}", 0.05 * i + 0.1) for i in range(10)]
    rows += [row("disc", f"i{i}", 0.05 * i, output="rival") for i in range(10)]
    rows += [row("box", f"i{i}", 0.5, output="rival", strategy="box") for i in range(10)]
    table = leads(frame(rows), "base", "tuned")
    assert table[["strategy", "output", "rival", "n"]].values.tolist() == [["grid4", "single", "disc", 10]]
    assert table.loc[0, ["lead", "low", "high"]].tolist() == pytest.approx([0.1, 0.1, 0.1])
    rows += [row("base", f"i{i}", 0.05 * i + 0.05, output="three_best") for i in range(10)]
    rows += [row("tuned", f"i{i}", 0.05 * i + 0.02, output="three_best") for i in range(9)]
    table = leads(frame(rows), "base", "tuned").set_index(["output", "rival"])["lead"]
    assert table.to_dict() == pytest.approx(
        {("single", "disc"): 0.1, ("single", "base"): 0.05, ("three_best", "base"): -0.03}
    )


def test_objects_are_averaged_within_their_image_first():
    rows = [row("m", "a", 0.2), row("m", "a", 0.4, object=1), row("m", "b", 0.9)]
    images = per_image(frame(rows))
    assert images["value"].tolist() == pytest.approx([0.3, 0.9])
    table = summary(frame(rows)).iloc[0]
    assert table["mean"] == pytest.approx(0.6)
    assert (table["n"], table["failed"]) == (2, 0)


def test_runs_of_one_model_are_averaged_within_their_image():
    rows = [row("m", "a", 0.2), row("m", "a", 0.6, run="second"), row("m", "b", 0.5)]
    assert per_image(frame(rows))["value"].tolist() == pytest.approx([0.4, 0.5])


def test_seed_summary_has_the_thirteen_columns_and_population_deviation():
    rows = [row("m", record, value, metric) for record, value in (("a", 0.2), ("b", 0.6)) for metric in ALL]
    table = seed_summary(frame(rows))
    assert list(table.columns) == [
        *("model", "prompt_strategy", "iou_mean", "iou_std", "dice_mean", "dice_std", "f1_mean", "f1_std"),
        *("boundary_prec_mean", "boundary_prec_std", "boundary_recall_mean", "boundary_f1_mean", "num_samples"),
    ]
    assert table.iloc[0].to_dict() == {
        "model": "m",
        "prompt_strategy": "Multi-Point Grid (4 pts)",
        **{f"{name}_mean": pytest.approx(0.4) for name in ("iou", "dice", "f1", "boundary_prec")},
        **{f"{name}_std": pytest.approx(0.2) for name in ("iou", "dice", "f1", "boundary_prec")},
        "boundary_recall_mean": pytest.approx(0.4),
        "boundary_f1_mean": pytest.approx(0.4),
        "num_samples": 2,
    }


def test_seed_summary_takes_one_output_and_one_source_of_prompts():
    rows = [row("m", "a", 0.2), row("m", "a", 0.8, output="three_best"), row("m", "a", 0.7, prompt_source="finder")]
    assert seed_summary(frame(rows))["iou_mean"].tolist() == [0.2]
    assert seed_summary(frame(rows), output="three_best")["iou_mean"].tolist() == [0.8]
    assert seed_summary(frame(rows), prompt_source="finder")["iou_mean"].tolist() == [0.7]
    assert np.isnan(seed_summary(frame(rows))["boundary_f1_mean"].item())
    with pytest.raises(DataError, match="one data set"):
        seed_summary(frame([*rows, row("m", "a", 0.2, dataset="other")]))
    with pytest.raises(DataError, match="expected IoU"):
        seed_summary(frame([row("m", "a", 0.2, "dice")]))


def test_failed_images_count_as_the_worst_value_and_are_shown():
    rows = [
        *(row("m", "a", 0.8), row("m", "a", 0.1, "mae")),
        *(row("m", "b", float("nan"), error="cannot read"), row("m", "b", float("nan"), "mae", error="cannot read")),
    ]
    table = summary(frame(rows)).set_index("metric")
    assert table.loc["iou", "mean"] == pytest.approx(0.4)
    assert table.loc["mae", "mean"] == pytest.approx(0.55)
    assert table["failed"].tolist() == [1, 1]
    assert table["n"].tolist() == [2, 2]
    line = seed_summary(frame(rows)).iloc[0]
    assert (line["iou_mean"], line["num_samples"]) == (pytest.approx(0.4), 2)


def test_a_failure_without_details_counts_for_everything_measured():
    rows = [
        row(model, "a", 0.8, metric, strategy=strategy)
        for model in ("m", "n")
        for metric in ("iou", "dice")
        for strategy in ("box", "edge")
    ]
    rows.append(row("", "b", float("nan"), "", strategy="", output="", object=-1, error="cannot read"))
    rows.append(row("m", "c", float("nan"), "", strategy="box", error="out of memory"))
    table = summary(frame(rows)).set_index(["model", "strategy", "metric"])
    assert len(table) == 8
    assert table.loc[("n", "edge", "iou"), ["mean", "n", "failed"]].tolist() == pytest.approx([0.4, 2, 1])
    assert table.loc[("m", "box", "dice"), ["mean", "n", "failed"]].tolist() == pytest.approx([0.8 / 3, 3, 2])
    assert table.loc[("m", "edge", "dice"), ["mean", "n", "failed"]].tolist() == pytest.approx([0.4, 2, 1])
    with pytest.raises(DataError, match=r"failure of z.*model 'unknown'"):
        summary(frame([*rows, row("unknown", "z", 0, "", error="gone")]))


def test_summary_intervals_are_those_of_the_bootstrap_and_keep_sources_apart():
    rows = two_models() + two_models(prompt_source="finder") + two_models(dataset="other")
    table = summary(frame(rows), level=0.9, seed=3)
    assert len(table) == 6
    expected = bootstrap_mean([0.05 * index for index in range(10)], 3, level=0.9)
    assert tuple(table.iloc[0][["mean", "low", "high", "n"]]) == pytest.approx(
        (expected.mean, expected.low, expected.high, 10)
    )
    assert list(table.columns[:9]) == ["model", "strategy", "output", "metric", "mean", "low", "high", "n", "failed"]


def test_comparison_by_hand():
    table = comparison(frame(two_models(strategy="box") + two_models(strategy="edge")), "base", "tuned")
    assert table["strategy"].tolist() == ["box", "edge"]
    line = table.iloc[0]
    assert (line["base"], line["tuned"], line["gain"]) == pytest.approx((0.225, 0.295, 0.07))
    assert (line["wins"], line["losses"], line["ties"], line["n"]) == (9, 1, 0, 10)
    difference = np.array([0.1] * 9 + [-0.2])
    expected = paired_bootstrap(np.zeros(10), difference)
    assert (line["low"], line["high"]) == pytest.approx((expected.low, expected.high))
    images = pairs(frame(two_models()), "base", "tuned", "grid4")
    assert line["p_wilcoxon"] == pytest.approx(wilcoxon_p(images["base"], images["tuned"]))
    assert line["p_holm"] == pytest.approx(min(1, 2 * line["p_wilcoxon"]))


def test_gain_is_positive_when_tuned_is_better_also_where_lower_is_better():
    rows = [
        row(model, f"i{i}", value + i / 100, "mae")
        for model, value in (("base", 0.5), ("tuned", 0.2))
        for i in range(5)
    ]
    line = comparison(frame(rows), "base", "tuned").iloc[0]
    assert line["gain"] == pytest.approx(0.3)
    assert (line["wins"], line["losses"]) == (5, 0)
    assert pairs(frame(rows), "base", "tuned", "grid4", "mae")["gain"].tolist() == pytest.approx([0.3] * 5)


def test_comparison_pairs_the_same_images_whatever_their_order():
    rows = frame(two_models())
    mixed = rows.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        comparison(rows, "base", "tuned"), comparison(mixed, "base", "tuned"), check_exact=False
    )


def test_comparison_counts_failures_and_refuses_missing_images():
    rows = two_models()
    failed = [
        row("tuned", "i3", float("nan"), error="broken") if (r.model, r.record) == ("tuned", "i3") else r for r in rows
    ]
    line = comparison(frame(failed), "base", "tuned").iloc[0]
    assert (line["failed_base"], line["failed_tuned"], line["losses"]) == (0, 1, 2)
    with pytest.raises(DataError, match="1 of 10 results on one side, first: i9"):
        comparison(frame(rows[:-1]), "base", "tuned")


def test_comparison_leaves_out_what_one_model_was_not_evaluated_on():
    rows = [*two_models(), *(r for r in two_models(strategy="box") if r.model == "base")]
    assert comparison(frame(rows), "base", "tuned")["strategy"].tolist() == ["grid4"]
    rivals = [row("base", "a", 0.5), row("disc", "a", 0.4, output="rival")]
    with pytest.raises(DataError, match="both base and disc"):
        comparison(frame(rivals), "base", "disc")
    with pytest.raises(UsageError, match=r"base, tuned, got 'tunned'"):
        comparison(frame(two_models()), "base", "tunned")


def test_categories_of_the_objects_of_one_image_stay_apart():
    rows = [
        row(model, record, value, object=index, category=category, supercategory="s")
        for model, shift in (("base", 0), ("tuned", 0.1))
        for record in ("a", "b")
        for index, (category, value) in enumerate([("crab", 0.2), ("owl", 0.6)])
        for value in [value + shift]
    ]
    table = by_category(frame(rows), "base", "tuned").set_index("category")
    assert table.loc["crab", ["base", "tuned", "gain", "n"]].tolist() == pytest.approx([0.2, 0.3, 0.1, 2])
    assert table.loc["owl", ["base", "tuned", "gain", "n"]].tolist() == pytest.approx([0.6, 0.7, 0.1, 2])
    supers = by_category(frame(rows), "base", "tuned", by="supercategory")
    assert supers[["category", "base", "n"]].to_numpy().tolist() == [["s", pytest.approx(0.4), 2]]
    means = summary(frame(rows), by="category")
    assert means[["model", "category", "mean"]].to_numpy().tolist()[0] == ["base", "crab", pytest.approx(0.2)]
    with pytest.raises(UsageError, match="category or supercategory"):
        summary(frame(rows), by="record")


def test_pairs_are_one_line_an_image():
    table = pairs(frame(two_models()), "base", "tuned", "grid4")
    assert table["record"].tolist() == [f"i{index}" for index in range(10)]
    assert table["gain"].tolist() == pytest.approx([0.1] * 9 + [-0.2])
    with pytest.raises(DataError, match="with box"):
        pairs(frame(two_models()), "base", "tuned", "box")


def test_rows_that_would_be_counted_wrongly_are_refused():
    with pytest.raises(DataError, match=r"each result once.*1 rows.*iou of m with grid4 on a"):
        per_image(frame([row("m", "a", 0.1), row("m", "a", 0.2)]))
    with pytest.raises(DataError, match=r"finite value or an error.*1 rows.*on b"):
        per_image(frame([row("m", "a", 0.1), row("m", "b", float("nan"))]))
    with pytest.raises(DataError, match="got 'iuo'"):
        per_image(frame([row("m", "a", 0.1, "iuo")]))
    with pytest.raises(DataError, match="missing: error"):
        per_image(frame([row("m", "a", 0.1)]).drop(columns="error"))
    with pytest.raises(DataError, match="none of dice"):
        summary(frame([row("m", "a", 0.1)]), metrics=("iou", "dice"))


def test_no_rows_give_empty_tables():
    assert summary(frame([])).empty
    assert seed_summary(frame([])).empty


def test_categorical_and_missing_text_reads_like_plain_text(tmp_path):
    """Columns as they come back from a parquet file with categories and nulls."""
    table = frame(two_models())
    stored = table.assign(
        error=None, category=None, model=table["model"].astype("category"), record=table["record"].astype("category")
    )
    stored.to_parquet(tmp_path / "rows.parquet")
    again = pd.read_parquet(tmp_path / "rows.parquet")
    pd.testing.assert_frame_equal(comparison(again, "base", "tuned"), comparison(table, "base", "tuned"))
    pd.testing.assert_frame_equal(summary(again), summary(table))

"""Made-up but plausible findings, guard, probes, prompts and difficulty, an advice and an audit, for tests and eyes."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import report_builder as build

from specialsam.core.findings import Factor, Finding
from specialsam.report.facts import Advice, Guard, Report
from specialsam.report.html import render
from specialsam.report.pages import AdvicePage, AuditPage, LearningCurve, Suspect

FINDINGS = (
    Finding("split", "pass", "No image of validation or test is a near-duplicate of a training image.", {"pairs": 0}),
    Finding(
        "mask_edges",
        "warn",
        "31 of 3,037 masks touch the border along more than half of it.",
        {"masks": 31, "share": 0.0102, "threshold": 0.5},
        tuple(f"masks/owl_{i:04d}.png" for i in range(14)),
        "look at the listed masks; crop the frame if it is part of the picture",
    ),
    Finding(
        "leakage",
        "fail",
        "14 of 412 test images are near-duplicates of training images (distance at most 6 bits).",
        {"test images": 412, "near-duplicates": 14, "largest_distance": 6, "source": "perceptual hash"},
        ("test/owl_0012.jpg", "test/owl_0013.jpg"),
        "group near-duplicates in the split, then measure again",
    ),
    Finding("prompts", "pass", "All prompts fall on their objects.", {"prompts": 9120}),
)


def guard() -> Guard:
    gains, drops = (0.0, 0.09, 0.15, 0.17, 0.165), (0.0, 0.004, 0.011, 0.034, 0.071)
    rows = [
        {"alpha": a, "iou": 0.47 + g, "gain": g, "gain_low": g - 0.02 * (a > 0), "gain_high": g + 0.02 * (a > 0)}
        | {"drop": d, "drop_low": d - 0.008 * (a > 0), "drop_high": d + 0.008 * (a > 0)}
        for a, g, d in zip((0.0, 0.25, 0.5, 0.75, 1.0), gains, drops, strict=True)
    ]
    says = "A mixture is kept (0.5 of the tuned weights): +15.0 [+13.0, +17.0] IoU points over the base."
    return Guard(pd.DataFrame(rows), 0.5, says, 0.02)


def probes() -> pd.DataFrame:
    """Names of the models and of the probes as `advice.probes` has them, and one that the page does not know."""
    means = {
        "plain": (0.47, 0.66, 0.31), "blind": (0.18, 0.42, 0.31), "shuffled": (0.16, 0.36, 0.31),
        "shift 25 %": (0.41, 0.63, 0.24), "background": (0.10, 0.12, 0.05), "grey_image": (0.21, 0.24, 0.31),
    }  # fmt: skip
    rows = [
        {"probe": probe, "model": model, "mean": mean, "low": mean - 0.02, "high": mean + 0.02, "n": 120}
        | {"note": "the image's mean colour everywhere" if probe == "grey_image" else ""}
        for probe, three in means.items()
        for model, mean in zip(("base", "tuned", "disc"), three, strict=True)
    ]
    return pd.DataFrame(rows)


def promptability() -> pd.DataFrame:
    axes = {"click depth": np.linspace(0, 1, 6), "click noise": np.array([0, 0.05, 0.1, 0.2, 0.4]),
            "box scale": np.linspace(0.7, 1.5, 7), "box shift": np.linspace(0, 0.4, 5)}  # fmt: skip
    rows = []
    for axis, values in axes.items():
        for model, top, fall in (("base", 0.48, 0.25), ("specialist", 0.66, 0.1)):
            for value in values:
                away = abs(value - (1 if axis == "box scale" else 0)) / max(abs(values).max(), 1e-9)
                mean = top - fall * away
                limits = {"low": mean - 0.018, "high": mean + 0.018, "n": 200}
                rows.append({"model": model, "axis": axis, "value": value, "mean": mean} | limits)
    for model, mean in (("base", 0.121), ("specialist", 0.084)):
        row = {"model": model, "axis": "background click", "value": 1.0, "mean": mean}
        rows.append(row | {"low": mean - 0.02, "high": mean + 0.02, "n": 190})
    return pd.DataFrame(rows)


def clicks() -> pd.DataFrame:
    rows = []
    for model, start, end in (("base", 0.47, 0.86), ("specialist", 0.66, 0.89)):
        for click in range(1, 21):
            mean = end - (end - start) * np.exp(-(click - 1) / 4)
            rows.append(
                {"model": model, "click": click, "mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": 200}
            )
    return pd.DataFrame(rows)


def noc() -> pd.DataFrame:
    rows = [("base", 8.42, 11.96, 61, 200), ("specialist", 4.31, 8.77, 38, 200)]
    return pd.DataFrame(rows, columns=["model", "noc85", "noc90", "failures", "n"])


def reliability() -> pd.DataFrame:
    rows = []
    for model, off in (("base", 0.22), ("specialist", 0.06)):
        for index, predicted in enumerate(np.linspace(0.15, 0.95, 9)):
            actual = predicted - off * np.sin(predicted * 3)
            rows.append({"model": model, "predicted": predicted, "actual": actual, "n": 10 + 6 * index})
    return pd.DataFrame(rows)


def difficulty() -> pd.DataFrame:
    groups = {
        "object size": {"below 1 %": -0.06, "1 to 5 %": 0.09, "5 to 20 %": 0.19, "above 20 %": 0.22},
        "contrast to the ground": {"low": 0.2, "middle": 0.16, "high": -0.01},
        "objects": {"one": 0.17, "several": 0.08},
    }
    rows = []
    for factor, bins in groups.items():
        for index, (name, gain) in enumerate(bins.items()):
            row = {"factor": factor, "bin": name, "n": 40 + 30 * index, "base": 0.47, "tuned": 0.47 + gain}
            rows.append(row | {"gain": gain, "low": gain - 0.035, "high": gain + 0.035})
    return pd.DataFrame(rows)


def parts() -> dict[str, Any]:
    """Every part that a report may leave out, by its name in `Report`."""
    advice = Advice("go", "Pilots on half of the images gained 9 points.", ("Masks are clean.", "The curve rises."))
    return {
        "findings": FINDINGS, "guard": guard(), "probes": probes(), "promptability": promptability(),
        "clicks": clicks(), "noc": noc(), "reliability": reliability(), "difficulty": difficulty(), "advice": advice,
    }  # fmt: skip


def full(**changes: Any) -> Report:
    """The builder's report with every part that may be left out."""
    return build.report(**(parts() | changes))


@cache
def full_text() -> str:
    """The full report's page."""
    return render(full())


def lean(**given: Any) -> Report:
    """A report of the given parts alone, which is drawn quickly."""
    return Report(build.report().run, **given)


def curve(**changes: Any) -> LearningCurve:
    """Pilots of 60 to 600 images, 1,200 that there are, and a saturating curve to 2,400."""

    def gain(n: Any) -> Any:
        return 0.16 - 0.22 * np.asarray(n, float) ** -0.18

    sizes = np.array([60, 120, 300, 600])
    noise = np.array([-0.006, 0.005, 0.001, -0.002])
    half = np.array([0.024, 0.02, 0.016, 0.014])
    pilots = pd.DataFrame({"n": sizes, "gain": gain(sizes) + noise, "low": gain(sizes) + noise - half,
                           "high": gain(sizes) + noise + half})  # fmt: skip
    grid = np.linspace(40, 2400, 80)
    width = 0.01 + 0.02 * grid / 2400
    fitted = pd.DataFrame({"n": grid, "gain": gain(grid), "low": gain(grid) - width, "high": gain(grid) + width})
    whole = LearningCurve(
        pilots, 1200, fitted, 0.10, 1650.0, 1200.0, 3100.0, "With all 1,200 images +9.8 points are likely."
    )
    return replace(whole, **changes)


def factors() -> tuple[Factor, ...]:
    return (
        Factor("Room for improvement", "the base's IoU is below 75 %", True, "The base reaches 47.5 % by a click, but "
               "71.2 % by a box: there is less room than a click shows.", True),
        Factor("Training data", "at least 5,000 samples", False, "The curve of four pilots rises at 600 images and "
               "reaches the wished gain near 1,650.", True),
        Factor("Loss", "a region and a pixel term together", True, "Half BCE, half Dice, as planned.", None),
        Factor("Model capacity", "the largest model for complex tasks", False, "Not measured: one model tried.", None),
        Factor("Stability", "the training loss stays above 0.01", True, "Lowest loss of the pilots 0.114.", True),
    )  # fmt: skip


def baseline() -> pd.DataFrame:
    rows = []
    for output, strategies in (
        ("single", {"interior": 0.475, "clicks3": 0.633, "box": 0.712}),
        ("three_best", {"interior": 0.561, "box": 0.725}),
        ("three_oracle", {"interior": 0.681}),
    ):
        rows += [("base", strategy, output, mean) for strategy, mean in strategies.items()]
    rows += [("disc of median size", "interior", "rival", 0.21), ("filled box", "box", "rival", 0.571)]
    rows += [("blind decoder (mean)", "interior", "blind", 0.262)]
    frame = pd.DataFrame(rows, columns=["model", "strategy", "output", "mean"])
    return frame.assign(metric="iou", low=frame["mean"] - 0.02, high=frame["mean"] + 0.02, n=150, failed=0)


def advice_page(**changes: Any) -> AdvicePage:
    whole = build.report()
    run = replace(
        whole.run,
        title="Is a specialist for camouflaged animals worth it?",
        command="specialsam advise animals/ --model nano --wished 0.10",
        seconds={"audit": 41.0, "embed": 212.0, "baseline": 63.0, "blind decoder": 55.0, "pilots": 540.0},
    )
    page = AdvicePage(
        run=run,
        advice=Advice(
            "go",
            "Label about 450 more images and tune: a gain of 10 points is then likely.",
            (
                "Tuning on half of your images improved the outlines on images it had not seen by 9 points.",
                "More images still help: the curve has not flattened.",
                "The masks are clean enough, and no shortcut explains the gain.",
            ),
        ),
        curve=curve(),
        factors=factors(),
        baseline=baseline(),
        findings=FINDINGS,
        comparisons=(build.side(11, "best gain"), build.side(22, "median gain", box=True), build.side(13, "failure")),
        commands=(
            ("Tune on all images, with the stored embeddings:", "specialsam specialize animals/ --store runs/advice"),
            ("Or mend the masks first and look again:", "specialsam audit animals/"),
        ),
        data=whole.data,
        protocol=("Pilots learn from a part of the training images and are measured on the rest of them.",),
    )  # fmt: skip
    return replace(page, **changes)


def audit_page(**changes: Any) -> AuditPage:
    whole = build.report()
    run = replace(whole.run, title="Camouflaged animals", model="", command="specialsam audit animals/")
    suspects = []
    for seed in range(5):
        image, mask = build.scene(seed, 240, 320 - 40 * (seed == 2))
        suspects.append(
            Suspect(image, mask if seed else None, f"train/owl_{seed:04d}: the mask lies beside the animal")
        )
    return replace(AuditPage(run, FINDINGS, whole.data, tuple(suspects)), **changes)

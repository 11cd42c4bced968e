"""A report of made-up but plausible numbers and drawn pictures, for the tests and for looking at the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from specialsam.core.types import Problem
from specialsam.report.html import Comparison, DataFacts, History, Report, RunFacts

STRATEGIES = {"interior": 0.0, "center_of_mass": -0.03, "edge": -0.14, "grid4": 0.05, "box": 0.19}
NAMES = ("Sand flounder", "Leaf insect", "Stone fish", "Bark moth", "Ghost crab", "Tree frog", "Owl", "Gecko", "Hare")


def values(gain: float, n: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(base, tuned) IoUs of n images whose mean difference is near `gain`."""
    rng = np.random.default_rng(seed)
    base = rng.beta(1.7, 1.9, n)
    tuned = np.clip(base + gain * 1.25 + rng.normal(0, 0.16, n), 0.002, 0.985)
    return base, tuned


def limits(sample: np.ndarray) -> tuple[float, float, float]:
    half = 1.96 * sample.std() / np.sqrt(len(sample))
    return float(sample.mean()), float(sample.mean() - half), float(sample.mean() + half)


def tables(gain: float, n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    base, tuned = values(gain, n)
    summary: list[dict[str, Any]] = []
    comparison: list[dict[str, Any]] = []
    for metric, shift in (("iou", 0.0), ("boundary_f1", -0.08)):
        for output, better in (("single", 0.0), ("three_best", 0.05), ("three_oracle", 0.16)):
            for strategy, ease in STRATEGIES.items():
                one = np.clip(base + ease + better + shift, 0, 1)
                two = np.clip(tuned + 0.6 * ease + better * 0.6 + shift, 0, 1)
                for model, sample in (("base", one), ("specialist", two)):
                    mean, low, high = limits(sample)
                    row = {"model": model, "strategy": strategy, "output": output, "metric": metric}
                    summary.append(row | {"mean": mean, "low": low, "high": high, "n": n, "failed": 0})
                mean, low, high = limits(two - one)
                row = {"strategy": strategy, "output": output, "metric": metric, "gain": mean, "low": low, "high": high}
                row |= {
                    "base": one.mean(),
                    "tuned": two.mean(),
                    "p_wilcoxon": 1e-9,
                    "p_holm": 0.0004 if low * high > 0 else 0.31,
                }
                won, lost = int((two > one + 0.001).sum()), int((two < one - 0.001).sum())
                comparison.append(row | {"wins": won, "losses": lost, "ties": n - won - lost, "n": n})
        for strategy, ease in STRATEGIES.items():
            mean, low, high = limits(np.clip(0.55 * base + 0.3 * ease, 0, 1))
            row = {"model": "disc of median size", "strategy": strategy, "output": "rival", "metric": metric}
            summary.append(row | {"mean": mean, "low": low, "high": high, "n": n, "failed": 0})
        row = {"model": "filled box", "strategy": "box", "output": "rival", "metric": metric}
        summary.append(row | {"mean": 0.5713, "low": 0.5566, "high": 0.5861, "n": n, "failed": 0})
    return pd.DataFrame(summary), pd.DataFrame(comparison)


def categories(gain: float) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for index, name in enumerate(NAMES):
        middle, half = gain + rng.normal(0, 0.08) - 0.02 * index, rng.uniform(0.02, 0.09)
        row = {"category": name, "n": int(rng.integers(9, 60)), "base": 0.45, "tuned": 0.45 + middle}
        rows.append(row | {"gain": middle, "low": middle - half, "high": middle + half})
    return pd.DataFrame(rows)


def scene(seed: int, height: int = 300, width: int = 420, size: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """A textured ground with a blob in nearly its colours: image uint8 (H, W, 3), mask bool (H, W)."""
    rng = np.random.default_rng(seed)
    layers = [cv2.resize(rng.random((height // s, width // s)), (width, height)) for s in (4, 11, 40)]
    ground = 0.3 * layers[0] + 0.35 * layers[1] + 0.35 * layers[2]
    tone = np.array([(176, 150, 110), (96, 128, 84), (140, 140, 146), (150, 104, 78)][seed % 4], float)
    image = tone * (0.55 + 0.75 * ground[..., None])
    centre = rng.uniform(0.35, 0.65, 2) * (width, height)
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    wobble = 1 + 0.25 * np.sin(3 * angles + seed) + 0.12 * np.sin(7 * angles)
    radius = size * min(height, width) * wobble
    outline = np.stack([centre[0] + 1.4 * radius * np.cos(angles), centre[1] + radius * np.sin(angles)], 1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [outline.round().astype(np.int32)], 1)
    image[mask == 1] = image[mask == 1] * 0.86 + np.array((14, 8, -6))
    return image.clip(0, 255).astype(np.uint8), mask.astype(bool)


def iou(one: np.ndarray, two: np.ndarray) -> float:
    return float((one & two).sum() / max((one | two).sum(), 1))


def side(seed: int, kind: Any, size: float = 0.2, box: bool = False) -> Comparison:
    """A comparison whose base is shifted and torn, and whose specialist is nearly right (the reverse for losses)."""
    image, truth = scene(seed, size=size)
    kernel = np.ones((9, 9), np.uint8)
    good = cv2.morphologyEx(np.roll(truth, 3, 1).astype(np.uint8), cv2.MORPH_OPEN, kernel).astype(bool)
    bad = np.roll(truth, (int(110 * size), int(180 * size)), (0, 1)) | np.roll(
        cv2.erode(truth.astype(np.uint8), kernel), 9
    )
    bad = bad.astype(bool)
    base, tuned = (good, bad) if kind in ("worst gain", "failure") else (bad, good)
    rows, columns = np.nonzero(truth)
    spot = len(rows) // 2
    before, after = iou(base, truth), iou(tuned, truth)
    prompt: dict[str, Any] = {"points": np.array([[columns[spot], rows[spot]]], np.float32), "labels": np.array([1])}
    if box:
        prompt = {"box": np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float32)}
    return Comparison(
        record=f"test/{NAMES[seed % len(NAMES)].lower().replace(' ', '_')}-{seed:04d}",
        kind=kind,
        strategy="box" if box else "interior",
        image=image,
        truth=truth,
        base=base,
        tuned=tuned,
        base_iou=before,
        tuned_iou=after,
        gain=after - before,
        category=NAMES[seed % len(NAMES)],
        **prompt,
    )


def history(epochs: int = 14, best: int = 10) -> History:
    lines: list[dict[str, Any]] = [{"epoch": 0, "train_loss": None, "val_loss": 0.52, "val_iou": 0.471, "warnings": []}]
    for epoch in range(1, epochs + 1):
        train = 0.12 + 0.3 * np.exp(-epoch / 3.2) + 0.006 * np.sin(5 * epoch)
        val = 0.2 + 0.26 * np.exp(-epoch / 3) + 0.0016 * max(0, epoch - best) ** 2
        found = 0.66 - 0.18 * np.exp(-epoch / 2.8) - 0.003 * max(0, epoch - best) + (0.004 if epoch == best else 0)
        texts = ["validation loss rises while training loss falls (overfitting)"] if epoch == best + 3 else []
        line = {"epoch": epoch, "train_loss": train, "val_loss": val, "val_iou": found, "lr": 1e-4 * (1 - epoch / 20)}
        lines.append(line | {"grad_norm": 0.6 + 0.1 * np.cos(epoch), "seconds": 41.3, "warnings": texts})
    return History(tuple(lines), best_epoch=best, stop_reason=f"no better validation IoU for {epochs - best} epochs")


def report(gain: float = 0.17, n: int = 412, **changes: Any) -> Report:
    summary, comparison = tables(gain, n)
    base, tuned = values(gain, n)
    rng = np.random.default_rng(8)
    problems = [
        Problem(Path(f"masks/moth_{i:04d}.png"), "mask size", "expected 768x1024, got 512x512") for i in range(23)
    ]
    problems += [Problem(Path("images/owl_0042.jpg"), "unreadable image", "image file is truncated (31 bytes missing)")]
    run = RunFacts(
        title="Camouflaged animals, nano tuned on 2,430 images",
        source="animals/",
        layout="plain folder (images/, masks/)",
        model="nano (512 px, 5.1 M parameters)",
        command="specialsam specialize animals/ --model nano --epochs 20 --seed 7 --out runs/animals",
        date="2025-03-14 09:26 UTC",
        seconds={"embed": 312.4, "base evaluation": 95.0, "train": 578.2, "evaluation": 101.7},
        machine={"cpu": "AMD EPYC 7B13", "cores": 2, "memory": "15.6 GiB", "gpu": "none"},
        versions={"specialsam": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.3.4"},
        seed=7,
        settings={
            "model": "nano",
            "train": {"lr": 1e-4, "epochs": 20, "batch": 4, "mixture": {"interior": 0.5, "box": 0.5}},
            "evaluate": {"strategies": list(STRATEGIES), "tolerance": 5.0},
        },
        warnings=("14 test images are near-duplicates of training images and were moved to training.",),
        licence="CC BY 4.0",
    )
    data = DataFacts(
        on_disk=3104,
        usable=3080,
        with_objects=3037,
        labelled_empty=43,
        unlabelled=0,
        broken=24,
        problems=tuple(problems),
        splits={"train": 2430, "val": 238, "test": n},
        categories={name: {"train": 270, "val": 26, "test": 45} for name in NAMES},
        areas=np.exp(rng.normal(-3.4, 1.0, 3200)).clip(0.0004, 0.9),
        notes=("The split is stratified by category; near-duplicates stay on one side.",),
    )
    sides = (
        side(11, "best gain"), side(22, "median gain", box=True), side(5, "median gain", size=0.05),
        side(13, "worst gain"), side(9, "failure", size=0.11),
    )  # fmt: skip
    whole = Report(
        run=run,
        data=data,
        summary=summary,
        comparison=comparison,
        by_category=categories(gain),
        pairs=pd.DataFrame({"base": base, "tuned": tuned}),
        history=history(),
        comparisons=sides,
        protocol=("The specialist was chosen on validation; the test split was read once.",),
    )
    return replace(whole, **changes)

"""The advisor's forecast beside plain rivals, from the same pilots: error, width and coverage.

    python benchmarks/forecast_rivals.py OUT [SOURCE[@LIMIT] ...] [--generated] [--test 200] [-s train.epochs=4 ...]

For each data set pilots are run as `specialsam advise` runs them, each rival forecasts the gain at all training images,
and the decoder is then tuned on all of them and measured on the test split. Finished data sets are lines of
OUT/forecasts.jsonl and are not run again. `--generated` adds 16 sets of generated scenes, in OUT/data: animals of their
ground's texture, objects that show, both, and cracks, 40 to 160 images each; every set has scenes of its own. With
`--test` each of them is measured on so many further scenes, for the noise of a few test images is no forecast's error.

Rivals: a power law fitted to the pilots by least squares (Hestness et al. 2017), with a bootstrap over the images that
they were measured on; the largest pilot's gain; LogME (You et al. 2021), the evidence of a linear model from an
embedding's mean within and outside the masks to which of the two it is, turned into a gain by a straight line through
the *measured* gains of the other data sets, which is more than the others know.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import least_squares
from scipy.stats import t as student

from specialsam.advice.forecast.curve import Pilot, forecast
from specialsam.cli.options import read_settings
from specialsam.core.console import say
from specialsam.core.ledger import Journal, digest
from specialsam.evaluation.statistics import bootstrap_mean, points
from specialsam.pipeline.advise import run_pilots
from specialsam.pipeline.general import training_data
from specialsam.pipeline.job import Job, Request, open_job
from specialsam.pipeline.pilots import PilotSettings, gains_of, ground, measured, tuned_on
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.synth.scenes import write_dataset

Values = npt.NDArray[np.float64]
Said = tuple[float, float, float]
"""A forecast in IoU: mean, low, high."""
KINDS: dict[str, tuple[float, bool]] = {
    "hidden": (1.0, False),
    "shown": (0.0, False),
    "mixed": (0.5, False),
    "cracks": (1.0, True),
}
"""Share of camouflage, and whether the scenes are cracks."""
COUNTS = (40, 70, 110, 160)
SIDE, DRAWS = 256, 300


def generated(folder: Path, test: int) -> list[str]:
    """The folders of the generated data sets, sizes first; no scene is in two of them.

    With `test` > 0 two fifths of the scenes are for training, a tenth for validation, and `test` further ones the test.
    """
    found = []
    for place, count in enumerate(COUNTS):
        for number, (kind, (camouflage, cracks)) in enumerate(KINDS.items()):
            own = folder / f"{kind}-{count}"
            seed = 100_000 * (number + 1) + 10_000 * place
            parts = {"": count} if not test else {"train": 2 * count // 5, "val": count // 10, "test": test}
            for part, images in parts.items():
                write_dataset(own / part, images, SIDE, seed, camouflage, cracks=cracks)
                seed += images
            found.append(str(own))
    return found


def logme(features: Values, target: Values) -> float:
    """Log evidence a row of a Bayesian linear model from features (N, D) to a target (N,), at its best alpha and beta.

    By MacKay's fixed point, as You et al. (2021) do.
    """
    n = len(features)
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    shadow, power = (u.T @ target) ** 2, s**2
    rest = max(float(target @ target - shadow.sum()), 0.0)
    alpha, beta = 1.0, 1.0
    for _ in range(100):
        shrink = beta * power / (alpha + beta * power)
        gamma = shrink.sum()
        size = float((shadow * power / (power + alpha / beta) ** 2).sum())
        error = float((shadow * (1 - shrink) ** 2).sum()) + rest
        before, alpha, beta = alpha / beta, gamma / (size + 1e-12), (n - gamma) / (error + 1e-12)
        if abs(alpha / beta - before) <= 1e-4 * before:
            break
    size = float((shadow * power / (power + alpha / beta) ** 2).sum())
    error = float((shadow * (1 - beta * power / (alpha + beta * power)) ** 2).sum()) + rest
    zeros = features.shape[1] - len(power)
    determinant = float(np.log(alpha + beta * power).sum()) + zeros * np.log(alpha)
    evidence = features.shape[1] * np.log(alpha) + n * np.log(beta) - n * np.log(2 * np.pi)
    return float((evidence - beta * error - alpha * size - determinant) / (2 * n))


def pooled(job: Job) -> tuple[Values, Values]:
    """Mean embeddings within and outside the masks of each training image, (2 N, C), and 1 or 0 for which, (2 N,)."""
    rows, target = [], []
    data = job.embedded.training_data()
    for item, embedding in zip(data.train, data.embeddings(data.train), strict=True):
        whole = embedding.tensor.float().numpy().reshape(-1, *embedding.tensor.shape[-2:])
        geometry = embedding.geometry
        longest = max(geometry.height, geometry.width)
        height, width = (max(1, round(whole.shape[1] * side / longest)) for side in (geometry.height, geometry.width))
        cells, mask = whole[:, :height, :width], np.asarray(data.masks(item).any(0), np.float32)
        share = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        for truth, weight in ((1.0, share), (0.0, 1 - share)):
            rows.append((cells * weight).sum((1, 2)) / max(float(weight.sum()), 1e-6))
            target.append(truth)
    return np.array(rows, np.float64), np.array(target)


def run(out: Path, name: str, model: str, settings: SpecializeSettings) -> dict[str, Any]:
    """Pilots, LogME and the measured gain of one data set."""
    source, _, limit = name.partition("@")
    folder = out / "runs" / f"{Path(source).name}{f'-{limit}' if limit else ''}"
    request = Request(source, model, folder, store=out / "embeddings", limit=int(limit) if limit else None)
    pilot = PilotSettings()
    with open_job("forecast rivals", request, settings, {"pilot": pilot.model_dump(mode="json")}) as job:
        job.prepare()
        train = job.plan.of("train")
        piloted = run_pilots(job, ground(train, job.plan.groups, pilot, settings.seed), pilot)
        means = piloted.results.only(metric="iou", output="single", strategy=settings.main_strategy, model="base")
        tuned, _ = tuned_on(job, training_data(job), settings.train, folder / "full")
        main = settings.evaluate.model_copy(update={"strategies": (settings.main_strategy,)})
        gains = gains_of(measured(job, tuned, job.plan.of("test"), main, None), settings.main_strategy)
        features, target = pooled(job)
    return {
        "set": name,
        "train": len(train),
        "base": float(means.frame["value"].mean()),
        "pilots": [{"n": p.n, "seed": p.seed, "gains": p.gains.tolist()} for p in piloted.pilots],
        "test": gains.tolist(),
        "logme": logme(features, target),
    }


def ours(pilots: Sequence[Pilot], n: int, base: float) -> Said:
    said = forecast(pilots, n, base)
    return said.gain, said.low, said.high


def largest(pilots: Sequence[Pilot], n: int, base: float) -> Said:
    """The largest pilot's own gain, with the interval of its mean over images."""
    gains = max(pilots, key=lambda pilot: pilot.n).gains
    found = bootstrap_mean(gains)
    return found.mean, found.low, found.high


def power_law(pilots: Sequence[Pilot], n: int, base: float) -> Said:
    """gain(n) = a - b n^-c by least squares (a <= 1 - base, b >= 0, c in .01 .. 2), images drawn anew."""
    sizes = np.array([pilot.n for pilot in pilots], np.float64)
    gains = np.stack([pilot.gains for pilot in pilots])
    rng = np.random.default_rng(0)
    count = gains.shape[1]
    weights = np.vstack([np.full(count, 1 / count), rng.multinomial(count, np.full(count, 1 / count), DRAWS) / count])
    said = [_least_squares(sizes, gains @ weight, 1 - base)(n) for weight in weights]
    low, high = np.quantile(said[1:], [0.025, 0.975])
    return said[0], float(low), float(high)


def _least_squares(sizes: Values, gains: Values, most: float) -> Callable[[float], float]:
    def law(n: Any, parts: Values) -> Any:
        return parts[0] - parts[1] * n ** -parts[2]

    start = [min(float(gains.max()), most - 1e-6), max(float(np.ptp(gains)), 1e-3), 0.5]
    found = least_squares(lambda parts: law(sizes, parts) - gains, start, bounds=([-1, 0, 0.01], [most, 10, 2]))
    return lambda n: float(law(float(n), found.x))


FROM_PILOTS: dict[str, Callable[[Sequence[Pilot], int, float], Said]] = {
    "ours": ours,
    "power law, least squares": power_law,
    "largest pilot's gain": largest,
}


def by_logme(scores: Values, gains: Values, others: npt.NDArray[np.bool_], score: float) -> Said:
    """The gain on a line through the measured gains of `others` by their LogME, with its 95 % prediction interval."""
    x, y = scores[others], gains[others]
    slope, level = np.polyfit(x, y, 1)
    n, spread = len(x), float(((x - x.mean()) ** 2).sum())
    error = float(np.sqrt(((y - level - slope * x) ** 2).sum() / (n - 2)))
    reach = float(student.ppf(0.975, n - 2)) * error * np.sqrt(1 + 1 / n + (score - x.mean()) ** 2 / spread)
    said = level + slope * score
    return float(said), float(said - reach), float(said + reach)


def said_of(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A line a data set and rival: forecast, interval and the measured gain, in IoU points."""
    scores, gains = (np.array([value(one) for one in found]) for value in (_score, _gain))
    names = np.array([one["set"] for one in found])
    kinds = np.array([Path(one["set"].partition("@")[0]).name.split("-")[0] for one in found])
    rows = []
    for number, one in enumerate(found):
        pilots = [Pilot(p["n"], p["seed"], np.array(p["gains"])) for p in one["pilots"]]
        said = {name: rival(pilots, one["train"], one["base"]) for name, rival in FROM_PILOTS.items()}
        if len(found) > 4:
            said["LogME, line through the other sets"] = by_logme(scores, gains, names != one["set"], scores[number])
        if len(set(kinds)) > 2:
            apart = kinds != kinds[number]
            said["LogME, line through other kinds of data"] = by_logme(scores, gains, apart, scores[number])
        for rival, values in said.items():
            mean, low, high = (100 * value for value in values)
            row = {"set": Path(one["set"]).name, "train": one["train"], "rival": rival, "forecast": mean}
            row |= {"low": low, "high": high, "measured": 100 * gains[number], "n test": len(one["test"])}
            rows.append(row | {"noise": 100 * float(np.std(one["test"]) / np.sqrt(len(one["test"])))})
    return pd.DataFrame(rows)


def _score(one: Mapping[str, Any]) -> float:
    return float(one["logme"])


def _gain(one: Mapping[str, Any]) -> float:
    return float(np.mean(one["test"]))


def summary(said: pd.DataFrame) -> pd.DataFrame:
    """A line a rival: mean absolute error, bias, width, coverage in percent, interval score (Gneiting 2007).

    The measured gain is that of a few test images: `true gain` is the coverage where each half of an interval is
    widened by their noise (the root of the sum of squares).
    """
    missed = np.maximum(said["low"] - said["measured"], 0) + np.maximum(said["measured"] - said["high"], 0)
    sides = {"low": said["forecast"] - said["low"], "high": said["high"] - said["forecast"]}
    low, high = (np.hypot(side, 1.96 * said["noise"]) for side in sides.values())
    gap = said["measured"] - said["forecast"]
    each = pd.DataFrame(
        {
            "rival": said["rival"],
            "error": gap.abs(),
            "bias": -gap,
            "width": said["high"] - said["low"],
            "coverage": 100.0 * (missed == 0),
            "true gain": 100.0 * ((gap >= -low) & (gap <= high)),
            "score": said["high"] - said["low"] + 2 / 0.05 * missed,
        }
    )
    rivals = each.groupby("rival", sort=False)
    table = rivals.mean().round(1).assign(sets=rivals.size())
    own = each[each["rival"] == "ours"]
    for column in ("error", "score"):
        gaps = {
            name: (part[column].to_numpy() - own[column].to_numpy()) / 100 for name, part in rivals if name != "ours"
        }
        table[f"{column} above ours"] = pd.Series({name: points(bootstrap_mean(gap)) for name, gap in gaps.items()})
    return table.fillna("")


def main() -> None:
    """Run what is not finished, print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--generated", action="store_true")
    parser.add_argument("--test", type=int, default=0, help="test scenes of generated sets; 0: as the fractions say")
    parser.add_argument("--model", default="nano")
    parser.add_argument("-s", "--set", dest="sets", action="append", default=[])
    args = parser.parse_args()
    settings = SpecializeSettings.parse(read_settings(None, args.sets))
    args.out.mkdir(parents=True, exist_ok=True)
    sources = [*(generated(args.out / "data", args.test) if args.generated else ()), *args.sources]
    journal = Journal(args.out / "forecasts.jsonl")
    wanted = {name: digest(settings.model_dump_json(), args.model) for name in sources}
    done = journal.finished(wanted)
    for name in sources:
        if name not in done:
            journal.put(name, wanted[name], run(args.out, name, args.model, settings))
            say(f"finished {name}")
    said = said_of([answer for _, answer in journal.answers(wanted)])
    said.to_csv(args.out / "forecasts.csv", index=False)
    pd.set_option("display.width", 200, "display.max_rows", 500, "display.max_columns", 20)
    say(said[said["rival"] == "ours"].round(1).to_string(index=False))
    first = said["set"].str.endswith(tuple(f"-{count}" for count in COUNTS[::2]))
    parts = {"all": said, "generated, 40 and 110 images": said[first], "the others": said[~first]}
    for name, part in parts.items():
        if len(part):
            say(f"{name}, IoU points\n{summary(part).to_string()}")


if __name__ == "__main__":
    main()

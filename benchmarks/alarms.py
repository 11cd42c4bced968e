"""Is the promise on false alarms kept? Pictures of nothing, cut in two at random many times.

python benchmarks/alarms.py SPECIALIST PICTURES... [--splits 1000] [--rates 0.01 0.05 0.1]

Each picture is scored once by the specialist's finder. In each split half of the scores set the threshold, by split
conformal prediction and by the plain percentile, and the other half counts the alarms. The promise is that the mean
over splits stays at or below the rate; the interval is that in which 95 % of the splits' true rates should lie.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from specialsam.apps.alarms import score_pictures
from specialsam.apps.session import open_session
from specialsam.core.console import say
from specialsam.core.randomness import generator
from specialsam.metrics.conformal import conformal_threshold, false_alarm_interval, percentile_threshold


def kept(scores: npt.NDArray[np.float64], rate: float, splits: int) -> dict[str, float]:
    """Alarms among the half that set no threshold, in percent, by both rules."""
    half = len(scores) // 2
    rates: dict[str, list[float]] = {"conformal": [], "percentile": []}
    for number in range(splits):
        order = generator(0, "alarms", number).permutation(len(scores))
        good, new = scores[order[:half]], scores[order[half:]]
        rates["conformal"].append(float((new > conformal_threshold(good, rate)).mean()))
        rates["percentile"].append(float((new > percentile_threshold(good, rate)).mean()))
    low, high = false_alarm_interval(half, rate)
    own = np.array(rates["conformal"])
    return {
        "promised": 100 * rate,
        "conformal, mean": 100 * float(own.mean()),
        "interval, low": 100 * low,
        "interval, high": 100 * high,
        "percentile, mean": 100 * float(np.mean(rates["percentile"])),
    }


def main() -> None:
    """Score, split, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specialist", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.05, 0.1])
    asked = parser.parse_args()
    scores = np.array(score_pictures(open_session(asked.specialist), asked.pictures))
    table = pd.DataFrame([kept(scores, rate, asked.splits) for rate in asked.rates])
    say(f"{len(scores)} pictures, {asked.splits} splits, half of them set the threshold; alarms in percent")
    say(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()

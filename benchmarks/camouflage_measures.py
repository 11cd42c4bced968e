"""How long the measures of camouflage take, beside PySODMetrics: python benchmarks/camouflage_measures.py"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import py_sod_metrics as sod  # type: ignore[import-untyped]
from scipy import ndimage

from specialsam.metrics import cod


def fastest(run: Callable[[], object], times: int = 7) -> float:
    """Milliseconds of the fastest call."""
    found = []
    for _ in range(times):
        before = time.perf_counter()
        run()
        found.append(time.perf_counter() - before)
    return 1000 * min(found)


def main() -> None:
    """Print both for two sizes."""
    rng = np.random.default_rng(0)
    for size in ((384, 512), (1024, 1024)):
        first, second = (ndimage.gaussian_filter(rng.normal(size=size), 12) * 30 for _ in range(2))
        soft, truth = (1 / (1 + np.exp(-4 * first))).astype(np.float32), first + 0.3 * second > 0.4

        def library(soft: np.ndarray = soft, truth: np.ndarray = truth) -> None:
            for measure in (sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()):
                measure.step(soft.astype(np.float64), truth, normalize=False)
                measure.get_results()

        print(f"{size}: ours {fastest(lambda: cod(soft, truth)):.0f} ms, PySODMetrics {fastest(library):.0f} ms")  # noqa: B023


if __name__ == "__main__":
    main()

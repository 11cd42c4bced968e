"""Does the advisor keep its word? The gain forecast by pilots against the gain that a full run then measured.

    python benchmarks/forecasts.py OUT SOURCE[@LIMIT] ... [-s train.epochs=8 ...]

Each SOURCE is advised on and then specialised with the same settings and embeddings; the forecast comes from training
images alone, the measured gain from the test split. Finished steps are not repeated. Writes OUT/forecasts.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from specialsam.cli.options import read_settings
from specialsam.pipeline.advise import run_advise
from specialsam.pipeline.job import Request
from specialsam.pipeline.pilots import PilotSettings
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize


def line(name: str, out: Path, model: str, settings: SpecializeSettings) -> dict[str, Any]:
    """Forecast and measured gain of one source, in IoU points."""
    source, _, limit = name.partition("@")
    number = int(limit) if limit else None
    own = out / f"{Path(source).name}{f'-{limit}' if limit else ''}"
    advice = run_advise(
        Request(source, model, own / "advice", store=own / "store", limit=number), settings, PilotSettings()
    )
    outcome = run_specialize(Request(source, model, own / "run", store=own / "store", limit=number), settings)
    if outcome is None:
        raise SystemExit(f"{name}: the run left no comparison")
    table = outcome.comparison
    chosen = (table.strategy == settings.main_strategy) & (table.output == "single") & (table.metric == "iou")
    found = table[chosen].iloc[0]
    now = advice.now
    return {
        "source": name,
        "train images": now.n,
        "verdict": advice.judgement.decision,
        "forecast": 100 * now.gain,
        "forecast low": 100 * now.low,
        "forecast high": 100 * now.high,
        "measured": 100 * found.gain,
        "measured low": 100 * found.low,
        "measured high": 100 * found.high,
        "n test": int(found.n),
        "within": bool(now.low <= found.gain <= now.high),
        "overlap": bool(now.low <= found.high and found.low <= now.high),
        "advise s": round(sum(advice.seconds.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--model", default="nano")
    parser.add_argument("-s", "--set", dest="sets", action="append", default=[])
    args = parser.parse_args()
    settings = SpecializeSettings.parse(read_settings(None, args.sets))
    lines = []
    for name in args.sources:
        lines.append(line(name, args.out, args.model, settings))
        table = pd.DataFrame(lines)
        table.to_csv(args.out / "forecasts.csv", index=False)
        print(table.round(1).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()

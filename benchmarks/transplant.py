"""A decoder tuned on one encoder's embeddings, run on another's: what is lost against tuning it there.

    python benchmarks/transplant.py OUT [--kinds hidden shown] [--images 120] [-s train.epochs=4 ...]

"Large" is the bundled nano. The other encoders are made from it: the same weights at half the side; weights rounded to
4 and to 3 bits an output channel; a neck that has gone ways of its own (tuned with its decoder on other generated
scenes, `train.mode=tail`), as two encoders that learned apart. On each set of generated scenes a decoder is tuned on
the large encoder and on each of the others, and the large one's is transplanted; all are measured by one click on the
same test images. Finished sets are lines of OUT/transplant.jsonl.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from specialsam.cli.options import read_settings
from specialsam.core.console import say
from specialsam.core.ledger import Journal, digest
from specialsam.evaluation.statistics import bootstrap_mean, points
from specialsam.models.folder import save_pretrained
from specialsam.models.load import load_model
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone, load_specialist, transplant
from specialsam.pipeline.general import training_data
from specialsam.pipeline.job import Job, Request, open_job
from specialsam.pipeline.pilots import BASE, PILOT, measured
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.pipeline.specialize import run_specialize
from specialsam.synth.scenes import write_dataset
from specialsam.training.loop import train

KINDS = {"hidden": (1.0, False, 300_000), "shown": (0.0, False, 310_000), "cracks": (1.0, True, 320_000)}
"""Share of camouflage, whether the scenes are cracks, and the first seed."""
SIDE, ELSEWHERE = 256, 330_000


def half_side(large: Segmenter, out: Path, settings: SpecializeSettings) -> Segmenter:
    sam = build_nano("lite", large.side // 2)
    sam.load_state_dict(large.sam.state_dict())
    return Segmenter("half-side", sam, large.side // 2)


def rounded(bits: int) -> Callable[[Segmenter, Path, SpecializeSettings], Segmenter]:
    def make(large: Segmenter, out: Path, settings: SpecializeSettings) -> Segmenter:
        small = clone(large, f"{bits}-bits", share_encoder=False)
        most = 2 ** (bits - 1) - 1
        with torch.no_grad():
            for weight in small.encoder.parameters():
                if weight.ndim > 1:
                    step = weight.flatten(1).abs().amax(1).clamp(min=1e-12).view(-1, *[1] * (weight.ndim - 1)) / most
                    weight.copy_((weight / step).round() * step)
        return small

    return make


def own_neck(large: Segmenter, out: Path, settings: SpecializeSettings) -> Segmenter:
    """Neck and decoder tuned on other scenes than any that is measured."""
    write_dataset(out / "data" / "elsewhere", 120, SIDE, ELSEWHERE, 0.5)
    tail = settings.train.model_copy(update={"mode": "tail", "keep": "last"})
    request = Request(str(out / "data" / "elsewhere"), "nano", out / "elsewhere", store=out / "embeddings")
    run_specialize(request, settings.model_copy(update={"train": tail}), measured=False)
    return clone(load_specialist(out / "elsewhere" / "specialist", large), "own-neck", share_encoder=False)


SMALLER: dict[str, Callable[[Segmenter, Path, SpecializeSettings], Segmenter]] = {
    "half-side": half_side,
    "4-bits": rounded(4),
    "3-bits": rounded(3),
    "own-neck": own_neck,
}


def values(job: Job, model: Segmenter) -> dict[str, list[float]]:
    """IoU of each object of the test split by one click, of the job's base and of `model`."""
    main = job.settings.evaluate.model_copy(update={"strategies": (job.settings.main_strategy,)})
    frame = measured(job, model, job.plan.of("test"), main, None).only(metric="iou", output="single").frame
    return {
        name: frame[frame["model"] == name].sort_values(["record", "object"])["value"].tolist()
        for name in (BASE, PILOT)
    }


def native(job: Job) -> Segmenter:
    """The decoder tuned on the job's own encoder."""
    tuned = clone(job.segmenter, PILOT)
    train(tuned, training_data(job), job.settings.train, job.folder, job.place)
    return tuned


def run(out: Path, kind: str, images: int, models: dict[str, str], settings: SpecializeSettings) -> dict[str, Any]:
    """All that is measured on one set: IoU an object of base, native and transplanted decoder, by encoder."""
    camouflage, cracks, seed = KINDS[kind]
    source = str(out / "data" / kind)
    write_dataset(Path(source), images, SIDE, seed, camouflage, cracks=cracks)
    request = Request(source, "nano", out / "runs" / f"{kind}-large", store=out / "embeddings")
    run_specialize(request, settings, measured=False)
    specialist = request.folder / "specialist"
    own_folder = replace(request, folder=out / "runs" / f"{kind}-own")
    with open_job("transplant, large", own_folder, settings) as job:
        job.prepare()
        own = values(job, load_specialist(specialist, job.segmenter))
    found: dict[str, Any] = {"large": {"base": own[BASE], "native": own[PILOT]}}
    for name, model in models.items():
        here = replace(request, model=model, folder=out / "runs" / f"{kind}-{name}")
        with open_job("transplant", here, settings) as job:
            job.prepare()
            folder = transplant(specialist, job.segmenter, model, here.folder / "transplanted")
            tuned, moved = values(job, native(job)), values(job, load_specialist(folder, job.segmenter))
            untuned = Segmenter("large's", clone(job.segmenter).sam, job.segmenter.side)
            parts = {k: v for k, v in load_model("nano").sam.state_dict().items() if not k.startswith("vision_encoder")}
            untuned.sam.load_state_dict(parts, strict=False)
            plain = values(job, untuned)
        found[name] = {"base": tuned[BASE], "native": tuned[PILOT], "moved": moved[PILOT], "large's": plain[PILOT]}
    return found


def table(found: dict[str, Any]) -> pd.DataFrame:
    """A line a set and encoder, in IoU points."""
    rows = []
    for kind, encoders in found.items():
        for name, each in encoders.items():
            base, tuned = (np.array(each[key]) for key in ("base", "native"))
            row = {"set": kind, "encoder": name, "base": f"{100 * base.mean():.1f}"}
            row["tuned here"] = points(bootstrap_mean(tuned - base))
            if "moved" in each:
                moved, plain = np.array(each["moved"]), np.array(each["large's"])
                row["transplanted"] = points(bootstrap_mean(moved - base))
                row["lost"] = points(bootstrap_mean(moved - tuned))
                row["large's decoder, not tuned"] = points(bootstrap_mean(plain - base))
            rows.append(row | {"n": len(base)})
    return pd.DataFrame(rows).fillna("")


def main() -> None:
    """Make the encoders, run what is not finished, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["hidden", "shown"], choices=list(KINDS))
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("-s", "--set", dest="sets", action="append", default=[])
    args = parser.parse_args()
    settings = SpecializeSettings.parse(read_settings(None, args.sets))
    args.out.mkdir(parents=True, exist_ok=True)
    large, models = load_model("nano"), {}
    for name, make in SMALLER.items():
        folder = args.out / "models" / name
        if not (folder / "config.json").exists():
            save_pretrained(make(large, args.out, settings), folder)
        models[name] = str(folder)
    journal = Journal(args.out / "transplant.jsonl")
    wanted = {kind: digest(kind, args.images, settings.model_dump_json()) for kind in args.kinds}
    for kind in args.kinds:
        if kind not in journal.finished(wanted):
            journal.put(kind, wanted[kind], run(args.out, kind, args.images, models, settings))
            say(f"finished {kind}")
    pd.set_option("display.width", 220, "display.max_columns", 20)
    say(table(dict(journal.answers(wanted))).to_string(index=False))


if __name__ == "__main__":
    main()

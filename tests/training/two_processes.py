"""Run by test_loop.py in each of several processes: a tuning of theirs all, its weights to a file."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from square_data import SquareData, random_nano, weights

from specialsam.core.place import Place
from specialsam.training import loop
from specialsam.training.settings import TrainSettings


def main() -> None:
    folder, settings = Path(sys.argv[1]), TrainSettings(**json.loads(sys.argv[2]))
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    loop.SAVE_EVERY_SECONDS = -1.0 if rank else 1e9  # They differ in when they would save.
    nano = random_nano()
    data = replace(SquareData(nano, train=5, val=2, objects=3).data, general=SquareData(nano, train=3).data)
    result = loop.train(nano, data, settings, folder, Place(accelerator))
    history = [asdict(replace(facts, seconds=0.0, read_seconds=0.0)) for facts in result.history]
    left = {"weights": weights(nano), "history": history, "processes": accelerator.num_processes}
    torch.save(left, folder / f"process-{rank}.pt")


if __name__ == "__main__":
    main()

"""Time and memory against size: images, objects an image, prompts, pixels, embeddings in the store.

python benchmarks/growth.py OUT [--images 100 300 1000] [--stored 1000 10000 100000]

Each row is a size, the work's seconds for one more unit (image, object, prompt, megapixel, embedding) at that size, and
the peak memory of a process of its own: all that is resident, and without the pages of files that are mapped, such as
the store's, which the system takes back when it needs them. What grows straight has the same seconds in every row.
Results are lines of OUT/growth.jsonl, a figure OUT/growth.png and a table; sizes that are there are not measured again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pandas as pd
import torch

from specialsam import evaluate, specialize
from specialsam.core.console import say
from specialsam.core.ledger import Journal, digest
from specialsam.core.machine import peak_memory_mb
from specialsam.core.randomness import generator
from specialsam.core.types import Embedding, Prompts
from specialsam.data.images import write_png
from specialsam.embeddings import EmbeddingStore
from specialsam.models.load import load_model
from specialsam.models.segmenter import ALL

SIZES: dict[str, tuple[int, ...]] = {
    "evaluate, images": (100, 300, 1000),
    "specialize, images": (100, 300, 1000),
    "evaluate, objects an image": (1, 3, 10, 30, 100),
    "decode, prompts": (1, 4, 16, 64, 256),
    "encode, megapixels": (1, 4, 12, 24),
    "store, embeddings": (1000, 10000, 100000),
}
"""Axes and their sizes: seconds are counted for each unit that the axis names."""
QUIET = {"groups": ["overlap"], "strategies": ["interior", "box"]}


def discs(folder: Path, images: int, objects: int = 1, side: int = 128) -> str:
    """Pictures of bright discs on noise, label maps beside them, as a plain folder data set."""
    rows, columns = np.mgrid[:side, :side]
    across = int(np.ceil(np.sqrt(objects)))
    for number in range(images):
        rng = generator(0, "growth", objects, number)
        image = rng.integers(60, 120, (side, side, 3), dtype=np.uint8)
        labels = np.zeros((side, side), np.uint8)
        for one in range(objects):
            centre = (np.array(divmod(one, across)) + 0.5 + rng.uniform(-0.1, 0.1, 2)) * side / across
            disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < (0.3 * side / across) ** 2
            image[disc] = rng.integers(150, 255, 3)
            labels[disc] = one + 1
        write_png(folder / "images" / f"{number:05d}.png", image)
        write_png(folder / "masks" / f"{number:05d}.png", labels)
    return f"folder:{folder}"


def evaluating(size: int, folder: Path, objects: int = 1, images: int = 0) -> float:
    source = discs(folder / "data", images or size, objects, 128 if objects == 1 else 512)
    began = time.perf_counter()
    evaluate(source, ["nano"], str(folder / "out"), QUIET, split="all")
    return time.perf_counter() - began


def specializing(size: int, folder: Path) -> float:
    source = discs(folder / "data", size)
    settings = {"train": {"epochs": 1}, "duplicates": False, "finder": {"epochs": 2}, "evaluate": QUIET}
    began = time.perf_counter()
    specialize(source, "nano", str(folder / "out"), settings)
    return time.perf_counter() - began


def repeated(call: Callable[[], object], rounds: int = 5) -> float:
    """Median seconds of a call, after one to warm up."""
    call()
    spent = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return float(np.median(spent))


def decoding(size: int, folder: Path) -> float:
    nano = load_model("nano")
    image = generator(0, "growth").integers(0, 255, (384, 384, 3), dtype=np.uint8)
    points = generator(1, "growth").uniform(0, 383, (size, 1, 2)).astype(np.float32)
    prompts = Prompts("click", points=points, labels=np.ones((size, 1), np.int64))
    return repeated(partial(nano.decode_outputs, nano.encode(image), prompts, ALL))


def encoding(size: int, folder: Path) -> float:
    nano = load_model("nano")
    side = int(np.sqrt(size * 1e6))
    image = generator(0, "growth").integers(0, 255, (side, side, 3), dtype=np.uint8)
    return repeated(partial(nano.encode, image))


def storing(size: int, folder: Path) -> float:
    """Opening a store of so many embeddings (small ones, written first) and reading a batch of 64 from it."""
    nano = load_model("nano")
    whole = nano.encode(np.zeros((384, 384, 3), np.uint8))
    small = Embedding(torch.zeros(4, 2, 2), whole.geometry)
    store = EmbeddingStore(folder / "store", nano.encoder_id, "half")
    keys = [store.key(f"{number:032x}") for number in range(size)]
    with store.writer() as writer:
        for number, key in enumerate(keys):
            writer.put(key, small, str(number))
    chosen = [keys[i] for i in generator(0, "growth").permutation(size)[:64]]

    def opened() -> None:
        again = EmbeddingStore(folder / "store", nano.encoder_id, "half")
        for key in chosen:
            again.get(key)

    return repeated(opened, 3)


WORK: dict[str, Callable[[int, Path], float]] = {
    "evaluate, images": evaluating,
    "specialize, images": specializing,
    "evaluate, objects an image": lambda size, folder: evaluating(size, folder, size, 20) / 20,
    "decode, prompts": decoding,
    "encode, megapixels": encoding,
    "store, embeddings": storing,
}


def measured(axis: str, size: int) -> None:
    """What a process of its own does: the work, then its seconds and peak memory as the last line."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, watched() as own:
        seconds = WORK[axis](size, Path(folder))
    say(json.dumps({"axis": axis, "size": size, "seconds": seconds, "mb": peak_memory_mb(), "own mb": max(own)}))


@contextmanager
def watched() -> Iterator[list[float]]:
    """Resident MB that no file is behind (Linux's RssAnon), twenty times a second, while the block runs."""
    found, over = [0.0], Event()

    def watch() -> None:
        while not over.wait(0.05):
            told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            found.append(float(told["RssAnon"].split()[0]) / 1024)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()


def draw(table: pd.DataFrame, path: Path) -> None:
    from matplotlib.figure import Figure

    axes_of = list(dict.fromkeys(table["axis"]))
    figure = Figure(figsize=(4 * len(axes_of), 5), layout="constrained")
    plots = figure.subplots(2, len(axes_of), squeeze=False)
    for column, axis in enumerate(axes_of):
        part = table[table["axis"] == axis]
        for row, (value, name) in enumerate((("seconds", "seconds in all"), ("own mb", "peak memory of its own, MB"))):
            plot = plots[row][column]
            plot.plot(part["size"], part[value], marker="o")
            plot.set(title=axis if row == 0 else "", ylabel=name if column == 0 else "")
            plot.set_xscale("log")
            if value == "seconds":
                plot.set_yscale("log")
            else:
                plot.set_ylim(bottom=0)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, nargs="+")
    parser.add_argument("--stored", type=int, nargs="+")
    parser.add_argument("--axes", default=",".join(name.replace(", ", ";") for name in SIZES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        measured(asked.one[0], int(asked.one[1]))
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.out / "growth.jsonl")
    axes = [name.replace(";", ", ") for name in asked.axes.split(",")]
    sizes = {name: SIZES[name] for name in axes}
    for name, given in (("images", asked.images), ("embeddings", asked.stored)):
        sizes |= {axis: tuple(given) for axis in axes if given and axis.endswith(f", {name}")}
    wanted = {f"{axis} {size}": digest(axis, size) for axis, every in sizes.items() for size in every}
    done = journal.finished(wanted)
    for axis, every in sizes.items():
        for size in every:
            if (name := f"{axis} {size}") in done:
                continue
            call = [sys.executable, __file__, str(asked.out), "--one", axis, str(size)]
            ran = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=True)
            journal.put(name, wanted[name], json.loads(ran.stdout.strip().splitlines()[-1]))
            say(ran.stdout.strip().splitlines()[-1])
    table = pd.DataFrame([answer for _, answer in journal.answers(wanted)])
    draw(table, asked.out / "growth.png")
    table["ms a unit"] = 1000 * table["seconds"] / table["size"]
    say(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()

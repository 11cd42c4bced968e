"""Kill `specialsam spot` at random moments, start it again, and look for photographs lost, doubled or unlike before.

python benchmarks/spotting.py OUT [--photographs 1000] [--broken 30] [--kills 10] [--model nano] [--side 256] [--seed 0]

The photographs are generated, some with EXIF time and place, and `--broken` of them are none: cut short, text, empty,
enormous by their header, films, noise. One run that nothing interrupts is the truth, and tells how long the kills may
wait. Then the same command is killed with SIGKILL and started again; a folder whose run comes to its end is compared
with the truth, and another one is begun while kills are left. Memory is that of the uninterrupted run, at most, for a
hundred photographs (half of them where there are fewer than two hundred) and for all of them.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from specialsam.core.console import say, stage
from specialsam.synth.scenes import scene

FEW = 100
"""Photographs of the smaller run whose memory is measured."""
CAMERAS = 10
PICTURES = ("marked", "thumbnails", "crops")
DATED = ("classificationTimestamp", "timestamp", "eventStart", "eventEnd")
"""Columns of a package that hold the time of the run where a photograph has none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photographs", type=int, default=1000)
    parser.add_argument("--broken", type=int, default=30)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    if asked.out.exists() and any(asked.out.iterdir()):
        parser.error(f"expected a new or empty folder, got {asked.out}")
    random.seed(asked.seed)
    data, truth = asked.out / "photographs", asked.out / "unbroken"
    names = write_photographs(data, asked.photographs, asked.side, asked.seed)
    broken = set(random.sample(names, min(asked.broken, len(names))))
    for number, name in enumerate(sorted(broken)):
        WAYS[number % len(WAYS)](data / name)

    some = names[: min(FEW, len(names) // 2)]
    few, few_mb = run(command(linked(data, some, asked.out / "few"), asked.out / "unbroken-few", asked.model))
    whole, whole_mb = run(command(data, truth, asked.model))
    again, _ = run(command(data, truth, asked.model))
    wrong = [f"unbroken: {what}" for what in faults(truth, names, broken)]
    work = max(whole - again, 0.1)
    kills = starts = finished = 0
    with stage("killing") as progress:
        while kills < asked.kills or finished == 0:
            folder = asked.out / f"run-{finished}"
            left = asked.kills - kills
            patience = random.uniform(0.3 * again, again + 2 * work / max(asked.kills, 1)) if left else None
            killed = struck(command(data, folder, asked.model), patience)
            kills, starts = kills + killed, starts + 1
            if not killed:
                wrong += [f"{folder.name}: {what}" for what in [*faults(folder, names, broken), *apart(folder, truth)]]
                finished += 1
            progress(kills, asked.kills, f"{finished} finished, {len(wrong)} wrong")

    objects = sum(bool(row["object"]) for row in rows(truth / "objects.csv"))
    table = {
        "photographs, of which broken": f"{len(names)}, {len(broken)}",
        "objects found": objects,
        "starts, kills, finished runs compared": f"{starts}, {kills}, {finished}",
        "seconds of the unbroken run, of one more call": f"{whole:.1f}, {again:.1f}",
        "photographs a second, start-up left out": f"{len(names) / work:.2f}",
        f"peak memory at {len(some)} photographs": f"{few_mb:.0f} MB ({few:.1f} s)",
        f"peak memory at {len(names)} photographs": f"{whole_mb:.0f} MB",
        "lost, doubled or different": "; ".join(wrong) or "nothing",
    }
    for title, value in table.items():
        say(f"{title:<48}{value}")
    sys.exit(1 if wrong else 0)


def write_photographs(folder: Path, count: int, side: int, seed: int) -> list[str]:
    """Write JPEGs of scenes, most with a time and some with a place; their names, posix, in order."""
    names = []
    began = datetime(2026, 1, 31, 18)
    with stage("photographs") as progress:
        for number in range(count):
            name = f"camera-{number % CAMERAS:02d}/{number:05d}.jpg"
            exif = Image.Exif()
            if number % 4:
                taken = began + timedelta(minutes=number)
                exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken.strftime("%Y:%m:%d %H:%M:%S")
            if number % 3 == 0:
                degrees = tuple(Fraction(part) for part in (number % 80, 30, 0))
                gps = {"GPSLatitudeRef": "S", "GPSLatitude": degrees, "GPSLongitudeRef": "E", "GPSLongitude": degrees}
                exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS[tag]: value for tag, value in gps.items()})
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene(seed + number, side, 0.5).image).save(folder / name, quality=90, exif=exif)
            names.append(name)
            progress(number + 1, count, name)
    return sorted(names)


def linked(data: Path, names: Sequence[str], folder: Path) -> Path:
    """Some of the photographs in a folder of their own."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        os.link(data / name, folder / name)
    return folder


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def as_text(path: Path) -> None:
    path.write_text("this is no photograph\n")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def enormous(path: Path) -> None:
    """The frame header of the JPEG says 65,000 x 65,000 pixels."""
    content = path.read_bytes()
    place = next(place for place in (content.find(mark) for mark in (b"\xff\xc0", b"\xff\xc2")) if place >= 0)
    path.write_bytes(content[: place + 5] + b"\xfd\xe8\xfd\xe8" + content[place + 9 :])


def as_film(path: Path) -> None:
    path.write_bytes(b"\0\0\0\x18ftypmp42" + path.read_bytes())


def as_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


WAYS: Sequence[Callable[[Path], None]] = (cut_short, as_text, emptied, enormous, as_film, as_noise)
"""How a photograph is broken."""


def command(data: Path, folder: Path, model: str) -> list[str]:
    job = ["-m", "specialsam.cli", "spot", str(data), "-o", str(folder), "-m", model, "--device", "cpu"]
    return [sys.executable, *job]


def run(words: Sequence[str]) -> tuple[float, float]:
    """Run a command to its end: its seconds, and its largest resident memory in MB."""
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return time.monotonic() - began, used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def struck(words: Sequence[str], after: float | None) -> bool:
    """Start a command and kill it after some seconds, if any: whether that was before its end."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        try:
            if process.wait(after):
                raise subprocess.CalledProcessError(process.returncode, words)
            return False
        except subprocess.TimeoutExpired:
            process.kill()
            return True


def faults(folder: Path, names: Sequence[str], broken: set[str]) -> list[str]:
    """What a finished run says other than once of each photograph, and what it has left half written."""
    lines = (folder / "answers.jsonl").read_text().splitlines()
    kept = [json.loads(line.split(" ", 1)[1])[2] for line in lines]
    results, masks = (read(folder / name)["images"] for name in ("megadetector.json", "megadetector-masks.json"))
    table = rows(folder / "objects.csv")
    listed = {
        "answers.jsonl": [answer["file"] for answer in kept],
        "megadetector.json": [image["file"] for image in results],
        "megadetector-masks.json": [image["file"] for image in masks],
        "objects.csv": [row["file"] for row in table if row["object"] in ("", "1")],
        "camtrap-dp/media.csv": [row["filePath"] for row in rows(folder / "camtrap-dp" / "media.csv")],
    }
    wrong = []
    for where, files in listed.items():
        if sorted(files) != list(names):
            lost, doubled = len(set(names) - set(files)), len(files) - len(set(files))
            wrong.append(f"{where}: {lost} lost, {doubled} doubled, {len(set(files) - set(names))} strange")
    failed = {
        "answers.jsonl": {answer["file"] for answer in kept if answer["error"]},
        "megadetector.json": {image["file"] for image in results if image.get("failure")},
        "objects.csv": {row["file"] for row in table if row["error"]},
    }
    wrong += [f"{where}: {len(files)} failed" for where, files in failed.items() if files != broken]
    left = [path.name for path in folder.rglob(".*") if path.is_file()]
    return wrong + [f"left behind: {', '.join(left[:3])}"] * bool(left)


def apart(folder: Path, truth: Path) -> list[str]:
    """In which files a finished run differs from the unbroken one, dates of the runs left out."""
    wrong = [
        name
        for name in ("megadetector-masks.json", "objects.csv", *sorted(page.name for page in truth.glob("spot*.html")))
        if not (folder / name).exists() or undated(folder / name) != undated(truth / name)
    ]
    wrong += ["megadetector.json"] * (
        read(folder / "megadetector.json")["images"] != read(truth / "megadetector.json")["images"]
    )
    for table in ("media", "observations", "deployments"):
        one, other = (without_dates(path / "camtrap-dp" / f"{table}.csv") for path in (folder, truth))
        wrong += [f"camtrap-dp/{table}.csv"] * (one != other)
    for kind in PICTURES:
        drawn, expected = (pictures(path / kind) for path in (folder, truth))
        wrong += [f"{kind}: {len(drawn)} pictures, {len(expected)} expected, or others"] * (drawn != expected)
    return [f"differs: {name}" for name in wrong]


def undated(path: Path) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d", "then", path.read_text(encoding="utf-8"))


def without_dates(path: Path) -> list[dict[str, str]]:
    """Rows without the times that are the run's and not the photographs'."""
    return [{name: cell for name, cell in row.items() if name not in DATED} for row in rows(path)]


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

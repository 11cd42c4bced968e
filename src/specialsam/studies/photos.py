"""Own photographs without truth: base and specialist side by side for one click, to look at and not to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from specialsam.core.errors import DataError, SpecialSamError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.geometry import FloatArray, ImageArray
from specialsam.core.types import Prompts, Record
from specialsam.data.images import read_image, write_png
from specialsam.data.loading import load_image_only
from specialsam.data.open import open_dataset
from specialsam.models.load import load_base
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import is_specialist, load_specialist
from specialsam.studies.figures import Tile, pixels_of, sheet_figure

CENTRE = ("center", "centre")


@dataclass(frozen=True)
class Shot:
    """One photograph with both answers: shares 0..1 of the image that each model's mask covers, and the picture."""

    record: str
    base_share: float
    tuned_share: float
    agreement: float
    picture: Path


def specialist_folder(run: Path) -> Path:
    """The specialist of a study folder, a run folder or a specialist folder itself; UsageError where there is none."""
    for folder in (run, run / "specialist", run / "run" / "specialist"):
        if is_specialist(folder):
            return folder
    raise UsageError(f"expected a study or run folder with a specialist, found none in {run}")


def parse_click(text: str) -> tuple[float, float] | None:
    """(x, y) in pixels of "x,y"; None for the centre. UsageError for anything else."""
    if text.lower() in CENTRE:
        return None
    parts = text.split(",")
    try:
        x, y = (float(part) for part in parts)
    except ValueError as error:
        raise UsageError(f"expected --click X,Y in pixels of the photograph, or center, got {text!r}") from error
    if not (np.isfinite([x, y]).all() and min(x, y) >= 0):
        raise UsageError(f"expected --click with numbers of at least 0, got {text!r}")
    return x, y


def run_photos(
    run: Path,
    photos: Path,
    click: str,
    out: Path,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    trust_base: bool = False,
) -> tuple[list[Shot], list[str]]:
    """Write a picture a photograph, `photos.csv` and `photos.html` into `out`; the shots, and what could not be read.

    The click is the same pixel in every photograph, or each one's centre. DataError where no photograph could be used,
    also because the click lies outside all of them.
    """
    place = parse_click(click)
    folder = specialist_folder(run)
    base = load_base(folder, trust_base=trust_base)
    tuned = load_specialist(folder, base)
    records = open_dataset(f"photos:{photos}").records
    shots, failures = [], []
    for number, record in enumerate(records, 1):
        try:
            shots.append(_shot(record, place, base, tuned, out))
        except SpecialSamError as error:
            failures.append(str(error))
        if progress:
            progress(number, len(records), record.id)
    if not shots:
        raise DataError(f"expected photographs in {photos} to click on, could use none; the first: {failures[0]}")
    _write(shots, failures, base.name, photos, out)
    return shots, failures


def _shot(record: Record, place: tuple[float, float] | None, base: Segmenter, tuned: Segmenter, out: Path) -> Shot:
    image = load_image_only(record)
    height, width = image.shape[:2]
    x, y = place or (width // 2, height // 2)
    if x >= width or y >= height:
        raise DataError(f"{record.id}: expected a click inside {width}x{height} pixels, got {x:g},{y:g}")
    point = np.array([[x, y]], np.float32)
    prompts = Prompts("click", points=point[None], labels=np.ones((1, 1), np.int64))
    embedding = base.encode(image)  # a tuned decoder sees the base's embeddings
    if tuned.encoder_id != base.encoder_id:
        both = base.decode(embedding, prompts), tuned.decode(tuned.encode(image), prompts)
    else:
        both = base.decode(embedding, prompts), tuned.decode(embedding, prompts)
    masks = [answer.masks()[0] for answer in both]
    together, either = float((masks[0] & masks[1]).sum()), float((masks[0] | masks[1]).sum())
    shares = [float(mask.mean()) for mask in masks]
    path = out / "photos" / f"{record.id.replace('/', '--')}.png"
    picture = _picture(image, point, masks[0], masks[1], shares)
    write_png(path, picture)
    return Shot(record.id, shares[0], shares[1], together / either if either else 1.0, path)


def _picture(
    image: ImageArray, point: FloatArray, before: np.ndarray, after: np.ndarray, shares: list[float]
) -> ImageArray:
    tiles = [
        Tile(image, "photograph and click", points=point),
        Tile(image, f"base: {100 * shares[0]:.1f} % of the image", before),
        Tile(image, f"specialist: {100 * shares[1]:.1f} %", after),
    ]
    return pixels_of(sheet_figure(tiles, 3, tile=3.2))


def _write(shots: list[Shot], failures: list[str], model: str, photos: Path, out: Path) -> None:
    import pandas as pd

    from specialsam.report.facts import RunFacts
    from specialsam.report.page import environment, shown, write_page
    from specialsam.report.pictures import data_uris

    table = pd.DataFrame([{**vars(shot), "picture": shot.picture.relative_to(out).as_posix()} for shot in shots])
    write_whole(out / "photos.csv", lambda path: table.to_csv(path, index=False))
    images = [read_image(shot.picture) for shot in shots]
    pictures = [
        shown(shot.record, f"both masks agree to {100 * shot.agreement:.0f} % (IoU)", shot.record, image, uri)
        for shot, image, uri in zip(shots, images, data_uris(images), strict=True)
    ]
    run = RunFacts(
        title="Own photographs: base and specialist",
        source=str(photos),
        layout="photos",
        model=model,
        command=f"specialsam study photos {photos}",
        date=date.today().isoformat(),
    )
    page = environment().get_template("photos.html.j2").render(run=run, pictures=pictures, failures=failures)
    write_page(page, out / "photos.html")

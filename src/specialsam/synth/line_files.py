"""A simulated line on disk: the video, its truth, and good pictures of the same cloth."""

from __future__ import annotations

import json
from pathlib import Path

import cv2

from specialsam.core.console import Progress
from specialsam.core.errors import SpecialSamError
from specialsam.core.files import write_whole
from specialsam.core.geometry import ImageArray
from specialsam.core.randomness import generator
from specialsam.data.images import write_png
from specialsam.synth.line import Camera, LineRecipe, Web, travelled

VIDEO, TRUTH, GOOD = "line.avi", "truth.json", "good"
FURTHER = 1_000_000
"""Pictures' numbers from which the good ones are counted: none shares its noise with the video."""


def write_line(folder: Path, recipe: LineRecipe, good: int = 0, progress: Progress | None = None) -> dict[str, int]:
    """Write `line.avi` (Motion JPEG), `truth.json` and `good` pictures of flawless web; how many of each.

    The truth holds the recipe, the metre of each picture's upper edge, and every defect. SpecialSamError where the
    video cannot be written.
    """
    web, places = Web(recipe), travelled(recipe)
    total = len(places) + good

    def film(path: Path) -> None:
        size = (recipe.side, recipe.side)
        writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), recipe.fps, size)
        if not writer.isOpened():
            raise SpecialSamError(f"cannot write {path}; make room or choose another folder")
        writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 92)
        camera = Camera(web)
        for number, place in enumerate(places):
            writer.write(cv2.cvtColor(camera.picture(number, float(place)), cv2.COLOR_RGB2BGR))
            if progress:
                progress(number + 1, total, VIDEO)
        writer.release()

    write_whole(folder / VIDEO, film)
    truth = {
        "recipe": recipe.model_dump(mode="json"),
        "travelled_m": [round(float(place), 6) for place in places],
        "defects": [one.as_json() for one in web.defects],
    }
    write_whole(folder / TRUTH, lambda path: path.write_text(json.dumps(truth) + "\n"))
    flawless = Camera(Web(recipe, flawless=True))
    for number in range(good):
        write_png(folder / GOOD / f"{number:05d}.png", good_picture(flawless, number))
        if progress:
            progress(len(places) + number + 1, total, GOOD)
    return {"pictures": len(places), "defects": len(web.defects), "good": good}


def good_picture(camera: Camera, number: int) -> ImageArray:
    """Picture `number` of a camera's web, uint8 (H, W, 3) RGB, anywhere along ten times its length, in any light."""
    recipe = camera.recipe
    rng = generator(recipe.seed, "line", "good", number)
    place = recipe.length_m + float(rng.uniform(0, 10 * recipe.metres))
    return camera.picture(FURTHER + int(rng.integers(10**6)), place)

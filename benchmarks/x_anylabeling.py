"""Masks that X-AnyLabeling's own code gets of an exported pair, beside the model's: figures for docs/exchange.md.

    pip download --no-deps x-anylabeling-cvhub && unzip x_anylabeling_cvhub-*.whl
    specialsam export nano -o pair -f x-anylabeling
    python benchmarks/x_anylabeling.py anylabeling/services/auto_labeling/sam_onnx.py pair nano PICTURES 20

Four clicks and a box on each picture. "Shown": the model asked on what the program shows of the picture; "original":
the model asked on the picture itself, which has more detail than the program's frame.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from specialsam import Prompts, load_model, read_image
from specialsam.core.geometry import ImageArray
from specialsam.core.sampling import evenly
from specialsam.models.labeling_files import FRAME, framed
from specialsam.models.segmenter import Segmenter

CLICKS = ((0.3, 0.3), (0.5, 0.5), (0.7, 0.7), (0.3, 0.7))
BOX = (0.25, 0.25, 0.75, 0.75)


def program(code: Path, pair: Path) -> Any:
    """The class of the program that runs a pair, on this one."""
    spec = importlib.util.spec_from_file_location("sam_onnx", code)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    paths = (next(pair.glob(f"*.{part}.onnx")) for part in ("encoder", "decoder"))
    return module.SegmentAnythingONNX(*map(str, paths))


def questions(height: int, width: int) -> list[tuple[dict[str, Any], Prompts]]:
    """Each as the program's mark and as ours."""
    ends = np.array([width, height])
    out: list[tuple[dict[str, Any], Prompts]] = []
    for click in CLICKS:
        point = np.array(click) * ends
        mark = {"type": "point", "data": point.tolist(), "label": 1}
        out.append((mark, Prompts("click", point[None, None].astype(np.float32), np.ones((1, 1), np.int64))))
    box = np.array(BOX) * np.tile(ends, 2)
    out.append(({"type": "rectangle", "data": box.tolist()}, Prompts("box", boxes=box[None].astype(np.float32))))
    return out


def scaled(prompts: Prompts, scale: float) -> Prompts:
    """The same prompts on a picture scaled by that factor."""
    if prompts.boxes is not None:
        return Prompts("box", boxes=prompts.boxes * np.float32(scale))
    assert prompts.points is not None
    return Prompts("click", prompts.points * np.float32(scale), prompts.labels)


def agreement(runner: Any, segmenter: Segmenter, image: ImageArray) -> tuple[list[float], list[float]]:
    """IoU of the program's masks with ours on what it shows, and on the original."""
    height, width = image.shape[:2]
    frame, scale = framed(image), min(FRAME[0] / height, FRAME[1] / width)
    rows, columns = (int(np.flatnonzero(frame.max((2, 1 - axis))).max()) + 1 for axis in (0, 1))
    seen = runner.encode(image)
    shown, original = segmenter.encode(np.ascontiguousarray(frame[:rows, :columns])), segmenter.encode(image)
    back = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    near: list[float] = []
    far: list[float] = []
    for mark, prompts in questions(height, width):
        theirs = runner.predict_masks(seen, [mark])[0][0] > 0
        answer = segmenter.decode(shown, scaled(prompts, scale))
        logits = answer.geometry.logits_to_original(answer.logits)[0, 0].numpy()
        ours = np.asarray(cv2.warpAffine(logits, back, (width, height), flags=cv2.INTER_LINEAR)) > 0
        whole = segmenter.decode(original, prompts).masks()[0, 0]
        for mask, found in ((ours, near), (whole, far)):
            found.append(float((theirs & mask).sum() / max(1, (theirs | mask).sum())))
    return near, far


def main() -> None:
    """Print both figures."""
    code, pair, model, pictures, count = sys.argv[1:]
    torch.set_num_threads(2)
    segmenter, runner = load_model(model), program(Path(code), Path(pair))
    near: list[float] = []
    far: list[float] = []
    for path in evenly(sorted(Path(pictures).rglob("*.jpg")), int(count)):
        one, other = agreement(runner, segmenter, read_image(path))
        near += one
        far += other
    for name, found in (("shown", near), ("original", far)):
        print(f"{name}: mean IoU {np.mean(found):.4f} of {len(found)} masks, lowest {min(found):.3f}")


if __name__ == "__main__":
    main()

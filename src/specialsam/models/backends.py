"""How the encoder runs: torch as it is, in bf16, compiled, or by OpenVINO or ONNX Runtime; chosen by measuring.

Nothing else of a segmenter changes. Arithmetic in bf16 gives other embeddings, so the encoder's id says so and stores
keep them apart; the others agree with torch to rounding and share its id. Nothing is chosen silently: `fastest` says
what it chose and by how much, and remembers it for this machine and this encoder.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specialsam.core.console import say, stage
from specialsam.core.errors import ModelError, UsageError
from specialsam.core.files import write_whole
from specialsam.core.folders import cache_folder
from specialsam.core.geometry import ImageArray
from specialsam.core.machine import machine
from specialsam.core.types import Embedding, Prompts
from specialsam.models.onnx_files import ENCODER, FACTS, mask_ious, session, write_encoder
from specialsam.models.segmenter import SINGLE, Backend, Segmenter, encoded, weights_of
from specialsam.models.traced import need
from specialsam.models.vit import FastViT, is_vit

AUTO, PLAIN = "auto", "torch"
AGREED = 0.99
"""Median IoU with torch's own masks from which a backend may be chosen."""
SAMPLED = 8
"""Pictures that backends are measured on."""
Run = Callable[[Tensor], Tensor]


def _torch(segmenter: Segmenter, dtype: torch.dtype = torch.float32, compiled: bool = False) -> Run:
    encoder = segmenter.encoder
    if is_vit(encoder):
        return FastViT(encoder, dtype, compiled)
    module: Callable[[Tensor], Any] = torch.compile(encoder, dynamic=False) if compiled else encoder

    def run(pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            return encoded(module, pixels)

    return run


def _onnxruntime(segmenter: Segmenter) -> Run:
    opened = session(need("onnxruntime"), _encoder_file(segmenter))

    def run(pixels: Tensor) -> Tensor:
        parts = [opened.run(None, {"pixels": part[None].numpy()})[0] for part in pixels]
        return torch.from_numpy(np.concatenate(parts))

    return run


def _openvino(segmenter: Segmenter, precision: str = "f32") -> Run:
    openvino = need("openvino")
    core = openvino.Core()
    model = core.read_model(str(_encoder_file(segmenter)))
    model.reshape([1, 3, segmenter.side, segmenter.side])
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(model, "CPU", hints | {"PERFORMANCE_HINT": "LATENCY"})

    def run(pixels: Tensor) -> Tensor:
        request = compiled.create_infer_request()  # one a call: threads may share a segmenter
        parts = [torch.from_numpy(next(iter(request.infer([part[None].numpy()]).values())).copy()) for part in pixels]
        return torch.cat(parts)

    return run


@dataclass(frozen=True)
class Kind:
    """A way to run encoders: its arithmetic ("" is fp32), the package it needs, whether a GPU can use it."""

    make: Callable[[Segmenter], Run]
    arithmetic: str = ""
    package: str = "torch"
    gpu: bool = False


KINDS: dict[str, Kind] = {
    "torch-bf16": Kind(partial(_torch, dtype=torch.bfloat16), "bf16", gpu=True),
    "compiled": Kind(partial(_torch, compiled=True), gpu=True),
    "compiled-bf16": Kind(partial(_torch, dtype=torch.bfloat16, compiled=True), "bf16", gpu=True),
    "openvino": Kind(_openvino, package="openvino"),
    "openvino-bf16": Kind(partial(_openvino, precision="bf16"), "bf16", package="openvino"),
    "onnxruntime": Kind(_onnxruntime, package="onnxruntime"),
}
BACKENDS = (PLAIN, *KINDS)


def with_backend(segmenter: Segmenter, name: str) -> Segmenter:
    """The same segmenter whose encoder runs by another backend of `BACKENDS`, for inference alone.

    UsageError for an unknown one, ModelError in one line where its package is not installed or it cannot run here.
    """
    if name == PLAIN:
        return segmenter if segmenter.backend is None else replace(segmenter, backend=None)
    if name not in KINDS:
        raise UsageError(f"expected a --backend of {', '.join((AUTO, *BACKENDS))}, got {name!r}")
    kind = KINDS[name]
    if not kind.gpu and segmenter.device.type != "cpu":
        raise UsageError(f"expected --device cpu for --backend {name}, got {segmenter.device.type}")
    need(kind.package)
    try:
        run = kind.make(segmenter)
        with torch.no_grad():  # what cannot run here says so now, and compilers do their work
            run(torch.zeros(1, 3, segmenter.side, segmenter.side, device=segmenter.device))
    except (ModelError, UsageError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the encoder cannot run by {name} here ({reason}); use --backend torch") from error
    return replace(segmenter, backend=Backend(name, kind.arithmetic, run))


@dataclass(frozen=True)
class Trial:
    """A backend measured: seconds a picture (median), IoU with torch's own masks (median, 5th percentile)."""

    name: str
    seconds: float
    median: float = 1.0
    low: float = 1.0
    failed: str = ""


def trials(segmenter: Segmenter, images: Sequence[ImageArray], names: Sequence[str] = BACKENDS) -> list[Trial]:
    """Measure backends on pictures uint8 (H, W, 3), in turn on each picture, beside torch, which comes first."""
    if not images:
        raise UsageError("expected pictures to measure backends on, got none")
    plain = with_backend(segmenter, PLAIN)
    ready, failed = {PLAIN: plain}, []
    with stage("trying backends") as progress:
        wanted = [name for name in names if name != PLAIN]
        for number, name in enumerate(wanted, 1):
            progress(number, len(wanted), name)
            try:
                ready[name] = with_backend(segmenter, name)
            except (ModelError, UsageError) as error:
                failed.append(Trial(name, float("inf"), 0.0, 0.0, str(error)))
    spent: dict[str, list[float]] = {name: [] for name in ready}
    ious: dict[str, list[float]] = {name: [] for name in ready}
    with stage("measuring backends") as progress:
        for number, image in enumerate([images[0], *images]):  # the first time is no measure
            masks = {}
            for name, one in ready.items():
                began = time.perf_counter()
                embedding = one.encode(image)
                if number:
                    spent[name].append(time.perf_counter() - began)
                masks[name] = _masks(plain, embedding)
            for name in ready if number else ():
                ious[name] += mask_ious(masks[PLAIN], masks[name])
            progress(number + 1, len(images) + 1, "")
    found = [
        Trial(name, float(np.median(spent[name])), float(np.median(ious[name])), float(np.quantile(ious[name], 0.05)))
        for name in ready
    ]
    return found + failed


def fastest(segmenter: Segmenter, images: Callable[[], Sequence[ImageArray]]) -> str:
    """The fastest backend whose masks agree with torch's, measured once a machine and encoder, and said.

    `images` reads the pictures uint8 (H, W, 3) that it is measured on, where it was not yet: some of the user's own.
    """
    kept, key = _choices(), _key(segmenter)
    if kept.get(key) in BACKENDS:
        say(f"encoder: by {kept[key]}, as measured on this machine before")
        return kept[key]
    names = [name for name, kind in KINDS.items() if kind.gpu or segmenter.device.type == "cpu"]
    if segmenter.device.type == "cpu":  # minutes of a C++ compiler, for less than what the others give
        names = [name for name in names if not name.startswith("compiled")]
    found = trials(segmenter, images(), names)
    good = [trial for trial in found if not trial.failed and trial.median >= AGREED]
    best = min(good, key=lambda trial: trial.seconds)
    _remember({**kept, key: best.name})
    factor = found[0].seconds / best.seconds
    say(
        f"encoder: by {best.name}, {factor:.1f} times as fast as torch here; masks agree to {best.median:.3f} "
        f"(median IoU; {best.low:.3f} at the 5th percentile)"
    )
    return best.name


def table(found: Sequence[Trial]) -> str:
    """Trials as plain text, a line a backend."""
    plain = found[0].seconds
    lines = [f"{'backend':16}{'ms a picture':>14}{'faster':>8}{'median IoU':>12}{'5 %':>7}"]
    for trial in found:
        if trial.failed:
            lines.append(f"{trial.name:16}  {trial.failed}")
            continue
        lines.append(
            f"{trial.name:16}{1000 * trial.seconds:14.1f}{plain / trial.seconds:7.2f}x{trial.median:12.4f}"
            f"{trial.low:7.3f}"
        )
    return "\n".join(lines)


def _masks(segmenter: Segmenter, embedding: Embedding) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Low-res masks (P, L, L) for a grid of clicks and a box."""
    height, width = embedding.geometry.height, embedding.geometry.width
    steps = (np.arange(3) + 0.5) / 3
    x, y = np.meshgrid(steps * width, steps * height)
    points = np.stack([x, y], -1).reshape(-1, 1, 2).astype(np.float32)
    clicks = Prompts("clicks", points=points, labels=np.ones((len(points), 1), np.int64))
    box = Prompts("box", boxes=np.array([[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], np.float32))
    answers = [segmenter.decode_outputs(embedding, asked, SINGLE).logits[:, 0] for asked in (clicks, box)]
    return np.asarray(torch.cat(answers).numpy() > 0)


WRITTEN = 2
"""Version of how encoders are written: files of an older one stay behind in the cache."""


def _encoder_file(segmenter: Segmenter) -> Path:
    """The encoder as ONNX: beside an exported model, or made once and kept."""
    weights = weights_of(segmenter.encoder_id)
    exported = Path(segmenter.source) / ENCODER
    if segmenter.source and exported.exists() and _made_for(exported.parent) == weights:
        return exported
    path = cache_folder() / "encoders" / f"{weights}-{WRITTEN}.onnx"
    if not path.exists():
        say(f"writing the encoder of {segmenter.name} as ONNX, once: {path}")
        write_encoder(segmenter, path)
    return path


def _made_for(folder: Path) -> str:
    try:
        return str(json.loads((folder / FACTS).read_text())["encoder_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _key(segmenter: Segmenter) -> str:
    """This machine, its threads and packages, and the encoder's weights."""
    packages = [name for name in ("openvino", "onnxruntime") if find_spec(name)]
    facts = machine() | {"threads": torch.get_num_threads(), "torch": torch.__version__, "packages": packages}
    facts |= {"device": str(segmenter.device), "encoder": weights_of(segmenter.encoder_id)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _choices() -> dict[str, str]:
    try:
        kept = json.loads((cache_folder() / "backends.json").read_text())
        return {str(key): str(name) for key, name in kept.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _remember(choices: dict[str, str]) -> None:
    text = json.dumps(choices, indent=1, sort_keys=True) + "\n"
    write_whole(cache_folder() / "backends.json", lambda path: path.write_text(text))

"""A segmenter as a plain transformers folder: `config.json` and `model.safetensors`.

A model with SAM's own ViT encoder is saved as it is, and `SamModel.from_pretrained` gives the same masks; so do
`Sam2Model` and `Sam3TrackerModel` of theirs. A plain `SamModel` cannot hold our convolutional encoder or TinyViT; such
a folder holds them under `specialsam_encoder.*`, beside a prompt encoder and mask decoder that `SamModel` reads as
usual: give it `image_embeddings` and masks are the same. Its own vision encoder is NaN throughout, so that forgetting
the embeddings shows at once.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from specialsam.core.errors import ModelError
from specialsam.models.levels import has_levels, theirs
from specialsam.models.sam import as_transformers
from specialsam.models.segmenter import Segmenter, side_of

ENCODER_KEY = "specialsam_encoder"
"""Field of config.json and prefix of the tensors of an encoder that a plain `SamModel` cannot hold."""


PROCESSOR = "preprocessor_config.json"
"""How `SamProcessor.from_pretrained` makes the model's input: the same pixels as `Segmenter.pixels`."""
PROCESSORS = {
    "hiera": ("Sam2ImageProcessor", "Sam2Processor"),
    "perception": ("Sam3ImageProcessor", "Sam3TrackerProcessor"),
}
"""transformers' image processor and processor where they are not SAM's."""


def _processor(segmenter: Segmenter) -> dict[str, Any]:
    """Its content for a model."""
    side, way = segmenter.side, segmenter.preprocessing
    low = segmenter.geometry((side, side)).logits_side
    square, small = {"height": side, "width": side}, {"height": low, "width": low}
    own: dict[str, Any] = {
        "image_processor_type": "SamImageProcessor",
        "processor_class": "SamProcessor",
        "size": {"longest_edge": side},
        "do_pad": True,
        "pad_size": square,
        "mask_size": {"longest_edge": low},
        "mask_pad_size": small,
    }
    if way.stretched:
        image, whole = PROCESSORS[encoder_kind(segmenter)]
        own = {"image_processor_type": image, "processor_class": whole, "size": square, "mask_size": small}
    return own | {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in way.mean],
        "image_std": [value / 255 for value in way.std],
    }


def encoder_kind(segmenter: Segmenter) -> str:
    """Which encoder a segmenter has: a kind of `nano.ENCODERS`, vit, hiera (SAM 2) or perception (SAM 3)."""
    from specialsam.models.nano import ENCODERS

    if has_levels(segmenter.sam):
        return "hiera" if hasattr(segmenter.encoder.neck, "convs") else "perception"
    return next((kind for kind, own in ENCODERS.items() if isinstance(segmenter.encoder, own.module)), "vit")


def save_pretrained(segmenter: Segmenter, folder: Path, half: bool = False) -> Path:
    """Write `segmenter` as a transformers folder and return it; an earlier folder of that name is replaced.

    `half` stores half precision (half the bytes; loading gives single precision again), for our own encoders.
    """
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        _write(segmenter, beside, half)
        (beside / PROCESSOR).write_text(json.dumps(_processor(segmenter), indent=2) + "\n")
        if folder.is_dir() and folder.samefile(Path.cwd()):  # where somebody stands: filled, for it must not go
            for path in folder.iterdir():
                path.unlink()
            for path in beside.iterdir():
                path.rename(folder / path.name)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _write(segmenter: Segmenter, folder: Path, half: bool) -> None:
    from safetensors.torch import save_file

    sam: Any = segmenter.sam
    kind = encoder_kind(segmenter)
    if kind == "vit":
        sam.save_pretrained(folder)
        return
    if has_levels(sam):
        sam.config.architectures = [type(sam).__name__]
        sam.config.save_pretrained(folder)
        state = {name: _stored(value, half) for name, value in theirs(sam.state_dict()).items()}
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        return
    plain = as_transformers(sam)
    own = sam.state_dict()
    state = {name: value for name, value in own.items() if not name.startswith("vision_encoder.")}
    state |= {
        name: torch.full_like(value, float("nan"))
        for name, value in plain.state_dict().items()
        if name.startswith("vision_encoder.")
    }
    state |= {
        f"{ENCODER_KEY}.{name.removeprefix('vision_encoder.')}": value
        for name, value in own.items()
        if name.startswith("vision_encoder.")
    }
    plain.config.architectures = ["SamModel"]
    setattr(plain.config, ENCODER_KEY, {"kind": kind, "side": segmenter.side, "name": segmenter.name})
    plain.config.save_pretrained(folder)
    save_file(
        {name: _stored(value, half) for name, value in state.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def _stored(value: torch.Tensor, half: bool) -> torch.Tensor:
    plain = value.detach().cpu().clone().contiguous()
    return plain.half() if half and plain.is_floating_point() else plain


def load_pretrained(folder: Path, name: str = "") -> Segmenter:
    """A segmenter from a transformers folder, with SAM's own encoder or one of ours; else ModelError in one line."""
    path = folder / "config.json"
    if not path.exists():
        raise ModelError(f"expected a transformers folder with a config.json, found none in {folder}")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:  # not text, or not JSON
        raise ModelError(f"expected JSON in {path}, got something else ({type(error).__name__})") from error
    if not isinstance(config, dict):
        raise ModelError(f"expected JSON in {path} with named fields, got a {type(config).__name__}")
    if ENCODER_KEY in config:
        return _load_own(folder, config, name)
    from specialsam.models.weights import load_transformers

    sam = load_transformers(folder)
    return Segmenter(name or folder.name, sam, side_of(sam), str(folder))


def _load_own(folder: Path, config: dict[str, Any], name: str) -> Segmenter:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from specialsam.models.weights import require_finite

    try:
        own = config[ENCODER_KEY]
        kind, side, name = str(own["kind"]), int(own["side"]), name or str(own["name"])
        width = int(config["prompt_encoder_config"]["hidden_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"expected kind, side and name of the encoder in {folder / 'config.json'}, got others; fetch it anew"
        ) from error
    try:
        state = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"expected readable weights in {folder / 'model.safetensors'}, got none; fetch it anew"
        ) from error
    weights = {key: value for key, value in state.items() if not key.startswith(("vision_encoder.", ENCODER_KEY))}
    weights |= {
        f"vision_encoder.{key.removeprefix(ENCODER_KEY + '.')}": value
        for key, value in state.items()
        if key.startswith(ENCODER_KEY + ".")
    }
    sam = _architecture(kind, side, width)
    try:
        sam.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"expected the weights of a {kind} SAM in {folder}, got others; fetch it anew") from error
    require_finite({k: v for k, v in state.items() if not k.startswith("vision_encoder.")}, folder)
    return Segmenter(name, sam.eval().requires_grad_(False), side, str(folder))


def _architecture(kind: str, side: int, width: int) -> Any:
    from specialsam.models.nano import ENCODERS, NANO_CHANNELS, build_nano

    if kind not in ENCODERS:
        raise ModelError(f"expected an encoder of {', '.join(ENCODERS)}, got {kind!r}; a newer version may know it")
    if width == NANO_CHANNELS:
        return build_nano(kind, side)
    from specialsam.models.architectures import build
    from specialsam.models.zoo import CARDS

    return build(CARDS["mobile_sam"])

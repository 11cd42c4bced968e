"""What a checkpoint file holds: the tensors of one model out of whatever wraps them, and which model that is."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.models.architectures import SHARED, State
from specialsam.models.sam2 import SAM3_TRUNK
from specialsam.models.segmenter import PIXEL_MEAN, PIXEL_STD
from specialsam.models.zoo import CARDS, Card, HieraNumbers, PerceptionNumbers, VitNumbers

TRANSFORMERS = "a transformers SamModel"
ADAPTER = "a LoRA adapter"
DECODER = "a mask decoder alone"
INSTEAD = "start from SAM, SAM 2 or MobileSAM instead, or use the program that it came from"
EDGETAM = f"EdgeTAM, whose encoder needs timm, which is not used here; {INSTEAD}"
WHOLE = "save the state_dict() of the whole model"
OTHERS = {
    "mask_decoder.hf_token.weight": f"SAM-HQ, whose decoder has an output that SAM has not; {INSTEAD}",
    "mask_decoder.hq_token.weight": f"SAM-HQ, whose decoder has an output that SAM has not; {INSTEAD}",
    "image_encoder.trunk.body.": EDGETAM,
    "vision_encoder.backbone.timm_model.": EDGETAM,
    "spatial_perceiver.": EDGETAM,
    "detector_model.": "SAM 3 as transformers saves it; give its folder",
    "sam_mask_decoder.": f"a part of SAM 2, or one of a size that is not known here; {WHOLE}",
    "image_encoder.trunk.": f"a part of SAM 2, or one of a size that is not known here; {WHOLE}",
    "detector.": f"a part of SAM 3, or one that is not known here; {WHOLE}",
    "tracker.": f"a part of SAM 3, or one that is not known here; {WHOLE}",
    "patch_embed.proj.weight": "an image encoder alone; save the state_dict() of the whole model",
    "image_encoder.": f"an encoder of SAM's family that is not known here, or of another size; {INSTEAD}",
}
"""Beginnings of names by which models tell themselves that cannot be loaded, and what is said of them."""
ROOTS = (
    *("image_encoder", "vision_encoder", "specialsam_encoder", "prompt_encoder", "mask_decoder"),
    *("shared_image_embedding", "sam_mask_decoder", "sam_prompt_encoder", "memory_attention"),
)
"""First words of names that are part of the model and not of what wraps it."""
PARTS = ("image_encoder", "vision_encoder", "prompt_encoder", "mask_decoder", "shared_image_embedding")
WRAPS = re.compile(r"(?<![^.])(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
PLAIN: list[Any] = [
    *(argparse.Namespace, np.dtype, type(np.dtype("f8")), type(np.dtype("f4")), type(np.dtype("i8"))),
    *(scalar, (scalar, "numpy.core.multiarray.scalar")),
]
"""What trainers write beside tensors and is data alone: settings, and a best score as numpy's number (of any age)."""
DEPTH = 3
PIXELS = {"pixel_mean": PIXEL_MEAN, "pixel_std": PIXEL_STD}
FIRST_LAYER = ("image_encoder.patch_embed.proj", "vision_encoder.patch_embed.projection")
DECODER_ONLY = ("iou_token.weight", "mask_tokens.weight")


def read_checkpoint(path: Path) -> State:
    """Tensors by name of a checkpoint, whatever its ending: what torch.save wrote, or safetensors, told by content.

    Tensors alone are read (memory-mapped where the format allows), and unwrapped as `checkpoints.unwrap` says. Raises
    ModelError in one line for a file that is missing, damaged, holds code, or is no checkpoint of one model.
    """
    if not path.is_file():
        raise ModelError(f"expected a checkpoint at {path}, found no such file")
    try:
        content = _read(path)
    except Exception as error:  # a damaged file makes the readers raise errors of any kind
        if "TorchScript" in str(error):
            raise ModelError(
                f"expected tensors alone in {path}, got a TorchScript program, which is never run; "
                "save the state_dict() of the model that it was made from and load that"
            ) from error
        if "GLOBAL" in str(error):
            raise ModelError(
                f"expected tensors alone in {path}, got a file that holds code, which is never run; "
                "save its state_dict() and load that"
            ) from error
        raise ModelError(
            f"expected a checkpoint (.pth, .pt, .safetensors) at {path}, got one that is damaged or of another format "
            f"({type(error).__name__}); fetch it anew"
        ) from error
    return unwrap(content, path)


def _read(path: Path) -> Any:
    with path.open("rb") as stream:
        head = stream.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        from safetensors.torch import load_file

        return load_file(path)
    zipped = zipfile.is_zipfile(path)
    if zipped:
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise ValueError("TorchScript")
    with torch.serialization.safe_globals(PLAIN):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


SINGLE_NAMES = frozenset(
    {*PIXELS, "no_mem_embed", "no_mem_pos_enc", "maskmem_tpos_enc", "no_obj_ptr", "no_obj_embed_spatial"}
)
"""Tensors of SAM's and SAM 2's files that belong to no part, and so have no dot in their names."""


def unwrap(content: Any, path: Path) -> State:
    """The tensors of the one model in the content of a file, by name without the prefixes that are common to all.

    Looks through nested dictionaries; optimizer states and all else beside the model are passed over. Raises ModelError
    in one line where no dictionary holds tensors by name, where several hold a model, and for `pixel_mean` or
    `pixel_std` that are not SAM's.
    """
    found = {name: strip(state) for name, state in _states(content, "", DEPTH)}
    known = {name: state for name, state in found.items() if identify(state) != "unknown"}
    if not known:
        known = dict(sorted(found.items(), key=lambda item: -len(item[1]))[:1])  # the largest, to be told what it is
    if not known:
        raise ModelError(f"expected tensors by name in {path}, got something else; save the model's state_dict()")
    first, *more = known
    if any(not _equal(known[first], known[name]) for name in more):
        raise ModelError(
            f"expected one model in {path}, got {len(known)} that differ ({', '.join(known)}); "
            "save the state_dict() of one of them alone"
        )
    return _without_pixels(known[first], path)


def _states(content: Any, where: str, depth: int) -> Iterator[tuple[str, State]]:
    """Every dictionary of tensors by name within `content`, with the keys on the way to it."""
    if not isinstance(content, Mapping) or not content or not depth:
        return
    if all(isinstance(value, Tensor) for value in content.values()):
        yield where, {str(key): value for key, value in content.items()}
        return
    parts = {str(k): v for k, v in content.items() if k in PARTS and isinstance(v, Mapping)}
    if "mask_decoder" in parts:  # saved part by part
        flat = {f"{part}.{key}": value for part, inner in parts.items() for key, value in inner.items()}
        flat |= {name: content[name] for name in PIXELS if isinstance(content.get(name), Tensor)}
        yield from _states(flat, where, 1)
        return
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor) and ("." in str(k) or k in SINGLE_NAMES)}
    if any("." in name for name in tensors):  # beside an epoch or a dictionary of settings
        yield where, tensors
    for key, value in content.items():
        yield from _states(value, f"{where}.{key}" if where else str(key), depth - 1)


def strip(state: Mapping[str, Tensor]) -> State:
    """The same tensors without the words that all names begin with (`module.`, `model.`), but the model's own parts.

    What parallel training and torch.compile put before any part is removed wherever it stands; a mask decoder that was
    saved by itself gets the name of its part.
    """
    out = {WRAPS.sub("", key): value for key, value in state.items()}
    if len(out) != len(state):  # two models side by side, which is for the caller to refuse
        out = dict(state)
    while out:
        first = next(iter(out)).split(".")[0]
        if first in ROOTS or not all(key.startswith(first + ".") for key in out):
            break
        out = {key[len(first) + 1 :]: value for key, value in out.items()}
    if all(name in out for name in DECODER_ONLY):
        return {f"mask_decoder.{key}": value for key, value in out.items()}
    return out


def _equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def _without_pixels(state: State, path: Path) -> State:
    """The tensors without buffers of the preprocessing, which must be SAM's."""
    for name, expected in PIXELS.items():
        given = state.get(name)
        if given is None:
            continue
        values = tuple(round(float(value), 3) for value in given.flatten()[:4])
        if values != expected:
            raise ModelError(
                f"expected SAM's {name} {expected} in {path}, got {values}: the model was trained on pixels of another "
                f"scale, and its masks would be wrong; tune it with SAM's preprocessing, or remove {name} if unused"
            )
    return {key: value for key, value in state.items() if key not in PIXELS}


def identify(state: Mapping[str, Tensor]) -> str:
    """Which model these tensors look like: a zoo name, "nano", one of TRANSFORMERS, ADAPTER and DECODER, what is said
    of one in OTHERS, or "unknown"."""
    if any(".lora_" in key for key in state):
        return ADAPTER
    if any(
        f"{prefix}.stem.0.0.weight" in state for prefix in ("vision_encoder", "specialsam_encoder", "image_encoder")
    ):
        return "nano"
    if (found := _official_levels(state)) is not None:
        return found.name
    for beginning, said in OTHERS.items():
        if beginning != "image_encoder." and any(key.startswith(beginning) for key in state):
            return said
    if any(key.startswith("vision_encoder.") for key in state):
        return TRANSFORMERS
    if "mask_decoder.iou_token.weight" in state and not any(key.startswith("image_encoder.") for key in state):
        return DECODER
    if SHARED in state:
        return TRANSFORMERS
    if "image_encoder.layers.1.blocks.0.attn.attention_biases" in state and "image_encoder.neck.0.weight" in state:
        return "mobile_sam" if tuple(state["image_encoder.neck.0.weight"].shape) == (256, 320, 1, 1) else "unknown"
    patches = state.get("image_encoder.patch_embed.proj.weight")
    for card in CARDS.values():
        numbers = card.numbers
        if isinstance(numbers, VitNumbers) and patches is not None and len(patches) == numbers.width:
            blocks = (
                f"image_encoder.blocks.{numbers.blocks - 1}.norm1.weight",
                f"image_encoder.blocks.{numbers.blocks}.",
            )
            if blocks[0] in state and not any(key.startswith(blocks[1]) for key in state):
                return card.name
    return "unknown"


def _official_levels(state: Mapping[str, Tensor]) -> Card | None:
    """The zoo card of SAM 2 or 3 whose sizes a whole model by official names has."""
    for prefix, trunk, kind in (
        ("", "image_encoder.trunk.", HieraNumbers),
        ("tracker.", SAM3_TRUNK, PerceptionNumbers),
    ):
        if f"{prefix}sam_mask_decoder.iou_token.weight" in state:
            return _of_trunk(state, f"{trunk}patch_embed.proj.weight", f"{trunk}blocks.", kind)
    return None


def _of_trunk(
    state: Mapping[str, Tensor], patches: str, blocks: str, kind: type[HieraNumbers | PerceptionNumbers]
) -> Card | None:
    """The zoo card with that width and number of blocks, both read from the names that a trunk has."""
    count = len({key.removeprefix(blocks).split(".")[0] for key in state if key.startswith(blocks)})
    for card in CARDS.values():
        numbers = card.numbers
        if isinstance(numbers, kind) and patches in state:
            whole = numbers.blocks if isinstance(numbers.blocks, int) else sum(numbers.blocks)
            if len(state[patches]) == numbers.width and count == whole:
                return card
    return None


def said_of(state: Mapping[str, Tensor]) -> str:
    """`identify` in words that a person can act on, for a refusal."""
    looks = identify(state)
    if looks != "unknown":
        return looks
    if any(key.startswith("image_encoder.") for key in state):
        return f"unknown: {OTHERS['image_encoder.']}"
    names = ", ".join(list(state)[:3])
    return f"unknown ({len(state)} tensors: {names}{', ...' if len(state) > 3 else ''})"


def transformers_card(state: Mapping[str, Tensor]) -> Card | None:
    """The zoo card with the encoder of a `SamModel`'s tensors, None where no published model has its sizes."""
    backbone = "vision_encoder.backbone."
    for patches, blocks, kind in (
        ("patch_embed.projection.weight", "blocks.", HieraNumbers),
        ("embeddings.patch_embeddings.projection.weight", "layers.", PerceptionNumbers),
    ):
        if backbone + patches in state:
            return _of_trunk(state, backbone + patches, backbone + blocks, kind)
    position = state.get("vision_encoder.pos_embed")
    for card in CARDS.values():
        numbers = card.numbers
        if not isinstance(numbers, VitNumbers):
            continue
        last = f"vision_encoder.layers.{numbers.blocks - 1}.layer_norm1.weight"
        more = f"vision_encoder.layers.{numbers.blocks}.layer_norm1.weight"
        cells = card.side // numbers.patch
        fits = position is not None and tuple(position.shape) == (1, cells, cells, numbers.width)
        if fits and last in state and more not in state:
            return card
    return None


def fold_unit_pixels(state: State) -> State:
    """Tensors of a ViT (either layout) trained on images of 0..1 (MedSAM), made to take what SAM's preprocessing gives.

    The first layer (W, 3, 16, 16) is linear and sees no padding of its own, so that the change of scale goes into its
    weights: with x = (p - mean) / std of a pixel p, W (p / 255) + b = W' x + b' exactly.
    """
    key = next(key for key in FIRST_LAYER if f"{key}.weight" in state)
    weight, bias = (state[f"{key}.{name}"].double() for name in ("weight", "bias"))
    mean, std = (torch.tensor(v, dtype=torch.float64)[None, :, None, None] / 255 for v in (PIXEL_MEAN, PIXEL_STD))
    folded = bias + (weight * mean).sum((1, 2, 3))
    return state | {f"{key}.weight": (weight * std).float(), f"{key}.bias": folded.float()}

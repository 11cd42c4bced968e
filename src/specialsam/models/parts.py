"""Files that hold a part of a model, put on a base that has the rest: mask decoders, LoRA adapters of peft's layout."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.models.architectures import State, official_name, to_transformers
from specialsam.models.checkpoints import strip
from specialsam.models.folder import ENCODER_KEY, encoder_kind
from specialsam.models.levels import has_levels
from specialsam.models.sam import tied
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.models.weights import fill, read_checkpoint, require_finite, tie
from specialsam.models.zoo import CARDS, Card

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ENCODER = "vision_encoder"
_HEAD = re.compile(r"mask_decoder\.(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.")
_LATER = re.compile(r"\.layers\.[12]\.")
"""Heads of the decoder: their layers are proj_in, layers.0 and proj_out in transformers, 0 to 2 in the official one."""
OFFICIAL = (
    *("image_encoder.", "mask_decoder.output_upscaling.", "mask_decoder.transformer.norm_final_attn."),
    *("prompt_encoder.pe_layer.", "prompt_encoder.point_embeddings.", "prompt_encoder.mask_downscaling."),
)
"""Beginnings of names that the official layout alone has."""


def put_on(base: Segmenter, state: State, path: Path) -> Segmenter:
    """The model whose parts in `state` (either layout) replace those of `base`, which stays as it is.

    Each part (image encoder, prompt encoder, mask decoder) is there whole or not at all. Raises ModelError in one line
    for a part of which tensors are missing, and for tensors that are unknown, of another shape or not finite.
    """
    _require_one_level(base, f"a part of a model ({path})")
    card, official = _names(base, state)
    ready = tie(to_transformers(state, card) if official else state, path)
    parts = sorted({key.split(".")[0] for key in ready})
    whole = clone(base, path.stem, share_encoder=ENCODER not in parts)
    what = f"{', '.join(parts)} of {base.name}"
    say = (lambda key: official_name(key, card)) if official else str
    fill(whole.sam, ready, path, what, say, [f"{part}." for part in parts])
    return _frozen(whole, path, ENCODER in parts)


def _require_one_level(base: Segmenter, what: str) -> None:
    if has_levels(base.sam):
        raise ModelError(
            f"expected a SAM or MobileSAM to put {what} on, got {base.name}, for which this is not known here; "
            "save the whole model and load that"
        )


def _frozen(whole: Segmenter, path: Path, other_encoder: bool) -> Segmenter:
    sam: Any = whole.sam
    tied(sam).to(whole.device).eval().requires_grad_(False)
    return Segmenter(whole.name, sam, whole.side, str(path), None if other_encoder else whole.backend)


def _names(base: Segmenter, state: Mapping[str, Tensor]) -> tuple[Card, bool]:
    """A card with the names of the base's kind of encoder, and whether `state` has names of the official layout."""
    card = CARDS["sam_vit_b" if encoder_kind(base) == "vit" else "mobile_sam"]
    heads = [key for key in state if _HEAD.match(key)]
    official = any(key.startswith(OFFICIAL) for key in state) or any(_LATER.search(key) for key in heads)
    theirs = any(".proj_in." in key or ".proj_out." in key for key in heads) or len(heads) < len(state)
    if heads and not official and not theirs:
        raise ModelError(
            f"expected names that tell the layout, got {heads[0]} alone, which is another layer in segment-anything's "
            "than in transformers'; merge it with peft's merge_and_unload() and save the model"
        )
    return card, official


def load_beside_config(state: State, path: Path) -> Segmenter:
    """A `SamModel`'s tensors with the `config.json` that lies beside their file; ModelError in one line for others."""
    from transformers import SamConfig, SamModel

    place = path.with_name("config.json")
    try:
        config = json.loads(place.read_text())
        if config.get("model_type") != "sam" or ENCODER_KEY in config:
            raise ModelError(f"expected the config.json of a SAM beside {path}, got another; give the folder instead")
        sam: Any = SamModel(SamConfig.from_dict(config))
    except ModelError:
        raise
    except Exception as error:  # settings that transformers cannot build from raise errors of any kind
        raise ModelError(f"expected a readable config.json of a SAM beside {path}, got none; save it anew") from error
    fill(sam, tie(state, path), path, f"the SamModel of {place}")
    return _frozen(Segmenter(path.stem, sam, int(sam.config.vision_config.image_size)), path, True)


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file()


def adapter_config(folder: Path) -> dict[str, Any]:
    """What peft wrote of an adapter; ModelError in one line where it is unreadable or no LoRA that can be merged."""
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text())
        kind = str(config["peft_type"])
        float(config["lora_alpha"])
        for pattern, value in (config.get("alpha_pattern") or {}).items():
            re.compile(pattern), float(value)
    except (re.error, AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"expected peft's settings of a LoRA adapter in {path}, got others; save it anew") from error
    if kind != "LORA" or config.get("use_dora"):
        raise ModelError(
            f"expected a LoRA adapter in {folder}, got {'DoRA' if kind == 'LORA' else kind}; "
            "merge it with peft's merge_and_unload() and save the model"
        )
    return dict(config)


def load_adapter(folder: Path, config: Mapping[str, Any], base: Segmenter) -> Segmenter:
    """The model of `base` (which stays as it is) with an adapter of peft's layout merged into its weights.

    W + scale * B A for each pair, with scale = alpha / r (alpha / sqrt(r) for rsLoRA); tensors that the adapter holds
    whole (`modules_to_save`, biases) replace the base's. Raises ModelError in one line for tensors that fit nothing.
    """
    _require_one_level(base, f"a LoRA adapter ({folder})")
    path = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(f"expected {' or '.join(ADAPTER_WEIGHTS)} beside {ADAPTER_CONFIG}, found none in {folder}")
    state = {_plain(key): value for key, value in strip(read_checkpoint(path)).items()}
    require_finite(state, path)
    pairs = {key.split(".lora_")[0] for key in state if ".lora_" in key}
    if not pairs:
        raise ModelError(f"expected pairs of lora_A and lora_B in {path}, found none; save the adapter anew")
    odd = [k for k in state if ".lora_" in k and not k.endswith((".lora_A.weight", ".lora_B.weight"))]
    alone = [m for m in pairs if f"{m}.lora_A.weight" not in state or f"{m}.lora_B.weight" not in state]
    if odd or alone:
        raise ModelError(
            f"expected pairs of lora_A.weight and lora_B.weight in {path}, got {min(odd or alone)}; "
            "merge it with peft's merge_and_unload() and save the model"
        )
    card, official = _names(base, state)
    own: dict[str, Tensor] = base.sam.state_dict()
    merged = {key: value for key, value in state.items() if ".lora_" not in key}
    merged = dict(tie(to_transformers(merged, card) if official else merged, path))
    for module in sorted(pairs):
        key = (
            next(iter(to_transformers({f"{module}.weight": torch.empty(0)}, card))) if official else f"{module}.weight"
        )
        change = _change(state[f"{module}.lora_A.weight"], state[f"{module}.lora_B.weight"], module, config, path)
        if key not in own or own[key].shape != change.shape:
            found = tuple(own[key].shape) if key in own else "none"
            raise ModelError(
                f"expected a base with a weight of {tuple(change.shape)} at {key} for the adapter {folder}, got "
                f"{found} in {base.name}; give the model that it was trained on with --base"
            )
        merged[key] = merged.get(key, own[key]).float() + change.to(own[key].device)
    wrong = [key for key, value in merged.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise ModelError(
            f"expected tensors of {base.name} in {path}, got {len(wrong)} that it has not or of another shape "
            f"(first: {wrong[0]}); give the model that it was trained on with --base"
        )
    encoder = any(key.startswith(f"{ENCODER}.") for key in merged)
    whole = clone(base, folder.resolve().name, share_encoder=not encoder)
    whole.sam.load_state_dict(merged, strict=False)  # the rest is the base's
    return _frozen(whole, folder, encoder)


def _plain(key: str) -> str:
    """A tensor's name without what peft puts between a module and its weights."""
    key = key.removeprefix("base_model.model.").replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
    return re.sub(r"\.(lora_[A-Za-z_]+)\.default\b", r".\1", key)


def _change(a: Tensor, b: Tensor, module: str, config: Mapping[str, Any], path: Path) -> Tensor:
    """What an adapter adds to a weight, float32: A (r, in) and B (out, r), or A (r, in, k, k) and B (out, r, 1, 1)."""
    rank, alpha = len(a), float(config["lora_alpha"])
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):  # as peft has it, where the first counts
            alpha = float(value)
            break
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    if a.ndim < 2 or a.ndim != b.ndim or b.shape[1] != rank or b[0, 0].numel() != 1:
        raise ModelError(f"expected a lora_A and lora_B that fit at {module} in {path}, got {a.shape} and {b.shape}")
    change = scale * (b.float().flatten(1) @ a.float().flatten(1)).reshape(len(b), *a.shape[1:])
    return change.T if config.get("fan_in_fan_out") else change

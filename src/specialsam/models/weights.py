"""Weights: fetched, verified, read, recognised and loaded. Nothing here unpickles code."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import torch
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.core.files import write_whole
from specialsam.models.architectures import (
    DECODER_EPSILON,
    SHARED,
    SHARED_TOO,
    State,
    build,
    official_name,
    to_official,
    to_transformers,
)
from specialsam.models.checkpoints import (
    EDGETAM,
    INSTEAD,
    TRANSFORMERS,
    fold_unit_pixels,
    identify,
    read_checkpoint,
    transformers_card,
)
from specialsam.models.levels import adopt, has_levels, ours
from specialsam.models.sam import tied
from specialsam.models.zoo import CARDS, Card

Progress = Callable[[int, int, str], None]
KINDS = {
    "sam": "SamModel",
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_tracker_video": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
}
"""transformers' model for a folder's `model_type`: of what is made for videos the part for single images."""

CHUNK = 1 << 20
TIMEOUT = 30.0
"""Seconds without an answer after which a download is given up."""
TRANSFORMERS_EPSILON = 1e-6
"""Of the decoder's layer normalisations where transformers trained or converted a model and no configuration says."""
CACHED = ("config.json", "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""What a model on the hub consists of: its configuration, and its weights in one of these forms."""


def load_checkpoint(path: Path, card: Card, unit_pixels: bool = False) -> Any:
    """The `SamModel` of `card` with the weights of a checkpoint of its names or transformers', eval, frozen, float32.

    The weights are not copied: a memory-mapped file is read once, and again as they are used. `unit_pixels` says that
    it was trained on images of 0..1 (`fold_unit_pixels`). Raises ModelError in one line for the checkpoint of another
    model, and for tensors that are missing, unknown, of another shape or not finite.
    """
    state = read_checkpoint(path)
    looks = identify(state)
    theirs = looks == TRANSFORMERS and transformers_card(state) is card
    if (looks in CARDS and looks != card.name) or (looks == TRANSFORMERS and not theirs):
        advice = f"use --model {looks}" if looks in CARDS else "give its folder instead of the file"
        raise ModelError(f"expected weights of {card.name}, got what looks like {looks} ({path}); {advice}")
    epsilon = TRANSFORMERS_EPSILON if theirs else DECODER_EPSILON
    model = build(card, "cpu" if card.encoder == "perception" else "meta", epsilon)
    state = fold_unit_pixels(state) if unit_pixels else state
    ready = to_transformers(state, card) if not theirs else ours(state) if has_levels(model) else state
    fill(model, tie(ready, path), path, card.name, str if theirs else lambda key: official_name(key, card))
    return tied(model).eval().requires_grad_(False)


def tie(state: State, path: Path | str) -> State:
    """Tensors of a `SamModel` with its positional encoding under both of its names; ModelError where they differ."""
    one, other = state.get(SHARED), state.get(SHARED_TOO)
    if one is not None and other is not None and not torch.equal(one, other):
        raise ModelError(f"expected one positional encoding in {path}, got two that differ; tie them first")
    given = one if one is not None else other
    return state if given is None else state | {SHARED: given, SHARED_TOO: given}


def fill(
    sam: Any, state: State, path: Path, what: str, name: Callable[[str], str] = str, parts: Sequence[str] = ()
) -> None:
    """Put tensors by transformers' names into `sam` in float32: all of them, or all of those that begin with `parts`.

    Raises ModelError in one line, before anything is changed, for tensors that are missing, unknown, of another shape
    or not finite; `name` says what they are called in the file at `path`, `what` which model they should fit.
    """
    expected = {key: value for key, value in sam.state_dict().items() if not parts or key.startswith(tuple(parts))}
    missing = [name(key) for key in expected if key not in state and (key != SHARED_TOO or SHARED not in expected)]
    unknown = [name(key) for key in state if key not in expected]
    other = [
        f"{name(key)} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and key != SHARED_TOO and state[key].shape != value.shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", other))
    found = ", ".join(f"{len(names)} {kind} (first: {names[0]})" for kind, names in kinds if names)
    if found:
        raise ModelError(f"expected the tensors of {what} in {path}, got a file with {found}")
    require_finite({name(key): value for key, value in state.items()}, path)
    floats = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    sam.load_state_dict(floats, strict=not parts, assign=True)


def require_finite(tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """Refuse tensors of which one holds NaN or an infinity in single precision; the ModelError names the first."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = torch.aminmax(tensor.detach().float())  # NaN passes through
        if not (low.isfinite() and high.isfinite()):
            raise ModelError(
                f"expected finite weights in {where}, got NaN or infinity in {name}; fetch them or save the model anew"
            )


def weights_folder() -> Path:
    """Where fetched weights are kept: $SPECIALSAM_WEIGHTS, or ~/.cache/specialsam/weights."""
    given = os.environ.get("SPECIALSAM_WEIGHTS")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "specialsam" / "weights"


def weights_path(card: Card) -> Path:
    """Where the file of `card` is kept, whether or not it is there."""
    return weights_folder() / card.filename


def verify(card: Card) -> Path:
    """The fetched file of `card`, its hash found as published; ModelError in one line otherwise."""
    path = weights_path(card)
    if not path.is_file():
        raise ModelError(f"expected {card.filename} in {path.parent}, found no such file; {_advice(card)}")
    _verify(path, card)
    return path


def _advice(card: Card) -> str:
    return f"download {card.url} and put it as {card.filename} into {weights_folder()}"


def _verify(path: Path, card: Card) -> None:
    if card.sha256 is None:
        return
    with path.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if actual != card.sha256:
        raise ModelError(
            f"expected SHA-256 {card.sha256} of {card.filename}, got {actual} ({path}); the file is damaged or another "
            "one: delete it and fetch it anew"
        )


def _stamp(path: Path) -> tuple[Path, str]:
    """The file that says which state of `path` was verified, and what it says of the present one."""
    facts = path.stat()
    return path.with_name(f"{path.name}.verified"), f"{facts.st_size} {facts.st_mtime_ns}"


def fetch(card: Card, progress: Progress | None = None) -> Path:
    """The verified file of `card`, downloaded where it is not there yet; `progress(done, total, name)` in bytes.

    A file is hashed once, and again whenever its size or time changes. Raises ModelError in one line: with the address,
    the file name and the folder to put it in where the download fails, with both hashes where the file is damaged.
    """
    if not card.url:
        raise ModelError(f"expected a model that can be fetched, got {card.name}, which has no address")
    path = weights_path(card)
    if not path.is_file():
        _download(card, path, progress)
    beside, facts = _stamp(path)
    wanted = f"{card.sha256} {facts}\n"
    if card.sha256 is None or (beside.is_file() and beside.read_text() == wanted):
        return path
    _verify(path, card)
    if os.access(path.parent, os.W_OK):
        write_whole(beside, lambda file: file.write_text(wanted))
    return path


def _download(card: Card, path: Path, progress: Progress | None) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(card.url, timeout=TIMEOUT) as answer, part.open("wb") as stream:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while chunk := answer.read(CHUNK):
                done += stream.write(chunk)
                if progress is not None:
                    progress(done, max(total, done), card.filename)
        if done < total:
            raise OSError(f"the connection ended after {done} of {total} bytes")
        _verify(part, card)
        part.replace(path)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelError(f"cannot fetch {card.name} ({reason}); {_advice(card)}") from error
    finally:
        part.unlink(missing_ok=True)


def is_cached(hub_id: str) -> bool:
    """Whether the local hub cache holds a model's configuration and weights, so that no network is needed."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        here = [isinstance(try_to_load_from_cache(hub_id, name), str) for name in CACHED]
    except HFValidationError:  # no id that the hub could have
        return False
    return here[0] and any(here[1:])


def load_transformers(source: Path | str, local: bool = False) -> Any:
    """The model of a transformers folder or hub id (KINDS), in eval mode, frozen, float32; `local`: without a network.

    Its own configuration counts: published folders say epsilon 1e-6 for the decoder where the original has 1e-5, which
    moves logits by up to 1e-3. Raises ModelError in one line where it cannot be read, is no SAM, is incomplete, or has
    weights that are not finite.
    """
    import transformers
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        config, _ = transformers.PreTrainedConfig.get_config_dict(str(source), local_files_only=local)
        kind = str(config.get("model_type"))
        if kind.startswith("edgetam"):
            raise ModelError(f"expected a SAM, got {EDGETAM} ({source})")
        if kind not in KINDS:
            raise ModelError(
                f"expected a transformers folder or hub id of a SAM, got one of type {kind!r} ({source}); {INSTEAD}"
            )
        model, info = getattr(transformers, KINDS[kind]).from_pretrained(
            str(source), output_loading_info=True, dtype=torch.float32, local_files_only=local
        )
    except ModelError:
        raise
    except Exception as error:  # hub, file and format errors are of any kind
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"expected a transformers folder or a reachable hub id, cannot load {source} ({line[:160]}); "
            "download the folder elsewhere and give its path"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
    wrong = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
    found = ", ".join(f"{len(names)} {kind} (first: {names[0]})" for kind, names in wrong.items() if names)
    if found:
        raise ModelError(f"expected all tensors of a {KINDS[kind]} in {source}, got {found}")
    require_finite(model.state_dict(), source)
    model = model if KINDS[kind] == "SamModel" else tied(adopt(model))
    return model.eval().requires_grad_(False)


__all__ = [
    "fetch",
    "fill",
    "identify",
    "is_cached",
    "load_checkpoint",
    "load_transformers",
    "read_checkpoint",
    "require_finite",
    "tie",
    "to_official",
    "to_transformers",
    "verify",
    "weights_folder",
    "weights_path",
]

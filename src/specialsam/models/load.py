"""`load_model`: one name for every kind of model.

A zoo name, a checkpoint file in segment-anything's or MobileSAM's layout, a transformers folder or hub id, or a
specialist folder. Whoever gives a name is trusted with it; the name of a base that a specialist's card gives is a
stranger's, and nothing is fetched from the hub for it unless the caller says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from specialsam.core.errors import ModelError, UsageError
from specialsam.models.segmenter import Segmenter, usable_device

CHECKPOINTS = (".pth", ".pt", ".safetensors")
BUNDLED = Path(__file__).with_name("bundled")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Search:
    """How models are looked for, and the specialists (resolved) on the way whose base is looked for at present."""

    progress: Progress | None
    trust_base: bool
    above: tuple[Path, ...] = ()
    card: Path | None = None
    """The specialist folder whose card gave the name; None where the caller gave it."""


def load_model(
    name: str | Path,
    base: str | Path | None = None,
    progress: Progress | None = None,
    *,
    device: torch.device | str = "cpu",
    trust_base: bool = False,
) -> Segmenter:
    """Load a segmenter in eval mode, frozen, on `device`.

    `base` says which model a checkpoint file belongs to (a zoo name; guessed from its keys where left out), or on which
    base a specialist is to be loaded (its own base where left out). `trust_base` lets a base that a specialist's card
    names be fetched from the hub; without it such a base is taken from the local hub cache alone. Raises ModelError or
    UsageError in one line, for weights that are not finite too.
    """
    place = usable_device(device)
    segmenter = _load(str(name), None if base is None else str(base), _Search(progress, trust_base))
    segmenter.sam.to(place)
    return segmenter


def load_base(
    folder: Path,
    progress: Progress | None = None,
    *,
    device: torch.device | str = "cpu",
    trust_base: bool = False,
) -> Segmenter:
    """The base of a specialist folder, as its card names it; options and errors as those of `load_model`."""
    place = usable_device(device)
    segmenter = _load_base(folder, None, _Search(progress, trust_base))
    segmenter.sam.to(place)
    return segmenter


def _load(text: str, base: str | None, search: _Search) -> Segmenter:
    from specialsam.models.zoo import CARDS

    path = Path(text)
    if text == "nano":
        from specialsam.models.folder import load_pretrained

        return load_pretrained(BUNDLED / "nano", "nano")
    if text in CARDS:
        from specialsam.models.weights import fetch

        return _from_checkpoint(fetch(CARDS[text], search.progress), text)
    if path.is_dir():
        from specialsam.models.folder import load_pretrained
        from specialsam.models.specialist import is_specialist, load_specialist

        if is_specialist(path):
            return load_specialist(path, _load_base(path, base, search))
        return load_pretrained(path)
    if path.suffix in CHECKPOINTS:
        if not path.exists():
            raise ModelError(f"expected a checkpoint at {path}, found no such file")
        return _from_checkpoint(path, base)
    if text.count("/") == 1 and path.parent.is_dir() and text[0] != "/":
        raise ModelError(f"expected a model folder or file at {path}, found none in {path.parent}/")
    if text.count("/") == 1 and not path.exists():
        return _from_hub(text, search)
    known = ", ".join([*CARDS, "nano"])
    raise UsageError(
        f"expected a model of {known}, a checkpoint file, a transformers folder or hub id, or a specialist folder; "
        f"got {text!r}"
    )


def _load_base(folder: Path, given: str | None, search: _Search) -> Segmenter:
    """The base of a specialist: as given, or as its card says."""
    from specialsam.models.specialist import read_card

    here = folder.resolve()
    if search.above and search.above[-1] == here:
        raise ModelError(f"expected the model that {folder} was tuned on as its base, got the specialist itself")
    if here in search.above:
        circle = " -> ".join(map(str, (*search.above[search.above.index(here) :], here)))
        raise ModelError(f"expected specialists whose bases end at a model, got a circle ({circle}); give another base")
    wanted = given or read_card(folder).base
    below = replace(search, above=(*search.above, here), card=None if given else folder)
    try:
        return _load(wanted, None, below)
    except UsageError as error:
        if given:
            raise
        raise ModelError(
            f"expected the base of {folder} here, its card names {wanted!r}, which is no model that is known or found; "
            "put it there, or give a base of your own"
        ) from error


def _from_hub(name: str, search: _Search) -> Segmenter:
    from specialsam.models.weights import is_cached, load_transformers

    local = search.card is not None and not search.trust_base
    if local and not is_cached(name):
        raise ModelError(
            f"expected the base of {search.card} here, the specialist's card names the hub model {name}, "
            "which is fetched only with --trust-base"
        )
    sam = load_transformers(name, local)
    return Segmenter(name, sam, int(sam.config.vision_config.image_size), name)


def _from_checkpoint(path: Path, name: str | None) -> Segmenter:
    from specialsam.models.weights import identify, load_checkpoint, read_checkpoint
    from specialsam.models.zoo import CARDS

    if name is None:
        name = identify(read_checkpoint(path))
        if name not in CARDS:
            raise ModelError(f"expected the checkpoint of one of {', '.join(CARDS)}, {path.name} looks like {name}")
    if name not in CARDS:
        raise UsageError(f"expected a zoo model of {', '.join(CARDS)} for {path.name}, got {name!r}")
    card = CARDS[name]
    return Segmenter(name, load_checkpoint(path, card), card.side, str(path))


def verify_bundled() -> Path:
    """The bundled nano's weights, checked against its card; ModelError where they differ."""
    from specialsam.models.zoo import NANO

    path = BUNDLED / NANO.name / NANO.filename
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != NANO.sha256:
        raise ModelError(f"expected {path} with sha256 {NANO.sha256}, got {found}; install specialsam anew")
    return path

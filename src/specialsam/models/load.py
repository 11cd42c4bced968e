"""`load_model`: one name for every kind of model.

A zoo name, a checkpoint file (`checkpoints`), a mask decoder or LoRA adapter on a base (`parts`), a transformers folder
or hub id, or a specialist folder. Whoever gives a name is trusted with it; the name of a base that a specialist's card
or an adapter gives is a stranger's, and nothing is fetched from the hub for it unless the caller says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from specialsam.core.console import say
from specialsam.core.errors import ModelError, UsageError
from specialsam.models.segmenter import Segmenter, side_of, usable_device

CHECKPOINTS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt")
MEDSAM = "medsam"
"""What `base` says of a file that was trained on images of 0..1, as MedSAM was."""
MEDSAM_CARD = "sam_vit_b"
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

    `base` says which model a checkpoint file belongs to (a zoo name; guessed from its content where left out; "medsam"
    for a ViT-B trained on images of 0..1), any model on which a mask decoder or LoRA adapter is to be put, or on which
    a specialist is to be loaded (for the last two, their own base where left out). `trust_base` lets a base that a
    specialist's card or an adapter names be fetched from the hub; without it such a base is taken from the local hub
    cache alone. Raises ModelError or UsageError in one line, for weights that are not finite too.
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

        return _from_checkpoint(fetch(CARDS[text], search.progress), text, search)
    if path.is_dir():
        from specialsam.models.folder import load_pretrained
        from specialsam.models.parts import is_adapter
        from specialsam.models.specialist import is_specialist, load_specialist

        if is_specialist(path):
            return load_specialist(path, _load_base(path, base, search))
        if is_adapter(path):
            return _from_adapter(path, base, search)
        if base == MEDSAM:
            raise ModelError(f"expected a file for --base {MEDSAM}, got the folder {path}; give its model.safetensors")
        _say_medsam(path.resolve().name)
        return load_pretrained(path)
    if path.is_file() or path.suffix in CHECKPOINTS:
        if not path.exists():
            raise ModelError(f"expected a checkpoint at {path}, found no such file")
        return _from_checkpoint(path, base, search)
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

    return _base_of(folder, given or read_card(folder).base, given, search)


def _base_of(folder: Path, wanted: str, given: str | None, search: _Search) -> Segmenter:
    """The model called `wanted` for a folder that is not whole without it; never the folder itself, nor a circle."""
    here = folder.resolve()
    if search.above and search.above[-1] == here:
        raise ModelError(f"expected the model that {folder} was tuned on as its base, got the specialist itself")
    if here in search.above:
        circle = " -> ".join(map(str, (*search.above[search.above.index(here) :], here)))
        raise ModelError(f"expected specialists whose bases end at a model, got a circle ({circle}); give another base")
    below = replace(search, above=(*search.above, here), card=None if given else folder)
    try:
        return _load(wanted, None, below)
    except UsageError as error:
        if given:
            raise
        raise ModelError(
            f"expected the base of {folder} here, {_namer(folder)} {wanted!r}, which is no model that is known or "
            "found; put it there, or give a base of your own"
        ) from error


def _namer(folder: Path | None) -> str:
    """Who names the base of a folder, for a refusal."""
    from specialsam.models.parts import is_adapter

    return "the adapter's settings name" if folder and is_adapter(folder) else "the specialist's card names"


def _from_hub(name: str, search: _Search) -> Segmenter:
    from specialsam.models.weights import is_cached, load_transformers

    local = search.card is not None and not search.trust_base
    if local and not is_cached(name):
        raise ModelError(
            f"expected the base of {search.card} here, {_namer(search.card)} the hub model {name}, "
            "which is fetched only with --trust-base"
        )
    _say_medsam(name)
    sam = load_transformers(name, local)
    return Segmenter(name, sam, side_of(sam), name)


def _from_adapter(folder: Path, given: str | None, search: _Search) -> Segmenter:
    """A LoRA adapter merged on the base that is given, else on the one that it names."""
    from specialsam.models.parts import adapter_config, load_adapter

    config = adapter_config(folder)
    wanted = given or config.get("base_model_name_or_path")
    if not wanted:
        raise ModelError(f"expected the base of the LoRA adapter {folder}, its settings name none; give it with --base")
    return load_adapter(folder, config, _base_of(folder, str(wanted), given, search))


def _from_checkpoint(path: Path, base: str | None, search: _Search) -> Segmenter:
    """The model of a file: whole by itself, or a part of one that is put on `base`."""
    from specialsam.models.checkpoints import ADAPTER, DECODER, TRANSFORMERS, identify, said_of, transformers_card
    from specialsam.models.parts import is_adapter, load_beside_config, put_on
    from specialsam.models.weights import load_checkpoint, read_checkpoint
    from specialsam.models.zoo import CARDS

    state = read_checkpoint(path)
    looks = identify(state)
    if looks == ADAPTER:
        if is_adapter(path.parent):
            return _from_adapter(path.parent, base, search)
        raise ModelError(
            f"expected adapter_config.json beside the LoRA adapter {path}, found none, so that its scale is unknown; "
            "put it there, or merge it with peft's merge_and_unload() and save the model"
        )
    if looks == DECODER and base in (None, MEDSAM):
        raise ModelError(
            f"expected a whole model in {path}, got {looks}, without its image encoder; give the model that it belongs "
            f"to with --base (once for all: specialsam export {path} --base MODEL -o FOLDER)"
        )
    if looks == TRANSFORMERS and base is None and (path.parent / "config.json").is_file():
        return load_beside_config(state, path)
    card = transformers_card(state) if looks == TRANSFORMERS else CARDS.get(looks)
    if base == MEDSAM or (base is None and MEDSAM in path.name.lower()):
        _check_medsam(path, base, card.name if card else said_of(state))
        say(
            f"note: {MEDSAM} was trained on pictures stretched to a square; here those of other shapes are padded, so "
            "that its answers to them are not those of its authors' code: crop or scale pictures to squares for these"
        )
        return Segmenter(MEDSAM, load_checkpoint(path, CARDS[MEDSAM_CARD], True), CARDS[MEDSAM_CARD].side, str(path))
    if base is not None and (base not in CARDS or looks == DECODER):
        return put_on(_load(base, None, search), state, path)
    name = base or (card.name if card else None)
    if name is None:
        advice = "; give its folder" if looks == "nano" else ""
        if looks == TRANSFORMERS:
            advice = " of other sizes; put its config.json beside it, or give a model of the same sizes with --base"
        raise ModelError(
            f"expected the checkpoint of one of {', '.join(CARDS)}, {path.name} looks like {said_of(state)}{advice}"
        )
    return Segmenter(name, load_checkpoint(path, CARDS[name]), CARDS[name].side, str(path))


def _say_medsam(name: str) -> None:
    """Tell of a transformers folder or hub id that looks like MedSAM's by its name."""
    if MEDSAM in name.lower():
        say(
            f"note: {name} looks like MedSAM by its name and gets SAM's preprocessing; if it was trained on images of "
            f"0..1, give its model.safetensors with --base {MEDSAM}"
        )


def _check_medsam(path: Path, base: str | None, looks: str) -> None:
    """Refuse a file of MedSAM's that says of itself no more than its name does, or is not of MedSAM's architecture."""
    if looks != MEDSAM_CARD:
        raise ModelError(
            f"expected MedSAM's {MEDSAM_CARD} in {path}, got {looks}; LiteMedSAM (images of 256 px) and others of its "
            "family are not known here"
        )
    if base is None:
        raise ModelError(
            f"{path} looks like MedSAM by its name, which was trained on images scaled to 0..1 and not on SAM's; give "
            f"--base {MEDSAM} to load it so, or --base {MEDSAM_CARD} if it was tuned on SAM's or written by specialsam"
        )


def verify_bundled() -> Path:
    """The bundled nano's weights, checked against its card; ModelError where they differ."""
    from specialsam.models.zoo import NANO

    path = BUNDLED / NANO.name / NANO.filename
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != NANO.sha256:
        raise ModelError(f"expected {path} with sha256 {NANO.sha256}, got {found}; install specialsam anew")
    return path

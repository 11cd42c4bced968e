"""`load_model`: one name for every kind of model.

A zoo name, a checkpoint file in segment-anything's or MobileSAM's layout, a transformers folder or hub id, or a
specialist folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from specialsam.core.errors import ModelError, UsageError
from specialsam.models.segmenter import Segmenter

CHECKPOINTS = (".pth", ".pt", ".safetensors")
BUNDLED = Path(__file__).with_name("bundled")


def load_model(
    name: str | Path,
    base: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Segmenter:
    """Load a segmenter in eval mode, frozen.

    `base` says which model a checkpoint file belongs to (a zoo name; guessed from its keys where left out), or on which
    base a specialist is to be loaded (its own base where left out). Raises ModelError or UsageError in one line.
    """
    from specialsam.models.zoo import CARDS

    text, path = str(name), Path(name)
    if text == "nano":
        from specialsam.models.folder import load_pretrained

        return load_pretrained(BUNDLED / "nano", "nano")
    if text in CARDS:
        from specialsam.models.weights import fetch

        return _from_checkpoint(fetch(CARDS[text], progress), text)
    if path.is_dir():
        from specialsam.models.folder import load_pretrained
        from specialsam.models.specialist import is_specialist, load_specialist, read_card

        if is_specialist(path):
            own = base or read_card(path).base
            if Path(own).resolve() == path.resolve():
                raise ModelError(f"expected the model that {path} was tuned on as its base, got the specialist itself")
            return load_specialist(path, load_model(own, progress=progress))
        return load_pretrained(path)
    if path.suffix in CHECKPOINTS:
        if not path.exists():
            raise ModelError(f"expected a checkpoint at {path}, found no such file")
        return _from_checkpoint(path, None if base is None else str(base))
    if text.count("/") == 1 and path.parent.is_dir() and text[0] != "/":
        raise ModelError(f"expected a model folder or file at {path}, found none in {path.parent}/")
    if text.count("/") == 1 and not path.exists():
        from specialsam.models.weights import load_transformers

        sam = load_transformers(text)
        return Segmenter(text, sam, int(sam.config.vision_config.image_size), text)
    known = ", ".join([*CARDS, "nano"])
    raise UsageError(
        f"expected a model of {known}, a checkpoint file, a transformers folder or hub id, or a specialist folder; "
        f"got {text!r}"
    )


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

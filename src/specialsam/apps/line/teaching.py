"""Good pictures that set the threshold on the spot, kept beside the events so that a restart need not look again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from specialsam.apps.appearance import Appearance
from specialsam.apps.line.decision import Taught, known_scores, teach
from specialsam.apps.photographs import gather
from specialsam.apps.session import Session
from specialsam.core.console import complain
from specialsam.core.errors import DataError, UsageError
from specialsam.core.files import read_json, write_whole
from specialsam.core.ledger import digest
from specialsam.data.images import read_image
from specialsam.models import memory

TAUGHT, MEMORY = "taught.json", "taught.safetensors"
REMEDY = "remove it, and the good pictures are looked at anew"


def taught_by(session: Session, places: Sequence[Path], out: Path) -> Taught:
    """What good pictures teach, or without any what the specialist knows; UsageError where it knows nothing."""
    if not places:
        return known_scores(session)
    files, problems = gather(places)
    for problem in problems:
        complain(f"left out: {problem.message}")
    stamps = [[name, path.stat().st_size, path.stat().st_mtime_ns] for name, path in files.items()]
    made_from = digest(session.identity, stamps)
    if (out / TAUGHT).exists():
        kept = read_json(out / TAUGHT, REMEDY)
        if isinstance(kept, dict) and kept.get("made_from") == made_from:
            return _read(kept, out)
    images = []
    for name, path in files.items():
        try:
            images.append((name, read_image(path)))
        except DataError as error:
            complain(f"left out: {error}")
    if not images:
        raise UsageError(f"expected readable good pictures to teach, got {len(files)} that are not")
    found = teach(session, images)
    if found.memory is not None:
        held = memory.tensors(found.memory)
        write_whole(out / MEMORY, lambda path: save_file(held, path))
    look = found.appearance
    text = json.dumps(
        {
            "made_from": made_from,
            "scores": found.scores,
            "size": look.size if look else None,
            "grey": look.grey if look else None,
            "memory": found.memory is not None,
        }
    )
    write_whole(out / TAUGHT, lambda path: path.write_text(text + "\n"))
    return found


def _read(kept: dict[str, Any], out: Path) -> Taught:
    try:
        height, width = kept["size"]
        scores = tuple(float(score) for score in kept["scores"])
        held = memory.read(load_file(out / MEMORY)) if kept["memory"] else None
        return Taught(scores, Appearance((int(height), int(width)), bool(kept["grey"])), held)
    except Exception as error:
        raise DataError(
            f"expected what good pictures taught in {out / TAUGHT}, got a damaged file; {REMEDY}"
        ) from error

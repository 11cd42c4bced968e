"""The data set that corrected masks join: a plain folder (images/, masks/) and a journal of who and when."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from specialsam.apps.web.messages import Saved, SavedOne
from specialsam.core.documents import parse_json
from specialsam.core.errors import UsageError
from specialsam.core.names import printable

JOURNAL = "corrections.jsonl"
SHOWN = 8
LARGEST_JOURNAL = 50_000_000


class Corrections:
    """A data set folder; threads share it. Its own folders are none that a link leads away with."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._lock = folder, threading.Lock()
        for place in (folder, folder / "images", folder / "masks", folder / JOURNAL):
            if place.is_symlink():
                raise UsageError(f"expected a folder without links for corrections, got the link {place}")

    def make(self) -> None:
        """Make the folders where there are none."""
        for name in ("images", "masks"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def job(self, key: str, path: Path, masks: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What the model's process is to write; named by the picture's bytes, so that a second look counts."""
        self.make()
        name = f"web-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
        for place in [self.folder / "images" / f"{name}.png", *(self.folder / "masks").glob(f"{name}*.png")]:
            if place.is_symlink():
                raise UsageError("expected no link in the folder of corrections, got one")
        where = {"folder": str(self.folder), "name": name, "path": str(path)}
        return {"kind": "keep", "key": key, "masks": list(masks), **where}

    def note(self, name: str, who: str, files: Sequence[str]) -> None:
        """A line in the journal, once the files are there."""
        when = datetime.now(UTC).isoformat(timespec="seconds")
        line = {"when": when, "who": printable(who.strip()) or "unknown", "image": f"{name}.png", "masks": list(files)}
        with self._lock, (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def listed(self) -> Saved:
        """How many pictures have masks, and the newest lines of the journal."""
        masks = self.folder / "masks"
        named = {path.stem for path in masks.iterdir() if path.suffix == ".png"} if masks.is_dir() else set()
        images = self.folder / "images"
        pictures = [path.stem for path in images.iterdir() if not path.name.startswith(".")] if images.is_dir() else []
        count = sum(stem in named or f"{stem}_1" in named for stem in pictures)
        return Saved(folder=printable(self.folder.name), pictures=count, recent=self._recent())

    def _recent(self) -> list[SavedOne]:
        path = self.folder / JOURNAL
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_JOURNAL:
            return []
        out = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:]:
            try:
                kept = parse_json(line)
                fields = {"name": str(kept["image"]), "who": str(kept["who"]), "when": str(kept["when"])}
                out.append(SavedOne(objects=len(kept["masks"]), **fields))
            except (ValueError, KeyError, TypeError):
                continue
        return out[::-1]

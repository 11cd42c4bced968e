"""Finds the image files that an annotation file names: whatever separators, folders, case and Unicode form it has."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from specialsam.core.types import Split
from specialsam.data.content import digest_file
from specialsam.data.headers import SUFFIXES
from specialsam.data.matching import nearest, plain
from specialsam.data.pairs import SPLIT_NAMES, Found, leads_on

MOST_FILES = 2_000_000
NO_PICTURES = (
    "mask",
    "masks",
    "labels",
    "annotations",
    "gt",
    "thumbnails",
    "thumbs",
    "preview",
    "previews",
    "overlays",
)
"""Folders whose files count only where no other holds the name."""


class Ambiguous(Exception):
    """A name that fits several files which nothing tells apart."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(", ".join(str(path) for path in paths))
        self.paths = tuple(paths)


def split_of(words: str) -> Split | None:
    """The split that a word of a text states (instances_train2017, val-images)."""
    found = re.findall(r"[a-z]+", words.lower())
    return next((SPLIT_NAMES[word] for word in found if word in SPLIT_NAMES), None)


def parts_of_name(name: str) -> tuple[str, ...]:
    """The parts of a path as any system or server writes it; `..`, drives and queries are left out."""
    slashed = name.replace("\\", "/")
    slashed = slashed.rpartition("?d=")[2] if "?d=" in slashed else slashed
    parts = [
        part for part in slashed.split("/") if part not in ("", ".", "..") and not re.fullmatch(r"[A-Za-z]:", part)
    ]
    return tuple(re.sub(r"^[A-Za-z]:", "", part) for part in parts)


class ImageIndex:
    """All image files below a folder by their names; `own` is the annotation file that names them."""

    def __init__(self, folder: Path, own: Path, split: Split | None) -> None:
        self.folder, self.beside, self.split = folder, own.parent, split
        self.paths: dict[str, list[Path]] = defaultdict(list)
        self.plain: dict[str, list[Path]] = defaultdict(list)
        self.cover: Path | None = None
        count, seen = 0, {os.path.realpath(folder)}
        for parent, folders, names in os.walk(folder, followlinks=True):
            inside = [name for name in folders if not name.startswith((".", "__MACOSX"))]
            folders[:] = sorted(name for name in inside if leads_on(Path(parent, name), folder, seen))
            for name in names:
                if Path(name).suffix.lower() in SUFFIXES:
                    self.paths[name].append(Path(parent, name))
                    self.plain[plain(name)].append(Path(parent, name))
            count += len(names)
            if count > MOST_FILES:
                break

    def find(self, name: str) -> Path | None:
        """The file of a name, None for none; Ambiguous where several fit and nothing tells them apart."""
        parts = parts_of_name(name)
        if not parts:
            return None
        whole = self.beside.joinpath(*parts)
        if _is_file(whole):
            return whole
        for names, every in ((parts, self.paths.get(parts[-1])), (_unquoted(parts), None)):
            found = every or self.paths.get(names[-1]) or self.plain.get(plain(names[-1]), [])
            if found := [path for path in found if _is_file(path)]:
                return self._best(names, found)
        return None

    def of_stem(self, stem: str) -> list[Path]:
        """The files of a name without ending."""
        wanted = plain(stem)
        return [path for path in self.plain.get(wanted, []) if _is_file(path)]

    def nearest(self, name: str) -> str:
        """The file name that is most like a name which was not found."""
        parts = parts_of_name(name)
        return nearest(parts[-1], [*self.paths]) if parts and len(self.paths) < 20_000 else ""

    def unlisted(self, found: Found) -> str:
        """A note on the images of which neither a record nor a problem of `found` speaks; "" where there are none.

        Folders of masks and the like do not count.
        """
        known = {record.image for record in found.records} | {problem.path for problem in found.problems}
        paths = sorted(path for every in self.paths.values() for path in every if path not in known)
        rest = [path for path in (path.relative_to(self.folder) for path in paths) if not _drawn(path)]
        some = ", ".join(path.as_posix() for path in rest[:3])
        more = ", ..." if len(rest) > 3 else ""
        return f"{len(rest)} images that no annotation file lists were left out ({some}{more})" if rest else ""

    def _best(self, parts: Sequence[str], found: Sequence[Path]) -> Path:
        ranks = {path: self._rank(path, parts) for path in found}
        best = [path for path in found if ranks[path] == min(ranks.values())]
        best = [path for path in best if path.parent == self.cover] or best
        if len(best) > 1 and len({digest_file(path) for path in best}) > 1:
            raise Ambiguous(sorted(best))
        return min(best)

    def _rank(self, path: Path, parts: Sequence[str]) -> tuple[int, int, int]:
        """The lower, the likelier: the split agrees, more of the stated path agrees, no folder of masks."""
        below = path.relative_to(self.folder).parts
        splits = {split for part in below[:-1] if (split := split_of(part))}
        other = 0 if self.split in splits else 2 if self.split and splits else 1
        same = 0
        while same < min(len(parts), len(below)) and plain(parts[-1 - same]) == plain(below[-1 - same]):
            same += 1
        return (-same if same > 1 else 0), other, int(_drawn(path.relative_to(self.folder)))

    def prefer(self, names: Iterable[str]) -> None:
        """Prefer the one folder that holds all of these names, where only one does."""
        last = [parts[-1] for name in names if (parts := parts_of_name(name))]
        folders = [{path.parent for path in self.paths.get(name, ())} for name in last]
        every = set.intersection(*folders) if folders else set()
        self.cover = next(iter(every)) if len(every) == 1 else None


def _drawn(path: Path) -> bool:
    """Whether a path in the data set leads through a folder whose files are masks or copies."""
    return any(part.lower() in NO_PICTURES for part in path.parts[:-1])


def _unquoted(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(unquote(part) for part in parts)


def _is_file(path: Path) -> bool:
    """True for a file; False for a name that no file can have (too long, a zero byte) as well."""
    with suppress(OSError, ValueError):
        return path.is_file()
    return False

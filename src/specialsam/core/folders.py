"""A folder of whole files: on this machine as it is, elsewhere (`s3://`, `gs://`, `file://`) through local copies.

What lies elsewhere is read from whole copies in a cache of limited size, so that everything behind it maps files as it
always does. Written is a file here first, then it is put there whole: object storage shows a file whole or not at all.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from specialsam.core.errors import DataError, SpecialSamError, UsageError

CACHE = "SPECIALSAM_CACHE"
CACHE_GB = "SPECIALSAM_CACHE_GB"
"""Environment variables: the cache (else ~/.cache/specialsam), and how many 10^9 bytes of copies it keeps (else 50)."""
DEFAULT_GB = 50.0
COPIES, COMING = "copies", ".coming"
"""Folder of the cache with the copies of all mirrored folders, and that below each of these in which one begins."""
LISTING = ".listing.json"
"""What a mirrored tree held when it was last looked at: size and version of each file."""
UNUSED_DAYS = 30
"""Days after which what a machine keeps for jobs to come, and none asked for, is removed."""
MARK = ".in-use"
"""File in a folder of the cache whose time says when a job last asked for it."""
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://+(.*)", re.DOTALL)


class Folder:
    """A folder on this machine, one level deep; nothing is made before something is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        """What names it in every process of this machine, and as `folder` takes it."""
        return str(self.path.absolute())

    def below(self, *names: str) -> Folder:
        """A folder in this one."""
        return Folder(self.path.joinpath(*names))

    @property
    def work(self) -> Path:
        """Where a job on it keeps what it needs for itself, such as its lock; no copy of anything."""
        return self.path

    @property
    def writable(self) -> bool:
        """Whether this process may write to it; False where it does not exist."""
        return os.access(self.path, os.W_OK)

    def folders(self) -> list[str]:
        """Names of the folders in it, sorted; none where it does not exist."""
        return sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir()) if self.path.is_dir() else []

    def sizes(self, suffix: str) -> dict[str, int]:
        """Bytes of each file with that ending, by name; one that another process removes meanwhile is not there."""
        out: dict[str, int] = {}
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path) as listed:
            for entry in listed:
                if entry.name.endswith(suffix) and not entry.name.startswith("."):
                    with suppress(FileNotFoundError):
                        out[entry.name] = entry.stat().st_size
        return out

    def fetch(self, name: str) -> Path:
        """A file to read or map; FileNotFoundError where there is none."""
        return self.path / name

    def head(self, name: str, count: int) -> bytes:
        """The first `count` bytes of a file, without a copy of the rest; FileNotFoundError where there is none."""
        with (self.path / name).open("rb") as file:
            return file.read(count)

    def publish(self, local: Path, name: str) -> None:
        """Let everybody see a file that has been written whole, here or in another folder of this machine."""
        if local.parent != self.path:
            self.path.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(local, self.path / name)

    def remove(self, name: str) -> None:
        """Take a file away; nothing where there is none. OSError where it cannot be."""
        (self.path / name).unlink(missing_ok=True)

    def take(self, other: Folder, name: str) -> None:
        """Move a file of another folder of the same kind here; what a killed call began ends in a second one."""
        self.path.mkdir(parents=True, exist_ok=True)
        source, beside = other.path / name, self.path / f".{name}.{os.getpid()}.tmp"
        try:
            source.replace(self.path / name)
        except OSError:  # another disk
            shutil.copyfile(source, beside)
            beside.replace(self.path / name)
            source.unlink()

    def clear(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)


class Mirror(Folder):
    """A folder of a file system that fsspec knows; `path` is where its local copies lie."""

    def __init__(self, url: str) -> None:
        scheme, where = _parts(url)
        self.url, self.root = f"{scheme}://{where}", cache_folder() / COPIES
        self.system, self._where = _system(self.url)
        super().__init__(self.root / scheme / where)

    def __str__(self) -> str:
        return self.url

    def below(self, *names: str) -> Mirror:
        return Mirror("/".join((self.url, *names)))

    @property
    def work(self) -> Path:
        return self.root.with_name("jobs") / self.path.relative_to(self.root)

    @property
    def writable(self) -> bool:
        return True

    def folders(self) -> list[str]:
        return sorted(name for name, info in self._listed().items() if info["type"] == "directory")

    def sizes(self, suffix: str) -> dict[str, int]:
        found = self._listed().items()
        return {name: int(info["size"]) for name, info in found if info["type"] == "file" and name.endswith(suffix)}

    def _listed(self) -> dict[str, dict[str, Any]]:
        self.system.invalidate_cache(self._where)
        try:
            listed = self.system.ls(self._where, detail=True)
        except FileNotFoundError:
            return {}
        return {info["name"].rstrip("/").rpartition("/")[2]: info for info in listed}

    def fetch(self, name: str) -> Path:
        local = self.path / name
        with suppress(FileNotFoundError):
            if local.stat().st_mtime:
                os.utime(local)
                return local
        beside = self.path / COMING / f"{name}.{uuid.uuid4().hex[:8]}"
        beside.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.system.get_file(f"{self._where}/{name}", str(beside))
            make_room(self.root, beside.stat().st_size)
            beside.replace(local)
        finally:
            with suppress(OSError):
                beside.unlink()
        return local

    def head(self, name: str, count: int) -> bytes:
        with self.system.open(f"{self._where}/{name}", "rb", cache_type="none") as file:  # cat_file(0, n) fails on s3
            return bytes(file.read(count))

    def publish(self, local: Path, name: str) -> None:
        target = f"{self._where}/{name}"
        if getattr(self.system, "protocol", None) in ("file", ("file", "local")):  # no whole files by themselves
            beside = f"{self._where}/.{name}.{uuid.uuid4().hex[:8]}.tmp"
            self.system.makedirs(self._where, exist_ok=True)
            self.system.put_file(str(local), beside)
            self.system.mv(beside, target)
        else:
            self.system.put_file(str(local), target)

    def remove(self, name: str) -> None:
        super().remove(name)
        with suppress(FileNotFoundError):
            self.system.rm_file(f"{self._where}/{name}")

    def take(self, other: Folder, name: str) -> None:
        assert isinstance(other, Mirror)
        if self.system.exists(f"{other._where}/{name}"):
            self.system.makedirs(self._where, exist_ok=True)
            self.system.cp_file(f"{other._where}/{name}", f"{self._where}/{name}")
        other.remove(name)

    def clear(self) -> None:
        super().clear()
        with suppress(FileNotFoundError):
            self.system.rm(self._where, recursive=True)


def mirrored(url: str, later: Collection[str]) -> Path:
    """The tree at a URL as a local one: files with endings of `later` stand there without content until `at_hand`.

    All others are fetched. What has gone or changed there since the last call goes here. DataError where nothing is.
    """
    top = Mirror(url)
    top.system.invalidate_cache()
    found = {str(name).removeprefix(top._where).lstrip("/"): info for name, info in _find(top).items()}
    if not found:
        raise DataError(f"{top}: expected a data set folder, found nothing there")
    outside = [name for name in found if ".." in name.split("/")]
    if outside:
        raise DataError(f"{top}: expected names that stay in the folder, got {outside[0]!r}; rename it there")
    kept: dict[str, list[object]] = {}
    listing = top.path / LISTING
    with suppress(OSError, ValueError):
        kept = json.loads(listing.read_text())
    now = {name: [info["size"], str(info.get("ETag") or info.get("mtime", ""))] for name, info in found.items()}
    for name in kept.keys() - now.keys():
        (top.path / name).unlink(missing_ok=True)
    for name, (size, _) in now.items():
        local = top.path / name
        if kept.get(name) == now[name] and local.exists():
            continue
        local.parent.mkdir(parents=True, exist_ok=True)
        with local.open("wb") as file:
            file.truncate(int(str(size)))
        os.utime(local, (0, 0))
        if local.suffix.lower() not in later:
            at_hand(local)
    beside = listing.with_name(f"{LISTING}.{uuid.uuid4().hex[:8]}")
    beside.write_text(json.dumps(now))
    beside.replace(listing)
    return top.path


def _find(top: Mirror) -> dict[str, dict[str, Any]]:
    try:
        found: dict[str, dict[str, Any]] = top.system.find(top._where, detail=True)
    except FileNotFoundError:
        return {}
    except Exception as error:  # of many kinds, a package's own
        reason = " ".join(str(error).split())
        raise DataError(f"{top}: expected a data set that can be read, got {type(error).__name__}: {reason}") from error
    return found


def at_hand(path: Path) -> Path:
    """The same path; where it is a copy of something elsewhere that is not here, it has been fetched."""
    copies = str(cache_folder() / COPIES)
    if not str(path).startswith(copies + os.sep):
        return path
    scheme, *where = path.parent.relative_to(copies).parts
    return _mirror(f"{scheme}://{'/'.join(where)}").fetch(path.name)


@lru_cache(maxsize=256)
def _mirror(url: str) -> Mirror:
    return Mirror(url)


def is_url(place: object) -> bool:
    """Whether a place is named by a URL and so lies behind fsspec."""
    return isinstance(place, str) and _URL.fullmatch(place) is not None


def folder(place: str | Path) -> Folder:
    """The folder that a path or URL names; UsageError where fsspec, or its package for that kind, is missing."""
    if isinstance(place, str) and is_url(place):
        return Mirror(place)
    return Folder(Path(place))


def _parts(url: str) -> tuple[str, str]:
    found = _URL.fullmatch(url)
    assert found is not None
    scheme, where = found[1], found[2].strip("/")
    if ".." in where.split("/"):
        raise UsageError(f"expected a URL without '..', got {url}")
    return scheme, where


def _system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        system, where = url_to_fs(f"file:///{_parts(url)[1]}" if url.startswith("file://") else url)
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{url} cannot be opened ({reason}); install what it needs: pip install 'specialsam[cluster]'"
        ) from error
    return system, str(where)


def cache_folder() -> Path:
    """Where copies, choices and encoders for other runtimes are kept: $SPECIALSAM_CACHE, or ~/.cache/specialsam."""
    given = os.environ.get(CACHE)
    return Path(given).expanduser() if given else Path.home() / ".cache" / "specialsam"


def in_use(path: Path) -> Path:
    """The folder `path` of the cache, made where it is missing and marked as used now, by the time of a file in it.

    Folders beside it whose mark is older than `UNUSED_DAYS`, those of other weights or older code, are removed; what
    has no mark is somebody else's. A cache that cannot be written stays as it is.
    """
    with suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
        (path / MARK).touch()
        oldest = time.time() - UNUSED_DAYS * 86400
        for mark in path.parent.glob(f"*/{MARK}"):
            if mark.stat().st_mtime < oldest:
                shutil.rmtree(mark.parent, ignore_errors=True)
    return path


_room: dict[Path, float] = {}
"""Bytes that may still come before the copies below a folder are counted again."""


def make_room(root: Path, coming: int) -> None:
    """Remove the copies that were asked for longest ago until `coming` bytes more are within the limit.

    Makes a tenth of the limit free at once, so that copies are counted rarely. A file that a process has mapped stays
    readable for it. Raises SpecialSamError for a file above the limit.
    """
    try:
        limit = float(os.environ.get(CACHE_GB) or DEFAULT_GB) * 1e9
    except ValueError as error:
        raise UsageError(f"expected a number of gigabytes in {CACHE_GB}, got {os.environ[CACHE_GB]!r}") from error
    if coming > limit:
        raise SpecialSamError(
            f"expected a cache of at least {coming / 1e9:.3g} GB, {CACHE_GB} allows {limit / 1e9:.3g}; raise it"
        )
    if _room.get(root, 0.0) < coming:
        copies = _copies(root)
        size = sum(one[1] for one in copies)
        for _, count, path in sorted(copies):
            if size <= min(0.9 * limit, limit - coming):
                break
            with suppress(OSError):
                path.unlink()
                size -= count
        _room[root] = min(limit - size, 0.1 * limit + coming)  # other processes fill it, too
    _room[root] -= coming


def _copies(root: Path) -> list[tuple[float, int, Path]]:
    """When it was last asked for, its bytes and its path, of each whole copy."""
    out = []
    for path in root.rglob("*"):
        if COMING not in path.parts and path.suffix not in (".part", ".journal"):
            with suppress(OSError):
                found = path.stat()
                if stat.S_ISREG(found.st_mode) and found.st_mtime and path.name != LISTING:
                    out.append((found.st_mtime, found.st_size, path))
    return out

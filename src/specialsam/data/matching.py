"""Which mask belongs to which image by their names: equal ones first, then what a person would still pair.

Names are relative, without ending, with `/`. Where equal names and `<image>_<anything>` leave images over, names are
compared in composed Unicode and lower case, without further image endings (`a.jpg.png`), without what is common to
the names of all masks or all images (`mask_1`, `1-mask`, `c_0000`), and masks in class folders by their last part.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath

from specialsam.data.headers import SUFFIXES

Key = Callable[[str], str]
_ENDINGS = tuple(sorted({*SUFFIXES, ".ome", ".nii", ".jp2"}))
_WORDS = (
    r"(?:cp_masks?|instance_masks?|binary_masks?|masks?|gts?|ground_?truths?|labels?|labelids|segmentations?|segmented|"
    r"seg|annotations?|mattes?|matting|alpha|target|roi)"
)
_AFTER = re.compile(rf"^(?P<base>.*?)[ _.\-]+{_WORDS}(?:[ _.\-]*\d+)?$")
_BEFORE = re.compile(rf"^{_WORDS}[ _.\-]+(?P<base>.+)$")
FEW = 2
"""Names from which on something is common to all of them."""


def matches(images: Sequence[str], masks: Sequence[str]) -> dict[str, list[str]]:
    """The names of each image's masks, in the masks' order; images without one are left out."""
    out = {name: [name] for name in images if name in set(masks)}
    _add(out, suffixed(images, masks))
    for image_key, mask_key in _keys(images, masks):
        left = [name for name in images if name not in out]
        used = {name for names in out.values() for name in names}
        free = [name for name in masks if name not in used]
        if not left or not free:
            break
        _add(out, _by_key(left, free, image_key, mask_key))
    return out


def _add(out: dict[str, list[str]], found: Mapping[str, list[str]]) -> None:
    for name, names in found.items():
        out.setdefault(name, list(names))


def suffixed(images: Iterable[str], masks: Iterable[str]) -> dict[str, list[str]]:
    """Names of masks called `<image>_<anything>` for each image without a mask of its own name."""
    stems, names = set(images), list(masks)
    whole = set(names)
    out: dict[str, list[str]] = defaultdict(list)
    for name in names:
        if name in stems:
            continue
        head = name
        while "_" in PurePosixPath(head).name:
            head = head.rpartition("_")[0]
            if head in stems:
                if head not in whole:
                    out[head].append(name)
                break
    return out


def plain(name: str) -> str:
    """A name in composed Unicode and lower case, without further endings of images."""
    name = unicodedata.normalize("NFC", name).casefold()
    while name.endswith(_ENDINGS):
        name = name.rpartition(".")[0]
    return name


def base_of_mask(name: str) -> str | None:
    """The plain name of the image that a mask's name speaks of; None for a name that speaks of no mask."""
    parent, _, last = plain(name).rpartition("/")
    found = _AFTER.match(last) or _BEFORE.match(last)
    if found is None or not found["base"]:
        return None
    base = found["base"].rstrip(" _.-")
    return f"{parent}/{base}" if parent else base


def _keys(images: Sequence[str], masks: Sequence[str]) -> list[tuple[Key, Key]]:
    """What to compare images and masks by, the closest to their names first."""
    strip_masks, strip_images = _stripper(masks), _stripper(images)
    pairs: list[tuple[Key, Key]] = [(plain, plain), (plain, strip_masks), (strip_images, plain)]
    pairs.append((strip_images, strip_masks))
    return [*pairs, *((_by_last(one), _by_last(other)) for one, other in pairs)]


def _by_last(key: Key) -> Key:
    return lambda name: _last(key(name))


def _last(name: str) -> str:
    return PurePosixPath(name).name


def _stripper(names: Sequence[str]) -> Key:
    """A key without the words that begin and end the last part of all names."""
    bases = sorted({_last(plain(name)) for name in names})
    prefix = suffix = ""
    if len(bases) >= FEW:
        prefix = _common(bases)
        prefix = re.sub(r"[^\W\d_]*$", "", prefix) if not _at_word_end(prefix, bases) else prefix
        prefix = prefix.rstrip("0123456789")
        backwards = _common([base[len(prefix) :][::-1] for base in bases])[::-1]
        found = re.search(r"[^0-9].*$", backwards)
        suffix = found[0] if found else ""

    def key(name: str) -> str:
        base = _last(plain(name))
        base = base[len(prefix) :] if base.startswith(prefix) else base
        base = base[: len(base) - len(suffix)] if suffix and base.endswith(suffix) else base
        parent = plain(name).rpartition("/")[0]
        return f"{parent}/{base}" if parent else base

    return key


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    same = next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), None)
    return first[:same] if same is not None else min(first, last, key=len)


def _at_word_end(prefix: str, bases: Sequence[str]) -> bool:
    """Whether the letters that end a prefix end there in every name too: what follows is no letter."""
    return all(not base[len(prefix) : len(prefix) + 1].isalpha() for base in bases)


def _by_key(images: Sequence[str], masks: Sequence[str], image_key: Key, mask_key: Key) -> dict[str, list[str]]:
    """Masks by the image of the same key; a key that two images share pairs nothing."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name in images:
        owners[image_key(name)].append(name)
    out: dict[str, list[str]] = defaultdict(list)
    for name in masks:
        owner = owners.get(mask_key(name), [])
        if len(owner) == 1 and mask_key(name):
            out[owner[0]].append(name)
    return out


def nearest(name: str, others: Sequence[str]) -> str:
    """The name among `others` that is most like `name`, "" for none."""
    found = get_close_matches(plain(name), [plain(other) for other in others], 1, 0.5)
    return next((other for other in others if found and plain(other) == found[0]), "")

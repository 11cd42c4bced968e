"""The page of a shared specialist: what it is, what it learned from, how good it was there, what it is not for.

What is not known is called unknown; scores are those of the run beside the specialist folder, as its tables hold them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from specialsam.core.errors import DataError, UsageError
from specialsam.models.specialist import TRANSPLANTED, SpecialistCard
from specialsam.models.zoo import CARDS, NANO

FREE = re.compile(
    r"cc0(-1\.0)?(-universal)?|cc-by(-sa)?(-[1-4]\.0)?(-(international|unported|igo))?|public-domain|pddl(-1\.0)?|"
    r"odc-by(-1\.0)?|odbl(-1\.0)?|mit(-licen[sc]e)?|bsd(-[234]-clause)?(-licen[sc]e)?|"
    r"apache(-licen[sc]e)?,?(-version)?(-2\.0)?|unlicense|cdla-permissive(-[12]\.0)?"
)
"""The whole of a free licence's name in lower case, its words joined by hyphens; whatever is added binds."""
_HUB_NAMES = {
    "sam_vit_b": "facebook/sam-vit-base",
    "sam_vit_l": "facebook/sam-vit-large",
    "sam_vit_h": "facebook/sam-vit-huge",
}
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")
_ADAPTER = re.compile(r"[a-z0-9_]{2,}:")
SCORES = "comparison.csv"


@dataclass(frozen=True)
class Terms:
    """What the one who shares states: licences of data and base where they are not known, and that they may."""

    data_licence: str = ""
    base: str = ""
    base_licence: str = ""
    may_share: bool = False


def check_terms(card: SpecialistCard, terms: Terms) -> tuple[SpecialistCard, str]:
    """The card as it may go to others, and the base's licence; UsageError in one line where it may not.

    The base must be one that others can get (a known model or a hub id), its licence and that of the data known, and
    that of the data free, unless `may_share` says otherwise.
    """
    base = terms.base or card.base
    if base != NANO.name and base not in CARDS and (Path(base).exists() or not _HUB_ID.match(base)):
        raise UsageError(
            f"expected a base that others can get ({NANO.name}, {', '.join(CARDS)} or a hub id), got {base}; "
            "name the one that it is with --base"
        )
    known = NANO if base == NANO.name else CARDS.get(base)
    base_licence = card.base_licence or (known.licence if known else terms.base_licence)
    if not base_licence:
        raise UsageError(f"expected the licence of the base {base}, which is not known here; state it: --base-licence")
    stated = card.data_licence if card.data_licence.strip().lower() not in ("", "unknown") else ""
    if stated and terms.data_licence and terms.data_licence != stated and not terms.may_share:
        raise UsageError(
            f"expected the licence that the specialist's data state ({stated}), got --data-licence "
            f"{terms.data_licence!r}; add --may-share if you know better and may share what was learned from them"
        )
    data_licence = terms.data_licence or stated
    if not data_licence:
        raise UsageError(
            "expected a licence of the data that the specialist learned from, which is unknown; state it with "
            "--data-licence, for data of your own with --may-share beside it"
        )
    if not terms.may_share and not is_free(data_licence):
        raise UsageError(
            f"the specialist learned from data under {data_licence!r}, which does not let everybody share what is "
            "learned from them; add --may-share if you may"
        )
    told = {"base": base, "data_licence": data_licence, "recipe": _without_paths(card.recipe)}
    return card.model_copy(update=told), base_licence


def is_free(licence: str) -> bool:
    """Whether a licence, or each of several joined by a semicolon, is known to let anybody use data for anything."""
    names = [re.sub(r"[\s_-]+", "-", name.strip().lower()) for name in licence.split(";")]
    return all(FREE.fullmatch(name) for name in names)


def _without_paths(value: Any) -> Any:
    """Settings in which paths of this machine are their last part: the rest is nobody else's affair."""
    if isinstance(value, dict):
        return {name: _without_paths(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_paths(one) for one in value]
    if not isinstance(value, str) or not re.search(r"[/\\]|^~", value):
        return value
    adapter, colon, path = value.partition(":") if _ADAPTER.match(value) else ("", "", value)
    return adapter + colon + re.split(r"[/\\]", path.rstrip("/"))[-1]


def write_card_page(card: SpecialistCard, base_licence: str, repo_id: str, folder: Path) -> str:
    """The README.md of a specialist; `folder` is the specialist's, beside which its run lies."""
    free = is_free(card.data_licence)
    licence = base_licence.lower() if free and base_licence.lower() in ("apache-2.0", "mit") else "other"
    front: dict[str, object] = {
        "license": licence,
        "library_name": "specialsam",
        "pipeline_tag": "mask-generation",
        "tags": ["segment-anything", "specialsam", "image-segmentation"],
    }
    if licence == "other":
        front["license_name"] = "see-base-and-data"
    if hub := (_HUB_NAMES.get(card.base) or (card.base if "/" in card.base else "")):
        front["base_model"] = hub
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {card.name}",
        f"A specialist of specialsam: the tuned parts ({card.tuned}) of {card.base}, which it needs beside it, for "
        f"images like those that it learned from.{_sentence(card.note)}",
        f"```\nspecialsam pull {repo_id} -o {card.name}\nspecialsam segment PICTURES -m {card.name} -o masks\n```",
        "## Data and licences",
        _table(
            ("what", "which", "licence"),
            [
                ("base", card.base, base_licence),
                ("data", card.data_fingerprint[:16] or "unknown", card.data_licence),
            ],
        ),
        "The images themselves are not here. The data are named by their fingerprint.",
        "## Scores",
        _scores(card, _run_of(folder) / SCORES),
        "## How prompts were made",
        _protocol(card),
        "## What it must not be used for",
        _limits(card),
    ]
    return "\n\n".join(parts) + "\n"


def _run_of(folder: Path) -> Path:
    """The run that a specialist lies in by its own name; else a place where no scores are."""
    own = folder.resolve()
    return own.parent if own.name == "specialist" else own


def _sentence(note: str) -> str:
    return f" {note[0].upper()}{note[1:]}." if note else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _scores(card: SpecialistCard, path: Path) -> str:
    """IoU of base and specialist by prompt, with interval and number of images, where the run is beside it."""
    if not path.is_file() or card.note.startswith(TRANSPLANTED):  # those are scores on the base that it comes from
        kept = card.scores.get("val_iou") or {}
        seen = f"On validation, IoU went from {kept['base']:.3f} to {kept['kept']:.3f}. " if len(kept) == 2 else ""
        return f"{seen}The run's test scores were not beside the specialist when it was shared."
    import pandas as pd

    try:
        found = pd.read_csv(path)
        found = found[found["metric"] == "iou"]
        rows = [
            (
                f"{row['strategy']}, {row['output']}",
                f"{100 * row['base']:.1f}",
                f"{100 * row['tuned']:.1f}",
                f"{100 * row['gain']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
                str(int(row["n"])),
            )
            for _, row in found.iterrows()
            if all(math.isfinite(row[name]) for name in ("base", "tuned", "gain", "low", "high"))
        ]
        split = ", ".join(sorted({str(value) for value in found["split"]}))
    except (KeyError, ValueError, OSError) as error:
        raise DataError(
            f"expected the scores of a run in {path}, got a damaged table; write it anew: report"
        ) from error
    head = ("prompt", "base IoU %", "specialist IoU %", "gain (95 % interval)", "images")
    return f"{_table(head, rows)}\n\nSplit: {split}. Base and specialist saw the same prompts; paired bootstrap."


def _protocol(card: SpecialistCard) -> str:
    asked = card.recipe.get("evaluate")
    strategies = asked.get("strategies") if isinstance(asked, dict) else None
    named = f" Strategies: {', '.join(map(str, strategies))}." if strategies else ""
    scaled = "both sides are stretched" if card.preprocessing.startswith("square-") else "the longest side is scaled"
    return (
        "Prompts come from the true masks, the same for base and specialist: scores say how well an object is outlined "
        f"that somebody points at, not whether it is found.{named} Points and boxes are in pixels of the picture; "
        f"{scaled} to {card.side}."
    )


def _limits(card: SpecialistCard) -> str:
    finds = (
        "has a finder, whose threshold was set on the same data" if card.finder else "finds nothing without a prompt"
    )
    return (
        "- Images unlike those that it learned from: other cameras, scales, materials or species. There the base may "
        "be better.\n"
        f"- Decisions without a person where a miss or a false alarm harms somebody. It {finds}.\n"
        "- Finding or following people.\n"
        "- What the licences above forbid."
    )

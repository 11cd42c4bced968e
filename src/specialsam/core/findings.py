"""What a check has to say: pass, warn or fail, the numbers, the files, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from specialsam.core.errors import DataError

Level = Literal["pass", "warn", "fail"]
LEVELS: tuple[Level, ...] = ("pass", "warn", "fail")
"""From good to bad."""


@dataclass(frozen=True)
class Finding:
    """The answer of one check.

    `check` is the check's stable name, `says` one sentence with the deciding numbers, `numbers` all of them by name,
    `files` the images or masks concerned (worst first), `remedy` what to do, "" for a pass.
    """

    check: str
    level: Level
    says: str
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise DataError(f"expected a level of {', '.join(LEVELS)}, got {self.level!r}")
        if self.level != "pass" and not self.remedy:
            raise DataError(f"{self.check}: expected a remedy beside a {self.level}, got none")

    def plain(self) -> dict[str, object]:
        """As it is written to JSON."""
        return asdict(self) | {"numbers": dict(self.numbers)}


@dataclass(frozen=True)
class Factor:
    """One of the factors that are said to decide: the study's rule of thumb, and what this data says of it.

    `rule` is the rule in words, `by_rule` whether this case meets it, `says` what was measured here in a sentence and
    `here` whether the factor speaks for specialising by that measurement; None where it cannot be told.
    """

    name: str
    rule: str
    by_rule: bool | None
    says: str
    here: bool | None


def worst(findings: Iterable[Finding]) -> Level:
    """The worst level of all; "pass" of none."""
    return LEVELS[max((LEVELS.index(finding.level) for finding in findings), default=0)]


def alarms(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are no pass, failures first, otherwise in order."""
    return sorted((f for f in findings if f.level != "pass"), key=lambda f: -LEVELS.index(f.level))

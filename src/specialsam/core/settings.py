"""Settings are pydantic models beside the functions they configure; mistakes in them are one line, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from specialsam.core.errors import UsageError

LARGEST = 2**53
"""No whole number of a setting is larger: what counts steps, pixels or images would never end."""
SEEDS = 2**32
"""Seeds lie below: the most that every library takes."""
NAMED = 20
"""Mistakes that one line names."""


class Settings(BaseModel):
    """What all settings share: unknown names, NaN and infinity are refused, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _countable(cls, value: object) -> object:
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"expected a whole number of at most {LARGEST:,}, got one of {value.bit_length()} bits")
        return value

    @field_validator("seed", check_fields=False)
    @classmethod
    def _seed(cls, value: int) -> int:
        if not 0 <= value < SEEDS:
            raise ValueError(f"expected a seed of at least 0 and below {SEEDS:,}, got {value}")
        return value


Kind = TypeVar("Kind", bound=BaseModel)


def parse_settings(kind: type[Kind], values: Mapping[str, object]) -> Kind:
    """Settings of a kind from nested values; UsageError that names every wrong field, or the first of very many."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UsageError(f"settings: {'; '.join(wrong[:NAMED])}{more}") from error

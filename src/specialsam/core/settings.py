"""Settings are pydantic models beside the functions they configure; mistakes in them are one line, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from specialsam.core.errors import UsageError

Settings = TypeVar("Settings", bound=BaseModel)


def parse_settings(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Settings of a kind from nested values; UsageError that names every wrong field."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UsageError(f"settings: {wrong}") from error

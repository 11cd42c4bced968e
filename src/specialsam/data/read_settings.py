"""What a user may say of how a data set is to be read, where looking at it does not settle it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from specialsam.core.errors import UsageError
from specialsam.core.settings import Settings, parse_settings


class ReadSettings(Settings):
    """How a data set's files are read; the defaults look at the files and say what they found."""

    levels: tuple[float, float] | None = Field(
        None, description="values of images of more than 8 bits that become black and white; else the data set's range"
    )
    bands: tuple[int, ...] = Field(
        (), description="bands or pages, from 0, that are red, green and blue (one: grey); else the first three"
    )
    several: Literal["auto", "objects", "annotators"] = Field(
        "auto", description="what several masks of one image are; else objects where they hardly overlap"
    )
    parts: bool = Field(False, description="each connected part of a mask is an object of its own")
    background: int | None = Field(None, description="value of a label map that is no object; else 0, or what it shows")
    void: tuple[int, ...] = Field((), description="values of a label map that are neither object nor background")
    crowds: Literal["auto", "objects", "out"] = Field(
        "auto", description="COCO's iscrowd annotations; else objects where every run-length mask is called a crowd"
    )
    licence: str = Field("", description="licence of the data; else what its files or its layout state")

    @field_validator("levels")
    @classmethod
    def _rising(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not value[0] < value[1]:
            raise ValueError(f"expected a lower and a higher value, got {value[0]:g} and {value[1]:g}")
        return value

    @field_validator("bands")
    @classmethod
    def _one_or_three(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (0, 1, 3) or any(band < 0 for band in value):
            raise ValueError(f"expected one band or three, each 0 or more, got {list(value)}")
        return value


READ = ReadSettings()
"""Nothing said."""


def reading_of(given: dict[str, object]) -> ReadSettings | None:
    """Take the group `data` out of nested settings; None where it is not there. UsageError for wrong values."""
    stated = given.pop("data", None)
    if stated is None:
        return None
    if not isinstance(stated, dict):
        raise UsageError(f"settings: data: expected settings by name, got {type(stated).__name__}")
    return parse_settings(ReadSettings, stated)

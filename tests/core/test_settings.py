"""What all settings share: no NaN, no infinity, no negative seed, no number without end; every class is one of them."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

import specialsam
from specialsam.apps.web import messages
from specialsam.core.errors import UsageError
from specialsam.core.settings import SEEDS, Settings, parse_settings
from specialsam.models.finder_files import Alarm, FinderCard
from specialsam.models.specialist import SpecialistCard


class Inner(Settings):
    weights: dict[str, float] = Field(default_factory=dict)
    shares: tuple[float, ...] = ()
    mix: str | dict[str, float] = "half"


class Outer(Settings):
    seed: int = 0
    steps: int = Field(1, ge=1)
    share: float = 0.5
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"share": float("nan")}, "settings: share: "),
        ({"share": float("-inf")}, "settings: share: "),
        ({"share": "1e999"}, "settings: share: "),
        ({"inner": {"weights": {"a": float("inf")}}}, "settings: inner.weights.a: "),
        ({"inner": {"shares": [0.1, float("nan")]}}, "settings: inner.shares.1: "),
        ({"inner": {"mix": {"dice": float("nan")}}}, "settings: inner.mix"),
        ({"seed": -1}, "settings: seed: Value error, expected a seed of at least 0 and below 4,294,967,296, got -1"),
        ({"seed": SEEDS}, "settings: seed: "),
        (
            {"steps": 2**53 + 1},
            "settings: steps: Value error, expected a whole number of at most 9,007,199,254,740,992",
        ),
        ({"steps": 10**5000}, "settings: steps: "),
        ({"speed": 1}, "settings: speed: Extra inputs"),
        ({"speed": 1, "inner": {"colour": 2}}, "inner.colour: Extra inputs"),
    ],
)
def test_values_that_no_setting_takes(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(Outer, values)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_values_that_settings_take() -> None:
    values = {"seed": SEEDS - 1, "steps": 2**53, "share": 1e300, "inner": {"shares": [0, 1], "mix": {"dice": 2}}}
    assert parse_settings(Outer, values).inner.shares == (0.0, 1.0)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().seed = 3  # type: ignore[misc]


def test_very_many_mistakes_are_counted() -> None:
    with pytest.raises(UsageError, match=r"inner\.shares\.19: .*; and 2980 more$"):
        parse_settings(Outer, {"inner": {"shares": ["no"] * 3000}})


def kinds() -> list[type[BaseModel]]:
    """Every pydantic model of the package, but for what the web API answers with, which nobody writes to us."""
    found: dict[str, type[BaseModel]] = {}
    for module in pkgutil.walk_packages(specialsam.__path__, "specialsam."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__.startswith("specialsam"):
                if value.__module__ == messages.__name__ and not issubclass(value, Settings):
                    continue
                found[f"{value.__module__}.{value.__name__}"] = value
    return [found[name] for name in sorted(found)]


def test_every_kind_of_settings_is_one_of_them() -> None:
    """The card of a specialist and its parts, which models write, are the only other pydantic models."""
    found = kinds()
    assert len(found) >= 14
    assert [kind for kind in found if not issubclass(kind, Settings)] == [Alarm, FinderCard, SpecialistCard]
    for kind in found:
        if issubclass(kind, Settings):
            config = kind.model_config
            assert (config["extra"], config["frozen"], config["allow_inf_nan"]) == ("forbid", True, False), kind


def test_every_number_of_every_kind_refuses_what_is_none() -> None:
    """Each float field takes no NaN and no infinity, each seed none below 0: asked of every field there is."""
    asked = 0
    for kind in kinds():
        for name, field in kind.model_fields.items() if issubclass(kind, Settings) else ():
            types = {field.annotation, *get_args(field.annotation)}
            bad: list[Any] = [float("nan"), float("inf")] if float in types else []
            bad += [-1] if name == "seed" else []
            for value in bad:
                given = (value,) * 3 if tuple in {type(field.default)} else value
                with pytest.raises(UsageError, match=rf"\b{name}\b"):
                    parse_settings(kind, {name: given})
                asked += 1
    assert asked > 60

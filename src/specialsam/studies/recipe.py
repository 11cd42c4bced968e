"""Recipes: everything that decides a study, as YAML of the fields of `StudyRecipe`; two of each study are bundled.

"seed" is the original study's protocol as its code has it, "revised" what its authors say they would do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from specialsam.core.documents import document, parse_yaml
from specialsam.core.errors import UsageError
from specialsam.core.geometry import ImageArray
from specialsam.core.settings import Settings, parse_settings
from specialsam.core.types import Record
from specialsam.pipeline.settings import SpecializeSettings
from specialsam.synth.defect_data import DefectRecipe
from specialsam.synth.mosaic_plan import MosaicRecipe

Study = Literal["wood", "carpet", "camouflage"]
STUDIES: tuple[Study, ...] = ("wood", "carpet", "camouflage")
BUNDLED = ("seed", "revised")


class CamouflageData(Settings):
    """Which images of a camouflage data set are learned from and measured on."""

    split: Literal["stated", "own"] = Field(
        "stated",
        description="stated: the data set's own test images; own: cut by stable hash, near-duplicates together",
    )
    test_set: str = Field("", description="of several test sets (SINet's package) the one to measure on, e.g. CAMO")
    train: int | None = Field(
        None, description="most training images, a seeded stratified subset; all if left out", ge=1
    )
    val: float = Field(0.1, description="share of the training images kept apart for validation; 0: none", ge=0, lt=1)
    test: int | None = Field(None, description="test images, a seeded stratified subset; all if left out", ge=1)
    own_test: float = Field(0.25, description="share of all images for the test where the split is own", gt=0, lt=1)
    duplicates: bool = Field(True, description="leave out training images that nearly equal an image of val or test")
    negatives: int = Field(100, description="test images without an object, clicked to count false alarms", ge=0)
    seed: int = Field(0, description="of the subsets and of the split")


class StudyRecipe(Settings):
    """Everything that decides a study; each study adds `data`, the settings of its own kind of data."""

    study: Study = Field(description="wood, carpet or camouflage")
    title: str = Field(description="heading of the pages")
    follows: str = Field(description="which protocol this is, and where it departs from it")
    strategies: tuple[str, ...] = Field(
        description="prompts of the study's own tables and figures, the published one first", min_length=1
    )
    specialize: SpecializeSettings = Field(description="settings of the main job: views, training, evaluation, probes")

    @model_validator(mode="after")
    def _measured(self) -> StudyRecipe:
        unknown = [name for name in self.strategies if name not in self.specialize.evaluate.strategies]
        if unknown:
            raise ValueError(
                f"expected strategies of specialize.evaluate.strategies "
                f"({', '.join(self.specialize.evaluate.strategies)}), got {', '.join(unknown)}"
            )
        return self


class WoodRecipe(StudyRecipe):
    """Mosaics of wood textures."""

    study: Literal["wood"] = Field(description="wood")
    data: MosaicRecipe = Field(description="how many mosaics of which difficulties, and how textures are split")


class CarpetRecipe(StudyRecipe):
    """Synthetic defects for training, real ones for the test."""

    study: Literal["carpet"] = Field(description="carpet")
    data: DefectRecipe = Field(description="how many synthetic defects of which kinds")


class CamouflageRecipe(StudyRecipe):
    """Camouflaged animals."""

    study: Literal["camouflage"] = Field(description="camouflage")
    data: CamouflageData = Field(description="which images are learned from and measured on")


KINDS: Mapping[str, type[WoodRecipe] | type[CarpetRecipe] | type[CamouflageRecipe]] = {
    "wood": WoodRecipe,
    "carpet": CarpetRecipe,
    "camouflage": CamouflageRecipe,
}
AnyRecipe = WoodRecipe | CarpetRecipe | CamouflageRecipe


@dataclass(frozen=True)
class Sheet:
    """A picture for the study's page and its `figures/` folder: uint8 RGB (H, W, 3), and what it shows."""

    name: str
    image: ImageArray
    caption: str


@dataclass(frozen=True)
class Prepared:
    """A data folder with stated splits, and what there is to say of it.

    `source` is what the main job opens and `name` what it is called, `facts` are (name, value) in words, `differences`
    (what, published, here) that only the data can tell, `negatives` are test images that are known to hold no object.
    `textures` names, by image, the texture of each object, where images share textures.
    """

    source: str
    name: str
    licence: str
    citation: str
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    sheets: tuple[Sheet, ...] = ()
    differences: tuple[tuple[str, str, str], ...] = ()
    negatives: tuple[Record, ...] = ()
    textures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def recipe_text(study: str, name: str) -> str:
    """The YAML of a bundled recipe ("seed", "revised") or of a file; UsageError where there is none."""
    if name in BUNDLED:
        with as_file(files("specialsam.studies") / "recipes" / f"{study}-{name}.yaml") as path:
            return path.read_text(encoding="utf-8")
    try:
        with Path(name).open("rb") as file:
            return document(file)
    except (OSError, ValueError) as error:
        choices = " or ".join(BUNDLED)
        raise UsageError(f"expected a recipe of {choices}, or a readable YAML file, got {name!r} ({error})") from error


def load_recipe(study: str, name: str = "seed", changes: Mapping[str, object] | None = None) -> AnyRecipe:
    """The named recipe with nested `changes` on top; UsageError in one line for everything that is wrong with it."""
    if study not in KINDS:
        raise UsageError(f"expected a study of {', '.join(KINDS)}, got {study!r}")
    try:
        values = parse_yaml(recipe_text(study, name))
    except ValueError as error:
        raise UsageError(f"expected YAML in the recipe {name}, got something else ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"expected settings by name in the recipe {name}, got {type(values).__name__}")
    if (told := values.get("study", study)) != study:
        raise UsageError(f"expected a recipe of the study {study}, got one of {told!r}")
    return parse_settings(KINDS[study], merged({"study": study, **values}, changes or {}))


def merged(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Nested `values` with `changes` on top; groups are merged, everything else, mixtures by name too, is replaced."""
    out = dict(values)
    for name, change in changes.items():
        before = out.get(name)
        if isinstance(before, Mapping) and isinstance(change, Mapping) and name not in WHOLE:
            out[name] = merged(before, change)
        else:
            out[name] = change
    return out


WHOLE = frozenset({"prompts", "layouts", "kinds", "types", "loss"})
"""Fields whose value is a table of weights: a change replaces it, because a mixture of two means neither."""


def flat(recipe: BaseModel) -> dict[str, object]:
    """The recipe's fields by dotted name, as plain values; tables of weights stay whole."""
    out: dict[str, object] = {}

    def walk(values: Mapping[str, object], before: str) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping) and name not in WHOLE:
                walk(value, f"{before}{name}.")
            else:
                out[f"{before}{name}"] = value

    walk(recipe.model_dump(mode="json"), "")
    return out

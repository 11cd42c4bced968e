"""The settings of the main job; a recipe is YAML of exactly these fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator, model_validator

from specialsam.advice.guard.mixtures import GuardSettings
from specialsam.advice.probes.monitor import MonitorSettings
from specialsam.core.settings import SEEDS, Settings, parse_settings
from specialsam.data.read_settings import ReadSettings
from specialsam.data.tiles import TileSettings
from specialsam.data.views import ViewRecipe
from specialsam.evaluation.evaluate import EvaluateSettings
from specialsam.training.settings import FinderSettings, TrainSettings


class SearchSettings(Settings):
    """How long training settings are searched before the run is tuned with the best of them."""

    minutes: float = Field(0.0, description="minutes of trials after which none is begun; 0 searches nothing", ge=0)
    trials: int = Field(200, description="most trials", ge=1)
    seed: int = Field(0, description="of what the trials try")


class SpecializeSettings(Settings):
    """Everything that decides a run; resolved and saved with it. A recipe is YAML of exactly these fields."""

    seed: int = Field(
        0, description="of splits, views, replay and probes; where it is given, also of training, prompts and search"
    )
    fractions: tuple[float, float, float] = Field((0.7, 0.15, 0.15), description="shares of train, val and test")
    duplicates: bool = Field(True, description="look for near-duplicates and keep them in one split")
    data: ReadSettings | None = Field(None, description="how the data set's files are read; looked at where left out")
    precision: Literal["half", "int8", "full"] = Field("half", description="how embeddings are stored")
    views: ViewRecipe = Field(default=ViewRecipe(), description="augmented views encoded beside each train image")
    tiles: TileSettings = Field(
        default=TileSettings(),
        description="tiles that larger images are cut into: learned from beside the whole, and answers put together",
    )
    train: TrainSettings = Field(default=TrainSettings())
    search: SearchSettings = Field(default=SearchSettings())
    finder: FinderSettings = Field(default=FinderSettings())
    evaluate: EvaluateSettings = Field(default=EvaluateSettings())
    monitor: MonitorSettings = Field(default=MonitorSettings())
    guard: GuardSettings = Field(default=GuardSettings())
    probes: int = Field(40, description="test images that are probed beside the scores; 0 probes nothing", ge=0)
    main_strategy: str = Field(
        "interior", description="prompt strategy of the headline number and the pictures", validate_default=True
    )

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, values: object) -> object:
        """The parts whose own seed is not given follow a seed that is."""
        if not isinstance(values, Mapping) or "seed" not in values:
            return values
        try:
            seed = TypeAdapter(int).validate_python(values["seed"])  # as the field will read it: 7.0 and "7" are 7
        except ValidationError:
            return values
        if not 0 <= seed < SEEDS:
            return values
        parts = {name: _seeded(values.get(name, {}), seed) for name in ("train", "search", "finder", "evaluate")}
        return {**values, **parts}

    @field_validator("evaluate")
    @classmethod
    def _with_iou(cls, value: EvaluateSettings) -> EvaluateSettings:
        if "overlap" not in value.groups:
            raise ValueError(
                f"expected overlap among the groups (the tables rest on IoU), got {', '.join(value.groups)}"
            )
        return value

    @field_validator("main_strategy")
    @classmethod
    def _evaluated(cls, value: str, info: ValidationInfo) -> str:
        evaluated = info.data["evaluate"].strategies if "evaluate" in info.data else (value,)
        if value not in evaluated:
            raise ValueError(f"expected one of evaluate.strategies ({', '.join(evaluated)}), got {value!r}")
        return value

    @property
    def measured(self) -> EvaluateSettings:
        """What is measured, from the tiles that are learned from where it names none of its own."""
        own = self.evaluate.tiles if self.evaluate.tiles.side else self.tiles
        return self.evaluate.model_copy(update={"tiles": own})

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> SpecializeSettings:
        """From nested values; all mistakes at once in one line (UsageError)."""
        return parse_settings(cls, values)


def _seeded(part: object, seed: int) -> object:
    """The settings of a part, with this seed where they state none."""
    if isinstance(part, Mapping):
        return {"seed": seed, **part}
    if isinstance(part, Settings) and "seed" not in part.model_fields_set:
        return part.model_copy(update={"seed": seed})
    return part

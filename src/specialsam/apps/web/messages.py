"""What the API takes (settings, all bounded) and gives (plain models)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from specialsam.core.settings import Settings

Coordinate = Annotated[float, Field(ge=-1, le=1_000_000, allow_inf_nan=False)]
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Runs = Annotated[list[Annotated[int, Field(ge=0, le=200_000_000)]], Field(min_length=1, max_length=400_000)]


class Prompt(Settings):
    """One object: points (x, y) with labels 1 (of it) or 0 (not of it), a box (x0, y0, x1, y1), or both; in pixels."""

    points: list[tuple[Coordinate, Coordinate]] = Field(default_factory=list, max_length=64)
    labels: list[Literal[0, 1]] = Field(default_factory=list, max_length=64, description="one a point; 1 if left out")
    box: tuple[Coordinate, Coordinate, Coordinate, Coordinate] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Prompt:
        if not self.points and self.box is None:
            raise ValueError("expected points or a box")
        if self.labels and len(self.labels) != len(self.points):
            raise ValueError(f"expected a label for each of {len(self.points)} points, got {len(self.labels)}")
        return self


class SegmentQuestion(Settings):
    """Objects that are pointed at in an uploaded picture."""

    image: Id
    prompts: list[Prompt] = Field(min_length=1, max_length=32)
    model: Id | None = Field(None, description="of `models`; the one in use if left out")
    zoom: bool = Field(False, description="look a second time at each object")


class FindQuestion(Settings):
    """Everything that the model finds in an uploaded picture by itself."""

    image: Id
    model: Id | None = Field(None, description="of `models`; the one in use if left out")
    most: int = Field(10, ge=1, le=50)
    threshold: float | None = Field(None, ge=0, le=1, description="the model's own if left out")
    zoom: bool = False


class RunLengths(Settings):
    """One mask: the lengths of its runs of 0 and 1, column by column, a run of 0 first (COCO, uncompressed)."""

    size: tuple[Annotated[int, Field(ge=1, le=200_000)], Annotated[int, Field(ge=1, le=200_000)]] = Field(
        description="height, width"
    )
    counts: Runs


class Correction(Settings):
    """Masks of a picture that somebody has looked at and found right; they join the data set."""

    image: Id
    masks: list[RunLengths] = Field(min_length=1, max_length=16)
    who: str = Field("", max_length=100, description="whoever corrected them")


class UseQuestion(Settings):
    """Which model is to answer from now on."""

    model: Id


class Uploaded(BaseModel):
    """A picture that was read and encoded."""

    image: str
    session: str
    width: int
    height: int
    seconds: float = Field(description="that decoding and encoding took, of all pictures in the batch")
    batch: int = Field(description="pictures that were encoded at once")
    expires_in: float = Field(description="seconds without a question after which it goes")


class CompressedMask(BaseModel):
    """COCO's compressed run-length."""

    size: list[int]
    counts: str


class Object(BaseModel):
    """One object: its mask, tight box (x0, y0, x1, y1) of its outermost pixels, inclusive, and score in 0..1."""

    rle: CompressedMask
    box: list[float]
    score: float
    prompt: int | None = Field(None, description="place of the prompt that asked for it")


class Answered(BaseModel):
    """Objects by the model, the surest first; `beside` the base's answers to the same prompts, one an object."""

    model: str
    objects: list[Object]
    beside: list[Object] = Field(description="empty where the model is no specialist")
    seconds: float = Field(description="the model took")


class Model(BaseModel):
    """A model that may be asked for, by its `id`."""

    id: str
    name: str
    specialist: bool
    base: str | None
    finder: bool
    note: str
    run: str = Field(description="the run's folder that it came of, by name")
    in_use: bool
    gain: Gain | None = None


class Gain(BaseModel):
    """Of a run, on its test images: mean IoU of base and specialist by one prompt strategy, gain with 95 % interval."""

    strategy: str
    base: float
    tuned: float
    gain: float
    low: float
    high: float
    images: int
    few: bool = Field(description="so few images that the interval is too narrow, as the report says")


class Models(BaseModel):
    models: list[Model]


class Saved(BaseModel):
    """What the data set of corrections holds now."""

    folder: str = Field(description="name of the data set's folder")
    pictures: int
    recent: list[SavedOne]


class SavedOne(BaseModel):
    """One line of its journal."""

    name: str
    who: str
    when: str
    objects: int


class Epoch(BaseModel):
    epoch: int
    val_iou: float | None
    loss: float | None


class Tuning(BaseModel):
    """How tuning stands: `state` is idle, running, done, failed or stopped."""

    state: Literal["idle", "running", "done", "failed", "stopped"]
    seconds: float = 0.0
    lines: list[str] = Field(default_factory=list, description="the last lines it said")
    epochs: list[Epoch] = Field(default_factory=list)
    model: str | None = Field(None, description="id of the specialist that came of it")
    gain: Gain | None = None
    guard: str = ""
    report: str | None = Field(None, description="address of its report")


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    version: str


class Ready(BaseModel):
    ready: bool


class Fault(BaseModel):
    """Every error's answer, in one line."""

    error: str


class Page(BaseModel):
    name: str
    address: str


class RunFacts(BaseModel):
    """A finished or unfinished run of a folder of runs."""

    id: str
    name: str
    job: str
    model: str
    source: str
    date: str
    gains: list[Gain]
    pages: list[Page]


class RunList(BaseModel):
    runs: list[RunFacts]


class LineEvent(BaseModel):
    """One event as the line told it; `seq` is its number in the file."""

    seq: int
    id: str
    time: str
    kind: str
    severity: str
    score: float
    area_mm2: float
    along_m: tuple[float, float]
    across_mm: tuple[float, float]
    sights: int
    snapshot: bool


class LineFacts(BaseModel):
    """How the line stands; `numbers` are the newest that the inspection wrote, `age` seconds ago."""

    watched: bool
    job: str = ""
    roll: str = ""
    camera: str = ""
    metres: float = 0.0
    total: int = 0
    age: float | None = None
    picture: bool = False
    roll_page: bool = False
    numbers: dict[str, float] = Field(default_factory=dict)
    events: list[LineEvent] = Field(default_factory=list)


Model.model_rebuild()
Saved.model_rebuild()

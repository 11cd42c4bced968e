"""What an inspection is told: what runs past the camera, how it moves, and when an alarm is one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from specialsam.core.settings import Settings

Direction = Literal["down", "up", "left", "right"]
"""Where to things move in the picture."""
Motion = Literal["speed", "trigger", "picture"]
"""What the position on the roll is told by."""


Name = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
"""A text that may be a number: orders and rolls often are."""


class LineSettings(Settings):
    """Of one camera above one roll."""

    job: Name = Field("job", description="the order that is produced", min_length=1, max_length=200)
    roll: Name = Field("1", description="the roll or part", min_length=1, max_length=200)
    recipe: Name = Field("", description="what is produced by", max_length=200)
    camera: Name = Field("camera", description="name of the camera", min_length=1, max_length=200)

    direction: Direction = Field("down", description="where to things move in the picture")
    motion: Motion = Field("picture", description="position by line speed, trigger count, or what the picture shows")
    pitch_mm: float = Field(1.0, description="millimetres of web that a pixel shows", gt=0)
    speed: float = Field(0.0, description="line speed in metres a second; where motion is picture, for what it misses")
    trigger_mm: float = Field(0.0, description="millimetres of web between two triggered pictures", ge=0)
    fps: float = Field(10.0, description="pictures a second of a folder, which tells no time", gt=0)

    false_alarms: float = Field(0.01, description="share of good pictures that may alarm", gt=0, lt=1)
    keep: float = Field(5.0, description="an alarm goes on down to the threshold of so many times that share", ge=1)
    most: int = Field(5, description="places in a picture that may alarm at once", ge=1, le=100)
    confirm: int = Field(2, description="pictures that must alarm at a place before it is an event", ge=1)
    gap: int = Field(5, description="pictures without a sight of it after which a place is done with", ge=0)
    slack_mm: float = Field(8.0, description="millimetres between two sights of one defect at most", ge=0)
    report_after: float = Field(3.0, description="seconds after which an event that is still in sight is told", ge=0)
    cooldown_m: float = Field(0.2, description="metres past the picture in which a told defect is still known", ge=0)
    severity_mm2: tuple[float, float] = Field((50.0, 500.0), description="areas from which it is major, critical")

    patience: float = Field(5.0, description="seconds without a picture after which the reader is started anew", gt=0)
    bound: int = Field(100_000, description="events that wait for one sink at most; the others wait as events", ge=1)
    alarm_share: float = Field(
        0.8, description="share of the bound from which the waiting itself is an alarm", gt=0, le=1
    )

    @model_validator(mode="after")
    def _moves(self) -> LineSettings:
        if self.motion == "speed" and self.speed <= 0:
            raise ValueError("motion by speed needs the line's speed in metres a second: speed=0.5")
        if self.motion == "trigger" and self.trigger_mm <= 0:
            raise ValueError("motion by trigger needs millimetres between two pictures: trigger_mm=20")
        if self.severity_mm2[0] > self.severity_mm2[1]:
            raise ValueError(f"severity_mm2 needs two areas in rising order, got {self.severity_mm2}")
        return self

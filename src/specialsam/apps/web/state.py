"""What a server knows: its limits, the desk, sessions, models, and the folders that it was started with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from specialsam.apps.line.sinks.prometheus import Labels, Numbers
from specialsam.apps.web.catalogue import Catalogue, Entry
from specialsam.apps.web.corrections import Corrections
from specialsam.apps.web.desk import Desk
from specialsam.apps.web.limits import Limits
from specialsam.apps.web.tuning import Tuner
from specialsam.apps.web.turns import Full
from specialsam.apps.web.uploads import Picture, Visits


@dataclass
class Server:
    """Everything that requests share. Sessions and models belong to the event loop's thread."""

    limits: Limits
    desk: Desk
    visits: Visits
    catalogue: Catalogue
    corrections: Corrections
    tuner: Tuner
    runs: Path
    line: Path | None = None
    answers: Counter[int] = field(default_factory=Counter)
    streams: int = 0
    ending: asyncio.Event = field(default_factory=asyncio.Event)

    async def asked(self, session: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The model's answer to a job of a session; HTTPException where it has none."""
        try:
            job = self.desk.ask(session, body)
        except Full:
            text = "too many questions wait; try again in a second"
            raise HTTPException(429, text, {"Retry-After": "1"}) from None
        answer = await asyncio.wrap_future(job.answer)
        if "error" in answer:
            more = {"Retry-After": "2"} if answer["status"] == 503 else None
            raise HTTPException(answer["status"], answer["error"], more)
        return answer

    def model(self, id: str | None) -> Entry:
        """A listed model, 404 for any other."""
        entry = self.catalogue.get(id)
        if entry is None:
            raise HTTPException(404, "expected the id of a listed model (see models), got another")
        return entry

    def picture(self, id: str) -> Picture:
        """A picture of a session that is still there, 404 for any other."""
        picture = self.visits.picture(id)
        if picture is None:
            raise HTTPException(
                404, "expected the id of an uploaded picture, got none that is still here; upload it again"
            )
        return picture

    def use(self, id: str) -> None:
        """Let a model answer from now on, also after the model's process was started anew."""
        entry = self.model(id)
        self.catalogue.use(id)
        self.desk.models = list(dict.fromkeys([self.catalogue.entries[0].place, entry.place]))

    def numbers(self) -> Numbers:
        """For Prometheus."""
        one: Labels = ()
        desk = self.desk.numbers
        shares: dict[Labels, float] = {
            (("kind", kind), ("quantile", str(q / 100))): float(np.percentile(list(kept), q))
            for kind, kept in desk.seconds.items()
            for q in (50, 95)
        }
        classes: dict[Labels, float] = {
            (("status", f"{status}"),): float(count) for status, count in sorted(self.answers.items())
        }
        return {
            "specialsam_requests_total": ("Requests answered, by status", classes),
            "specialsam_jobs_total": ("Questions that the model answered", _by("kind", desk.done)),
            "specialsam_jobs_failed_total": ("Questions that the model could not answer", _by("kind", desk.failed)),
            "specialsam_batches_total": ("Encoder passes, by the number of pictures", _by("pictures", desk.batches)),
            "specialsam_job_seconds": ("Seconds that the model took, lately", shares),
            "specialsam_working": ("Questions under way", {one: float(self.desk.working)}),
            "specialsam_queue": ("Questions that wait", {one: float(self.desk.turns.waiting)}),
            "specialsam_sessions": ("Sessions", {one: float(len(self.visits.known))}),
            "specialsam_pictures": ("Uploaded pictures", {one: float(len(self.visits.pictures))}),
            "specialsam_streams": ("Live pictures that are watched", {one: float(self.streams)}),
            "specialsam_model_restarts_total": (
                "Times the model's process was started anew",
                {one: float(desk.restarts)},
            ),
            "specialsam_ready": ("1 where the models are loaded", {one: float(self.desk.ready.is_set())}),
        }


def _by(name: str, counts: Mapping[Any, int]) -> dict[Labels, float]:
    return {((name, str(key)),): float(count) for key, count in sorted(counts.items())}

"""Which sinks an inspection has, from what a user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from specialsam.apps.line.couriers import Sink
from specialsam.apps.line.sinks.jsonl import JsonLines
from specialsam.core.errors import UsageError

JSONL = "events.jsonl"


@dataclass(frozen=True)
class Delivery:
    """Where events go beside the folder: URLs of a database, a broker and a webhook; a port for Prometheus."""

    database: str = ""
    mqtt: str = ""
    webhook: str = ""
    secret: str = ""
    allow_private: bool = False
    metrics: int | None = None

    def sinks(self, out: Path, camera: str) -> list[Sink]:
        """All sinks; UsageError in one line for a URL that is none."""
        found: list[Sink] = [JsonLines(out / JSONL)]
        if self.database:
            from specialsam.apps.line.sinks.database import Database

            found.append(Database(self.database))
        if self.mqtt:
            from specialsam.apps.line.sinks.mqtt import Mqtt

            found.append(Mqtt(self.mqtt, camera))
        if self.webhook:
            from specialsam.apps.line.sinks.webhook import Webhook

            found.append(Webhook(self.webhook, self.secret, self.allow_private))
        elif self.secret:
            raise UsageError("expected a webhook for its secret, got none; give --webhook, too")
        return found

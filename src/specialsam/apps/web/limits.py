"""What one server takes: bytes, pixels, sessions, waiting work, time and memory, looked at before decoding."""

from __future__ import annotations

from pydantic import Field

from specialsam.core.settings import Settings


class Limits(Settings):
    """Bounds of a server; what goes beyond is answered with 413 or 429."""

    upload_mb: float = Field(25.0, description="megabytes of one picture", gt=0, le=2000)
    megapixels: float = Field(50.0, description="of one picture, by its header", gt=0, le=200)
    json_kb: float = Field(256.0, description="kilobytes of a question", gt=0, le=100_000)
    mask_kb: float = Field(4096.0, description="kilobytes of corrected masks", gt=0, le=100_000)
    receive_seconds: float = Field(60.0, description="in which a request must have come in whole", gt=0)
    uploads: int = Field(32, description="requests with a body that come in at once", ge=1)
    sessions: int = Field(64, description="sessions at once", ge=1)
    pictures: int = Field(8, description="pictures a session; the oldest goes", ge=1)
    minutes: float = Field(15.0, description="without a question after which a session and its pictures go", gt=0)
    queue: int = Field(64, description="questions that wait at once", ge=1)
    own_queue: int = Field(16, description="questions of one session that wait at once", ge=1)
    batch: int = Field(8, description="waiting pictures that are encoded at once", ge=1)
    seconds: float = Field(60.0, description="that the model may work on one question", gt=0)
    memory_gb: float = Field(4.0, description="that the model's process may take beside its models", gt=0)
    kept_mb: float = Field(512.0, description="megabytes of embeddings, and of pixels, that are kept", gt=0)
    streams: int = Field(8, description="live pictures that are watched at once", ge=1)

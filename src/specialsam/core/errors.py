"""The errors that reach a user as one clear line: what was expected, what came, what to do."""

from __future__ import annotations

import re

from specialsam.core.names import printable


class SpecialSamError(Exception):
    """Something failed that the user can mend; the message is one line (exit code 1), whatever it was made of."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(re.sub(r"\s*[\r\n]+\s*", " ", message.strip())))


class DataError(SpecialSamError):
    """An image, a mask, a folder or a file does not hold what it should."""


class ModelError(SpecialSamError):
    """Weights are missing, damaged, or belong to another model."""


class StoreError(SpecialSamError):
    """The embedding store cannot be read or written, or belongs to another encoder."""


class TrainingError(SpecialSamError):
    """Training cannot start or cannot go on (for example a loss that is not finite)."""


class UsageError(SpecialSamError):
    """The call itself is wrong: an unknown name, options that contradict each other (exit code 2)."""

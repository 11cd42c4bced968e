"""What several tests of the pipeline watch."""

from __future__ import annotations

from typing import Any

import pytest

from specialsam.models.segmenter import Segmenter


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each pass of any encoder, as they come."""
    passes: list[int] = []
    real = Segmenter.encode_batch

    def counted(self: Segmenter, images: Any) -> Any:
        passes.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Segmenter, "encode_batch", counted)
    return passes

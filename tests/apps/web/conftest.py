"""A server of a small specialist, which all modules share: most of what a start takes is the import of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from small_models import finder, specialist
from web_parts import Site, listening

from specialsam.apps.web.limits import Limits
from specialsam.apps.web.server import ServeOrder

LIMITS = Limits(upload_mb=2, megapixels=1, json_kb=64, mask_kb=256, sessions=500, pictures=3, own_queue=6, queue=12)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that everything of the server lies in; outside of it is a secret."""
    outside = tmp_path_factory.mktemp("web")
    (outside / "secret.txt").write_text("the secret outside")
    folder = outside / "served"
    folder.mkdir()
    specialist(folder / "animals", finder(), seed=3)
    return folder


@pytest.fixture(scope="session")
def site(place: Path) -> Iterator[Site]:
    order = ServeOrder(
        str(place / "base"), place / "animals", place / "runs", place / "corrections", place / "line", device="cpu"
    )
    with listening(order, LIMITS) as served:
        yield served

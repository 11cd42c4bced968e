"""What every test shares: property tests are not timed (machines are busy), and torch leaves cores to other workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where CI is set, a test that would skip fails: `.ci/run` installs and starts whatever a test needs."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"skipped in CI: {reason}"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images in each pass of any encoder, as they come."""
    from specialsam.models.segmenter import Segmenter

    passes: list[int] = []
    real = Segmenter.encode_batch

    def counted(self: Segmenter, images: Any) -> Any:
        passes.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Segmenter, "encode_batch", counted)
    return passes


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket's URL on a server of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)  # moto keeps buckets as long as its process lives
        yield "s3://bucket"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()

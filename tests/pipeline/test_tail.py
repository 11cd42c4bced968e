"""The end of the encoder tuned on features stored before it, and general images replayed, as whole jobs on discs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from disc_data import discs, small

from specialsam.core.types import Prompts
from specialsam.embeddings.store import encoders
from specialsam.models.load import load_model
from specialsam.models.segmenter import fingerprint
from specialsam.models.specialist import load_specialist, read_card
from specialsam.pipeline.general import retention, training_data
from specialsam.pipeline.job import Request, open_job
from specialsam.pipeline.specialize import run_specialize

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return discs(tmp_path_factory.mktemp("discs") / "data", 20)


def test_a_specialist_with_an_end_of_its_own(data: Path, tmp_path: Path) -> None:
    """Images are encoded to the cut once; what is saved answers as a whole model, and the base is left alone."""
    folder = tmp_path / "run"
    settings = small(train={"mode": "tail", "epochs": 2, "lr": 1e-3}, fractions=(0.5, 0.25, 0.25))
    outcome = run_specialize(Request(str(data), "nano", folder), settings)
    assert outcome is not None
    assert not outcome.result.encoder_unchanged
    base = load_model("nano")
    assert encoders(folder / "embeddings") == sorted([base.encoder_id, f"{base.encoder_id}-cut2"])
    card = read_card(folder / "specialist")
    assert card.tuned == "tail"
    specialist = load_specialist(folder / "specialist", base)
    assert fingerprint(specialist.encoder) != fingerprint(base.encoder)
    assert fingerprint(specialist.encoder.backbone) == fingerprint(base.encoder.backbone)  # type: ignore[arg-type]
    image = np.random.default_rng(0).integers(0, 255, (72, 96, 3), dtype=np.uint8)
    prompts = Prompts("click", np.array([[[40, 30]]], np.float32), np.ones((1, 1), np.int64))
    own = specialist.decode(specialist.encode(image), prompts)
    assert torch.isfinite(own.logits).all()
    assert not torch.allclose(own.logits, base.decode(base.encode(image), prompts).logits)


def test_what_is_replayed_lies_in_the_jobs_store_and_is_not_what_the_guard_measures(data: Path, tmp_path: Path) -> None:
    settings = small(train={"replay": 1.0, "replay_pool": 3}, guard={"retention": "generated", "retention_images": 2})
    with open_job("specialize", Request(str(data), "nano", tmp_path / "run"), settings) as job:
        job.prepare()
        before = len(job.embedded.store)
        learned = training_data(job)
        general = learned.general
        assert general is not None
        scenes = [item for item in general.train if not item.id.startswith("beside ")]
        beside = [item for item in general.train if item.id.startswith("beside ")]
        assert len(scenes) == 3
        assert len(job.embedded.store) == before + 3
        assert {item.id.removeprefix("beside ") for item in beside} <= {item.id for item in learned.train}
        for item in general.train:
            assert general.embeddings([item])[0].tensor.shape == learned.embeddings(learned.train[:1])[0].tensor.shape
            assert general.masks(item).any()


def test_a_second_job_on_the_machine_encodes_its_own_images_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[int]
) -> None:
    """Also for a job whose cache cannot be written, which encodes all of them itself."""
    monkeypatch.setenv("SPECIALSAM_CACHE", str(tmp_path / "cache"))
    settings = small(train={"replay": 1.0, "replay_pool": 3}, guard={"retention": "generated", "retention_images": 2})

    def general_passes(name: str) -> int:
        with open_job("specialize", Request(str(data), "nano", tmp_path / name), settings) as job:
            job.prepare()
            encoded.clear()
            training_data(job)
            measure = retention(job)
            assert measure is not None
            assert not encoded or sum(encoded) == 3  # the guard's are asked for when it turns on them
            measure(job.segmenter)
        return sum(encoded)

    assert general_passes("first") == 3 + 2
    assert general_passes("second") == 0
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPECIALSAM_CACHE", str(tmp_path / "file"))
    assert general_passes("third") == 3 + 2

    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("specialsam.pipeline.general.EmbeddingStore", refused)  # somebody else's home
    assert general_passes("fourth") == 3 + 2


def test_without_anything_to_replay_it_tunes_all_the_same(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = small(train={"replay": 1.0, "replay_own": False})
    with open_job("specialize", Request(str(data), "nano", tmp_path / "run"), settings) as job:
        job.prepare()
        assert training_data(job).general is None
    assert "nothing to replay" in capsys.readouterr().out

"""Ways to run an encoder. Oracle: torch's own embeddings of the same picture."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from test_vit import card, sam

from specialsam.core.errors import ModelError, UsageError
from specialsam.models import backends
from specialsam.models.backends import BACKENDS, Trial, fastest, table, trials, with_backend
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone

PICTURE = np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECIALSAM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def plain() -> Segmenter:
    return Segmenter("small", sam(card()), 96)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_other_runtimes_give_torchs_embeddings_under_its_id(plain: Segmenter, name: str) -> None:
    other = with_backend(plain, name)
    torch.testing.assert_close(other.encode(PICTURE).tensor, plain.encode(PICTURE).tensor, atol=1e-3, rtol=1e-3)
    assert other.encoder_id == plain.encoder_id
    batch = other.encode_batch([PICTURE, PICTURE[::-1].copy()])
    torch.testing.assert_close(batch[0].tensor, other.encode(PICTURE).tensor, atol=1e-5, rtol=1e-5)


def test_half_precision_is_another_encoder_by_its_id(plain: Segmenter) -> None:
    other = with_backend(plain, "torch-bf16")
    one, exact = other.encode(PICTURE).tensor, plain.encode(PICTURE).tensor
    assert 0 < float((one - exact).norm() / exact.norm()) < 0.05
    assert other.encoder_id == f"{plain.encoder_id}-bf16"
    assert clone(other).encoder_id == other.encoder_id
    assert clone(other, share_encoder=False).encoder_id == plain.encoder_id
    assert with_backend(other, "torch").encoder_id == plain.encoder_id


def test_gradients_go_through_torch(plain: Segmenter) -> None:
    other = with_backend(plain, "torch-bf16")
    pixels = plain.pixels(PICTURE)[None].requires_grad_(True)
    other.encode_pixels(pixels).sum().backward()
    assert pixels.grad is not None


def test_wrong_names_and_missing_packages_are_one_line(plain: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"expected a --backend of auto, torch, .*got 'fast'"):
        with_backend(plain, "fast")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ModelError, match=r"expected the package openvino .*pip install"):
        with_backend(plain, "openvino")


def test_what_cannot_run_is_one_line(plain: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Segmenter) -> backends.Run:
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setitem(backends.KINDS, "torch-bf16", backends.Kind(broken, "bf16"))
    with pytest.raises(ModelError, match=r"cannot run by torch-bf16 here .no such instruction.; use --backend torch"):
        with_backend(plain, "torch-bf16")


def test_trials_compare_masks_with_torchs(plain: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_weights(_: Segmenter) -> backends.Run:
        return Segmenter("other", sam(card(), seed=5), 96).encode_pixels

    monkeypatch.setitem(backends.KINDS, "compiled", backends.Kind(other_weights))
    monkeypatch.setitem(sys.modules, "openvino", None)
    found = {trial.name: trial for trial in trials(plain, [PICTURE] * 2, ["compiled", "onnxruntime", "openvino"])}
    assert next(iter(found)) == "torch"
    assert found["torch"].median == found["torch"].low == 1
    assert found["onnxruntime"].median > 0.99
    assert found["compiled"].median < 0.99
    assert "not installed" in found["openvino"].failed
    assert "not installed" in table(list(found.values()))


def test_the_fastest_that_agrees_is_chosen_once_and_said(
    plain: Segmenter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [
        Trial("torch", 1.0),
        Trial("openvino", 0.5, 1.0, 0.99),
        Trial("openvino-bf16", 0.2, 0.98, 0.9),
        Trial("onnxruntime", float("inf"), 0.0, 0.0, "not here"),
    ]
    monkeypatch.setattr(backends, "trials", lambda *_: made)
    assert fastest(plain, lambda: [PICTURE]) == "openvino"
    assert "by openvino, 2.0 times as fast as torch" in capsys.readouterr().out

    def again(*_: object) -> list[Trial]:
        raise AssertionError("measured twice")

    monkeypatch.setattr(backends, "trials", again)
    assert fastest(plain, lambda: [PICTURE]) == "openvino"
    assert fastest(replace(plain), lambda: [PICTURE]) == "openvino"


def test_every_backend_has_a_name_that_stores_can_hold() -> None:
    assert BACKENDS[0] == "torch"
    assert all(kind.arithmetic in ("", "bf16") for kind in backends.KINDS.values())


@pytest.mark.parametrize("compiled", [False, True])
def test_an_encoder_that_answers_as_transformers_do_gives_its_embeddings(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MobileSAM's encoder does; torch.compile changes nothing of an answer, so that a stand-in will do."""
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    asked = SimpleNamespace(encoder=lambda pixels: SimpleNamespace(last_hidden_state=2 * pixels))
    run = backends._torch(cast(Segmenter, asked), compiled=compiled)
    assert torch.equal(run(torch.ones(1, 3, 4, 4)), torch.full((1, 3, 4, 4), 2.0))


def test_torch_as_it_is_changes_nothing(plain: Segmenter) -> None:
    assert with_backend(plain, "torch") is plain

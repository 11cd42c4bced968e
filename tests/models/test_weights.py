"""Checkpoints in and out: key layouts, damaged and foreign files, downloads from a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from answered import masks_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from specialsam.core.errors import ModelError
from specialsam.models import weights
from specialsam.models.architectures import SHARED, SHARED_TOO, build
from specialsam.models.segmenter import encoded
from specialsam.models.zoo import CARDS, Card, TinyVitNumbers, VitNumbers

DATA = Path(os.environ.get("SPECIALSAM_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
PARITY = DATA.parent / "parity"
TINY = Card("tiny", "T", "", "tiny.pth", None, "none", "none", 1, 64, "vit", VitNumbers(32, 2, 2, (1,), 2), 32)
STAGES = TinyVitNumbers((8, 12, 16, 20), (1, 1, 2, 1), (1, 2, 2, 4), (7, 3, 4, 3), 5)
SAMS = [card for card in CARDS.values() if card.encoder in ("vit", "tinyvit")]
TINY_MOBILE = replace(TINY, name="tiny_mobile", encoder="tinyvit", numbers=STAGES)


def official(card: Card) -> dict[str, Tensor]:
    """Random weights in the official layout."""
    torch.manual_seed(0)
    return weights.to_official(build(card).state_dict(), card)


def hollow(name: str) -> dict[str, Tensor]:
    """All official keys of a full-size model with its shapes, every tensor one zero spread out (a tiny file)."""
    card = CARDS[name]
    state = weights.to_official(build(card, "meta").state_dict(), card)
    return {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}


def refused(call: Any) -> str:
    with pytest.raises(ModelError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.real
@pytest.mark.parametrize("name", ["sam_vit_b", "mobile_sam"])
def test_published_keys_become_those_of_sam_model_and_back(name: str) -> None:
    """Oracle: the key list of the official checkpoint, in its order and with its shapes."""
    if not (PARITY / f"{name}.json").exists():
        pytest.skip(f"the key list {name}.json is not in {PARITY}")
    keys = json.loads((PARITY / f"{name}.json").read_text())["keys"]
    state = {key: torch.empty(shape, device="meta") for key, shape in keys}
    converted = weights.to_transformers(state, CARDS[name])
    expected = build(CARDS[name], "meta").state_dict()
    assert {key: value.shape for key, value in converted.items()} == {key: v.shape for key, v in expected.items()}
    back = weights.to_official(converted, CARDS[name])
    assert list(back) == list(state)
    assert all(back[key] is value for key, value in state.items())
    assert weights.identify(state) == name


@pytest.mark.parametrize("card", [TINY, TINY_MOBILE, *SAMS], ids=lambda card: card.name)
def test_conversion_there_and_back_changes_nothing(card: Card) -> None:
    state = dict(build(card, "meta").state_dict())
    state[SHARED_TOO] = state[SHARED]
    there = weights.to_official(state, card)
    assert len(there) == len(state) - 1
    assert {key.split(".")[0] for key in there} == {"image_encoder", "prompt_encoder", "mask_decoder"}
    again = weights.to_transformers(there, card)
    assert again.keys() == state.keys()
    assert all(again[key] is state[key] for key in state)


def test_two_positional_encodings_that_differ_are_refused() -> None:
    state = dict(build(TINY).state_dict())
    state[SHARED_TOO] = state[SHARED] + 1
    assert "two that differ" in refused(lambda: weights.to_official(state, TINY))


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h", "mobile_sam"])
def test_a_model_is_recognised_by_its_keys(name: str) -> None:
    state = hollow(name)
    assert weights.identify(state) == name
    assert weights.identify(weights.to_transformers(state, CARDS[name])) == "a transformers SamModel"


def test_other_tensors_are_not_taken_for_a_known_model() -> None:
    deeper = hollow("sam_vit_b") | {"image_encoder.blocks.12.norm1.weight": torch.zeros(768)}
    assert weights.identify(deeper) == "unknown"
    assert weights.identify({"vision_encoder.stem.0.0.weight": torch.zeros(24, 3, 3, 3)}) == "nano"
    for other in (official(TINY), official(TINY_MOBILE), {"fc.weight": torch.zeros(2, 2)}, {}):
        assert weights.identify(other) == "unknown"


@pytest.mark.parametrize("wrap", ["", "model", "state_dict"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_checkpoints_are_read_wrapped_or_bare(tmp_path: Path, wrap: str, suffix: str) -> None:
    path, state = tmp_path / f"w{suffix}", {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}
    if suffix == ".safetensors":
        save_file({f"module.{key}": value for key, value in state.items()}, path)
    else:
        torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    read = weights.read_checkpoint(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_files_of_the_format_before_zip_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(weights.read_checkpoint(tmp_path / "old.pth")["a"], torch.ones(2))


class Boom:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["BOOM"],)


def test_code_in_a_checkpoint_is_named_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOM", str(tmp_path / "ran"))
    torch.save({"a": torch.ones(1), "b": Boom()}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"a": Boom()}, protocol=2))
    for name in ("zip.pth", "bare.pth"):
        assert "holds code, which is never run" in refused(lambda name=name: weights.read_checkpoint(tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [{}, [1, 2], {"a": 1}, torch.ones(2), {"model": {"a": "text"}}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert "expected tensors by name" in refused(lambda: weights.read_checkpoint(tmp_path / "x.pt"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_any_bytes_give_one_line(tmp_path: Path, data: bytes, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    assert str(path) in refused(lambda: weights.read_checkpoint(path))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.99), suffix=st.sampled_from([".pth", ".safetensors"]))
def test_a_truncated_file_gives_one_line(tmp_path: Path, share: float, suffix: str) -> None:
    path, state = tmp_path / f"x{suffix}", {"a": torch.arange(3000.0)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "damaged or of another format" in refused(lambda: weights.read_checkpoint(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no.pth, found no such file" in refused(lambda: weights.read_checkpoint(tmp_path / "no.pth"))


@pytest.mark.parametrize("card", [TINY, TINY_MOBILE], ids=lambda card: card.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_loaded_checkpoint_is_frozen_tied_float32_and_answers_alike(
    tmp_path: Path, card: Card, dtype: torch.dtype
) -> None:
    """Oracle: the model that the checkpoint was taken from."""
    torch.manual_seed(1)
    sam = build(card)
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in sam.state_dict().items()}
    torch.save(weights.to_official(state, card), tmp_path / "w.pth")
    loaded = weights.load_checkpoint(tmp_path / "w.pth", card)
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert {value.device.type for value in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
    assert not loaded.training
    assert not any(value.requires_grad for value in loaded.parameters())
    assert (
        loaded.shared_image_embedding.positional_embedding
        is loaded.prompt_encoder.shared_embedding.positional_embedding
    )
    images, points = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 1, 2) * 64
    with torch.no_grad():
        ours, theirs = (masks_at(model, images, points) for model in (loaded, sam))
        assert encoded(loaded.vision_encoder, images).shape == (2, 32, 4, 4)
    tolerance = 1e-6 if dtype == torch.float32 else 0.02
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_a_loaded_model_can_be_trained_without_touching_its_file(tmp_path: Path) -> None:
    """The weights are mapped from the file, privately."""
    path = tmp_path / "w.pth"
    torch.save(official(TINY), path)
    before = path.read_bytes()
    sam = weights.load_checkpoint(path, TINY)
    for value in sam.parameters():
        value.add_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("name", "other"), [("sam_vit_h", "sam_vit_b"), ("sam_vit_b", "mobile_sam")])
def test_the_checkpoint_of_another_model_is_refused_in_one_line(tmp_path: Path, name: str, other: str) -> None:
    path = tmp_path / "w.pth"
    torch.save(hollow(other), path)
    expected = f"expected weights of {name}, got what looks like {other} ({path}); use --model {other}"
    assert refused(lambda: weights.load_checkpoint(path, CARDS[name])) == expected
    assert weights.load_checkpoint(path, CARDS[other]).config.vision_config.image_size == 1024


def test_a_transformers_file_is_refused_with_advice(tmp_path: Path) -> None:
    save_file({"vision_encoder.pos_embed": torch.zeros(1, 64, 64, 768)}, tmp_path / "model.safetensors")
    line = refused(lambda: weights.load_checkpoint(tmp_path / "model.safetensors", CARDS["sam_vit_b"]))
    assert "a transformers SamModel" in line
    assert "give its folder" in line


def test_tensors_missing_unknown_or_of_another_shape_are_counted_and_named(tmp_path: Path) -> None:
    state = official(TINY)
    del state["image_encoder.blocks.1.norm2.bias"]
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 33)
    state["mask_decoder.hf_token.weight"] = torch.zeros(1, 32)
    torch.save(state, tmp_path / "w.pth")
    line = refused(lambda: weights.load_checkpoint(tmp_path / "w.pth", TINY))
    assert "1 missing (first: image_encoder.blocks.1.norm2.bias)" in line
    assert "1 unknown (first: mask_decoder.hf_token.weight)" in line
    assert "1 of another shape (first: mask_decoder.iou_token.weight (1, 33) instead of (1, 32))" in line


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and the folder that it serves; a name in `short` breaks off."""
    root = tmp_path / "served"
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            return

        def copyfile(self, source: Any, outputfile: Any) -> None:
            content = source.read()
            outputfile.write(content[: len(content) // 2] if "short" in self.path else content)

    handler = functools.partial(Handler, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        thread = threading.Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", root
        web.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECIALSAM_WEIGHTS", str(tmp_path / "kept"))
    return tmp_path / "kept"


def served(server: tuple[str, Path], name: str = "tiny.pth") -> Card:
    content = os.urandom(3 * weights.CHUNK // 2)
    (server[1] / name).write_bytes(content)
    return replace(TINY, url=f"{server[0]}/{name}", filename=name, sha256=hashlib.sha256(content).hexdigest())


def test_the_folder_is_the_one_of_the_environment_or_the_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert weights.weights_path(TINY) == folder / "tiny.pth"
    monkeypatch.delenv("SPECIALSAM_WEIGHTS")
    assert weights.weights_folder() == Path.home() / ".cache" / "specialsam" / "weights"


def test_a_file_is_fetched_once_with_progress_and_verified(server: tuple[str, Path], folder: Path) -> None:
    card, steps = served(server), []
    path = weights.fetch(card, lambda *step: steps.append(step))
    assert path == folder / "tiny.pth"
    assert path.read_bytes() == (server[1] / "tiny.pth").read_bytes()
    size = path.stat().st_size
    assert steps[-1] == (size, size, "tiny.pth")
    assert [done for done, _, _ in steps] == sorted({done for done, _, _ in steps})
    (server[1] / "tiny.pth").unlink()
    assert weights.fetch(card) == weights.verify(card) == path
    assert not list(folder.glob("*.part"))


def test_a_verified_file_is_hashed_again_only_when_it_changes(
    server: tuple[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, hashed = served(server), []
    monkeypatch.setattr(
        weights, "_verify", lambda path, card, check=weights._verify: (hashed.append(1), check(path, card))
    )
    path = weights.fetch(card)
    weights.fetch(card)
    count = len(hashed)
    weights.fetch(card)
    assert len(hashed) == count
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    refused(lambda: weights.fetch(card))
    assert len(hashed) == count + 1


def test_a_damaged_download_says_both_hashes_and_leaves_nothing(server: tuple[str, Path], folder: Path) -> None:
    card = served(server)
    (server[1] / "tiny.pth").write_bytes(b"something else")
    line = refused(lambda: weights.fetch(card))
    assert str(card.sha256) in line
    assert hashlib.sha256(b"something else").hexdigest() in line
    assert not list(folder.iterdir())


def test_a_damaged_file_is_refused_and_kept(server: tuple[str, Path], folder: Path) -> None:
    card = served(server)
    folder.mkdir()
    (folder / "tiny.pth").write_bytes(b"mine")
    for call in (weights.fetch, weights.verify):
        assert hashlib.sha256(b"mine").hexdigest() in refused(functools.partial(call, card))
    assert (folder / "tiny.pth").read_bytes() == b"mine"


def test_a_connection_that_breaks_off_leaves_nothing(server: tuple[str, Path], folder: Path) -> None:
    card = replace(served(server, "short.pth"), sha256=None)
    line = refused(lambda: weights.fetch(card))
    assert "ended after" in line or "IncompleteRead" in line
    assert not list(folder.iterdir())


def test_without_a_network_the_address_the_name_and_the_folder_are_told(folder: Path) -> None:
    card = replace(TINY, url="http://127.0.0.1:9/tiny.pth")
    line = refused(lambda: weights.fetch(card))
    assert "download http://127.0.0.1:9/tiny.pth and put it as tiny.pth into" in line
    assert str(folder) in line
    assert "download http://127.0.0.1:9/tiny.pth" in refused(lambda: weights.verify(card))


def test_a_model_without_an_address_cannot_be_fetched(folder: Path) -> None:
    assert "has no address" in refused(lambda: weights.fetch(TINY))


def test_a_transformers_folder_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    torch.manual_seed(2)
    sam = build(TINY)
    sam.save_pretrained(tmp_path / "sam")
    loaded = weights.load_transformers(tmp_path / "sam")
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in sam.state_dict().items())
    assert loaded.mask_decoder.transformer.layers[0].layer_norm1.eps == 1e-5
    assert not loaded.training
    assert not any(value.requires_grad for value in loaded.parameters())


def test_an_incomplete_transformers_folder_is_refused(tmp_path: Path) -> None:
    """transformers itself would fill the gap with random weights and say so in a log line."""
    from safetensors.torch import load_file

    build(TINY).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["mask_decoder.iou_token.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    line = refused(lambda: weights.load_transformers(tmp_path))
    assert "1 missing (first: mask_decoder.iou_token.weight)" in line


def test_a_transformers_folder_of_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "of type 'bert'" in refused(lambda: weights.load_transformers(tmp_path))


def test_a_hub_id_without_a_network_gives_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = refused(lambda: weights.load_transformers("specialsam/no-such-model"))
    assert "cannot load specialsam/no-such-model" in line

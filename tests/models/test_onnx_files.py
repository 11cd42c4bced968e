"""Models without torch. Oracle: the model's own answers to the same prompts, with a mask or not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from test_vit import card, sam

from specialsam.core.errors import ModelError
from specialsam.core.types import Prompts
from specialsam.models import onnx_files
from specialsam.models.finder import Finder
from specialsam.models.folder import save_pretrained
from specialsam.models.load import load_model
from specialsam.models.onnx_files import checked, export_onnx, session, write_encoder
from specialsam.models.segmenter import ALL, Segmenter

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_without_torch.py"


def small(seed: int = 0) -> Segmenter:
    return Segmenter("small", sam(card(), seed), 96)


def head() -> Finder:
    torch.manual_seed(3)
    return Finder(32, width=16).eval()


def pictures(count: int = 3) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (60, 90 - 20 * n, 3), dtype=np.uint8) for n in range(count)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    found = export_onnx(small(), head(), folder, pictures())
    assert found.mean >= 0.999
    assert found.masks == 30
    return folder


def test_the_bundled_models_encoder_opens_in_other_programs(tmp_path: Path) -> None:
    """Its convolutions of stride 2 pad on one side, which is written so that onnxruntime takes it."""
    nano = load_model("nano")
    path = write_encoder(nano, tmp_path / "encoder.onnx")
    pixels = nano.pixels(pictures(1)[0])[None]
    (found,) = session(onnxruntime, path).run(None, {"pixels": pixels.numpy()})
    np.testing.assert_allclose(found, nano.encode_pixels(pixels).detach().numpy(), atol=1e-4)


def test_a_file_that_no_program_opens_is_one_line_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "encoder.onnx"
    path.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="onnxruntime opens"):
        checked([path], lambda: session(onnxruntime, path))
    assert not path.exists()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_the_decoder_answers_as_the_model_does(exported: Path, count: int, masked: bool) -> None:
    segmenter, image = small(), pictures(1)[0]
    embedding = segmenter.encode(image)
    rng = np.random.default_rng(count)
    points = rng.uniform(0, 60, (count, 2, 2)).astype(np.float32)
    labels = np.array([[1, 0]] * count, np.int64)
    boxes = np.sort(rng.uniform(0, 60, (count, 2, 2)), 1).reshape(count, 4).astype(np.float32)
    given = rng.normal(0, 3, (count, 24, 24)).astype(np.float32) if masked else None
    own = segmenter.decode_outputs(embedding, Prompts("all", points, labels, boxes, given), ALL)
    frame = embedding.geometry
    corners = frame.points_to_model(boxes.reshape(count, 2, 2))
    asked = {
        "image_embeddings": embedding.tensor[None].numpy(),
        "point_coords": np.concatenate([frame.points_to_model(points), corners], 1),
        "point_labels": np.concatenate([labels, [[2, 3]] * count], 1).astype(np.float32),
        "mask_input": np.zeros((count, 1, 24, 24), np.float32) if given is None else given[:, None],
        "has_mask_input": np.array([masked], np.float32),
    }
    logits, scores = session(onnxruntime, exported / "decoder.onnx").run(None, asked)
    np.testing.assert_allclose(logits, own.logits.numpy(), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(scores, own.scores.numpy(), atol=1e-4, rtol=1e-4)


def test_encoder_and_finder_take_pictures_of_a_batch(exported: Path) -> None:
    segmenter = small()
    pixels = torch.stack([segmenter.pixels(image) for image in pictures(3)])
    with torch.no_grad():
        own = segmenter.encode_pixels(pixels)
    (theirs,) = session(onnxruntime, exported / "encoder.onnx").run(None, {"pixels": pixels.numpy()})
    np.testing.assert_allclose(theirs, own.numpy(), atol=1e-4, rtol=1e-3)
    finder, valid = head(), torch.ones(1, 6, 6, dtype=torch.bool)
    valid[:, 4:] = False
    with torch.no_grad():
        maps = finder(own[:1], valid)
    asked = {"embeddings": own[:1].numpy(), "valid": valid.numpy()}
    found = session(onnxruntime, exported / "finder.onnx").run(None, asked)
    for one, other in zip(found, (maps.middle, maps.sides, maps.dense, maps.presence), strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-3, rtol=1e-3)


def test_files_that_answer_otherwise_are_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_files, "write_encoder", lambda segmenter, path: write_encoder(small(seed=7), path))
    with pytest.raises(ModelError, match="expected masks of the exported files to agree") as caught:
        export_onnx(small(), None, tmp_path, pictures())
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_facts_say_how_pictures_become_pixels(exported: Path) -> None:
    facts = json.loads((exported / "runtime.json").read_text())
    assert facts["side"] == 96
    assert facts["encoder_id"] == small().encoder_id
    assert facts["agreement"]["masks"] == 30


def test_the_example_needs_no_torch_and_gives_the_models_mask(exported: Path, tmp_path: Path) -> None:
    segmenter, image = small(), pictures(1)[0]
    Image.fromarray(image).save(tmp_path / "picture.png")
    blocked = "import sys, runpy; sys.modules['torch'] = None; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    command = [sys.executable, "-c", blocked, EXAMPLE, exported, picture, "30", "20", mask]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    click = Prompts("click", np.array([[[30, 20]]], np.float32), np.ones((1, 1), np.int64))
    own = segmenter.decode(segmenter.encode(image), click).masks()[0, 0]
    theirs = np.asarray(Image.open(tmp_path / "mask.png")) > 0
    assert (own == theirs).mean() > 0.99


def test_an_exported_folder_lends_its_encoder(exported: Path, tmp_path: Path) -> None:
    from specialsam.models import backends

    plain = small()
    folder = save_pretrained(plain, tmp_path / "model")
    for name in ("encoder.onnx", "runtime.json"):
        (folder / name).write_bytes((exported / name).read_bytes())
    lent = Segmenter("small", plain.sam, 96, str(folder))
    assert backends._encoder_file(lent) == folder / "encoder.onnx"

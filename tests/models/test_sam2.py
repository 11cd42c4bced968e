"""SAM 2.1 and SAM 3's tracker against transformers' own models with the same random weights; store, finder, frames.

transformers' `Sam3TrackerModel` of four levels adds the embedding of "no memory" to the one that it throws away; of the
three levels that are left here it adds it where Meta's own code does, so that it is the oracle with three.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sams import (
    KINDS,
    MODELS,
    SAM2,
    SIZES,
    TOLERANCE,
    answered,
    image,
    prompts,
    reference,
    segmenter,
)

from specialsam.core.errors import ModelError
from specialsam.core.geometry import Geometry
from specialsam.embeddings import EmbeddingStore
from specialsam.embeddings.shards import Entry, checksum
from specialsam.models.architectures import build
from specialsam.models.decode import dynamic_single
from specialsam.models.finder import Finder, propose
from specialsam.models.segmenter import ALL, SINGLE, THREE, Segmenter
from specialsam.models.specialist import clone
from specialsam.models.zoo import CARDS as ZOO
from specialsam.training.finder import targets
from specialsam.training.tuning import prepare


@MODELS
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("asked", KINDS)
def test_answers_are_those_of_transformers(kind: str, size: tuple[int, int], asked: str) -> None:
    """Oracle: `Sam2Model` and `Sam3TrackerModel` from pixels on, three masks and one, chosen in their way."""
    own, other = segmenter(kind), reference(kind)
    embedding = own.encode(image(size))
    given = prompts(asked, size, embedding.geometry.logits_side)
    for outputs, multimask in ((THREE, True), (SINGLE, False)):
        answer = own.decode_outputs(embedding, given, outputs)
        logits, scores, present = answered(other, own.pixels(image(size)), embedding.geometry, given, multimask)
        assert answer.logits.std() > 0.1
        torch.testing.assert_close(answer.logits, logits, atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(answer.scores, scores, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(answer.present, present, atol=TOLERANCE, rtol=TOLERANCE)


def test_both_ways_of_choosing_a_single_mask_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the rule by hand on planes of one value, and a threshold that no answer above can miss or reach."""
    sam = build(SAM2)
    planes = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.01, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0]])
    logits = planes[..., None, None].expand(3, 4, 8, 8)
    scores = torch.tensor([[0.1, 0.9, 0.2, 0.3], [0.1, 0.2, 0.9, 0.3], [0.1, 0.2, 0.3, 0.9]])
    masks, own = dynamic_single(sam, logits, scores)
    assert masks[:, :, 0, 0].tolist() == [[1.0, 2.0, 3.0, 4.0], [3.0, 2.0, 3.0, 4.0], [-1.0, 2.0, 3.0, 4.0]]
    assert own[:, 0].tolist() == pytest.approx([0.1, 0.9, 0.1])
    assert torch.equal(masks[:, 1:], logits[:, 1:])
    model = segmenter("sam2")
    embedding, given = model.encode(image((60, 97))), prompts("point", (60, 97), 32)
    every = model.forward(embedding.tensor[None], [embedding.geometry], [given], ALL)[0]
    for threshold, expected in ((0.0, every[:, 0]), (1.1, None)):
        monkeypatch.setattr(model.sam.mask_decoder, "dynamic_multimask_stability_thresh", threshold)
        answer = model.decode(embedding, given)
        best = model.decode(embedding, given, multimask=True).best()
        torch.testing.assert_close(answer.logits[:, 0], best.logits[:, 0] if expected is None else expected)


@MODELS
def test_a_batch_of_images_is_its_images_one_by_one(kind: str) -> None:
    """Oracle: the loop, for the encoder and for the decoder with two images of different sizes at once."""
    own = segmenter(kind)
    images = [image(size, seed) for seed, size in enumerate(SIZES)]
    together = own.encode_batch(images)
    for one, picture in zip(together, images, strict=True):
        alone = own.encode(picture)
        assert one.geometry == alone.geometry
        torch.testing.assert_close(one.tensor, alone.tensor, atol=1e-5, rtol=1e-5)
    given = [prompts("point and box", size, 32) for size in SIZES]
    tensors = torch.stack([one.tensor for one in together])
    logits, scores = own.forward(tensors, [one.geometry for one in together], given, ALL)
    alone = [
        own.forward(one.tensor[None], [one.geometry], [asked], ALL) for one, asked in zip(together, given, strict=True)
    ]
    torch.testing.assert_close(logits, torch.cat([part[0] for part in alone]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores, torch.cat([part[1] for part in alone]), atol=1e-5, rtol=1e-5)


@MODELS
def test_an_embedding_holds_every_value_of_every_level(kind: str) -> None:
    """Oracle: what transformers' own model computes of an image, put together again from the folded channels."""
    own, other = segmenter(kind), reference(kind)
    picture = image((60, 97))
    tensor = own.encode(picture).tensor
    with torch.no_grad():
        fine, middle, coarse = other.get_image_embeddings(own.pixels(picture)[None])
    width, cells = coarse.shape[1], coarse.shape[2]
    assert tensor.shape == own.embedding_shape == (4 * width, cells, cells)
    torch.testing.assert_close(tensor[:width], coarse[0], atol=1e-5, rtol=1e-5)
    for row, column in ((0, 0), (3, 5), (cells - 1, 2)):
        cell = tensor[width:, row, column]
        for y in range(2):
            for x in range(2):
                place = (2 * y + x) * (width // 4)
                expected = middle[0, :, 2 * row + y, 2 * column + x]
                torch.testing.assert_close(cell[place : place + width // 4], expected, atol=1e-5, rtol=1e-5)
                for v in range(2):
                    for u in range(2):
                        start = width + ((2 * y + x) * 4 + 2 * v + u) * (width // 8)
                        expected = fine[0, :, 4 * row + 2 * y + v, 4 * column + 2 * x + u]
                        torch.testing.assert_close(cell[start : start + width // 8], expected, atol=1e-5, rtol=1e-5)


@MODELS
def test_pixels_are_those_of_transformers_processor(kind: str) -> None:
    """Oracle: its formula, (resized / 255 - mean) / std with ImageNet's values for SAM 2 and halves for SAM 3."""
    own, picture = segmenter(kind), image((60, 97))
    mean, std = {
        "sam2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "sam3": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    }[kind]
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (own.side, own.side), mode="bilinear", antialias=True)[0]
    expected = (resized / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(own.pixels(picture), expected, atol=1e-5, rtol=1e-5)


def test_what_makes_the_finer_levels_is_the_encoder_and_frozen() -> None:
    own = segmenter("sam2")
    for name in ("conv_s0.weight", "conv_s1.bias", "no_memory_embedding"):
        other = clone(own, share_encoder=False)
        with torch.no_grad():
            other.encoder.get_parameter(name).add_(1)
        assert other.encoder_id != own.encoder_id
        assert other.decoder_id == own.decoder_id
    learned = clone(own)
    prepare(learned.sam, "decoder+prompt")
    names = {name for name, value in learned.sam.named_parameters() if value.requires_grad}
    assert "mask_decoder.obj_score_token.weight" in names
    assert not any(name.startswith("vision_encoder.") for name in names)
    assert not any("conv_s" in name or "no_memory" in name for name in names)


@pytest.mark.parametrize(
    ("kind", "shape", "half", "eighth"),
    [("sam2.1_hiera_tiny", (1024, 64, 64), 8.0, 4.0), ("sam3_tracker", (1024, 72, 72), 10.125, 5.0625)],
)
def test_the_store_holds_all_levels_in_the_promised_room(
    kind: str, shape: tuple[int, int, int], half: float, eighth: float, tmp_path: Path
) -> None:
    """8 MiB an image in half precision and 4 in int8 (SAM 3: 10.1 and 5.1), with the frames that it was made in."""
    from specialsam.core.types import Embedding

    card = ZOO[kind]
    own = Segmenter(kind, build(card, "meta"), card.side)
    assert own.embedding_shape == shape
    embedding = Embedding(torch.randn(shape, generator=torch.Generator().manual_seed(0)), own.geometry((300, 400)))
    for precision, mebibytes in (("half", half), ("int8", eighth)):
        store = EmbeddingStore(tmp_path / precision, "someone", precision)  # type: ignore[arg-type]
        with store.writer() as writer:
            entry = writer.put("0" * 64, embedding, "one")
        assert entry.bytes / 2**20 == pytest.approx(mebibytes, rel=0.002)
        again = EmbeddingStore(tmp_path / precision, "someone", precision)  # type: ignore[arg-type]
        found = again.get("0" * 64)
        assert found.geometry == embedding.geometry
        torch.testing.assert_close(found.tensor.float(), embedding.tensor, atol=0.03, rtol=0.01)
        for index in (tmp_path / precision / "someone").glob("index-*"):
            index.unlink()
        assert EmbeddingStore(tmp_path / precision, "someone", precision).get("0" * 64).geometry == embedding.geometry  # type: ignore[arg-type]


def test_what_was_stored_before_there_were_stretched_frames_is_read_as_ever() -> None:
    """Oracle: an entry of the earlier format, without the two new fields, and its sum by the earlier rule."""
    facts = {"key": "k", "record": "r", "view": "", "height": 60, "width": 97, "side": 128}
    shape = {"channels": 4, "rows": 8, "columns": 8}
    entry = Entry(**facts, shard="s", **shape, precision="half", encoder="e", created=1.0)  # type: ignore[arg-type]
    assert entry.geometry == Geometry(60, 97, 128)
    values = torch.randn(4, 8, 8).half()
    said = json.dumps([*facts.values(), 4, 8, 8, "half", "e"]).encode()
    assert checksum(entry, None, values) == zlib.crc32(values.numpy().tobytes(), zlib.crc32(said))
    assert checksum(replace(entry, stretched=True), None, values) != checksum(entry, None, values)


@MODELS
def test_a_finder_of_a_stretched_frame_learns_boxes_where_they_are(kind: str) -> None:
    """Oracle: the box of the mask by hand, scaled with each side, to a logit; proposals lie in the image."""
    own = segmenter(kind)
    mask = np.zeros((1, 60, 97), np.bool_)
    mask[0, 12:40, 20:70] = True
    truth = targets(mask, own.geometry((60, 97)))
    row, column = (int(place) for place in torch.nonzero(truth.middle == 1)[0])
    cell, side = own.geometry((60, 97)).cell, own.side
    left, top, right, bottom = (float(value) for value in truth.sides[:, row, column])
    x, y = column * cell + cell / 2, row * cell + cell / 2
    expected = np.array([20 / 97, 12 / 60, 70 / 97, 40 / 60]) * side
    np.testing.assert_allclose([x - left, y - top, x + right, y + bottom], expected, atol=4)
    torch.manual_seed(0)
    found = propose(Finder(own.embedding_shape[0]).eval(), own.encode(image((60, 97))))
    assert len(found)
    assert (found.points >= 0).all()
    assert (found.points <= [96, 59]).all()
    assert (found.boxes[:, 2:] <= [96, 59]).all()


def test_embeddings_of_another_frame_are_refused() -> None:
    own = segmenter("sam2")
    embedding = own.encode(image((60, 97)))
    with pytest.raises(ModelError, match="encode the image with this model"):
        own.decode(replace(embedding, geometry=Geometry(60, 97, 128)), prompts("point", (60, 97), 32))

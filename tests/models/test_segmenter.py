"""The border between arrays and tensors: frames, batches, modes and the ids that tell encoders apart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from answered import theirs_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from specialsam.core.errors import DataError, ModelError, UsageError
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding, Prompts
from specialsam.models.decode import decode_with_presence, positional_grid
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import (
    ALL,
    DECODE_CHUNK,
    FAMILIES,
    PIXEL_MEAN,
    PIXEL_STD,
    SINGLE,
    THREE,
    Preprocessing,
    Segmenter,
    fingerprint,
)
from specialsam.models.specialist import clone

torch.set_num_threads(1)
SIDE = 128


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    return Segmenter("nano", build_nano("conv", SIDE), SIDE)


def picture(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def click(*places: tuple[float, float]) -> Prompts:
    """One foreground click an object."""
    points = np.array(places, np.float32)[:, None]
    return Prompts("click", points, np.ones((len(places), 1), np.int64))


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (300, 200), (128, 128), (1, 40)])
def test_encoder_input_is_scaled_normalised_and_padded(segmenter: Segmenter, height: int, width: int) -> None:
    """Oracle: (x - mean) / std of the image as PIL scales it, channel by channel; zeros right and below."""
    image = picture(height, width)
    geometry = Geometry(height, width, SIDE)
    tall, wide = geometry.resized
    pixels = segmenter.pixels(image).numpy()
    expected = (geometry.image_to_model(image).astype(np.float64) - PIXEL_MEAN) / PIXEL_STD
    np.testing.assert_allclose(pixels[:, :tall, :wide], expected.transpose(2, 0, 1), atol=1e-5)
    assert (pixels[:, tall:] == 0).all()
    assert (pixels[:, :, wide:] == 0).all()


def test_a_batch_of_mixed_sizes_is_the_loop_of_single_images(segmenter: Segmenter) -> None:
    images = [picture(60, 100), picture(100, 60, 1), picture(200, 200, 2), picture(1, 9, 3)]
    batch = segmenter.encode_batch(images)
    assert [e.geometry for e in batch] == [Geometry(image.shape[0], image.shape[1], SIDE) for image in images]
    for image, together in zip(images, batch, strict=True):
        alone = segmenter.encode(image)
        torch.testing.assert_close(together.tensor, alone.tensor, rtol=1e-4, atol=1e-5)
        assert tuple(alone.tensor.shape) == (128, 8, 8)
    assert float((batch[0].tensor - batch[1].tensor).abs().max()) > 1e-2
    assert segmenter.encode_batch([]) == []


def test_the_encoder_stays_in_eval_mode_and_as_it_was(segmenter: Segmenter) -> None:
    """Trap 2: batch normalisation that follows its input is how such runs were ruined."""
    before = fingerprint(segmenter.encoder)
    segmenter.sam.train()
    first = segmenter.encode(picture(60, 100)).tensor
    assert not any(module.training for module in segmenter.encoder.modules())
    torch.testing.assert_close(segmenter.encode(picture(60, 100)).tensor, first, rtol=0, atol=0)
    segmenter.decode(segmenter.encode(picture(60, 100)), click((5, 5)))
    assert fingerprint(segmenter.encoder) == before
    assert not any(module.training for module in segmenter.sam.modules())


@pytest.mark.parametrize(("height", "width"), [(120, 200), (200, 120)])
def test_prompts_are_in_original_pixels(segmenter: Segmenter, height: int, width: int) -> None:
    """A picture and its prompts, both twice as large, are the same question; prompts left as they were are another."""
    embedding = segmenter.encode(picture(height, width))
    twice = Embedding(embedding.tensor, Geometry(2 * height, 2 * width, SIDE))
    box = np.array([[20, 30, 80, 90]], np.float32)
    point = np.array([[[25, 60]]], np.float32)
    ones = np.ones((1, 1), np.int64)
    for small, large in [
        (Prompts("p", point, ones), Prompts("p", 2 * point, ones)),
        (Prompts("b", boxes=box), Prompts("b", boxes=2 * box)),
        (Prompts("pb", point, ones, box), Prompts("pb", 2 * point, ones, 2 * box)),
    ]:
        reference = segmenter.decode(embedding, small).logits
        torch.testing.assert_close(segmenter.decode(twice, large).logits, reference, rtol=1e-4, atol=1e-4)
        assert float((segmenter.decode(twice, small).logits - reference).abs().max()) > 1e-3


def test_x_comes_first(segmenter: Segmenter) -> None:
    """The question that transformers gets, with coordinates scaled by hand: (x, y) * 128 / 200."""
    sam: Any = segmenter.sam
    embedding = segmenter.encode(picture(100, 200))
    with torch.no_grad():
        answer = theirs_of(sam)(
            image_embeddings=embedding.tensor[None],
            input_points=torch.tensor([[[[150.0, 20.0]]]]) * 128 / 200,
            input_labels=torch.tensor([[[1]]]),
            multimask_output=True,
        )
    mine = segmenter.decode(embedding, click((150, 20)), multimask=True)
    torch.testing.assert_close(mine.logits, answer.pred_masks[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mine.scores, answer.iou_scores[0], rtol=1e-3, atol=1e-4)
    assert mine.masks().shape == (1, 3, 100, 200)


class Cells(torch.nn.Module):
    """An encoder that answers with the mean brightness of each 16 px cell."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(pixels, 16).mean(1, keepdim=True).repeat(1, 128, 1, 1)


@pytest.mark.parametrize(("height", "width"), [(128, 256), (256, 128), (512, 512), (64, 512)])
def test_content_and_click_move_together(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A click on a bright square gets the position of the cell where the encoder saw that square, wherever it moves.

    Without its label's part, a point's prompt embedding is its positional encoding; the grid's most similar one is its
    cell in the decoder's eyes. That is compared with the embedding's brightest cell.
    """
    torch.manual_seed(0)
    sam = build_nano("conv", SIDE)
    sam.vision_encoder = Cells()
    for label in sam.prompt_encoder.point_embed:
        torch.nn.init.zeros_(label.weight)
    grid = positional_grid(sam, 8, 8)
    seen: list[torch.Tensor] = []

    def spy(sam: Any, embeddings: torch.Tensor, index: torch.Tensor, sparse: torch.Tensor, *more: Any) -> Any:
        seen.append(sparse[0, 0])
        return decode_with_presence(sam, embeddings, index, sparse, *more)

    monkeypatch.setattr("specialsam.models.segmenter.decode_with_presence", spy)
    segmenter = Segmenter("cells", sam, SIDE)
    cell = max(height, width) // 8
    for row in range(height // cell):
        for column in range(width // cell):
            image = np.zeros((height, width, 3), np.uint8)
            image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = 255
            embedding = segmenter.encode(image)
            middle = (column + 0.5) * cell - 0.5, (row + 0.5) * cell - 0.5
            segmenter.decode(embedding, click(middle))
            brightest = int(embedding.tensor[0, : height // cell, : width // cell].argmax())
            assert divmod(brightest, width // cell) == (row, column)
            assert divmod(int((grid @ seen[-1]).argmax()), 8) == (row, column)


def test_many_objects_in_chunks_are_the_same_as_at_once(segmenter: Segmenter) -> None:
    rng = np.random.default_rng(0)
    embedding = segmenter.encode(picture(90, 120))
    prompts = click(*[(float(x), float(y)) for x, y in rng.uniform(0, 90, (200, 2))])
    assert len(prompts) > 2 * DECODE_CHUNK
    answer = segmenter.decode_outputs(embedding, prompts, ALL)
    with torch.no_grad():
        logits, scores = segmenter.forward(embedding.tensor[None], [embedding.geometry], [prompts], ALL)
    torch.testing.assert_close(answer.logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answer.scores, scores, rtol=1e-4, atol=1e-4)
    assert len(answer) == 200


def test_no_objects(segmenter: Segmenter) -> None:
    embedding = segmenter.encode(picture(90, 120))
    nobody = click((1, 1))[0:0]
    answer = segmenter.decode(embedding, nobody, multimask=True)
    assert tuple(answer.logits.shape) == (0, 3, 32, 32)
    assert answer.masks().shape == (0, 3, 90, 120)
    with torch.no_grad():
        mixed, _ = segmenter.forward(
            torch.stack([embedding.tensor] * 2), [embedding.geometry] * 2, [nobody, click((1, 1))], THREE
        )
        alone, _ = segmenter.forward(embedding.tensor[None], [embedding.geometry], [click((1, 1))], THREE)
    torch.testing.assert_close(mixed, alone, rtol=1e-4, atol=1e-4)


def test_images_of_several_sizes_and_numbers_of_objects_in_one_pass(segmenter: Segmenter) -> None:
    embeddings = segmenter.encode_batch([picture(60, 100), picture(130, 90, 1), picture(128, 128, 2)])
    prompts = [click((3, 4), (50, 20)), click((80, 120)), click((0, 0), (127, 127), (60, 61))]
    tensors, frames = torch.stack([e.tensor for e in embeddings]), [e.geometry for e in embeddings]
    with torch.no_grad():
        logits, scores = segmenter.forward(tensors, frames, prompts, THREE)
    loop = [segmenter.decode(e, p, multimask=True) for e, p in zip(embeddings, prompts, strict=True)]
    torch.testing.assert_close(logits, torch.cat([a.logits for a in loop]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores, torch.cat([a.scores for a in loop]), rtol=1e-4, atol=1e-4)


@st.composite
def questions(draw: st.DrawFn) -> list[tuple[int, Prompts]]:
    """Which of three images, and prompts of any kind and number, one empty now and then."""
    out = []
    for _ in range(draw(st.integers(0, 6))):
        count, kind, rng = draw(st.integers(0, 5)), draw(st.integers(0, 4)), np.random.default_rng(draw(st.integers(0)))
        places = rng.uniform(0, 60, (count, 2, 2)).astype(np.float32)
        ones = np.ones((count, 2), np.int64)
        boxes, masks = np.sort(places, 1).reshape(count, 4), rng.normal(0, 5, (count, 32, 32)).astype(np.float32)
        made = (
            Prompts("click", places[:, :1], ones[:, :1]),
            Prompts("clicks", places, ones),
            Prompts("box", boxes=boxes),
            Prompts("both", places[:, :1], ones[:, :1], boxes),
            Prompts("again", places, ones, masks=masks),
        )
        out.append((draw(st.integers(0, 2)), made[kind]))
    return out


@given(questions(), st.sampled_from([ALL, THREE, SINGLE]), st.sampled_from([1, 3, 32]))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_several_questions_at_once_are_answered_as_each_alone(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[int, Prompts]], outputs: slice, chunk: int
) -> None:
    """Oracle: the decoder asked for one object after the other; and no pass holds more than a chunk of them."""
    images = segmenter.encode_batch([picture(60, 100), picture(130, 90, 1), picture(128, 128, 2)])
    monkeypatch.setattr(Segmenter, "_chunk", lambda *_: chunk)
    passes: list[int] = []
    answered = Segmenter._answers
    with monkeypatch.context() as patched:
        patched.setattr(Segmenter, "_answers", lambda *how: passes.append(sum(map(len, how[2]))) or answered(*how))
        found = segmenter.decode_each([images[image] for image, _ in asked], [one for _, one in asked], outputs)
    assert len(found) == len(asked)
    assert sum(passes) == sum(len(one) for _, one in asked)
    assert max(passes, default=0) <= chunk
    for (image, prompts), answer in zip(asked, found, strict=True):
        assert answer.geometry == images[image].geometry
        assert len(answer) == len(prompts)
        for index in range(len(prompts)):
            own = segmenter.decode_outputs(images[image], prompts[index : index + 1], outputs)
            torch.testing.assert_close(answer.logits[index : index + 1], own.logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(answer.scores[index : index + 1], own.scores, rtol=1e-4, atol=1e-4)


def test_threads_share_one_segmenter(segmenter: Segmenter) -> None:
    images = [picture(40 + 9 * i, 90, i) for i in range(8)]

    def answer(image: npt.NDArray[np.uint8]) -> torch.Tensor:
        return segmenter.decode(segmenter.encode(image), click((30, 20))).logits

    with ThreadPoolExecutor(4) as pool:
        for together, image in zip(pool.map(answer, images), images, strict=True):
            torch.testing.assert_close(together, answer(image), rtol=1e-4, atol=1e-4)


def test_the_encoder_id_follows_weights_buffers_and_preprocessing(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(part: str, name: str) -> Segmenter:
        torch.manual_seed(0)
        sam = build_nano("conv", SIDE)
        with torch.no_grad():
            tensor = getattr(sam, part).state_dict()[name]
            tensor.view(-1)[0] += 1
        return Segmenter("other", sam, SIDE)

    same = clone(segmenter)
    assert same.encoder_id == segmenter.encoder_id
    assert same.decoder_id == segmenter.decoder_id
    weight, buffer = changed("vision_encoder", "out.weight"), changed("vision_encoder", "stem.0.1.running_mean")
    decoder = changed("mask_decoder", "mask_tokens.weight")
    prompt = changed("prompt_encoder", "no_mask_embed.weight")
    ids = {segmenter.encoder_id, weight.encoder_id, buffer.encoder_id}
    assert len(ids) == 3
    assert weight.decoder_id == segmenter.decoder_id
    assert decoder.encoder_id == prompt.encoder_id == segmenter.encoder_id
    assert len({segmenter.decoder_id, decoder.decoder_id, prompt.decoder_id}) == 3
    monkeypatch.setitem(FAMILIES, "sam", Preprocessing("another way"))
    assert clone(segmenter).encoder_id != segmenter.encoder_id


def test_ids_are_made_anew_when_the_weights_were_changed_in_place() -> None:
    torch.manual_seed(0)
    segmenter = Segmenter("nano", build_nano("conv", SIDE), SIDE)
    before = segmenter.encoder_id, segmenter.decoder_id
    with torch.no_grad():
        for parameter in segmenter.sam.parameters():
            parameter.add_(1)
    segmenter.forget_ids()
    assert segmenter.encoder_id != before[0]
    assert segmenter.decoder_id != before[1]


DEVICE = "lazy"
"""A device that every build of torch knows by name: with fake tensors, which have no numbers, nothing has to exist."""


def on_fake_device(sam: torch.nn.Module, mode: FakeTensorMode) -> Segmenter:
    """The model with each parameter and buffer on the fake device; a tensor that is neither stays where it was."""
    for module in sam.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            moved = mode.from_tensor(value).to(DEVICE)
            module.register_parameter(name, torch.nn.Parameter(moved, requires_grad=False))
        for name, buffer in list(module.named_buffers(recurse=False)):
            module._buffers[name] = mode.from_tensor(buffer).to(DEVICE)
    return Segmenter("elsewhere", sam, SIDE)


KINDS = {
    "points": Prompts("p", np.ones((2, 3, 2), np.float32), np.ones((2, 3), np.int64)),
    "boxes": Prompts("b", boxes=np.array([[1, 2, 30, 40]] * 2, np.float32)),
    "masks": Prompts("m", masks=np.zeros((2, 32, 32), np.float32)),
    "all": Prompts(
        "a",
        np.ones((2, 1, 2), np.float32),
        np.ones((2, 1), np.int64),
        np.array([[1, 2, 30, 40]] * 2, np.float32),
        np.zeros((2, 32, 32), np.float32),
    ),
}


@pytest.mark.parametrize("encoder", ["conv", "lite", "tinyvit", "vit"])
def test_every_tensor_is_made_on_the_models_device(encoder: Any) -> None:
    """Oracle: fake tensors raise where two devices meet. Inputs come from the CPU: numpy arrays, stored embeddings."""
    frames = [Geometry(60, 100, SIDE), Geometry(130, 90, SIDE)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        elsewhere = on_fake_device(build_nano(encoder, SIDE), mode)
        assert elsewhere.device.type == DEVICE
        embeddings = elsewhere.encode_pixels(torch.stack([elsewhere.pixels(picture(60, 100))] * 2))
        assert (embeddings.device.type, tuple(embeddings.shape)) == (DEVICE, (2, 128, 8, 8))
        stored = torch.zeros(2, 128, 8, 8)
        for prompts in KINDS.values():
            for given in (embeddings, stored):
                logits, scores = elsewhere.forward(given, frames, [prompts, prompts[:1]], ALL)
                assert logits.device.type == scores.device.type == DEVICE
                assert tuple(logits.shape) == (3, 4, 32, 32)
            answer = elsewhere.decode(Embedding(stored[0], frames[0]), prompts, multimask=True)
            assert answer.logits.device.type == answer.scores.device.type == "cpu"
        assert elsewhere.encode(picture(60, 100)).tensor.device.type == "cpu"


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_tensor_that_stays_behind_is_noticed(part: str) -> None:
    """The test above can fail: here one tensor has not moved with its module."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        elsewhere = on_fake_device(build_nano("lite", SIDE), mode)
        sam: Any = elsewhere.sam
        sam.vision_encoder.backbone._buffers["scale"] = torch.ones(3, 1, 1)
        sam.mask_decoder.iou_token.weight = torch.nn.Parameter(torch.ones(1, 128), requires_grad=False)
        pixels, stored = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1, 128, 8, 8)
        calls = {
            "encoder": lambda: elsewhere.encode_pixels(pixels),
            "decoder": lambda: elsewhere.forward(stored, [Geometry(9, 9, SIDE)], [KINDS["points"][:1]]),
        }
        with pytest.raises(RuntimeError, match=r"two (different )?devices"):
            calls[part]()


@pytest.mark.parametrize("encoder", ["conv", "lite"])
def test_moving_gives_a_copy_and_leaves_this_one_where_it_is(encoder: Any) -> None:
    """Specialists share their base's encoder, so moving one must not move the other. Meta holds no numbers."""
    here = Segmenter("nano", build_nano(encoder, SIDE), SIDE, "bundled")
    there = here.to("meta")
    assert (there.name, there.side, there.source) == ("nano", SIDE, "bundled")
    tensors = [*there.sam.parameters(), *there.sam.buffers()]
    assert {tensor.device.type for tensor in tensors} == {there.device.type} == {"meta"}
    assert {tensor.device.type for tensor in [*here.sam.parameters(), *here.sam.buffers()]} == {"cpu"}
    assert here.to("cpu") is here.to(torch.device("cpu")) is here


@pytest.mark.parametrize("device", ["nowhere", "", "cuda:99", "vulkan"])
def test_a_device_that_is_not_there_is_one_line(segmenter: Segmenter, device: str) -> None:
    with pytest.raises(UsageError, match=f"expected a device that torch has here .*, got '{device}'") as caught:
        segmenter.to(device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "kind", "expected"),
    [
        (lambda s, e: s.encode(picture(9, 9).astype(np.float32)), DataError, "expected a uint8 .* got float32"),
        (lambda s, e: s.encode(picture(9, 9)[..., 0]), DataError, r"got uint8 \(9, 9\)"),
        (
            lambda s, e: s.decode(Embedding(e.tensor, Geometry(9, 9, 1024)), click((1, 1))),
            ModelError,
            r"expected an embedding made at side 128 \(nano\), got one of side 1024",
        ),
        (
            lambda s, e: s.decode(Embedding(e.tensor[:64], e.geometry), click((1, 1))),
            ModelError,
            r"expected an embedding of \(128, 8, 8\) \(nano\), got one of \(64, 8, 8\)",
        ),
        (
            lambda s, e: s.decode(e, Prompts("m", masks=np.zeros((1, 256, 256), np.float32))),
            DataError,
            "expected mask prompts of 32x32 logits, got 256x256",
        ),
        (
            lambda s, e: s.forward(e.tensor[None], [e.geometry], [click((1, 1))] * 2),
            DataError,
            "got 1 and 2 for 1 images",
        ),
        (
            lambda s, e: s.forward(
                torch.stack([e.tensor] * 2),
                [e.geometry] * 2,
                [click((1, 1)), Prompts("b", boxes=np.ones((1, 4), np.float32))],
            ),
            DataError,
            "expected prompts of the same kinds",
        ),
        (
            lambda s, e: s.forward(
                torch.stack([e.tensor] * 2),
                [e.geometry] * 2,
                [click((1, 1)), Prompts("2", np.ones((1, 2, 2), np.float32), np.ones((1, 2), np.int64))],
            ),
            DataError,
            "number of points in a batch",
        ),
        (lambda s, e: s.decode_each([e], [click((1, 1))] * 2), DataError, "expected one Prompts an embedding, got 2"),
    ],
)
def test_wrong_use_is_one_line(segmenter: Segmenter, call: Any, kind: type[Exception], expected: str) -> None:
    with pytest.raises(kind, match=expected) as caught:
        call(segmenter, segmenter.encode(picture(60, 100)))
    assert "\n" not in str(caught.value)

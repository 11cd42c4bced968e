"""The prompt pass against transformers' own `SamModel.forward`, with random weights of unit scale.

In double precision, so that what differs is a mistake and not rounding; the random decoder amplifies both.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from answered import theirs_of
from torch import Tensor, nn

from specialsam.core.errors import DataError
from specialsam.models.decode import decode, embed_prompts, positional_grid
from specialsam.models.nano import build_nano

torch.set_num_threads(1)
SIDE = 128
CELLS, LOGITS, CHANNELS = SIDE // 16, SIDE // 4, 128
IMAGES = 3
SINGLE, THREE, ALL = slice(0, 1), slice(1, 4), slice(0, 4)


@pytest.fixture(scope="module")
def sam() -> Any:
    """Every weight and bias counts: matrices keep the scale of what goes through them, nothing is zero or one."""
    torch.manual_seed(0)
    sam = build_nano("conv", SIDE)
    for part in (sam.prompt_encoder, sam.mask_decoder):
        for name, parameter in part.named_parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, 1.0 if "norm" in name and "weight" in name else 0.0, 0.3)
            elif "embed" in name or "token" in name:
                nn.init.normal_(parameter)
            else:
                nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return sam.double()


@pytest.fixture(scope="module")
def embeddings() -> Tensor:
    return torch.randn(IMAGES, CHANNELS, CELLS, CELLS, generator=torch.Generator().manual_seed(1)).double()


def random(*shape: int, seed: int = 2, scale: float = 1.0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).double() * scale


def ours(sam: Any, embeddings: Tensor, each: int, outputs: slice, **prompts: Tensor | None) -> tuple[Tensor, Tensor]:
    """Our pass for `each` objects an image; prompts are (B * each, ...)."""
    index = torch.arange(len(embeddings)).repeat_interleave(each)
    sparse, dense = embed_prompts(sam, *(prompts.get(name) for name in ("points", "labels", "boxes", "masks")))
    return decode(sam, embeddings, index, sparse, dense, outputs)


def theirs(sam: Any, embeddings: Tensor, each: int, three: bool, **prompts: Tensor | None) -> tuple[Tensor, Tensor]:
    """transformers' pass for the same prompts, with objects in its own dimension: (B * each, C, L, L), (B * each, C).

    Its mask prompts are one an image, so that they are given with one object an image.
    """

    def split(part: Tensor | None) -> Tensor | None:
        return None if part is None else part.reshape(len(embeddings), each, *part.shape[1:])

    masks = prompts.get("masks")
    assert masks is None or each == 1
    answer = theirs_of(sam)(
        image_embeddings=embeddings,
        input_points=split(prompts.get("points")),
        input_labels=split(prompts.get("labels")),
        input_boxes=split(prompts.get("boxes")),
        input_masks=None if masks is None else masks[:, None],
        multimask_output=three,
    )
    return answer.pred_masks.flatten(0, 1), answer.iou_scores.flatten(0, 1)


def assert_same(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for mine, reference in zip(one, other, strict=True):
        assert mine.shape == reference.shape
        assert float(reference.abs().mean()) > 1e-3
        torch.testing.assert_close(mine, reference, rtol=1e-7, atol=1e-9)


def make(kinds: str, objects: int, points: int = 3) -> dict[str, Tensor | None]:
    corners = random(objects, 2, 2, seed=5, scale=SIDE).sort(1).values
    labels = (random(objects, points, seed=4) > 0.4).long()
    return {
        "points": random(objects, points, 2, seed=3, scale=SIDE) if "p" in kinds else None,
        "labels": labels if "p" in kinds else None,
        "boxes": corners.reshape(objects, 4) if "b" in kinds else None,
        "masks": 8 * random(objects, LOGITS, LOGITS, seed=6) - 4 if "m" in kinds else None,
    }


@pytest.mark.parametrize("three", [False, True], ids=["single", "three"])
@pytest.mark.parametrize(
    ("kinds", "each"), [("p", 1), ("p", 4), ("b", 4), ("pb", 2), ("m", 1), ("pm", 1), ("bm", 1), ("pbm", 1)]
)
def test_equal_to_transformers(sam: Any, embeddings: Tensor, kinds: str, each: int, three: bool) -> None:
    prompts = make(kinds, IMAGES * each)
    assert_same(
        ours(sam, embeddings, each, THREE if three else SINGLE, **prompts),
        theirs(sam, embeddings, each, three, **prompts),
    )


@pytest.mark.parametrize("kinds", ["p", "pb"])
def test_equal_to_transformers_in_single_precision(embeddings: Tensor, kinds: str) -> None:
    torch.manual_seed(0)
    single = build_nano("conv", SIDE)
    prompts = {name: part if part is None else part.float() for name, part in make(kinds, IMAGES * 2).items()}
    for mine, reference in zip(
        ours(single, embeddings.float(), 2, SINGLE, **prompts),
        theirs(single, embeddings.float(), 2, False, **prompts),
        strict=True,
    ):
        assert float((mine - reference).abs().max()) < 1e-4 * float(reference.abs().max())


@pytest.mark.parametrize("kinds", ["p", "b", "pbm"])
def test_a_batch_is_the_loop_of_single_calls(sam: Any, embeddings: Tensor, kinds: str) -> None:
    """Trap 1: B images times P prompts, mask prompts one an object (which transformers cannot have in one batch)."""
    each = 3
    prompts = make(kinds, IMAGES * each)
    logits, scores = ours(sam, embeddings, each, ALL, **prompts)
    for number in range(IMAGES * each):
        one = {name: None if part is None else part[number : number + 1] for name, part in prompts.items()}
        image = embeddings[number // each][None]
        mine = logits[number : number + 1], scores[number : number + 1]
        for outputs, three in ((SINGLE, False), (THREE, True)):
            reference = theirs(sam, image, 1, three, **one)
            assert_same((mine[0][:, outputs], mine[1][:, outputs]), reference)


def test_objects_follow_their_image_in_any_order(sam: Any, embeddings: Tensor) -> None:
    prompts = make("p", 5)
    sparse, dense = embed_prompts(sam, prompts["points"], prompts["labels"], None, None)
    with torch.no_grad():
        logits, _ = decode(sam, embeddings, torch.tensor([2, 0, 2, 1, 0]), sparse, dense, SINGLE)
        again, _ = decode(sam, embeddings[[2]], torch.zeros(2, dtype=torch.long), sparse[[0, 2]], None, SINGLE)  # type: ignore[index]
    torch.testing.assert_close(logits[[0, 2]], again, rtol=1e-7, atol=1e-9)


def test_all_is_the_single_mask_and_the_three(sam: Any, embeddings: Tensor) -> None:
    prompts = make("pb", IMAGES)
    logits, scores = ours(sam, embeddings, 1, ALL, **prompts)
    assert tuple(logits.shape) == (IMAGES, 4, LOGITS, LOGITS)
    for outputs in (SINGLE, THREE):
        assert_same((logits[:, outputs], scores[:, outputs]), ours(sam, embeddings, 1, outputs, **prompts))


def test_a_padded_point_list_is_another_question(sam: Any, embeddings: Tensor) -> None:
    """Trap 12: transformers takes a point of label -10 as padding, and its answer changes all the same."""
    prompts = make("p", IMAGES, points=1)
    points, labels = prompts["points"], prompts["labels"]
    assert points is not None
    assert labels is not None
    padded = {
        "points": torch.cat([points, points.new_zeros(IMAGES, 1, 2)], 1),
        "labels": torch.cat([labels, torch.full((IMAGES, 1), -10)], 1),
    }
    plain, _ = theirs(sam, embeddings, 1, False, **prompts)
    other, _ = theirs(sam, embeddings, 1, False, **padded)
    assert float((plain - other).abs().max()) > 1e-2


@pytest.mark.parametrize(("kinds", "three"), [("p", False), ("b", True), ("pm", True)])
def test_gradients_are_transformers(kinds: str, three: bool) -> None:
    """Of embeddings, decoder and prompt encoder: training our pass is training SAM's."""
    torch.manual_seed(0)
    sam = build_nano("conv", SIDE).double()
    sam.mask_decoder.requires_grad_(True)
    sam.prompt_encoder.requires_grad_(True)
    prompts = make(kinds, IMAGES)
    model = theirs_of(sam)
    for part in (model.mask_decoder, model.prompt_encoder):
        part.requires_grad_(True)
    found = []
    for own in (True, False):
        image = torch.randn(IMAGES, CHANNELS, CELLS, CELLS, generator=torch.Generator().manual_seed(1)).double()
        image.requires_grad_(True)
        if own:
            logits, scores = ours(sam, image, 1, THREE if three else SINGLE, **prompts)
        else:
            logits, scores = theirs(model, image, 1, three, **prompts)
        torch.autograd.backward(logits.square().mean() + scores.square().mean())
        learned = (sam if own else model).named_parameters()
        grads = {name: p.grad for name, p in learned if p.grad is not None}
        grads = {name: grad for name, grad in grads.items() if grad.abs().max() > 1e-12}  # a key's bias has none
        found.append(grads | {"image": image.grad})
    mine, reference = found
    assert mine.keys() == reference.keys()
    assert any("mask_decoder.upscale_conv1" in name for name in mine)
    assert any(name.startswith("prompt_encoder.mask_embed") for name in mine) == ("m" in kinds)
    for name, gradient in reference.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-6, atol=1e-12, msg=name)


def test_the_positional_grid_is_transformers(sam: Any) -> None:
    with torch.no_grad():
        reference = theirs_of(sam).get_image_wide_positional_embeddings()[0].flatten(1).T
    torch.testing.assert_close(positional_grid(sam, CELLS, CELLS), reference, rtol=1e-7, atol=1e-9)


def test_an_embedding_without_its_batch_is_refused(sam: Any, embeddings: Tensor) -> None:
    with pytest.raises(DataError, match=r"expected \(B, D, h, w\) embeddings, got \(128, 8, 8\)"):
        decode(sam, embeddings[0], torch.zeros(1, dtype=torch.long), None, None, SINGLE)

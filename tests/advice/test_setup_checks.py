"""Faults planted into prompts, the encoder, the stored embeddings, and the room that is left above the base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import fresh, model_made, nano, samples, scaled_prompts, sound, stored_as, subject_of, swapped_prompts
from planted import with_prompts as prompted

from specialsam.advice.checks.prompt_checks import Drawn, diagnose, prompt_frame
from specialsam.advice.checks.setup_checks import embedding_parity, encoder_mode, room_for_improvement
from specialsam.core.geometry import Geometry
from specialsam.core.types import Embedding, Prompts, Sample
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.prompts import Group, draw


def test_prompts_of_the_project_lie_where_they_should() -> None:
    found = prompt_frame(sound())
    assert found.level == "pass"
    assert found.numbers["off their object"] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (swapped_prompts, "x and y are swapped"),
        (scaled_prompts(512 / 128), "512 px frame"),
        (scaled_prompts(1024 / 128), "1024 px frame"),
        (scaled_prompts(0.5), "scaled by 0.50"),
        (scaled_prompts(1.37), "scaled by 1.37"),
        (lambda p, size: scaled_prompts(8)(swapped_prompts(p, size), size), "1024 px frame and x and y are swapped"),
    ],
)
def test_prompts_in_another_frame_are_explained(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    """Oracle: the change that was planted; the images are 128 px."""
    found = prompt_frame(prompted(sound(), change))
    assert found.level == "fail"
    assert reason in found.says
    assert found.files


def test_prompts_that_nothing_explains_are_still_a_failure() -> None:
    def thrown(prompts: Prompts, size: tuple[int, int]) -> Prompts:
        rng = np.random.default_rng(0 if prompts.points is None else int(prompts.points.sum()))
        points = None if prompts.points is None else rng.uniform(0, 128, prompts.points.shape).astype(np.float32)
        boxes = None if prompts.boxes is None else rng.uniform(0, 128, prompts.boxes.shape).astype(np.float32)
        return replace(prompts, points=points, boxes=boxes)

    found = prompt_frame(prompted(sound(), thrown))
    assert found.level == "fail"
    assert "neither" in found.says


def test_points_at_fixed_places_are_a_warning() -> None:
    """Oracle: discs around the image's middle, so that the middle is in every object and never wrong."""
    size = 96
    rows, columns = np.mgrid[:size, :size]
    out = []
    for number, sample in enumerate(samples(12, size)):
        disc = (rows - 48) ** 2 + (columns - 48) ** 2 < (8 + 2 * number) ** 2
        out.append(replace(sample, masks=disc[None]))

    def fixed(strategy: str, masks: np.ndarray, rng: np.random.Generator) -> list[Group]:
        points, one = np.full((1, 1, 2), 48, np.float32), np.ones((1, 1), np.int64)
        return [
            (indices, prompts if prompts.points is None else replace(prompts, points=points, labels=one))
            for indices, prompts in draw(strategy, masks, rng)
        ]

    subject = subject_of(out)
    found = prompt_frame(replace(subject, draw=fixed))
    assert found.level == "warn"
    assert "same 1 places" in found.says
    assert prompt_frame(subject).level == "pass"


@settings(deadline=None, max_examples=30)
@given(
    x=st.integers(0, 60), y=st.integers(0, 90), width=st.integers(2, 30), height=st.integers(2, 30),
    frame=st.sampled_from([256, 512, 1024]),
)  # fmt: skip
def test_a_frame_is_recognised_wherever_the_object_is(x: int, y: int, width: int, height: int, frame: int) -> None:
    """Oracle: `Geometry`, which alone converts; the image is 130 x 100 and no square."""
    mask = np.zeros((130, 100), np.bool_)
    mask[y : y + height, x : x + width] = True
    point = np.array([[x + width // 2, y + height // 2]], np.float32)
    box = np.array([x, y, x + width - 1, y + height - 1], np.float32)
    geometry = Geometry(130, 100, frame)
    drawn = Drawn("box_point", "f", "i", mask, geometry.points_to_model(point), geometry.boxes_to_model(box))
    plain = replace(drawn, points=point, box=box)
    assert all(plain.right())
    if not any(drawn.right()):
        reason, remedy = diagnose([drawn], 256)
        assert f"{frame} px frame" in reason or "scaled" in reason or "swapped" in reason
        assert remedy


def test_an_encoder_in_training_mode_is_found_and_left_as_it_was() -> None:
    """Oracle: torch's own flag and the running mean of a batch normalisation."""
    segmenter = clone(nano(), share_encoder=False)
    subject = replace(sound(), segmenter=segmenter)
    assert encoder_mode(subject).level == "pass"
    extra = torch.nn.BatchNorm2d(3)

    class Wrapped(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.norm, self.inner = extra, inner

        def forward(self, pixels: torch.Tensor) -> object:
            return self.inner(self.norm(pixels))

    segmenter.sam.vision_encoder = Wrapped(segmenter.encoder).train()
    before = extra.running_mean.clone()  # type: ignore[union-attr]
    found = encoder_mode(subject)
    assert found.level == "fail"
    assert found.numbers["buffers changed by an encode"] >= 2
    assert torch.equal(extra.running_mean, before)  # type: ignore[arg-type]
    assert extra.training
    segmenter.encoder.eval()
    assert encoder_mode(subject).level == "pass"


@pytest.mark.parametrize("precision", ["half", "int8"])
def test_rounded_embeddings_are_as_good_as_fresh_ones(precision: str) -> None:
    assert embedding_parity(replace(sound(), embed=stored_as(precision))).level == "pass"


def test_embeddings_of_other_weights_other_images_and_other_shapes_fail() -> None:
    """Oracle: what was planted: weights moved by a tenth, the image upside down, a quarter of the cells."""
    subject = sound()
    stale = clone(nano(), share_encoder=False)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in stale.encoder.parameters():
            weight += 0.1 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)

    def upside_down(sample: Sample, segmenter: Segmenter) -> Embedding:
        return segmenter.encode(np.ascontiguousarray(sample.image[::-1]))

    def smaller(sample: Sample, segmenter: Segmenter) -> Embedding:
        exact = segmenter.encode(sample.image)
        return replace(exact, tensor=exact.tensor[:, ::2, ::2])

    def other_size(sample: Sample, segmenter: Segmenter) -> Embedding:
        return replace(segmenter.encode(sample.image), geometry=Geometry(64, 128, segmenter.side))

    for embed in (lambda sample, _: stale.encode(sample.image), upside_down, smaller, other_size):
        found = embedding_parity(replace(subject, embed=embed))
        assert found.level == "fail", found.says
        assert found.files
        assert found.remedy
    assert embedding_parity(subject).numbers["largest relative error"] < 1e-4


def test_labels_that_the_model_made_leave_nothing_to_gain() -> None:
    """Oracle: masks that the model itself gives again to the click in their middle."""
    subject = subject_of(samples()[:20])
    found = room_for_improvement(model_made(subject))
    assert found.level == "fail"
    assert "nothing to gain" in found.says
    honest = room_for_improvement(subject)
    assert honest.level == "pass"
    assert honest.numbers["share of labels like the model's own"] < 0.3
    assert float(honest.numbers["click, low"]) <= float(honest.numbers["click"]) <= float(honest.numbers["click, high"])


def test_embedding_of_the_subject_is_what_is_asked() -> None:
    """Blank embeddings must change the scores: the check looks at what training will see."""
    subject = subject_of(samples()[:12])

    def blank(sample: Sample, segmenter: Segmenter) -> Embedding:
        exact = fresh(sample, segmenter)
        return replace(exact, tensor=torch.zeros_like(exact.tensor))

    with_pixels = room_for_improvement(subject).numbers["box"]
    assert room_for_improvement(replace(subject, embed=blank)).numbers["box"] != pytest.approx(with_pixels, abs=0.02)

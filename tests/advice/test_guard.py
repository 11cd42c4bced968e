"""The guard: mixtures are what linear algebra says, harm is refused, help is kept, and memory is respected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from specialsam.advice.guard.mixtures import (
    GuardSettings,
    Measure,
    guard,
    interpolate,
    retention_measure,
)
from specialsam.advice.guard.retention import retention_iou, retention_set
from specialsam.core.errors import ModelError, UsageError
from specialsam.core.place import Place
from specialsam.core.settings import parse_settings
from specialsam.core.types import Embedding
from specialsam.models.load import load_model
from specialsam.models.nano import build_nano
from specialsam.models.segmenter import Segmenter
from specialsam.models.specialist import clone
from specialsam.training.loop import per_image_iou, train, validate
from specialsam.training.settings import TrainSettings
from specialsam.training.state import Item, TrainingData

torch.set_num_threads(1)
SIZE = 96


@pytest.fixture(scope="module")
def base() -> Segmenter:
    return load_model("nano")


@pytest.fixture(scope="module")
def data(base: Segmenter) -> TrainingData:
    """A narrow domain with a habit of its own: the object is the bright spot and a rim as wide as its radius."""
    pictures, masks = {}, {}
    for number in range(14):
        rng = np.random.default_rng(number)
        rows, columns = np.indices((SIZE, SIZE)) - rng.integers(30, SIZE - 30, (2, 1, 1))
        image, radius = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8), rng.uniform(6, 14)
        image[rows**2 + columns**2 <= radius**2] = 220
        pictures[f"s{number}"] = image
        masks[f"s{number}"] = (rows**2 + columns**2 <= (2 * radius) ** 2)[None]
    stored = {name: base.encode(image) for name, image in pictures.items()}
    items = [Item(name, name, name) for name in pictures]

    def embeddings(wanted: Sequence[Item]) -> list[Embedding]:
        return [stored[item.id] for item in wanted]

    return TrainingData(items[:8], items[8:], embeddings, lambda item: masks[item.id])


def shifted(base: Segmenter, by: float = 1.0, encoder: bool = False) -> Segmenter:
    """A copy whose decoder's (or also encoder's) floating tensors are larger by `by`."""
    tuned = clone(base, "tuned", share_encoder=not encoder)
    with torch.no_grad():
        for name, value in tuned.sam.state_dict().items():
            if name.startswith("mask_decoder.") or (encoder and name.startswith("vision_encoder.")):
                value.add_(by) if value.is_floating_point() else value
    return tuned


MODELS = {"base": Segmenter("base", build_nano("conv", 64), 64)}
MODELS["tuned"] = shifted(MODELS["base"])


def by_alpha(base: Segmenter, values: Callable[[float], Sequence[float]]) -> Measure:
    """A measure that reads the share of `shifted(base)` off a weight, so that its numbers can be written by hand."""
    key = "mask_decoder.iou_token.weight"

    def measure(segmenter: Segmenter) -> Sequence[float]:
        change = segmenter.sam.state_dict()[key] - base.sam.state_dict()[key]
        return values(round(float(change.mean()), 2))

    return measure


def images(mean: float) -> list[float]:
    """Twelve values around a mean, the same spread every time."""
    return [mean + 0.01 * (number - 5.5) / 5.5 for number in range(12)]


@settings(max_examples=10)
@given(alpha=st.floats(0.01, 0.99))
def test_mixture_is_the_weighted_mean_and_only_the_decoder_moves(alpha: float) -> None:
    """Oracle: (1 - alpha) a + alpha b in double precision; the encoder is the base's own module."""
    base = MODELS["base"]
    tuned = MODELS["tuned"]
    mixture = interpolate(base, tuned, alpha)
    assert mixture.encoder is base.encoder
    first, second = base.sam.state_dict(), tuned.sam.state_dict()
    for name, value in mixture.sam.state_dict().items():
        wanted = (1 - alpha) * first[name].double() + alpha * second[name].double()
        if torch.equal(first[name], second[name]):
            assert torch.equal(value, first[name])
        else:
            assert torch.allclose(value.double(), wanted, atol=1e-5)


def test_ends_are_the_models_themselves_and_the_base_never_changes() -> None:
    base, tuned = MODELS["base"], MODELS["tuned"]
    before = base.decoder_id
    assert interpolate(base, tuned, 0) is base
    assert interpolate(base, tuned, 1) is tuned
    interpolate(base, tuned, 0.5)
    base.forget_ids()
    assert base.decoder_id == before


def test_an_encoder_that_was_tuned_is_mixed_into_a_copy() -> None:
    base = MODELS["base"]
    tuned = shifted(base, encoder=True)
    before = base.encoder_id
    mixture = interpolate(base, tuned, 0.5)
    base.forget_ids()
    assert mixture.encoder is not base.encoder
    assert base.encoder_id == before
    name = next(n for n, v in base.sam.state_dict().items() if n.startswith("vision_encoder.") and v.dim() > 1)
    assert torch.allclose(mixture.sam.state_dict()[name], base.sam.state_dict()[name] + 0.5, atol=1e-5)


def test_models_of_another_kind_and_impossible_shares_are_refused() -> None:
    base = MODELS["base"]
    with pytest.raises(ModelError, match="one architecture"):
        interpolate(base, Segmenter("vit", build_nano("vit", 64), 64), 0.5)
    with pytest.raises(ModelError, match=r"0\.\.1"):
        interpolate(base, base, 1.5)


def test_the_best_shown_gain_within_the_allowed_loss_is_kept() -> None:
    """Gains 2, 4, 6, 8 points and losses 1, 2, 3, 4 points by hand: 0.5 is the best that loses at most 2."""
    base, tuned = MODELS["base"], MODELS["tuned"]
    gain = by_alpha(base, lambda alpha: images(0.5 + 0.08 * alpha))
    loss = by_alpha(base, lambda alpha: images(0.7 - 0.04 * alpha))
    found = guard(base, tuned, gain, loss, GuardSettings(allowed_loss=0.0201))
    assert (found.alpha, found.kept, found.finding.level) == (0.5, "mixture", "pass")
    assert [row.alpha for row in found.rows] == [0, 0.25, 0.5, 0.75, 1]
    assert [round(row.gain.mean, 6) for row in found.rows] == [0, 0.02, 0.04, 0.06, 0.08]
    drops = {row.alpha: round(row.drop.mean, 6) for row in found.rows if row.drop}
    assert drops == {0: 0, 0.5: 0.02, 0.75: 0.03, 1: 0.04}  # a quarter gains too little to turn anything
    assert "optimistic" in found.says
    assert "+4.0 [+4.0, +4.0]" in found.says
    assert "The tuned model would gain +8.0 [+8.0, +8.0] points, but it loses 4.0 [4.0, 4.0] points" in found.says
    assert "allow more than 2.0 (guard.allowed_loss)" in found.says
    free = guard(base, tuned, gain, None, GuardSettings())
    assert "would gain" not in free.says
    assert (free.alpha, free.kept) == (1, "tuned")
    assert free.segmenter is tuned
    assert "not measured" in free.says
    assert all(row.drop is None for row in free.rows)


def test_the_nearest_mixture_with_nearly_all_of_the_gain_is_kept() -> None:
    """Gains 4, 7, 7.8 and 8 points: three quarters of the weights have 97.5 % of the largest gain, half have 87.5 %."""
    base, tuned = MODELS["base"], MODELS["tuned"]
    gains = {0.0: 0.0, 0.25: 0.04, 0.5: 0.07, 0.75: 0.078, 1.0: 0.08}
    gain = by_alpha(base, lambda alpha: images(0.5 + gains[alpha]))
    assert guard(base, tuned, gain, None, GuardSettings()).alpha == 0.75
    gains[0.75] = 0.0755
    assert guard(base, tuned, gain, None, GuardSettings()).alpha == 1.0


@settings(max_examples=40)
@given(
    gains=st.lists(st.integers(-4, 12), min_size=4, max_size=4),
    drops=st.lists(st.integers(-2, 9), min_size=4, max_size=4),
)
def test_asking_only_where_it_decides_changes_no_choice(gains: list[int], drops: list[int]) -> None:
    """Oracle: the rule on every mixture at once. Images gain and lose alike, so a gain is shown where it is above 0."""
    base, tuned = MODELS["base"], MODELS["tuned"]
    alphas = (0.25, 0.5, 0.75, 1.0)
    gained, lost = (
        dict(zip((0.0, *alphas), (0, *gains), strict=True)),
        dict(zip((0.0, *alphas), (0, *drops), strict=True)),
    )
    asked: list[float] = []

    def elsewhere(alpha: float) -> Sequence[float]:
        asked.append(alpha)
        return images(0.7 - 0.01 * lost[alpha])

    gain = by_alpha(base, lambda alpha: images(0.5 + 0.01 * gained[alpha]))
    found = guard(base, tuned, gain, by_alpha(base, elsewhere), GuardSettings(allowed_loss=0.0501))
    fit = [alpha for alpha in alphas if gained[alpha] > 0 and lost[alpha] <= 5]
    most = max((gained[alpha] for alpha in fit), default=0)
    assert found.alpha == min((alpha for alpha in fit if gained[alpha] >= 0.95 * most - 1e-9), default=0)
    assert len(asked) == len(set(asked))
    if max(gains) <= 0:
        assert not asked


def test_a_gain_that_costs_too_much_elsewhere_keeps_the_base() -> None:
    base, tuned = MODELS["base"], MODELS["tuned"]
    gain = by_alpha(base, lambda alpha: images(0.5 + 0.08 * alpha))
    loss = by_alpha(base, lambda alpha: images(0.7 - 0.4 * alpha))
    found = guard(base, tuned, gain, loss, GuardSettings())
    assert (found.alpha, found.kept, found.finding.level) == (0, "base", "warn")
    assert found.segmenter is base
    assert "loses 40.0" in found.says
    assert "5.0 that are allowed" in found.says


def test_a_gain_that_chance_explains_keeps_the_base() -> None:
    """Half of the images gain 10 points, half lose 9: the interval of the mean holds 0, whatever the mean."""
    base, tuned = MODELS["base"], MODELS["tuned"]
    noisy = by_alpha(base, lambda alpha: [0.5 + alpha * (0.10 if n % 2 else -0.09) for n in range(12)])
    found = guard(base, tuned, noisy, None, GuardSettings())
    assert (found.kept, found.finding.level) == ("base", "warn")
    assert found.rows[-1].gain.mean > 0 > found.rows[-1].gain.low
    one = by_alpha(base, lambda alpha: [0.5 + 0.3 * alpha])
    assert guard(base, tuned, one, None, GuardSettings()).kept == "base"


def test_harm_fails_and_an_unchanged_model_is_the_base() -> None:
    base, tuned = MODELS["base"], MODELS["tuned"]
    harm = guard(base, tuned, by_alpha(base, lambda alpha: images(0.5 - 0.1 * alpha)), None, GuardSettings())
    assert (harm.kept, harm.finding.level) == ("base", "fail")
    same = guard(base, clone(base), by_alpha(base, lambda _: images(0.5)), None, GuardSettings())
    assert (same.kept, same.finding.level) == ("base", "warn")


def test_switched_off_it_hands_on_the_tuned_model_and_says_so() -> None:
    base, tuned = MODELS["base"], MODELS["tuned"]

    def never(_: Segmenter) -> Sequence[float]:
        raise AssertionError("measured although the guard is off")

    found = guard(base, tuned, never, never, GuardSettings(enabled=False))
    assert found.segmenter is tuned
    assert (found.finding.level, found.rows) == ("warn", ())


def test_general_images_come_from_the_settings(base: Segmenter) -> None:
    """Oracle: `retention_iou` on the same set of one scene."""
    assert retention_measure(base, GuardSettings(retention="none")) is None
    assert retention_measure(base, GuardSettings(enabled=False)) is None
    measure = retention_measure(base, GuardSettings(retention_images=1))
    assert measure is not None
    assert list(measure(base)) == retention_iou(base, retention_set(base, count=1)).tolist()


def test_settings_are_checked_and_always_hold_the_base() -> None:
    assert GuardSettings(alphas=(1, 0.3, 0.3)).alphas == (0, 0.3, 1)
    for wrong in ({"alphas": [0]}, {"alphas": [1.2]}, {"alphas": []}, {"alpha": [1]}, {"allowed_loss": -1}):
        with pytest.raises(UsageError, match="settings"):
            parse_settings(GuardSettings, wrong)


def test_per_image_iou_has_the_mean_of_the_training_loop(base: Segmenter, data: TrainingData) -> None:
    """Oracle: `training.loop.validate` on all items at once."""
    each = per_image_iou(base, data, TrainSettings())
    assert len(each) == len(data.val)
    assert np.mean(each) == pytest.approx(validate(base, data, TrainSettings())[1])


def test_a_ruined_decoder_is_refused_and_a_helpful_one_is_kept(
    base: Segmenter, data: TrainingData, tmp_path: Path
) -> None:
    """Learning rate 5e-2 wrecks a decoder; 1e-3 teaches it the rim. No mixture of the former may come back."""
    for lr, kept in ((5e-2, ("base",)), (1e-3, ("tuned", "mixture"))):
        recipe = TrainSettings(lr=lr, epochs=2, patience=0, keep="last", validation=("interior",))
        tuned = clone(base, "tuned")
        folder = tmp_path / str(lr)
        folder.mkdir()
        train(tuned, data, recipe, folder, Place(Accelerator(cpu=True)))
        measure = partial(per_image_iou, data=data, settings=recipe)
        found = guard(base, tuned, measure, None, GuardSettings(alphas=(0.5, 1)))
        assert found.kept in kept, found.says
        assert np.mean(measure(found.segmenter)) >= np.mean(measure(base))

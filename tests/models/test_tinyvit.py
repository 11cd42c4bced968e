"""TinyViT against its parts computed the long way: unfolded normalisation, sliced windows, biases pair by pair."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from specialsam.core.errors import ModelError
from specialsam.models.tinyvit import Attention, Block, ConvNorm, TinyViT


def small(side: int = 96, **changes: object) -> TinyViT:
    """A TinyViT of a few thousand weights with statistics and biases that are not trivial."""
    torch.manual_seed(0)
    numbers = {"dims": (8, 12, 16, 20), "depths": (1, 1, 2, 1), "heads": (1, 2, 2, 4), "windows": (7, 3, 4, 3)}
    model = TinyViT(side=side, out_channels=16, classes=0, **(numbers | changes))  # type: ignore[arg-type]
    return scramble(model)


def scramble(model: TinyViT) -> TinyViT:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 2)
                module.bias.normal_(std=0.3)
            if isinstance(module, Attention):
                module.attention_biases.normal_()
    return model


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 1, 6), (3, 2, 6), (3, 2, 1)])
def test_the_folded_convolution_is_convolution_then_normalisation(kernel: int, stride: int, groups: int) -> None:
    """Oracle: torch's own Conv2d followed by BatchNorm2d in eval mode."""
    torch.manual_seed(1)
    part = ConvNorm(6, 12, kernel, stride, groups)
    part.bn.running_mean, part.bn.running_var = torch.randn(12), torch.rand(12) + 0.5
    nn.init.normal_(part.bn.weight)
    nn.init.normal_(part.bn.bias)
    x = torch.randn(2, 6, 9, 10).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(part(x), part.bn(part.c(x)), rtol=1e-5, atol=1e-5)


def test_attention_bias_of_a_pair_is_that_of_its_distance_in_rows_and_columns() -> None:
    """Oracle: plain loops; the table is read as |dy| * window + |dx|, in the order of MobileSAM."""
    window = 3
    part = Attention(4, 2, window)
    nn.init.normal_(part.attention_biases)
    bias = part.bias()
    for one in range(window**2):
        for other in range(window**2):
            offset = abs(one // window - other // window) * window + abs(one % window - other % window)
            assert torch.equal(bias[0, :, one, other], part.attention_biases[:, offset])


def test_attention_equals_softmax_written_out() -> None:
    """Oracle: softmax(q k^T / sqrt(d) + bias) v, head by head; q, k, v lie head by head in `qkv`."""
    torch.manual_seed(2)
    part = Attention(8, 2, 2)
    nn.init.normal_(part.attention_biases)
    x = torch.randn(3, 4, 8)
    packed = part.qkv(part.norm(x)).reshape(3, 4, 2, 12)
    heads = []
    for head in range(2):
        q, k, v = packed[:, :, head].split(4, -1)
        heads.append((q @ k.transpose(1, 2) / 2 + part.bias()[0, head]).softmax(-1) @ v)
    torch.testing.assert_close(part(x), part.proj(torch.cat(heads, -1)), rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), window=st.integers(1, 4))
def test_windows_are_cut_from_the_zero_padded_map(height: int, width: int, window: int) -> None:
    """Oracle: a zero map that the window divides, each window sliced out and put back by hand."""
    torch.manual_seed(3)
    block = Block(4, 2, window)
    nn.init.normal_(block.attn.attention_biases)
    x = torch.randn(2, height, width, 4)
    tall, wide = -(-height // window) * window, -(-width // window) * window
    padded = torch.zeros(2, tall, wide, 4)
    padded[:, :height, :width] = x
    expected = torch.zeros_like(padded)
    for top in range(0, tall, window):
        for left in range(0, wide, window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            answer = block.attn(padded[:, rows, columns].reshape(2, -1, 4))
            expected[:, rows, columns] = answer.reshape(2, window, window, 4)
    torch.testing.assert_close(block._windows(x), expected[:, :height, :width], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [64, 96, 208])
def test_the_embedding_has_a_sixteenth_of_the_side(side: int) -> None:
    with torch.no_grad():
        assert small(side)(torch.randn(1, 3, side, side)).shape == (1, 16, side // 16, side // 16)


def test_a_batch_equals_its_images_one_by_one() -> None:
    model, images = small().eval(), torch.randn(3, 3, 96, 96)
    with torch.no_grad():
        single = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), single, rtol=1e-4, atol=1e-5)


def test_normalisation_stays_in_eval_mode_and_its_statistics_stay_as_they_are() -> None:
    """A BatchNorm that learns while the encoder is said to be frozen ruins it silently."""
    model = small()
    nn.Sequential(model).train()
    assert model.training
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(2, 3, 96, 96)
    trained = model(images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.testing.assert_close(trained, model.eval()(images), rtol=0, atol=0)


def test_gradients_reach_every_parameter_and_agree_with_finite_differences() -> None:
    """Oracle: central differences in double precision along one random direction of all parameters."""
    model = small(64).double()
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    weight = torch.randn(1, 16, 4, 4, dtype=torch.float64)
    (model(images) * weight).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
    direction = [torch.randn_like(p) for p in model.parameters()]
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), direction, strict=True))  # type: ignore[operator]

    def at(step: float) -> float:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), direction, strict=True):
                p.add_(step * d)
            return float((moved(images) * weight).sum())

    assert (at(1e-6) - at(-1e-6)) / 2e-6 == pytest.approx(slope, rel=1e-4)


def test_answers_follow_the_weights_however_they_are_written() -> None:
    """No stale bias or folded weight: loading, assigning and writing in place all count at once."""
    model, other, images = small().eval(), scramble(small()).eval(), torch.randn(1, 3, 96, 96)

    def answer(of: nn.Module) -> Tensor:
        with torch.no_grad():
            out: Tensor = of(images)
        return out

    first, expected = answer(model), answer(other)
    assert not torch.allclose(first, expected, atol=1e-3)
    original = copy.deepcopy(model.state_dict())
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(answer(model), expected, rtol=0, atol=0)
    for name, value in model.named_parameters():
        value.data.copy_(original[name])
    for name, value in model.named_buffers():
        if name in original:
            value.copy_(original[name])
    torch.testing.assert_close(answer(model), first, rtol=0, atol=0)


def test_a_model_made_on_the_meta_device_answers_like_one_made_here() -> None:
    model = small().eval()
    with torch.device("meta"):
        bare = small().eval()
    bare.load_state_dict(model.state_dict(), assign=True)
    images = torch.randn(1, 3, 96, 96)
    torch.testing.assert_close(bare(images), model(images), rtol=0, atol=0)
    assert not any("attention_bias_idxs" in name for name in model.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 100}, "multiple of 16, got 100"),
        ({"heads": (1, 5, 2, 4)}, "widths that the heads divide"),
        ({"depths": (1, 1, 1)}, "four stages"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        small(**changes)  # type: ignore[arg-type]


def test_another_input_side_is_refused_with_both_sizes() -> None:
    with pytest.raises(ModelError, match=r"expected \(B, 3, 96, 96\) pixels, got \(1, 3, 64, 64\)"):
        small()(torch.zeros(1, 3, 64, 64))

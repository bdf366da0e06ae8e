from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.models.pixel_conv import PixelConv2d, input_gradient


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(x: Tensor, convolution: PixelConv2d, plain: bool, upstream: Tensor) -> tuple[Tensor, ...]:
    x = x.clone().requires_grad_()
    weight, bias = convolution.weight, convolution.bias
    y = F.conv2d(x, weight, bias, padding=weight.shape[2] // 2) if plain else convolution(x)
    return y.detach(), *torch.autograd.grad(y, [x, weight, bias], upstream)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12), (6, 8), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_gradients_are_those_of_a_convolution(size: int, height: int, width: int, channels: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        convolution = PixelConv2d(channels, 6, size).double()
    x = torch.rand(2, channels, height, width, generator=seeded(0), dtype=torch.float64)
    upstream = torch.randn(2, 6, height, width, generator=seeded(1), dtype=torch.float64)
    for ours, expected in zip(
        gradients(x, convolution, False, upstream), gradients(x, convolution, True, upstream), strict=True
    ):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_input_gradient_is_that_of_torch(channels: int) -> None:
    weight = torch.randn(5, channels, 5, 5, generator=seeded(0), dtype=torch.float64)
    grad = torch.randn(2, 5, 8, 12, generator=seeded(1), dtype=torch.float64)
    expected = F.conv_transpose2d(grad, weight, padding=2)
    torch.testing.assert_close(input_gradient(grad, weight), expected)


def test_in_bfloat16_the_gradient_is_the_same_up_to_its_rounding() -> None:
    convolution = PixelConv2d(1, 8, 5)
    x = torch.rand(2, 1, 8, 8, generator=seeded(0), requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = convolution(x)
    assert y.dtype == torch.bfloat16
    (ours,) = torch.autograd.grad(y.float().square().sum(), x)
    (expected,) = torch.autograd.grad(F.conv2d(x, convolution.weight, convolution.bias, padding=2).square().sum(), x)
    assert ours.dtype == torch.float32
    assert (ours - expected).norm() < 0.02 * expected.norm()

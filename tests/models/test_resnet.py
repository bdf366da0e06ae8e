from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saddlepoint.errors import InputError
from saddlepoint.models import ResNet
from saddlepoint.models.resnet import Conv3x3, Unit, batch_norm, standardise


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("width", "parameters"), [(1, 464154), (10, 45901914)])
def test_parameter_counts_are_the_authors(width: int, parameters: int) -> None:
    with torch.device("meta"):
        model = ResNet(width)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_initial_weights_are_the_authors() -> None:
    model = ResNet(2, generator=seeded(0))
    convolutions = [module for module in model.modules() if isinstance(module, Conv3x3)]
    assert len(convolutions) == 31
    for convolution in convolutions:
        deviation = math.sqrt(2 / (9 * convolution.out_channels))
        tolerance = 4 / math.sqrt(2 * convolution.weight.numel())
        assert convolution.weight.std().item() == pytest.approx(deviation, rel=tolerance)
        assert convolution.bias is None
    bound = math.sqrt(3 / 128)
    assert 0.98 * bound < model.fc.weight.abs().max() <= bound
    assert model.fc.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert (model.fc.bias == 0).all()


def test_weights_follow_the_generator() -> None:
    first, again, other = (ResNet(1, units=1, generator=seeded(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv.weight"], other["conv.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_pad_as_tensorflows_same(stride: int) -> None:
    convolution = Conv3x3(1, 1, stride)
    x = torch.rand(1, 1, 4, 4, generator=seeded(0))
    kernel = convolution.weight[0, 0].tolist()
    before = 1 if stride == 1 else 0  # SAME puts the odd row of padding below and to the right
    expected = torch.zeros(1, 1, 4 // stride, 4 // stride)
    for row in range(4 // stride):
        for column in range(4 // stride):
            for i in range(3):
                for j in range(3):
                    r, c = stride * row + i - before, stride * column + j - before
                    if 0 <= r < 4 and 0 <= c < 4:
                        expected[0, 0, row, column] += kernel[i][j] * x[0, 0, r, c]
    torch.testing.assert_close(convolution(x), expected)


def test_standardised_images_have_mean_0_and_deviation_1() -> None:
    x = torch.rand(5, 3, 8, 8, generator=seeded(0)) * torch.tensor([1, 0.5, 0.1, 0.05, 0.9]).reshape(5, 1, 1, 1)
    flat = standardise(x).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(5))


def test_the_deviation_has_a_floor_for_images_of_one_colour() -> None:
    x = torch.full((2, 3, 4, 4), 0.5)
    x[1, 0, 0, 0] += 1e-4
    pixels = 255 * x[1].double()
    torch.testing.assert_close(standardise(x)[0], torch.zeros(3, 4, 4))
    expected = (pixels - pixels.mean()) * math.sqrt(48)
    torch.testing.assert_close(standardise(x)[1].double(), expected, atol=1e-3, rtol=0)


def test_the_gradient_flows_through_mean_and_deviation_and_is_finite_for_one_colour() -> None:
    x = torch.rand(1, 3, 2, 2, generator=seeded(0)).double().requires_grad_()
    assert torch.autograd.gradcheck(standardise, (x,))
    flat = torch.full((1, 3, 2, 2), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(standardise(flat)[0, 0, 0, 0], flat)
    # (x - mean) / floor, with the floor 1 / sqrt(12): the deviation is constant there.
    expected = 255 * math.sqrt(12) * (torch.eye(12)[0] - 1 / 12).reshape(1, 3, 2, 2)
    torch.testing.assert_close(gradient, expected)


def test_brightness_and_contrast_do_not_change_the_logits() -> None:
    model = ResNet(1, units=1, generator=seeded(0)).eval()
    x = 0.5 * torch.rand(3, 3, 32, 32, generator=seeded(1))
    logits = model(x)
    assert logits.shape == (3, 10)
    torch.testing.assert_close(model(x + 0.4), logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(2 * x), logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(1 - x), logits, atol=1e-2)


def slow_unit(unit: Unit, x: Tensor, first: bool) -> Tensor:
    """The authors' residual unit, step by step, with the running statistics."""

    def activated(norm: torch.nn.BatchNorm2d, x: Tensor) -> Tensor:
        columns = [values[:, None, None] for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
        mean, variance, scale, shift = columns
        x = (x - mean) / (variance + 0.001).sqrt() * scale + shift
        return torch.where(x > 0, x, 0.1 * x)

    branch = activated(unit.norm1, x)
    shortcut = branch if first else x
    outputs, inputs = unit.conv1.weight.shape[:2]
    if unit.conv1.stride == (2, 2):
        branch = F.conv2d(F.pad(branch, (0, 1, 0, 1)), unit.conv1.weight, stride=2)
        shortcut = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    else:
        branch = F.conv2d(branch, unit.conv1.weight, padding=1)
    branch = F.conv2d(activated(unit.norm2, branch), unit.conv2.weight, padding=1)
    blank = torch.zeros(len(x), (outputs - inputs) // 2, *shortcut.shape[2:])
    return branch + torch.cat([blank, shortcut, blank], 1)


def test_the_units_are_the_authors() -> None:
    model = ResNet(2, units=2, generator=seeded(0))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for values in (module.running_mean, module.running_var, module.weight, module.bias):
                    assert values is not None
                    values.uniform_(0.5, 1.5, generator=seeded(2))
    model.eval()
    x = torch.randn(2, 16, 8, 8, generator=seeded(1))
    strides, outputs = [], []
    for position, unit in enumerate(model.units):
        expected = slow_unit(unit, x, first=position == 0)
        x = unit(x)
        torch.testing.assert_close(x, expected, atol=1e-4, rtol=1e-4)
        strides.append(unit.stride)
        outputs.append(x.shape[1])
    assert strides == [1, 1, 2, 1, 2, 1]
    assert outputs == [32, 32, 64, 64, 128, 128]


def test_batch_statistics_move_by_a_tenth() -> None:
    model = ResNet(1, units=1, generator=seeded(0)).train()
    norm = model.units[0].norm1
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.rand(4, 3, 32, 32, generator=seeded(1)))
    torch.testing.assert_close(norm.running_mean, 0.1 * seen[0].mean((0, 2, 3)))


def test_no_width_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.capacity=0"):
        ResNet(0)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_folded_normalisation_is_the_same_function(stride: int) -> None:
    generator = seeded(0)
    convolution, norm = Conv3x3(3, 8, stride), batch_norm(8)
    for tensor, low, high in (
        (norm.weight.data, -2, 2),
        (norm.bias.data, -1, 1),
        (norm.running_mean, -1, 1),
        (norm.running_var, 0.1, 4),
    ):
        assert tensor is not None
        tensor.uniform_(low, high, generator=generator)
    x = torch.rand(2, 3, 8, 8, generator=generator, requires_grad=True)
    direction = torch.randn(2, 8, 8 // stride, 8 // stride, generator=generator)
    wanted = [x, convolution.weight, norm.weight, norm.bias]
    for mode in (False, True):
        norm.train(mode)
        before = norm.running_mean.clone()  # type: ignore[union-attr]
        plain, folded = norm(convolution(x)), convolution.normalised(x, norm)
        assert torch.allclose(plain, folded, rtol=1e-5, atol=1e-5)
        assert torch.equal(before, norm.running_mean) == (not mode)  # type: ignore[arg-type]
        for one, other in zip(
            torch.autograd.grad((direction * plain).sum(), wanted),
            torch.autograd.grad((direction * folded).sum(), wanted),
            strict=True,
        ):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from saddlepoint.errors import InputError
from saddlepoint.models import ArchitectureB


def test_it_is_tramers() -> None:
    model = ArchitectureB()
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.ndim > 1}
    assert shapes == {
        "conv1.weight": (64, 1, 8, 8),
        "conv2.weight": (128, 64, 6, 6),
        "conv3.weight": (128, 128, 5, 5),
        "fc.weight": (10, 128),
    }
    # 28 pixels and an 8x8 kernel with stride 2: TensorFlow's SAME pads 3 on each side.
    x = torch.rand(2, 1, 28, 28)
    conv1 = F.conv2d(x, model.conv1.weight, model.conv1.bias, stride=2, padding=3).relu()
    conv3 = model.conv3(model.conv2(conv1).relu()).relu()
    torch.testing.assert_close(model.eval()(x), model.fc(conv3.flatten(1)))


@pytest.mark.parametrize(("size", "channels", "kernels"), [(8, 1, (4, 2, 2)), (32, 3, (8, 6, 5))])
def test_other_images(size: int, channels: int, kernels: tuple[int, ...]) -> None:
    assert ArchitectureB(size, channels, kernels=kernels)(torch.rand(2, channels, size, size)).shape == (2, 10)


def test_dropout_is_for_training() -> None:
    model, x = ArchitectureB(8, kernels=(4, 2, 2)), torch.rand(1, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_the_generator_decides_the_weights() -> None:
    first, again = (ArchitectureB(generator=torch.Generator().manual_seed(3)).fc.weight for _ in range(2))
    assert torch.equal(first, again)
    assert first.abs().max() <= (6 / (128 + 10)) ** 0.5  # Glorot's bound


def test_kernels_that_do_not_fit() -> None:
    with pytest.raises(InputError, match="do not fit images of 8 pixels"):
        ArchitectureB(8)

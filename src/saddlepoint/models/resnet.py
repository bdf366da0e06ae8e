"""The CIFAR10 family: the authors' pre-activation residual network (their cifar10_challenge, not a WRN-34-10)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlepoint.errors import whole

SLOPE = 0.1  # of every leaky ReLU


def standardise(x: Tensor) -> Tensor:
    """Each image to mean 0 and deviation 1 over all its pixels, as TensorFlow's per_image_standardization.

    The gradient flows through mean and deviation, as in the authors' code: the attack sees them.
    """
    x = 255 * x
    deviation, mean = torch.std_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
    return (x - mean) / deviation.clamp_min(1 / math.sqrt(x[0].numel()))


class Conv3x3(nn.Conv2d):
    """3x3 without bias. With stride 2 it pads below and to the right only, as TensorFlow's SAME does."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride, padding=1 if stride == 1 else 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.normalised(x, None)

    def normalised(self, x: Tensor, norm: nn.BatchNorm2d | None) -> Tensor:
        """What `norm` makes of its output. In eval mode both are one convolution, which passes once over the memory."""
        x = x if self.stride == (1, 1) else F.pad(x, (0, 1, 0, 1))
        if norm is None or norm.training:
            out = self._conv_forward(x, self.weight, None)
            return out if norm is None else norm(out)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


class Unit(nn.Module):
    """Two 3x3 convolutions with pre-activation; the shortcut is average-pooled and padded with zero channels.

    `shared_activation`: the first unit's batch norm and activation serve both branches.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shared_activation: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = batch_norm(inputs), Conv3x3(inputs, outputs, stride)
        self.norm2, self.conv2 = batch_norm(outputs), Conv3x3(outputs, outputs)
        self.stride, self.padding, self.shared_activation = stride, (outputs - inputs) // 2, shared_activation

    def forward(self, x: Tensor) -> Tensor:
        branch = F.leaky_relu(self.norm1(x), SLOPE)
        shortcut = branch if self.shared_activation else x
        branch = self.conv2(F.leaky_relu(self.conv1.normalised(branch, self.norm2), SLOPE))
        if self.stride > 1:
            shortcut = F.avg_pool2d(shortcut, self.stride)
        if self.padding:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, self.padding, self.padding))
        return branch + shortcut


class ResNet(nn.Module):
    """Three stages of `units` residual units with 16w, 32w, 64w channels (Section 4: simple is w = 1, wide w = 10).

    Args:
        width: w, at least 1.
        units: residual units a stage; 5 in the paper.
        generator: source of the initial weights.

    forward: (n, 3, 32, 32) in [0, 1] -> logits (n, classes).
    """

    def __init__(
        self, width: int, units: int = 5, channels: int = 3, classes: int = 10, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        whole(width, "model.capacity")
        filters = [16, 16 * width, 32 * width, 64 * width]
        self.conv = Conv3x3(channels, filters[0])
        self.units = nn.ModuleList(
            Unit(
                inputs=filters[stage] if unit == 0 else filters[stage + 1],
                outputs=filters[stage + 1],
                stride=2 if stage > 0 and unit == 0 else 1,
                shared_activation=stage == unit == 0,
            )
            for stage in range(3)
            for unit in range(units)
        )
        self.norm = batch_norm(filters[3])
        self.fc = nn.Linear(filters[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = 9 * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out), generator=generator)
        bound = math.sqrt(3 / filters[3])
        nn.init.uniform_(self.fc.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.fc.bias)
        self.to(memory_format=torch.channels_last)  # the layout that convolutions like

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(standardise(x))
        for unit in self.units:
            x = unit(x)
        return self.fc(F.leaky_relu(self.norm(x), SLOPE).mean((2, 3)))

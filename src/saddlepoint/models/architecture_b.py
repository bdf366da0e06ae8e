"""Architecture B of Tramèr et al. 2018: another network, whose adversarial examples are tried on ours (Table 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlepoint.errors import InputError


class ArchitectureB(nn.Module):
    """dropout .2 - conv 64, stride 2 - conv 128, stride 2 - conv 128 - dropout .5 - fc, a ReLU after each convolution.

    Weights start as in Keras: Glorot's uniform distribution, biases at 0.

    Args:
        kernels: of the three convolutions; (8, 6, 5) in the original. The last two do not pad and must leave one pixel.
        generator: source of the initial weights.

    forward: (n, channels, size, size) in [0, 1] -> logits (n, classes).
    """

    def __init__(
        self,
        image_size: int = 28,
        channels: int = 1,
        classes: int = 10,
        kernels: Sequence[int] = (8, 6, 5),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        first, second, third = kernels
        halved = -(-image_size // 2)
        size = (halved - second) // 2 + 1 - third + 1  # of the last feature map
        if size < 1 or first % 2:
            raise InputError(f"kernels {tuple(kernels)} do not fit images of {image_size} pixels")
        # As TensorFlow's SAME with stride 2: half of the padding above and left, the rest below and right.
        missing = max(0, 2 * (halved - 1) + first - image_size)
        self.padding = (missing // 2, missing - missing // 2) * 2
        self.dropout1, self.dropout2 = nn.Dropout(0.2), nn.Dropout(0.5)
        self.conv1 = nn.Conv2d(channels, 64, first, stride=2)
        self.conv2 = nn.Conv2d(64, 128, second, stride=2)
        self.conv3 = nn.Conv2d(128, 128, third)
        self.fc = nn.Linear(128 * size * size, classes)
        for layer in (self.conv1, self.conv2, self.conv3, self.fc):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)  # the layout that convolutions like

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(F.pad(self.dropout1(x), self.padding)))
        x = F.relu(self.conv3(F.relu(self.conv2(x))))
        return self.fc(self.dropout2(x.flatten(1)))

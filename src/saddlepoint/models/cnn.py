"""The MNIST family: the capacity series of the paper's Section 4 and Figure 4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlepoint.errors import whole
from saddlepoint.models.pixel_conv import PixelConv2d

AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"


class CNN(nn.Module):
    """conv 5x5 (2s) - pool - conv 5x5 (4s) - pool - fc (64s) - fc, with s the capacity.

    s = 16 is the network of the paper's Table 1. Weights start from a normal of deviation 0.1 truncated at
    two deviations and biases at 0.1, as in the authors' code: the loss starts near 5, and whether the
    smallest networks learn at all depends on it.

    Args:
        capacity: s, at least 1.
        image_size: height and width, at least 4; a multiple of 4 is fastest on a CPU.
        generator: source of the initial weights.

    forward: (n, channels, size, size) in [0, 1] -> logits (n, classes).
    """

    def __init__(
        self,
        capacity: int,
        image_size: int = 28,
        channels: int = 1,
        classes: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        whole(capacity, "model.capacity")
        whole(image_size, "dataset.network.image_size", 4)
        self.conv1 = PixelConv2d(channels, 2 * capacity, 5)
        self.conv2 = nn.Conv2d(2 * capacity, 4 * capacity, 5, padding=2)
        self.fc1 = nn.Linear(4 * capacity * (image_size // 4) ** 2, 64 * capacity)
        self.fc2 = nn.Linear(64 * capacity, classes)
        for layer in (self.conv1, self.conv2, self.fc1, self.fc2):
            nn.init.trunc_normal_(layer.weight, std=0.1, a=-0.2, b=0.2, generator=generator)
            assert layer.bias is not None
            nn.init.constant_(layer.bias, 0.1)
        self.to(memory_format=torch.channels_last)  # the layout that convolutions like

    def forward(self, x: Tensor) -> Tensor:
        # Pooling before the ReLU is the same function with a quarter of the elementwise work.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc2(F.relu(self._flattened(x)))

    def _flattened(self, x: Tensor) -> Tensor:
        """fc1 of (n, c, h, w), flattened as rows, columns, channels: the order in memory, and TensorFlow's."""
        float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if x.device.type == "cpu" and float32 and AVX512 and self.fc1.in_features > 256:
            # The same product as a convolution of the whole image, in oneDNN. Its AVX-512 code is several times
            # faster at MNIST's sizes than MKL, which does not use AVX-512 on AMD's processors. Elsewhere BLAS wins:
            # with AVX2 alone (AMD EPYC, 1 thread) it makes a PGD step 1.7 times as fast on MNIST wide and 1.5 times
            # on digits wide, whose 256 inputs are too few for the convolution with AVX-512 too.
            _, channels, height, width = x.shape
            kernel = self.fc1.weight.view(-1, height, width, channels).permute(0, 3, 1, 2)
            return F.conv2d(x, kernel, self.fc1.bias).flatten(1)
        return self.fc1(x.permute(0, 2, 3, 1).flatten(1))

"""A network of somebody else's behind images in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from saddlepoint.errors import InputError


class Normalized(nn.Module):
    """network((scale x - mean) / std): its input range and normalisation, said once, inside what is attacked.

    Args:
        network: takes what it was trained on and returns logits.
        scale: 255 for a network of images in [0, 255].
        mean, std: of the scaled images, a list of one number or of one for each channel; [0.5] and [0.5] make [-1, 1].

    forward: (n, c, h, w) in [0, 1] -> logits (n, classes). The state dict is the network's, under "network.".
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, scale: float = 1.0, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)
    ) -> None:
        super().__init__()
        if scale <= 0 or min(std) <= 0:
            raise InputError(f"model.network: scale={scale} and std={list(std)}; expected numbers above 0")
        self.network, self.scale = network, scale
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.network((self.scale * x - self.mean) / self.std)

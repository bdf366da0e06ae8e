"""A first convolution whose input gradient is fast: an attack takes it at every step, ordinary training never does.

Libraries compute it as a convolution with as many output channels as the image has, one or three, where their
vector units want 16 and more. Here a block of 4x4 pixels is one output position with 16 channels a colour: the same
sum with a larger, zero-padded kernel, 2.6 times the arithmetic at many times the rate (see scripts/dev/benchmark.py).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 4


def block_kernel(weight: Tensor) -> Tensor:
    """From a kernel (out, in, k, k) the one that takes output gradients to blocks: (in * 16, out, k + 3, k + 3)."""
    outputs, inputs, size, _ = weight.shape
    flipped = weight.flip(2, 3).transpose(0, 1)
    kernel = weight.new_zeros(inputs, BLOCK, BLOCK, outputs, size + BLOCK - 1, size + BLOCK - 1)
    # The pixel in row r and column c of a block sees the kernel moved r down and c to the right: all in one copy.
    inp, row, column, out, down, right = kernel.stride()
    moved = kernel.as_strided(
        (inputs, BLOCK, BLOCK, outputs, size, size), (inp, row + down, column + right, out, down, right)
    )
    moved.copy_(flipped[:, None, None])
    return kernel.flatten(0, 2).contiguous(memory_format=torch.channels_last)


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Of a stride-1 convolution that keeps the size: grad (n, out, h, w) -> (n, in, h, w); h and w multiples of 4."""
    blocks = F.conv2d(grad, block_kernel(weight), stride=BLOCK, padding=weight.shape[2] // 2)
    return F.pixel_shuffle(blocks, BLOCK)


class _WithInputGradient(torch.autograd.Function):
    """The identity on y = conv(x), which sends y's gradient on to x by `input_gradient`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return y.view_as(y)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad, input_gradient(grad, weight.to(grad.dtype)), None


class PixelConv2d(nn.Conv2d):
    """nn.Conv2d with stride 1 and size-keeping padding, for images: the same values and gradients."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        # Only the CPU's library is slow at it, and only blocks that fill the image are laid out as above.
        if x.device.type != "cpu" or not x.requires_grad or x.shape[2] % BLOCK or x.shape[3] % BLOCK:
            return super().forward(x)
        # The weights' gradient stays torch's own, and is not computed where only the input's is asked for.
        return _WithInputGradient.apply(super().forward(x.detach()), x, self.weight.detach())

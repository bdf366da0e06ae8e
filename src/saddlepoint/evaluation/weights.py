"""What the first and the last layer have learned (ICLR Figures 9 and 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from saddlepoint.attacks import undisturbed
from saddlepoint.errors import InputError


@dataclass(frozen=True)
class Layers:
    """`filters`: (n, c, k, k) of the first convolution. `weights`, `biases` of the last fully connected layer.

    `alive`: bool (n,), the filters whose response varies over images and positions by more than 1% of the most
    varying one's. `concentration`: (n,), the largest weight's share of a filter's sum of absolute weights: 1 is a
    single weight, which makes a threshold filter with the bias and the ReLU.
    """

    filters: np.ndarray
    alive: np.ndarray
    concentration: np.ndarray
    weights: np.ndarray
    biases: np.ndarray


def layers(model: nn.Module, x: Tensor) -> Layers:
    """Read the first convolution and the last fully connected layer; images x (n, c, h, w) show which filters live."""
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    last = next((module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear)), None)
    if first is None or last is None:
        raise InputError(f"{type(model).__name__} has no convolution or no fully connected layer to look at")
    responses: list[Tensor] = []
    hook = first.register_forward_hook(lambda module, inputs, output: responses.append(output.relu()))
    try:
        with undisturbed(model), torch.no_grad():
            model(x)
    finally:
        hook.remove()
    spread = responses[0].transpose(0, 1).flatten(1).std(1)
    sizes = first.weight.detach().flatten(1).abs()
    return Layers(
        filters=first.weight.numpy(force=True),
        alive=(spread > 0.01 * spread.max()).numpy(force=True),
        concentration=(sizes.amax(1) / sizes.sum(1).clamp_min(1e-12)).numpy(force=True),
        weights=last.weight.numpy(force=True),
        biases=np.zeros(len(last.weight)) if last.bias is None else last.bias.numpy(force=True),
    )

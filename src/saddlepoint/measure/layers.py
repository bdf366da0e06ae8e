"""What the first and the last layer have learned (ICLR Figures 9 and 10)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from saddlepoint.attacks import undisturbed
from saddlepoint.errors import InputError
from saddlepoint.measure.result import Learned


def layers(model: nn.Module, x: Tensor) -> tuple[Learned, dict[str, np.ndarray]]:
    """Read the first convolution and the last fully connected layer; images x (n, c, h, w) show which filters live.

    Returns what is counted, and as arrays the `filters` (n, c, k, k) of the first convolution and the `weights` and
    `biases` of the last fully connected layer. A filter lives if its response varies over images and positions by more
    than 1% of the most varying one's. It is a single weight if one has 90% of the sum of absolute weights: with the
    bias and the ReLU it is a threshold.
    """
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
    alive = spread > 0.01 * spread.max()
    sizes = first.weight.detach().flatten(1).abs()
    concentrated = sizes.amax(1) / sizes.sum(1).clamp_min(1e-12) >= 0.9
    biases = np.zeros(len(last.weight)) if last.bias is None else last.bias.numpy(force=True)
    learned = Learned(
        filters=len(alive),
        alive=int(alive.sum()),
        single_weight=int((alive & concentrated).sum()),
        bias_low=float(biases.min()),
        bias_high=float(biases.max()),
    )
    arrays = {"filters": first.weight.numpy(force=True), "weights": last.weight.numpy(force=True), "biases": biases}
    return learned, arrays

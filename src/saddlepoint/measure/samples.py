"""Adversarial examples themselves, and how they are classified."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.data import Split
from saddlepoint.runtime import generator


def adversarial_images(model: nn.Module, split: Split, attack: PGD, seed: int) -> dict[str, np.ndarray]:
    """`images` (n, c, h, w) of all of a split, and their classes `before` and `after` the attack (n,)."""
    x = split.images(slice(None))
    x_adv = attack(model, x, split.labels, generator(seed, "samples", x.device))
    if not attack.threat.contains(x_adv, x).all():
        raise RuntimeError(f"{attack} made examples outside its threat model")
    with undisturbed(model), torch.no_grad():
        before, after = (model(images).argmax(1).numpy(force=True) for images in (x, x_adv))
    return {"images": x_adv.numpy(force=True), "before": before, "after": after}

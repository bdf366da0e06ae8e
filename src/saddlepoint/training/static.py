"""A training set that is replaced by adversarial examples once, to compare with adversarial training."""

from __future__ import annotations

import copy

import torch
from torch import nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.training.objectives import Adversarial


def replaced(split: Split, model: nn.Module, attack: PGD, generator: torch.Generator, batch_size: int = 500) -> Split:
    """The split with each image replaced by its adversarial example for `model`.

    The paper makes new examples for every minibatch, from the weights of the moment (Section 2.2).
    `training=static` trains on these instead, which shows the difference. Raises InputError for an attack that no
    training of the paper's can use.
    """
    Adversarial(attack)
    attack = copy.copy(attack)
    attack.model_mode = "eval"  # the source is finished: its statistics stay
    images = [attack(model, x, y, generator) for _, x, y in split.batches(batch_size)]
    return Split(torch.cat(images), split.labels, 1)

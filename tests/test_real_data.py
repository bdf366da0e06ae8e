"""The real MNIST and CIFAR10, where their files lie under data/; says that it was skipped where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saddlepoint.attacks import PGD
from saddlepoint.data import Data, load
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.models import CNN
from saddlepoint.threat import Threat
from saddlepoint.training.objectives import Adversarial

DATA = Path(__file__).resolve().parents[1] / "data"

pytestmark = pytest.mark.real_data


def real(name: str, folder: str, held_out: int) -> Data:
    if not (DATA / folder).exists():
        pytest.skip(f"{name} is not under data/{folder}; train.py dataset={name} downloads it")
    return load(name, DATA, held_out)


def test_mnist_is_as_the_authors_split_it() -> None:
    data = real("mnist", "MNIST/raw", 5000)
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert data.validation.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test.images(slice(0, 1)).shape == (1, 1, 28, 28)
    assert (data.test.labels == 1).double().mean().item() == pytest.approx(0.1135)
    assert data.test.images(slice(0, 100)).amax().item() == 1.0


def test_cifar10() -> None:
    data = real("cifar10", "cifar-10-batches-py", 1000)
    assert (len(data.train), len(data.validation), len(data.test)) == (49_000, 1_000, 10_000)
    assert data.test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert data.test.pixels[0, :, 0, 0].tolist() == [158, 112, 49]
    assert torch.bincount(data.test.labels).tolist() == [1000] * 10


def test_a_minute_of_adversarial_training_learns_mnist() -> None:
    data = real("mnist", "MNIST/raw", 5000)
    model = CNN(2, generator=torch.Generator().manual_seed(0))
    threat = Threat("linf", 0.1)
    objective = Adversarial(PGD(threat, steps=3, step_size=0.05))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    noise = torch.Generator().manual_seed(1)
    test = data.test.take(500)
    for step in range(150):
        chosen = slice(100 * step, 100 * step + 100)
        losses, _ = objective(model, data.train.images(chosen), data.train.labels[chosen], noise, 1.0)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    natural = evaluate(model, test, None).accuracy
    robust = evaluate(model, test, PGD(threat, steps=10, step_size=0.025)).accuracy
    assert natural > 0.85
    assert 0.5 < robust < natural

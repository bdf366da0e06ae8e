"""The same attack by other people's code: foolbox, torchattacks and AutoAttack.

foolbox and torchattacks live in an environment of their own (make soak runs these tests there).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD
from saddlepoint.data import load
from saddlepoint.losses import CrossEntropy, Loss, Margin
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.measure.result import interval
from saddlepoint.models import CNN
from saddlepoint.threat import Threat

ELSEWHERE = "in the environment of make benchmark only"


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))


def batch_norm() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    model(torch.rand(64, 1, 8, 8))  # statistics of its own
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "cnn": lambda: CNN(1, image_size=8, generator=torch.Generator().manual_seed(0)),
    "perceptron": perceptron,
    "batch norm": batch_norm,
}
THREATS = [("linf", 0.1, 0.03), ("linf", 1.0, 0.3), ("l2", 1.0, 0.3), ("l2", 0.05, 0.02)]


@pytest.fixture(params=NETWORKS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[request.param]().double().eval()  # so that no gradient's sign hangs on rounding


@pytest.fixture
def batch(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images with pixels at 0 and at 1, as real ones have, and labels: the network's own for half of them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(32, 1, 8, 8, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    x, y = x.clamp(0, 1), torch.randint(10, (32,), generator=generator)
    with torch.no_grad():
        y[::2] = model(x).argmax(1)[::2]
    return x, y


def ours(norm: str, eps: float, step_size: float, **settings: Any) -> PGD:
    return PGD(Threat(norm, eps), 7, step_size, random_start=False, **settings)


def agree(found: Tensor, theirs: Tensor, x: Tensor) -> None:
    assert (theirs - x).abs().max() > 0.01  # they did something
    torch.testing.assert_close(found, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "eps", "step_size"), THREATS)
def test_torchattacks(
    model: nn.Module, batch: tuple[Tensor, Tensor], norm: str, eps: float, step_size: float, targeted: bool
) -> None:
    torchattacks = pytest.importorskip("torchattacks", reason=ELSEWHERE)
    x, y = batch
    kind = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    theirs = kind(model, eps=eps, alpha=step_size, steps=7, random_start=False)
    if targeted:
        theirs.set_mode_targeted_by_label(quiet=True)
    agree(ours(norm, eps, step_size, targeted=targeted)(model, x, y), theirs(x, y), x)


@pytest.mark.parametrize(
    ("loss", "targeted"), [(CrossEntropy(), False), (CrossEntropy(), True), (Margin(0), False), (Margin(50), False)]
)
@pytest.mark.parametrize(("norm", "eps", "step_size"), THREATS)
def test_foolbox(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    norm: str,
    eps: float,
    step_size: float,
    loss: Loss,
    targeted: bool,
) -> None:
    foolbox = pytest.importorskip("foolbox", reason=ELSEWHERE)
    x, y = batch
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD

    class Theirs(kind):  # type: ignore[misc, valid-type]
        def get_loss_fn(self, network: Any, labels: Any) -> Any:
            if isinstance(loss, CrossEntropy):
                return super().get_loss_fn(network, labels)

            def margin(inputs: Any) -> Any:  # Carlini and Wagner's, written once more
                logits = network(inputs).raw
                own = torch.eye(10, dtype=torch.bool)[labels.raw]
                gap = logits[own] - logits.masked_fill(own, -1e9).max(1).values + loss.kappa
                return type(inputs)(-torch.where(gap > 0, gap, 0 * gap).sum())

            return margin

    theirs = Theirs(abs_stepsize=step_size, steps=7, random_start=False)
    criteria = foolbox.criteria
    criterion = criteria.TargetedMisclassification(y) if targeted else criteria.Misclassification(y)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    found = ours(norm, eps, step_size, loss=loss, targeted=targeted)(model, x, y)
    agree(found, theirs.run(wrapped, x, criterion, epsilon=eps), x)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.5)])
def test_autoattack(norm: str, eps: float) -> None:
    """On a small trained network AutoAttack's accuracy lies in the interval of ours, and ours in that of its."""
    autoattack = pytest.importorskip("pyautoattack", reason="pip install pyautoattack")
    data = load("digits", "data", 197)
    test = data.test.take(100)
    x, y = test.images(slice(None)), test.labels
    model = CNN(2, image_size=8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    craft, noise = PGD(Threat(norm, eps), 4), torch.Generator().manual_seed(0)
    for step in range(150):
        chosen = slice(50 * (step % 22), 50 * (step % 22) + 50)
        images, labels = data.train.images(chosen), data.train.labels[chosen]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(craft.craft(model, images, labels, noise)), labels).backward()
        optimizer.step()
    found = evaluate(model.eval(), test, PGD(Threat(norm, eps), 50, restarts=3)).correct
    theirs = autoattack.AutoAttack(
        copy.deepcopy(model), norm="Linf" if norm == "linf" else "L2", eps=eps, seed=0, version="custom",
        attacks=["apgd-ce", "apgd-t"],
    )  # fmt: skip
    theirs.verbose = False
    x_adv = theirs.run_standard_evaluation(x, y, batch_size=100)
    x_adv = x_adv[0] if isinstance(x_adv, tuple) else x_adv
    with torch.no_grad():
        standing = model(x_adv).argmax(1) == y
    assert Threat(norm, eps).contains(x_adv, x, 1e-4).all()
    accuracies = float(found.mean()), float(standing.float().mean())
    assert 0.1 < accuracies[0] < 0.95  # where the attack decides
    for mine, other in (accuracies, accuracies[::-1]):
        low, high = interval(round(mine * 100), 100)
        assert low <= other <= high, accuracies

from __future__ import annotations

import math

import pytest
import torch

from saddlepoint.losses import CrossEntropy, Divergence, Margin

LOGITS = torch.tensor([[3.0, 1.0, 2.0]])


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    losses = CrossEntropy()(logits, torch.tensor([0, 1]))
    torch.testing.assert_close(losses, torch.tensor([math.log(4), math.log(4 / 3)]))


def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot() -> None:
    logits = LOGITS.clone().requires_grad_()
    CrossEntropy()(logits, torch.tensor([2])).sum().backward()
    expected = torch.softmax(LOGITS, 1) - torch.tensor([[0.0, 0.0, 1.0]])
    torch.testing.assert_close(logits.grad, expected)


@pytest.mark.parametrize(("label", "kappa", "loss"), [(0, 0, -1), (1, 0, 0), (2, 0, 0), (1, 50, -48), (0, 50, -51)])
def test_margin_by_hand(label: int, kappa: float, loss: float) -> None:
    assert Margin(kappa)(LOGITS, torch.tensor([label])).tolist() == [loss]


def test_margin_is_the_formula_on_random_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 10, generator=generator)
    labels = torch.randint(10, (50,), generator=generator)
    for kappa in (0.0, 1.5):
        expected = [
            -max(0.0, z[y] - max(other for j, other in enumerate(z) if j != y) + kappa)
            for z, y in zip(logits.tolist(), labels.tolist(), strict=True)
        ]
        torch.testing.assert_close(Margin(kappa)(logits, labels), torch.tensor(expected))


@pytest.mark.parametrize(
    ("label", "kappa", "gradient"),
    [(0, 0, [-1, 0, 1]), (1, 0, [0, 0, 0]), (1, 50, [1, -1, 0])],
    ids=["towards the nearest other class", "flat beyond the boundary", "kappa goes on beyond it"],
)
def test_the_gradient_of_the_margin(label: int, kappa: float, gradient: list[float]) -> None:
    logits = LOGITS.clone().requires_grad_()
    Margin(kappa)(logits, torch.tensor([label])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [gradient]


def test_divergence_by_hand() -> None:
    logits, p = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.5, 0.5]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert Divergence()(logits, p).tolist() == pytest.approx([expected])
    assert Divergence()(logits, logits.softmax(1)).tolist() == pytest.approx([0.0], abs=1e-6)

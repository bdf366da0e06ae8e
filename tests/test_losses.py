from __future__ import annotations

import math

import pytest
import torch

from saddlepoint.losses import CrossEntropy, Divergence, LogOdds, Loss, Margin, surrogate

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


def test_log_odds_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3), math.log(4)]])
    assert LogOdds()(logits, torch.tensor([0])).tolist() == pytest.approx([math.log(7)])
    assert LogOdds()(logits, torch.tensor([2])).tolist() == pytest.approx([0])


def test_cross_entropy_is_softplus_of_its_surrogate_and_has_its_gradient_times_sigmoid() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(50, 10, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(10, (50,), generator=generator)
    assert surrogate(CrossEntropy()) == LogOdds()
    loss, odds = CrossEntropy()(logits, labels), LogOdds()(logits, labels)
    torch.testing.assert_close(loss, torch.nn.functional.softplus(odds))
    gradients = [torch.autograd.grad(each.sum(), logits)[0] for each in (loss, odds)]
    torch.testing.assert_close(gradients[0], gradients[1] * odds.detach().sigmoid()[:, None])


def test_the_gradient_of_the_log_odds_in_closed_form_is_the_one_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (30 * torch.randn(50, 10, generator=generator, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(10, (50,), generator=generator)
    (expected,) = torch.autograd.grad(LogOdds()(logits, labels).sum(), logits)
    torch.testing.assert_close(LogOdds.gradient(logits.detach(), labels), expected, rtol=1e-12, atol=0)
    ruled_out = torch.tensor([[1.0, -torch.inf, 1.0]])
    assert LogOdds.gradient(ruled_out, torch.tensor([0])).tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize("far", [20.0, 200.0, 1e30])
def test_log_odds_have_a_gradient_where_cross_entropy_has_none(far: float) -> None:
    logits = torch.tensor([[far, 0.0, 0.0]], requires_grad=True)
    assert LogOdds()(logits, torch.tensor([0])).item() == pytest.approx(math.log(2) - far)
    (gradient,) = torch.autograd.grad(LogOdds()(logits, torch.tensor([0])).sum(), logits)
    assert gradient.tolist() == [[-1, 0.5, 0.5]]
    (lost,) = torch.autograd.grad(CrossEntropy()(logits, torch.tensor([0])).sum(), logits)
    assert lost[0, 0] == 0


def test_a_class_that_is_ruled_out_leaves_the_gradient_finite() -> None:
    logits = torch.tensor([[1.0, -torch.inf, 1.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(LogOdds()(logits, torch.tensor([0])).sum(), logits)
    assert gradient.tolist() == [[-1, 0, 1]]


@pytest.mark.parametrize("loss", [Margin(50), Divergence(), torch.nn.functional.mse_loss])
def test_other_losses_are_ascended_themselves(loss: Loss) -> None:
    assert surrogate(loss) is loss


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

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD, Targeted
from saddlepoint.errors import InputError
from saddlepoint.losses import Divergence
from saddlepoint.threat import Threat
from saddlepoint.training.objectives import Adversarial, Standard, Trades, checked, tried


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Seen(nn.Module):
    """Notes the images that come in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.images.append(x.detach())
        logits: Tensor = self.network(x)
        return logits


@pytest.fixture
def model(batch_norm_network: nn.Module) -> Seen:
    return Seen(batch_norm_network)


X = torch.rand(5, 1, 4, 4, generator=seeded(0))
Y = torch.tensor([0, 1, 2, 0, 1])


def test_standard_is_cross_entropy_on_the_natural_images(model: Seen) -> None:
    losses, logits = Standard()(model, X, Y, seeded(0), 0.0)
    assert len(model.images) == 1
    assert torch.equal(model.images[0], X)
    torch.testing.assert_close(logits, model.network(X))
    torch.testing.assert_close(losses, -torch.log_softmax(logits, 1)[torch.arange(5), Y])


def test_adversarial_is_cross_entropy_on_the_attacks_images_alone(model: Seen) -> None:
    attack = PGD(Threat("linf", 0.1), steps=3)
    losses, _ = Adversarial(attack)(model, X, Y, seeded(0), 0.0)
    x_adv = attack.craft(model.network, X, Y, seeded(0))
    assert len(model.images) == 4  # three steps and the loss
    assert torch.equal(model.images[-1], x_adv)
    torch.testing.assert_close(losses, -torch.log_softmax(model.network(x_adv), 1)[torch.arange(5), Y])
    assert losses.sum() > Standard()(model, X, Y, seeded(0), 0.0)[0].sum()


def test_losses_have_a_gradient_for_the_weights(model: Seen) -> None:
    losses, _ = Adversarial(PGD(Threat("linf", 0.1), steps=1))(model, X, Y, seeded(0), 0.0)
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("warmup", "progress", "part"), [(0, 0, 1), (0.4, 0, 0), (0.4, 0.1, 0.25), (0.4, 0.4, 1), (0.4, 0.9, 1)]
)
def test_warmup_grows_eps_linearly(model: Seen, warmup: float, progress: float, part: float) -> None:
    attack = PGD(Threat("linf", 0.1), steps=1, step_size=0.1, random_start=False)
    inner = 0.2 + 0.6 * X  # no pixel is clipped
    Adversarial(attack, warmup)(model, inner, Y, seeded(0), progress)
    assert (model.images[-1] - inner).abs().amax().item() == pytest.approx(0.1 * part, abs=1e-6)


@pytest.mark.parametrize("warmup", [-0.1, 1, 1.5, float("nan"), "long"])
def test_impossible_warmups_are_refused(warmup: Any) -> None:
    with pytest.raises(InputError, match=r"recipe\.warmup="):
        Adversarial(PGD(Threat("linf", 0.1), steps=1), warmup)


def test_crafting_under_autocast_does_not_spoil_the_weights_gradient(model: Seen) -> None:
    attack = PGD(Threat("linf", 0.1), steps=2)

    def gradients(x: Tensor, objective: Standard | Adversarial) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses, _ = objective(model, x, Y, seeded(0), 0.0)
        return list(torch.autograd.grad(losses.sum(), list(model.parameters())))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_adv = attack.craft(model.network, X, Y, seeded(0))
    for ours, expected in zip(gradients(X, Adversarial(attack)), gradients(x_adv, Standard()), strict=True):
        torch.testing.assert_close(ours, expected)


def test_trades_under_autocast_reaches_every_weight(model: Seen) -> None:
    objective = Trades(PGD(Threat("linf", 0.1), steps=1, loss=Divergence()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, _ = objective(model, X, Y, seeded(0), 0.0)
    losses.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_losses_are_float32_under_autocast(model: Seen) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for objective in (Standard(), Adversarial(PGD(Threat("linf", 0.1), steps=1))):
            losses, logits = objective(model, X, Y, seeded(0), 0.0)
            assert (losses.dtype, logits.dtype) == (torch.float32, torch.bfloat16)


def test_trades_is_the_natural_loss_and_beta_divergences(model: Seen) -> None:
    attack = PGD(Threat("linf", 0.1), steps=3, loss=Divergence())
    losses, logits = Trades(attack, beta=4.0)(model, X, Y, seeded(0), 0.0)
    crafted = model.images[-1]
    assert attack.threat.contains(crafted, X).all()
    natural, adversarial = model.network(X).log_softmax(1), model.network(crafted).log_softmax(1)
    divergence = (natural.exp() * (natural - adversarial)).sum(1)
    torch.testing.assert_close(losses, -natural[torch.arange(5), Y] + 4 * divergence)
    torch.testing.assert_close(logits, model.network(crafted))
    start = attack.start(X, seeded(0))
    from_start = (natural.exp() * (natural - model.network(start).log_softmax(1))).sum(1)
    assert (divergence > from_start).all()  # the attack climbs it


def test_trades_survives_a_certain_prediction(model: Seen) -> None:
    """A probability that underflows to 0 has a gradient all the same."""
    with torch.no_grad():
        model.network[-1].bias[0] += 300
    losses, _ = Trades(PGD(Threat("linf", 0.1), steps=1, loss=Divergence()))(model, X, Y, seeded(0), 0.0)
    losses.sum().backward()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_trades_without_a_ball_is_standard_training(model: Seen) -> None:
    losses, _ = Trades(PGD(Threat("linf", 0), steps=1, loss=Divergence()))(model, X, Y, seeded(0), 0.0)
    torch.testing.assert_close(losses, Standard()(model, X, Y, seeded(0), 0.0)[0])


@pytest.mark.parametrize("beta", [-1, float("inf"), "six"])
def test_impossible_betas_are_refused(beta: Any) -> None:
    with pytest.raises(InputError, match=rf"training\.objective\.beta={beta}; expected a number of at least 0"):
        Trades(PGD(Threat("linf", 0.1), steps=1, loss=Divergence()), beta=beta)


def test_losses_and_logits_pass_as_they_are(model: Seen) -> None:
    for objective in (Standard(), Adversarial(PGD(Threat("linf", 0.1), steps=1))):
        returned = objective(model, X, Y, seeded(0), 0.0)
        assert all(a is b for a, b in zip(checked(returned, 5, 3), returned, strict=True))


LOSSES, LOGITS = torch.rand(5, requires_grad=True), torch.rand(5, 3, requires_grad=True)


@pytest.mark.parametrize(
    ("returned", "found"),
    [
        (LOSSES, r"a tensor of shape \(5,\)"),
        ((LOSSES.mean(), LOGITS), r"a tensor of shape \(\) and a tensor of shape \(5, 3\)"),
        ((LOSSES[:, None], LOGITS), r"a tensor of shape \(5, 1\) and a tensor of shape \(5, 3\)"),
        ((LOGITS, LOSSES), r"a tensor of shape \(5, 3\) and a tensor of shape \(5,\)"),
        ((LOSSES, LOGITS[:4]), r"a tensor of shape \(5,\) and a tensor of shape \(4, 3\)"),
        ((LOSSES, LOGITS[:, :2]), r"a tensor of shape \(5,\) and a tensor of shape \(5, 2\)"),
        ((LOSSES, LOGITS, 0.5), r"a tensor of shape \(5,\) and a tensor of shape \(5, 3\) and a float"),
        ((0.5, LOGITS), r"a float and a tensor of shape \(5, 3\)"),
        (None, "nothing"),
        ((), "nothing"),
    ],
)
def test_a_method_that_returns_something_else_is_refused(returned: Any, found: str) -> None:
    expected = r"expected losses of shape \(5,\) and logits of shape \(5, 3\)$"
    with pytest.raises(InputError, match=rf"^training\.objective returned {found}; {expected}"):
        checked(returned, 5, 3)


def test_losses_without_a_gradient_are_refused() -> None:
    with pytest.raises(InputError, match=r"losses without a gradient; leave out detach\(\)"):
        checked((LOSSES.detach(), LOGITS), 5, 3)


def test_a_method_is_tried_at_both_ends_of_the_training(model: Seen) -> None:
    class Late(Standard):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float) -> Any:
            if progress > 0.5:
                raise KeyError("phase")
            return super().__call__(model, x, y, generator, progress)

    x, y = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    tried(Standard(), model, x, y, 3)
    with pytest.raises(InputError, match=r"fails \(KeyError: 'phase'\)"):
        tried(Late(), model, x, y, 3)

    class Early(Standard):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float) -> Any:
            losses, logits = super().__call__(model, x, y, generator, progress)
            return (losses if progress > 0.5 else losses.mean()), logits

    with pytest.raises(InputError, match="a tensor of shape"):
        tried(Early(), model, x, y, 3)
    with pytest.raises(InputError, match="no weights to train"):
        tried(Standard(), model.requires_grad_(False), x, y, 3)


def perturbed(restore: bool) -> Any:
    """Adversarial weight perturbation as many write it: the weights themselves are moved for the pass."""

    def objective(model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float) -> Any:
        for each in model.parameters():
            each.data.add_(0.1)
        losses, logits = Standard()(model, x, y, generator, progress)
        if restore:
            for each in model.parameters():
                each.data.sub_(0.1)
        return losses, logits

    return objective


@pytest.mark.parametrize("restore", [True, False])
def test_a_method_that_moves_the_weights_is_refused(model: Seen, restore: bool) -> None:
    before = [each.detach().clone() for each in model.parameters()]
    with pytest.raises(InputError, match=r"changes the network's weights; .* torch\.func\.functional_call"):
        tried(perturbed(restore), model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 3)
    assert all(map(torch.equal, before, model.parameters()))


def test_a_method_may_compute_with_other_weights(model: Seen) -> None:
    def objective(model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float) -> Any:
        moved = {name: each + 0.1 for name, each in model.named_parameters()}
        logits = torch.func.functional_call(model, moved, (x,))
        return nn.functional.cross_entropy(logits, y, reduction="none"), logits

    tried(objective, model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 3)


def test_trying_a_method_that_remembers_leaves_no_trace(model: Seen) -> None:
    objective = Remembering()
    tried(objective, model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 3)
    assert objective.state_dict() == {"calls": 0}


class Remembering(Standard):
    def __init__(self) -> None:
        object.__setattr__(self, "calls", 0)

    def __call__(self, *arguments: Any) -> Any:
        object.__setattr__(self, "calls", self.calls + 1)
        return super().__call__(*arguments)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "calls", state["calls"])


def test_what_a_method_remembers_has_to_be_plain(model: Seen) -> None:
    class Numpys(Remembering):
        def state_dict(self) -> dict[str, Any]:
            return {"calls": np.float64(self.calls)}

    with pytest.raises(InputError, match="cannot be kept for a resumed training"):
        tried(Numpys(), model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 3)


def test_a_teacher_that_is_copied_while_trying_keeps_no_hook(model: Seen) -> None:
    teachers: list[nn.Module] = []

    def objective(model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float) -> Any:
        teachers.append(copy.deepcopy(model))
        return Standard()(model, x, y, generator, progress)

    tried(objective, model, torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 3)
    assert not any(each._forward_pre_hooks for each in teachers)


def test_an_attack_that_cannot_craft_is_refused() -> None:
    with pytest.raises(InputError, match="attack is a Targeted, which a measurement takes"):
        Adversarial(Targeted(PGD(Threat("linf", 0.1), 2, targeted=True)))


def test_trades_crafts_against_what_its_attack_sees(model: Seen) -> None:
    seen: list[Tensor] = []

    class Noting(PGD):
        def craft(self, network: nn.Module, x: Tensor, y: Tensor, *rest: Any) -> Tensor:
            seen.append(y)
            return super().craft(network, x, y, *rest)

    expected = model(X).softmax(1).detach()  # in eval mode
    Trades(Noting(Threat("linf", 0.1), 1, loss=Divergence()))(model.train(), X, Y, seeded(0), 0.0)
    torch.testing.assert_close(seen[0], expected)


def test_an_attack_with_restarts_is_refused() -> None:
    with pytest.raises(InputError, match=r"attack\.restarts=2; training makes its examples from one start"):
        Adversarial(PGD(Threat("linf", 0.1), 1, restarts=2))

from __future__ import annotations

import dataclasses
import gc
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from saddlepoint.attacks import PGD, Targeted, classified, measurable, undisturbed
from saddlepoint.data import load
from saddlepoint.errors import InputError
from saddlepoint.losses import CrossEntropy, Divergence, LogOdds, Margin, surrogate
from saddlepoint.measure.result import interval
from saddlepoint.models import CNN
from saddlepoint.runtime import has_fast_bfloat16
from saddlepoint.threat import Threat


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Recorder(nn.Module):
    """A network that notes how many images, in which mode, gave logits of which type."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[tuple[int, bool, torch.dtype]] = []

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        self.calls.append((len(x), self.training, logits.dtype))
        return logits


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Sequential:
    """Logits weight @ x + bias, for weight (classes, pixels)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        model[1].weight.copy_(weight)
        model[1].bias.copy_(torch.zeros(len(weight)) if bias is None else bias)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 4, 4, generator=seeded(1))


@pytest.fixture
def labels(batch_norm_network: nn.Module, images: Tensor) -> Tensor:
    """The labels that the network gives: every example stands before the attack."""
    return batch_norm_network(images).argmax(1)


@pytest.fixture
def pgd() -> PGD:
    return PGD(Threat("linf", 0.05), steps=3, step_size=0.02)


def test_linf_pgd_reaches_the_worst_case_of_a_linear_model(images: Tensor) -> None:
    weight = torch.randn(2, 16, generator=seeded(0))
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    attack = PGD(Threat("linf", 0.2), steps=20, step_size=0.05)
    uphill = (weight[1 - y] - weight[y]).sign().reshape(images.shape)
    worst = (images + 0.2 * uphill).clamp(0, 1)
    torch.testing.assert_close(attack(linear(weight), images, y, seeded(0)), worst)


def test_l2_pgd_reaches_the_worst_case_of_a_linear_model() -> None:
    weight = torch.randn(2, 16, generator=seeded(0))
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])  # far enough from the bounds
    difference = weight[1 - y] - weight[y]
    worst = x + 0.3 * (difference / difference.norm(dim=1, keepdim=True)).reshape(x.shape)
    x_adv = PGD(Threat("l2", 0.3), steps=50, step_size=0.1)(linear(weight), x, y, seeded(0))
    torch.testing.assert_close(x_adv, worst, atol=1e-4, rtol=0)


def test_one_full_step_without_random_start_is_fgsm(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    x = images.clone().requires_grad_()
    nn.functional.cross_entropy(batch_norm_network(x), labels).backward()
    assert x.grad is not None
    expected = (images + 0.3 * x.grad.sign()).clamp(0, 1)
    attack = PGD(Threat("linf", 0.3), steps=1, step_size=0.3, random_start=False)
    assert torch.equal(attack(batch_norm_network, images, labels), expected)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_step_is_one_pass_in_eval_mode(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, steps: int
) -> None:
    model = Recorder(batch_norm_network).train()
    PGD(Threat("linf", 0.1), steps)(model, images, labels)
    assert model.calls == [(6, False, torch.float32)] * steps


def test_the_default_step_size_is_two_and_a_half_times_eps_over_steps() -> None:
    assert PGD(Threat("linf", "8/255"), steps=20).alpha == pytest.approx(2.5 * 8 / 255 / 20)
    assert PGD(Threat("linf", "8/255"), steps=20, step_size="2/255").alpha == 2 / 255


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_an_attack_leaves_the_model_as_it_was(
    batch_norm_network: nn.Sequential, images: Tensor, labels: Tensor, mode: str
) -> None:
    model = batch_norm_network
    model.train()
    model[1].eval()  # a frozen batch normalisation in a model that trains
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.full_like(model[4].weight, 7.0)
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    PGD(Threat("linf", 0.1), 2, restarts=2, model_mode=mode)(model, images, labels)

    assert [module.training for module in model.modules()] == modes
    assert set(modes) == {True, False}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert [parameter.requires_grad for parameter in model.parameters()] == [False] + [True] * 5
    assert torch.equal(model[4].weight.grad, torch.full_like(model[4].weight, 7.0))
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not model[4].weight)


def test_train_mode_crafts_on_batch_statistics(batch_norm_network: nn.Module, images: Tensor, labels: Tensor) -> None:
    def craft(mode: str) -> Tensor:
        model = Recorder(batch_norm_network)
        x_adv = PGD(Threat("linf", 0.1), 3, model_mode=mode).craft(model, images, labels, seeded(0))
        assert {training for _, training, _ in model.calls} == {mode == "train"}
        return x_adv

    assert not torch.equal(craft("train"), craft("eval"))


def test_track_mode_crafts_as_train_mode_and_moves_the_running_statistics_in_every_pass(
    batch_norm_network: nn.Sequential, images: Tensor, labels: Tensor
) -> None:
    model, norm = batch_norm_network.eval(), batch_norm_network[1]
    attack = PGD(Threat("linf", 0.1), 2, random_start=False, model_mode="train")
    expected, before = attack.craft(model, images, labels), norm.running_mean.clone()
    first = dataclasses.replace(attack, steps=1).craft(model, images, labels)
    assert torch.equal(norm.running_mean, before)

    tracked = dataclasses.replace(attack, model_mode="track")
    assert torch.equal(tracked.craft(model, images, labels), expected)
    for iterate in (images, first):
        before = before.lerp(model[0](iterate).mean((0, 2, 3)), norm.momentum)
    torch.testing.assert_close(norm.running_mean, before)
    assert not model.training


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_model_is_left_as_it_was_after_an_error(batch_norm_network: nn.Sequential, mode: str) -> None:
    batch_norm_network.train()
    before = batch_norm_network[1].running_mean.clone()
    with pytest.raises(KeyError), undisturbed(batch_norm_network, mode):
        batch_norm_network(torch.rand(8, 1, 4, 4))
        raise KeyError
    assert all(module.training for module in batch_norm_network.modules())
    assert torch.equal(batch_norm_network[1].running_mean, before)


def test_only_the_gradient_of_the_input_is_computed(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, pgd: PGD
) -> None:
    computed: list[Tensor] = []
    for parameter in batch_norm_network.parameters():
        parameter.register_hook(computed.append)
    pgd(batch_norm_network, images, labels)
    assert computed == []
    batch_norm_network(images).sum().backward()
    assert len(computed) == 6  # the hooks do see gradients


def test_an_attack_needs_no_gradient_mode_and_returns_no_graph(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, pgd: PGD
) -> None:
    with torch.no_grad():
        x_adv = pgd(batch_norm_network, images, labels, seeded(0))
    assert not x_adv.requires_grad
    assert torch.equal(x_adv, pgd(batch_norm_network, images, labels, seeded(0)))
    assert not images.requires_grad


@pytest.mark.parametrize("change", [lambda x: 255 * x, lambda x: x - 0.5, lambda x: x * torch.nan])
def test_images_out_of_range_are_refused(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, pgd: PGD, change: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(InputError, match=r"images span \[.*\], expected \[0, 1\]"):
        pgd(batch_norm_network, change(images), labels)


def test_the_iterates_climb(batch_norm_network: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(Threat("linf", 0.1), steps=10, step_size=0.01, random_start=False)
    x_adv = attack(batch_norm_network, images, labels)
    before, after = (CrossEntropy()(batch_norm_network(x), labels) for x in (images, x_adv))
    assert (after > before).all()


def test_restarts_keep_the_worst_of_them(batch_norm_network: nn.Module, images: Tensor, labels: Tensor) -> None:
    attack = PGD(Threat("linf", 0.01), steps=1, step_size=0.005, restarts=3)  # too weak to break any of them
    x_adv = attack(batch_norm_network, images, labels, seeded(0))
    one_by_one = seeded(0)
    runs = [attack.craft(batch_norm_network, images, labels, one_by_one) for _ in range(3)]
    losses = torch.stack([CrossEntropy()(batch_norm_network(run), labels) for run in runs])
    assert (batch_norm_network(x_adv).argmax(1) == labels).all()
    assert len(set(losses.argmax(0).tolist())) > 1  # not always the same restart
    torch.testing.assert_close(CrossEntropy()(batch_norm_network(x_adv), labels), losses.amax(0))


def test_more_restarts_never_raise_the_accuracy(batch_norm_network: nn.Module) -> None:
    x = torch.rand(200, 1, 4, 4, generator=seeded(2))
    y = batch_norm_network(x).argmax(1)

    def accuracy(restarts: int) -> float:
        attack = PGD(Threat("linf", 0.1), steps=1, step_size=0.05, restarts=restarts)
        return (batch_norm_network(attack(batch_norm_network, x, y, seeded(0))).argmax(1) == y).float().mean().item()

    accuracies = [accuracy(restarts) for restarts in (1, 2, 4, 8)]
    assert accuracies == sorted(accuracies, reverse=True)
    assert 1 > accuracies[0] > accuracies[-1] > 0


@given(seed=st.integers(0, 2**31), norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0, 0.4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_more_restarts_are_never_weaker_on_any_example(
    batch_norm_network: nn.Module, seed: int, norm: str, eps: float
) -> None:
    x = torch.rand(16, 1, 4, 4, generator=seeded(seed))
    y = batch_norm_network(x).argmax(1)
    before_broken = torch.zeros(16, dtype=torch.bool)
    before_loss = torch.full((16,), -torch.inf)
    for restarts in (1, 2, 4):
        attack = PGD(Threat(norm, eps), steps=1, step_size=eps / 2, restarts=restarts)
        logits = batch_norm_network(attack(batch_norm_network, x, y, seeded(seed)))
        broken, loss = logits.argmax(1) != y, CrossEntropy()(logits, y)
        assert (broken | ~before_broken).all()
        assert ((loss >= before_loss - 1e-5) | broken).all()
        before_broken, before_loss = broken, loss


def test_no_restart_is_spent_on_a_broken_example() -> None:
    # The loss is the image's brightness: eps reaches the boundary at 0.5 from 0.45 and from 0.6, not from 0.9.
    model = Recorder(linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5])))
    x = torch.tensor([0.45, 0.6, 0.9]).reshape(3, 1, 1, 1)
    attack = PGD(Threat("linf", 0.2), steps=2, step_size=0.4, restarts=3)
    x_adv = attack(model, x, torch.tensor([0, 1, 1]), seeded(0))
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.65, 0.4, 0.7]))
    # Each restart: two steps, and one look at the outcome. Those after the first see one image.
    assert [count for count, _, _ in model.calls] == [3, 3, 3] + [1, 1, 1] * 2


def test_restarts_stop_when_everything_is_broken() -> None:
    model = Recorder(linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5])))
    x = torch.tensor([0.45, 0.6]).reshape(2, 1, 1, 1)
    PGD(Threat("linf", 0.3), steps=1, step_size=0.6, restarts=5)(model, x, torch.tensor([0, 1]), seeded(0))
    assert [count for count, _, _ in model.calls] == [2, 2]


def test_a_broken_example_counts_as_worse_than_a_higher_loss() -> None:
    class ThreeClasses(nn.Module):
        """Broken where the pixel is above a half, but with a lower cross-entropy there."""

        def forward(self, x: Tensor) -> Tensor:
            broken, standing = torch.tensor([0.45, 0.55, 1e-9]), torch.tensor([0.34, 0.33, 0.33])
            return torch.where(x.flatten(1) > 0.5, broken, standing).log() + 0 * x.flatten(1)

    x, y = torch.full((20, 1, 1, 1), 0.5), torch.zeros(20, dtype=torch.int64)
    attack = PGD(Threat("linf", 0.5), steps=1, step_size=0, restarts=10)
    assert (attack(ThreeClasses(), x, y, seeded(0)) > 0.5).all()


def test_a_targeted_example_is_broken_at_its_target() -> None:
    # As above: 0.45 and 0.6 reach class 1 at once, 0.1 never does.
    model = Recorder(linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5])))
    x, y = torch.tensor([0.45, 0.6, 0.1]).reshape(3, 1, 1, 1), torch.tensor([1, 1, 1])
    attack = PGD(Threat("linf", 0.2), steps=2, step_size=0.4, restarts=3, targeted=True)
    torch.testing.assert_close(attack(model, x, y, seeded(0)).flatten(), torch.tensor([0.65, 0.8, 0.3]))
    assert [count for count, _, _ in model.calls] == [3, 3, 3] + [1, 1, 1] * 2


@pytest.mark.parametrize("restarts", [1, 3])
def test_targeted_moves_to_the_target(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, restarts: int
) -> None:
    target = (labels + 1) % 3
    attack = PGD(Threat("linf", 0.8), steps=30, restarts=restarts, targeted=True)
    x_adv = attack(batch_norm_network, images, target, seeded(0))
    assert torch.equal(batch_norm_network(x_adv).argmax(1), target)


def test_the_targeted_objective_is_minus_the_loss() -> None:
    logits, y = torch.randn(4, 3, generator=seeded(0)), torch.tensor([0, 1, 2, 0])
    threat = Threat("linf", 0.1)
    assert torch.equal(PGD(threat, 1, targeted=True).objective(logits, y), -CrossEntropy()(logits, y))
    assert torch.equal(PGD(threat, 1, loss=Margin(2)).objective(logits, y), Margin(2)(logits, y))


class Scaled(nn.Module):
    """Logits times a factor: the same classes, the same boundary."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits * self.factor


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A network that learned the digits a little, and test images that it classifies rightly."""
    data = load("digits", "data", 197)
    model = CNN(1, image_size=8, generator=seeded(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(100):
        chosen = slice(50 * (step % 22), 50 * (step % 22) + 50)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.images(chosen)), data.train.labels[chosen]).backward()
        optimizer.step()
    x, y = data.test.images(slice(None)), data.test.labels
    right = model(x).argmax(1) == y
    return model, x[right][:200], y[right][:200]


ON_DIGITS = {
    "fgsm": PGD(Threat("linf", 0.08), 1, "eps", random_start=False),
    "pgd": PGD(Threat("linf", 0.06), 10),
    "fgsm l2": PGD(Threat("l2", 0.5), 1, "eps", random_start=False),
    "pgd l2": PGD(Threat("l2", 0.4), 10),
    "restarts": PGD(Threat("linf", 0.06), 2, restarts=3),
    "targeted": Targeted(PGD(Threat("linf", 0.08), 10, targeted=True)),
    "targeted l2": Targeted(PGD(Threat("l2", 0.6), 10, targeted=True)),
}


@pytest.mark.parametrize("name", ON_DIGITS)
def test_the_scale_of_the_logits_changes_nothing(digits: tuple[nn.Module, Tensor, Tensor], name: str) -> None:
    """Where one wrong class dominates all do the same; at scale 1 the others have a say in the direction."""
    model, x, y = digits

    def standing(factor: float) -> float:
        x_adv = ON_DIGITS[name](Scaled(model, factor), x, y, seeded(0))
        return (model(x_adv).argmax(1) == y).float().mean().item()

    accuracies = [standing(factor) for factor in (1, 10, 100, 1000)]
    assert 0.1 < accuracies[0] < 0.9
    assert accuracies == pytest.approx([accuracies[0]] * 4, abs=0.03)


def test_cross_entropy_itself_would_saturate(digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = digits
    attack = PGD(Threat("linf", 0.06), 10, loss=lambda logits, y: CrossEntropy()(logits, y))
    left = [
        (model(attack(Scaled(model, factor), x, y, seeded(0))).argmax(1) == y).float().mean() for factor in (1, 100)
    ]
    assert left[1] > left[0] + 0.2


@pytest.mark.parametrize("targeted", [False, True])
def test_the_ascended_gradient_has_the_direction_of_cross_entropys(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, targeted: bool
) -> None:
    x = images.clone().requires_grad_()
    attack, y = PGD(Threat("linf", 0.1), 1, targeted=targeted), (labels + targeted) % 3
    ascended, objective = (
        torch.autograd.grad(each(batch_norm_network(x), y).sum(), x)[0].flatten(1)
        for each in (attack.ascended, attack.objective)
    )
    assert objective.norm(dim=1).min() > 1e-3
    torch.testing.assert_close(torch.cosine_similarity(ascended, objective), torch.ones(6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_is_ascended_of_half_precision_logits_is_computed_in_float32(dtype: torch.dtype) -> None:
    """Its exponentials would overflow float16, and a sum of eight bits would lose the smaller of two logits."""
    logits, y = torch.tensor([[256.0, 255.0, -256.0], [1.0, 1.0, 256.0]], dtype=dtype), torch.tensor([2, 0])
    attack = PGD(Threat("linf", 0.1), 1)
    expected = LogOdds()(logits.double(), y).float()
    assert attack.ascended(logits, y).dtype == torch.float32
    torch.testing.assert_close(attack.ascended(logits, y), expected)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(attack.ascended(logits, y).sum(), logits)
    torch.testing.assert_close(gradient.float(), torch.tensor([[0.731, 0.269, -1], [-1, 0, 1]]), atol=2e-3, rtol=0)


def test_the_reported_objective_is_cross_entropy_and_the_step_is_the_attacks(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor
) -> None:
    attack = PGD(Threat("l2", 0.2), 1, random_start=False)
    x_adv, objective = attack.ascend(batch_norm_network, images, images, labels)
    torch.testing.assert_close(objective, CrossEntropy()(batch_norm_network(images), labels))
    assert torch.equal(x_adv, attack(batch_norm_network, images, labels))
    assert not objective.requires_grad


def test_restarts_are_told_apart_where_cross_entropy_rounds_to_zero() -> None:
    """One pixel, never broken; the margin falls with it, from 200 to 100, and cross-entropy is 0 throughout."""

    class Far(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([200 - 100 * x.flatten(1), torch.zeros(len(x), 1)], 1)

    x, y = torch.full((50, 1, 1, 1), 0.5), torch.zeros(50, dtype=torch.int64)
    assert (CrossEntropy()(Far()(x), y) == 0).all()
    few, many = (PGD(Threat("linf", 0.5), 1, 0, restarts=n)(Far(), x, y, seeded(0)).mean() for n in (1, 20))
    assert few < 0.6 and many > 0.9


def test_blind_tells_images_without_a_gradient_at_the_start() -> None:
    class Broken(nn.Module):
        """An infinite gradient at 0, and 0 / 0 at 1."""

        def forward(self, x: Tensor) -> Tensor:
            z = x.flatten(1).sqrt() + (1 - x.flatten(1)).norm(dim=1, keepdim=True) / (1 - x.flatten(1))
            return torch.cat([z, torch.zeros_like(z)], 1)

    class Flat(nn.Module):
        """No gradient below 0.5."""

        def forward(self, x: Tensor) -> Tensor:
            z = torch.relu(x.flatten(1) - 0.5)
            return torch.cat([z, torch.zeros_like(z)], 1)

    x, y = torch.tensor([0.7, 0.0, 1.0]).reshape(3, 1, 1, 1), torch.zeros(3, dtype=torch.int64)
    attack = PGD(Threat("linf", 0.1), 3, random_start=False)
    assert attack.blind(Broken(), x, y).tolist() == [False, True, True]
    x = torch.tensor([0.7, 0.45, 0.3]).reshape(3, 1, 1, 1)
    assert attack.blind(Flat(), x, y).tolist() == [False, True, True]
    started = PGD(Threat("linf", 0.1), 3)
    ends = {tuple(started.blind(Flat(), x, y, seeded(seed)).tolist()) for seed in range(20)}
    assert ends == {(False, True, True), (False, False, True)}
    target = Targeted(PGD(Threat("linf", 0.1), 3, random_start=False, targeted=True))
    assert target.blind(Flat(), x, y).tolist() == [False, True, True]


def test_an_example_that_is_broken_already_needs_no_gradient() -> None:
    """CW's loss is flat beyond the boundary, here at a half."""
    model = linear(torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, -0.5]))
    x, y = torch.tensor([0.3, 0.6]).reshape(2, 1, 1, 1), torch.tensor([0, 0])
    attack = PGD(Threat("linf", 0.1), 1, loss=Margin(), random_start=False)
    assert torch.equal(attack(model, x, y)[1], x[1])
    assert attack.blind(model, x, y).tolist() == [False, False]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_eps_leaves_the_images_unchanged(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, norm: str
) -> None:
    for restarts in (1, 2):
        attack = PGD(Threat(norm, 0), steps=3, step_size=0.1, restarts=restarts)
        assert torch.equal(attack(batch_norm_network, images, labels), images)


@pytest.mark.parametrize("restarts", [1, 2])
def test_the_result_follows_the_generator(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, restarts: int
) -> None:
    attack = PGD(Threat("l2", 0.2), steps=2, step_size=0.05, restarts=restarts)
    first, again, other = (attack(batch_norm_network, images, labels, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scaled_scales_eps_and_step_and_keeps_the_rest() -> None:
    attack = PGD(Threat("l2", 0.4), 10, loss=Margin(50), random_start=False, restarts=2, model_mode="train")
    half = attack.scaled(0.5)
    assert half.threat.eps == pytest.approx(0.2)
    assert half.alpha == pytest.approx(attack.alpha / 2)
    assert half.describe()["step_size"] == str(half.alpha)
    kept = ("steps", "loss", "random_start", "restarts", "targeted", "model_mode")
    assert [getattr(half, name) for name in kept] == [getattr(attack, name) for name in kept]
    assert attack.threat.eps == 0.4
    assert attack.scaled(1) is attack
    nothing = PGD(Threat("linf", 0.3), 7, "1/10").scaled(0)
    assert (nothing.threat.eps, nothing.alpha) == (0, 0)


def test_describe_says_everything_in_json() -> None:
    attack = PGD(Threat("linf", "8/255"), 20, "2/255", Margin(50), restarts=3, targeted=True)
    described = attack.describe()
    assert json.loads(json.dumps(described)) == described
    assert described == {
        "norm": "linf",
        "eps": "8/255",
        "steps": 20,
        "step_size": "2/255",
        "loss": "Margin(kappa=50)",
        "random_start": True,
        "restarts": 3,
        "targeted": True,
        "model_mode": "eval",
    }
    assert PGD(Threat("linf", 0.2), 5).describe()["step_size"] == "0.1"


def test_describe_says_what_is_ascended_where_it_is_not_the_loss() -> None:
    described = PGD(Threat("linf", 0.2), 5).describe()
    assert (described["loss"], described["ascends"]) == ("CrossEntropy()", "LogOdds()")
    assert "ascends" not in PGD(Threat("linf", 0.2), 5, loss=Margin()).describe()


@pytest.mark.parametrize(
    ("steps", "step_size", "reach"),
    [(20, 0.001, "0.02"), (3, "1/15", None), (1, "eps", None), (1, 0.19, "0.19"), (7, None, None), (9, 0, "0")],
)
def test_steps_that_cannot_reach_the_edge_are_said_once(
    steps: int, step_size: float | str | None, reach: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    attack = PGD(Threat("linf", 0.2), steps, step_size)
    assert attack.describe().get("reach") == reach
    assert attack.scaled(0.3).reaches == attack.reaches == (reach is None)
    assert [f"reach {reach}, and eps is 0.2" in message for message in caplog.messages] == [True] * (reach is not None)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"steps": 0}, r"attack\.steps=0"),
        ({"steps": 2.5}, r"attack\.steps=2\.5"),
        ({"steps": True}, r"attack\.steps=True"),
        ({"restarts": 0}, r"attack\.restarts=0"),
        ({"model_mode": "test"}, r"attack\.model_mode=test; choose eval, train or track"),
        ({"step_size": -0.1}, r"attack\.step_size=-0\.1 is negative"),
        ({"step_size": "big"}, r"attack\.step_size=big is not a number"),
    ],
)
def test_bad_arguments_are_refused(argument: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PGD(**{"threat": Threat("linf", 0.1), "steps": 3, **argument})


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_under_autocast_images_stay_float32_and_inside(
    batch_norm_network: nn.Module, images: Tensor, labels: Tensor, norm: str
) -> None:
    model = Recorder(batch_norm_network)
    attack = PGD(Threat(norm, "8/255"), steps=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_adv = attack(model, images, labels, seeded(0))
    assert {dtype for _, _, dtype in model.calls} == {torch.bfloat16}
    assert x_adv.dtype == torch.float32
    assert attack.threat.distance(x_adv, images).max() <= 8 / 255 + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert attack.objective(torch.randn(6, 3, dtype=torch.bfloat16), labels).dtype == torch.float32


class Counting:
    """Cross-entropy that notes at some of its calls how many numbers are in tensors; it looks at every object."""

    def __init__(self, *at: int) -> None:
        self.calls, self.alive = 0, dict.fromkeys(at, 0)

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.calls in self.alive:
            self.alive[self.calls] = sum(each.numel() for each in gc.get_objects() if type(each) is Tensor)
        self.calls += 1
        return CrossEntropy()(logits, y)


def test_memory_does_not_grow_with_the_steps() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    counting = Counting(2, 29)
    gc.collect()  # of what other tests left
    x, y = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    PGD(Threat("linf", 0.1), 30, loss=counting)(model, x, y)
    assert counting.calls == 30
    assert counting.alive[29] == counting.alive[2] > 0


def test_memory_does_not_grow_with_the_restarts() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    x, steps, restarts = torch.rand(5, 1, 4, 4), 3, 12
    calls = restarts * (steps + 1)  # the restart's end is judged, too
    counting = Counting(2 * steps + 1, calls - 1)
    with torch.no_grad():
        y = model(x).argmax(1)
    gc.collect()  # of what other tests left
    # A ball of nothing: no example is ever broken, and every restart attacks all of them.
    PGD(Threat("linf", 0.0), steps, step_size=0.1, loss=counting, restarts=restarts)(model, x, y)
    assert counting.calls == calls
    assert counting.alive[calls - 1] == counting.alive[2 * steps + 1] > 0


@pytest.mark.skipif(not has_fast_bfloat16(torch.device("cpu")), reason="no bfloat16 arithmetic in this processor")
def test_bfloat16_crafting_is_as_strong_within_chance() -> None:
    """It breaks as many as float32 does, both scored in float32."""
    data = load("digits", "data", 197)
    model = CNN(4, image_size=8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(150):
        chosen = slice(50 * (step % 22), 50 * (step % 22) + 50)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.images(chosen)), data.train.labels[chosen]).backward()
        optimizer.step()
    x, y = data.test.images(slice(None)), data.test.labels
    attack = PGD(Threat("linf", "2/16"), 10)
    standing = {}
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            x_adv = attack.craft(model, x, y, torch.Generator().manual_seed(1))
        standing[dtype] = int((model(x_adv).argmax(1) == y).sum())
    low, high = interval(standing[torch.float32], len(y))
    assert 0.1 < standing[torch.float32] / len(y) < 0.9
    assert low < standing[torch.bfloat16] / len(y) < high


def test_a_step_may_be_a_multiple_of_eps() -> None:
    assert PGD(Threat("linf", "8/255"), steps=1, step_size="1.25 eps").alpha == pytest.approx(10 / 255)
    assert PGD(Threat("linf", "8/255"), steps=1, step_size="eps").alpha == 8 / 255
    with pytest.raises(InputError, match=r"attack\.step_size=much"):
        PGD(Threat("linf", "8/255"), steps=1, step_size="much eps")


class Corners(nn.Module):
    """Three classes at known distances: the logits are minus the distances of the only pixel to 0, 0.4 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        return -(x.flatten(1) - torch.tensor([0.0, 0.4, 1.0])).abs()


def test_a_targeted_attack_goes_to_the_likeliest_wrong_class() -> None:
    x, y = torch.tensor([0.1, 0.6, 0.95]).reshape(3, 1, 1, 1), torch.tensor([0, 1, 2])
    attack = Targeted(PGD(Threat("linf", 0.3), steps=40, random_start=False, targeted=True))
    x_adv = attack(Corners(), x, y)
    torch.testing.assert_close(x_adv.flatten(), torch.tensor([0.4, 0.9, 0.65]), atol=0.02, rtol=0)
    assert attack.describe()["target"] == "likeliest wrong class"
    with pytest.raises(InputError, match="expected true"):
        Targeted(PGD(Threat("linf", 0.3), steps=1))


class Steps(nn.Module):
    """Class 0 by one pixel, but class 2 from 0.5 to 0.8; class 1 never wins, and is likeliest beyond."""

    def forward(self, x: Tensor) -> Tensor:
        pixel = x.flatten(1)
        third = torch.where((pixel > 0.5) & (pixel < 0.8), 3.0, 0.0)
        return torch.cat([torch.ones_like(pixel), 0.5 * pixel, third], 1)


def test_a_targeted_example_of_a_third_class_is_broken_and_kept() -> None:
    """What is counted is whether the label is lost, and not whether the target is reached."""
    x, y = torch.full((50, 1, 1, 1), 0.5), torch.zeros(50, dtype=torch.int64)
    attack = PGD(Threat("linf", 0.5), steps=1, step_size=0, restarts=30, targeted=True)
    x_adv = Targeted(attack)(Steps(), x, y, seeded(0))
    assert (Steps()(x_adv).argmax(1) == 2).all()
    # Alone it goes for the target.
    assert (attack(Steps(), x, y + 1, seeded(0)) > 0.8).any()


BALL = Threat("linf", 0.1)


def mistakes(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(1) != y).float()


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (PGD(BALL, 3, targeted=True), "attacks.x.targeted=true moves images towards their own class"),
        (PGD(BALL, 3, model_mode="track"), "attacks.x.model_mode=track is for training"),
        (PGD(BALL, 3, loss=nn.CrossEntropyLoss()), r"attacks.x.loss returns shape \(\) for 2 images"),
        (PGD(BALL, 3, loss=Divergence()), "attacks.x.loss fails on logits .*kl_div"),
        (PGD(BALL, 3, loss=mistakes), "attacks.x.loss has no gradient by its logits"),
        (PGD(BALL, 3, loss=Margin("a")), "attacks.x.loss fails on logits .*TypeError"),
        (Targeted(PGD(BALL, 3, targeted=True, model_mode="train")), "attacks.x.model_mode=train is for training"),
        (torch.relu, "attacks.x is a builtin_function_or_method; expected a _target_ that makes an attack"),
    ],
)
def test_what_would_measure_something_else_is_refused(attack: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measurable(attack, "attacks.x")


def test_an_attack_of_ones_own_describes_itself_in_plain_values() -> None:
    class Own(PGD):
        def describe(self) -> dict[str, object]:
            return {"eps": torch.tensor(0.1)}

    with pytest.raises(InputError, match=r"attacks\.own: its describe"):
        measurable(Own(BALL, 1), "attacks.own")
    assert measurable(attack := PGD(BALL, 3), "attacks.pgd") is attack


def test_what_only_a_lower_precision_calls_broken_gets_its_restarts() -> None:
    """Class 1 above a half. In bfloat16 what is a little above is a half too, and class 0 wins a draw."""
    model, y = linear(torch.tensor([[0.0], [1.0]]), torch.tensor([0.5, 0.0])), torch.ones(40, dtype=torch.int64)
    x = torch.full((40, 1, 1, 1), 0.5005)
    attack = PGD(Threat("linf", 0.001), steps=1, step_size=0, restarts=40)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(x).argmax(1) == 0).all()
        x_adv = attack(model, x, y, seeded(0))
    assert (model(x_adv).argmax(1) == 0).all()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            torch.zeros(2, 1, 2, 2),
            torch.zeros(1, dtype=torch.int64),
            r"labels are torch.int64 \(1,\); expected .*\(2,\)",
        ),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2), r"labels are torch.float32 \(2,\)"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, 2, dtype=torch.int64), r"labels are torch.int64 \(2, 2\)"),
        (torch.zeros(2, 1, 2, 2).half(), torch.zeros(2, dtype=torch.int64), "images are torch.float16; give float32"),
        (torch.zeros(2, 1, 2, 2).bfloat16(), torch.zeros(2, dtype=torch.int64), "images are torch.bfloat16"),
    ],
)
def test_batches_that_do_not_fit_are_refused(x: Tensor, y: Tensor, message: str) -> None:
    """Fewer labels would be taken for the first classes, and half precision leaves the ball."""
    with pytest.raises(InputError, match=message):
        PGD(BALL, 2)(linear(torch.rand(3, 4)).to(x.dtype), x, y, seeded(0))


def test_restarts_need_a_loss_for_each_image() -> None:
    attack = PGD(BALL, 1, loss=nn.functional.cross_entropy, restarts=2)
    with pytest.raises(InputError, match=r"attack\.loss returns shape \(\); expected one loss for each image"):
        attack(linear(torch.rand(3, 4)), torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), seeded(0))


def test_restarts_that_repeat_one_run_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    PGD(BALL, 3, restarts=2, random_start=False)
    assert "are one run, repeated" in caplog.text


def test_a_text_is_no_flag() -> None:
    with pytest.raises(InputError, match=r"attack\.random_start=no; choose true or false"):
        PGD(BALL, 3, random_start="no")


def test_steps_across_the_whole_ball_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    PGD(BALL, 3, 0.2)
    PGD(BALL, 1, 0.3)
    assert not caplog.messages
    PGD(BALL, 3, 0.21)
    assert "cross the whole ball" in caplog.text


def own_loss(logits: Tensor, y: Tensor, weight: float = 1) -> Tensor:
    return weight * logits.sum(1)


class OwnLoss:
    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        return self.weight * logits.sum(1)


@pytest.mark.parametrize(
    ("loss", "name"),
    [(own_loss, "own_loss()"), (partial(own_loss, weight=2), "own_loss(weight=2)"), (OwnLoss(3), "OwnLoss(weight=3)")],
)
def test_a_loss_of_ones_own_has_the_same_description_in_every_process(loss: Any, name: str) -> None:
    assert PGD(BALL, 1, loss=loss).describe()["loss"] == f"{__name__}.{name}"


def test_torchs_cross_entropy_is_ascended_like_ours() -> None:
    assert surrogate(nn.CrossEntropyLoss(reduction="none")) == surrogate(CrossEntropy())
    assert surrogate(partial(nn.functional.cross_entropy, reduction="none")) == surrogate(CrossEntropy())
    weighted = partial(nn.functional.cross_entropy, reduction="none", weight=torch.ones(2))
    assert surrogate(weighted) is weighted
    smoothed = nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1)
    assert surrogate(smoothed) is smoothed


def test_logits_that_are_not_finite_classify_nothing() -> None:
    logits = torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [torch.nan, torch.nan], [0.0, 1.0]])
    assert classified(logits, torch.zeros(4, dtype=torch.int64)).tolist() == [True, False, False, False]

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.measure.landscape import (
    _geometry,
    along,
    directions,
    gradient_angles,
    input_gradient,
    loss_at,
    maxima,
    segments,
    trajectories,
)
from saddlepoint.runtime import generator
from saddlepoint.threat import Threat

ATTACK = PGD(Threat("linf", 0.2), steps=6, step_size=0.05)
X = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 2])


def losses_at(model: nn.Module, x: Tensor, label: int) -> Tensor:
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), torch.full((len(x),), label), reduction="none")


def test_loss_at_is_the_attacks_objective(batch_norm_network: nn.Module) -> None:
    targeted = PGD(Threat("linf", 0.2), steps=1, targeted=True)
    torch.testing.assert_close(
        loss_at(batch_norm_network, ATTACK, X[:1], Y[:1]), losses_at(batch_norm_network, X[:1], 0)
    )
    assert torch.equal(loss_at(batch_norm_network, targeted, X, Y), -loss_at(batch_norm_network, ATTACK, X, Y))


def test_trajectories_run_from_the_start_to_the_attacks_end(batch_norm_network: nn.Module) -> None:
    paths = trajectories(batch_norm_network, X, Y, ATTACK, starts=5, seed=3)
    assert paths.shape == (2, 5, 7)
    for example in range(2):
        repeated, label = X[example].expand(5, 1, 4, 4), Y[example].expand(5)
        start = ATTACK.start(repeated, generator(3, f"trajectories/{example}"))
        end = ATTACK.craft(batch_norm_network, repeated, label, generator(3, f"trajectories/{example}"))
        for column, points in ((0, start), (-1, end)):
            expected = losses_at(batch_norm_network, points, int(Y[example])).numpy()
            np.testing.assert_allclose(paths[example, :, column], expected, rtol=1e-5)
    assert len(np.unique(paths[0, :, 0])) == 5


def test_trajectories_climb(batch_norm_network: nn.Module) -> None:
    paths = trajectories(batch_norm_network, X, Y, ATTACK, starts=5)
    assert (paths[:, :, -1] > paths[:, :, 0]).all()
    assert (np.diff(paths.mean(1), axis=1) > -1e-3).all()


def test_trajectories_follow_the_seed(batch_norm_network: nn.Module) -> None:
    first, again, other = (trajectories(batch_norm_network, X, Y, ATTACK, 3, seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_maxima_are_the_attacks_ends_batch_by_batch(batch_norm_network: nn.Module) -> None:
    for example in range(2):
        losses, found = maxima(batch_norm_network, X, Y, example, ATTACK, starts=7, batch_size=3, kept=5, seed=2)
        assert losses.shape == (7,)
        ends = []
        for start, count in ((0, 3), (3, 3), (6, 1)):
            repeated, label = X[example].expand(count, 1, 4, 4), Y[example].expand(count)
            source = generator(2, f"maxima/{example}/{start}")
            ends.append(ATTACK.craft(batch_norm_network, repeated, label, source))
        points = torch.cat(ends)
        expected = losses_at(batch_norm_network, points, int(Y[example])).numpy()
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        uniform = ATTACK.threat.random_point(X[example].expand(5, 1, 4, 4), generator(2, f"uniform/{example}"))
        geometry = _geometry(points[:5], uniform, X[example])
        assert vars(found) == pytest.approx(vars(geometry), rel=1e-5)


def test_maxima_do_not_depend_on_how_many_are_kept(batch_norm_network: nn.Module) -> None:
    few, many = (maxima(batch_norm_network, X, Y, 1, ATTACK, 7, batch_size=3, kept=kept) for kept in (2, 100))
    assert np.array_equal(few[0], many[0])
    assert few[1] != many[1]


def test_the_model_keeps_its_mode(batch_norm_network: nn.Module) -> None:
    expected = trajectories(batch_norm_network.eval(), X, Y, ATTACK, 2)
    batch_norm_network.train()
    assert np.array_equal(trajectories(batch_norm_network, X, Y, ATTACK, 2), expected)
    maxima(batch_norm_network, X, Y, 0, ATTACK, 2)
    assert batch_norm_network.training


def test_the_geometry_of_three_known_points() -> None:
    x = torch.full((1, 2, 2), 0.5)
    unit = torch.eye(4).reshape(4, 1, 2, 2)
    points = torch.stack([x + 0.1 * unit[0], x + 0.1 * unit[1], x - 0.1 * unit[0]])
    uniform = torch.stack([x, x + 0.3 * unit[2], x - 0.3 * unit[2]])
    geometry = _geometry(points, uniform, x)
    distances = [0.1 * math.sqrt(2), 0.2, 0.1 * math.sqrt(2)]
    assert geometry.distance_mean == pytest.approx(np.mean(distances), rel=1e-5)
    assert geometry.distance_sd == pytest.approx(np.std(distances), rel=1e-5)
    assert geometry.random_distance == pytest.approx((0.3 + 0.3 + 0.6) / 3, rel=1e-5)
    assert geometry.angle_mean == pytest.approx((90 + 180 + 90) / 3, rel=1e-5)
    assert geometry.angle_sd == pytest.approx(np.std([90, 180, 90]), rel=1e-5)


def test_angles_are_seen_from_the_image() -> None:
    x = torch.zeros(1, 2, 2)
    ray = torch.tensor([0.1, 0.2, 0.0, 0.0]).reshape(1, 2, 2)
    other = torch.tensor([0.1, 0.0, 0.0, 0.0]).reshape(1, 2, 2)
    assert _geometry(torch.stack([ray, 3 * ray]), torch.stack([x, x]), x).angle_mean == pytest.approx(0, abs=1e-3)
    sixty_three = math.degrees(math.atan(2))
    assert _geometry(torch.stack([ray, other]), torch.stack([x, x]), x).angle_mean == pytest.approx(sixty_three)


@pytest.mark.filterwarnings("ignore:std")
def test_one_point_has_no_geometry() -> None:
    x = torch.zeros(1, 2, 2)
    assert all(math.isnan(value) for value in vars(_geometry(x[None] + 0.1, x[None], x)).values())


class Linear(nn.Module):
    """Two classes; the difference of logits is `slope` times the sum of the pixels."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        total = self.slope * x.flatten(1).sum(1)
        return torch.stack([-total / 2, total / 2], 1)


def test_along_goes_straight_from_start_to_end() -> None:
    start, end = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    losses = along(Linear(1.0), ATTACK, start, end, torch.tensor([0, 1]), 5)
    shares = np.array([0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(losses[0], np.log1p(np.exp(4 * shares)), rtol=1e-5)
    np.testing.assert_allclose(losses[1], np.log1p(np.exp(-4 * shares)), rtol=1e-5)


def test_the_input_gradient_of_a_linear_model() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    gradient = input_gradient(Linear(2.0), ATTACK, x, torch.tensor([0]))
    torch.testing.assert_close(gradient, torch.full((1, 4), 2.0))  # of the log-odds, the same at every height


def test_segments_of_a_linear_model_are_as_known() -> None:
    """Every maximum is the same corner: the loss is flat on the way, and every perturbation is along the gradient."""
    attack = PGD(Threat("linf", 0.1), steps=20, step_size=0.02)
    x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
    between, found = segments(Linear(0.3), x, y, attack, starts=6, points=5)
    assert {name: array.shape for name, array in found.items()} == {
        "losses": (2, 3, 5),
        "random": (2, 6),
        "cosines": (2, 6),
    }
    # Sum of pixels 16 * 0.5, moved by 16 * 0.1 against the label.
    for example, total in enumerate((0.3 * 16 * 0.6, -0.3 * 16 * 0.4)):
        np.testing.assert_allclose(found["losses"][example], np.log1p(np.exp(total)), rtol=1e-5)
    np.testing.assert_allclose(found["cosines"], 1, rtol=1e-5)
    assert (between.highest_at_an_end, between.negative_cosines) == (1, 0)
    means = (between.ends, between.middle, between.random, between.cosine)
    assert means == pytest.approx((*[found["losses"].mean()] * 2, found["random"].mean(), 1))
    assert (found["random"] < found["losses"][:, 0, :1]).all()


def test_directions_of_a_copy_that_is_the_network_itself_are_its_own(batch_norm_network: nn.Module) -> None:
    fgsm = PGD(Threat("linf", 0.2), steps=1, step_size=0.2, random_start=False)
    found = directions(batch_norm_network, batch_norm_network, X, Y, {"FGSM": fgsm, "PGD": ATTACK}, starts=3, points=4)
    assert set(found) == {"own FGSM", "own PGD", "copy's FGSM", "copy's PGD"}
    for kind in ("FGSM", "PGD"):
        np.testing.assert_array_equal(found[f"own {kind}"], found[f"copy's {kind}"])
    assert found["own PGD"].shape == (2, 3, 4)
    for example in range(2):
        at_the_image = losses_at(batch_norm_network, X[example : example + 1], int(Y[example])).item()
        np.testing.assert_allclose(found["own PGD"][example, :, 0], at_the_image, rtol=1e-5)
    assert (found["own PGD"][..., -1] > found["own PGD"][..., 0]).all()


def test_gradient_angles_are_known_for_linear_models() -> None:
    split = Split((255 * X).round().to(torch.uint8), torch.tensor([0, 0]), 255)
    # The clamp of rounding leaves a hundredth of a degree.
    same = gradient_angles(Linear(1.0), Linear(2.0), split, ATTACK)
    np.testing.assert_allclose(same["same"], 0, atol=0.01)
    np.testing.assert_allclose(same["other"], 0, atol=0.01)
    np.testing.assert_allclose(gradient_angles(Linear(1.0), Linear(-1.0), split, ATTACK)["same"], 180, atol=0.01)
    assert np.isnan(gradient_angles(Linear(1.0), Linear(0.0), split, ATTACK)["same"]).all()


@pytest.fixture
def copy() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def test_directions_lead_to_each_networks_examples_and_show_the_first_ones_loss(
    batch_norm_network: nn.Module, copy: nn.Module
) -> None:
    found = directions(batch_norm_network, copy, X, Y, {"PGD": ATTACK}, starts=3, points=4, seed=5)
    for owner, source in (("own", batch_norm_network), ("copy's", copy)):
        for example in range(2):
            repeated, label = X[[example] * 3], Y[[example] * 3]
            ends = ATTACK.craft(source, repeated, label, generator(5, f"directions/PGD/{example}"))
            expected = losses_at(batch_norm_network, ends, int(Y[example]))
            np.testing.assert_allclose(found[f"{owner} PGD"][example][:, -1], expected, rtol=1e-4)
    assert (found["own PGD"][..., -1] > found["copy's PGD"][..., -1]).all()


def test_gradient_angles_are_between_the_networks_and_the_next_image(
    batch_norm_network: nn.Module, copy: nn.Module
) -> None:
    split = Split((255 * X).round().to(torch.uint8), Y, 255)
    own, theirs = (input_gradient(each, ATTACK, split.images(slice(None)), Y) for each in (batch_norm_network, copy))
    found = gradient_angles(batch_norm_network, copy, split, ATTACK)
    for name, others in (("same", theirs), ("other", theirs[[1, 0]])):
        degrees = torch.rad2deg(torch.cosine_similarity(own, others).arccos())
        np.testing.assert_allclose(found[name], degrees, atol=0.01)
    assert abs(found["same"] - found["other"]).min() > 1


def test_segments_run_from_one_maximum_to_another(batch_norm_network: nn.Module) -> None:
    attack = PGD(Threat("linf", 0.2), steps=1, step_size=0.02)  # no two ends alike, and not all of them maxima
    between, found = segments(batch_norm_network, X, Y, attack, starts=6, points=5, seed=4)
    for example in range(2):
        repeated, label, noise = X[[example] * 6], Y[[example] * 6], generator(4, f"segments/{example}")
        random = attack.threat.random_point(repeated, noise)
        np.testing.assert_allclose(found["random"][example], losses_at(batch_norm_network, random, int(Y[example])))
        ends = attack.craft(batch_norm_network, repeated, label, noise)
        for column, share in ((0, 0.0), (2, 0.5), (4, 1.0)):
            points = torch.lerp(ends[:3], ends[3:], share)
            expected = losses_at(batch_norm_network, points, int(Y[example]))
            np.testing.assert_allclose(found["losses"][example][:, column], expected, rtol=1e-5)
        gradient = input_gradient(batch_norm_network, attack, X[[example]], Y[[example]])
        cosines = torch.cosine_similarity((ends - repeated).flatten(1), gradient)
        np.testing.assert_allclose(found["cosines"][example], cosines, rtol=1e-4)
    lines = found["losses"].reshape(6, 5)
    assert between.ends == pytest.approx((lines[:, 0].mean() + lines[:, 4].mean()) / 2)
    assert between.middle == pytest.approx(lines[:, 2].mean())
    assert between.cosine == pytest.approx(found["cosines"].mean())
    assert between.negative_cosines == (found["cosines"] < 0).mean()
    highest = [max(line) == max(line[0], line[4]) for line in lines]
    assert between.highest_at_an_end == np.mean(highest)

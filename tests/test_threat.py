from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saddlepoint.errors import InputError
from saddlepoint.threat import L2, Threat, parse_number

PIXEL = st.sampled_from([0.0, 1.0]) | st.floats(0, 1, width=32)
ANY_PIXEL = st.floats(-3, 3, width=32)


def images(pixels: st.SearchStrategy[float]) -> st.SearchStrategy[Tensor]:
    return st.lists(pixels, min_size=8, max_size=8).map(lambda values: torch.tensor(values).reshape(2, 1, 2, 2))


threats = st.builds(Threat, st.sampled_from(["linf", "l2"]), st.sampled_from([0.0, 1.0]) | st.floats(0, 1))


def length(delta: Tensor, norm: str) -> Tensor:
    flat = delta.reshape(len(delta), -1).double()
    return flat.abs().max(1).values if norm == "linf" else flat.square().sum(1).sqrt()


def assert_inside(threat: Threat, point: Tensor, x: Tensor) -> None:
    assert (length(point - x, threat.norm) <= threat.eps + 1e-6).all()
    assert point.min() >= 0 and point.max() <= 1


@pytest.mark.parametrize(
    ("written", "value"), [("8/255", 8 / 255), ("0.3", 0.3), ("1e-3", 0.001), ("4/16", 0.25), (0.3, 0.3), (1, 1.0)]
)
def test_numbers_are_parsed_as_written(written: float | str, value: float) -> None:
    assert parse_number(written, "threat.eps") == value


@pytest.mark.parametrize("written", ["eight", "", "8/0", "8/255/2", "__import__('os')", "2*3", None, "nan", "inf"])
def test_what_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(InputError, match=r"^threat\.eps=.* is not a number"):
        parse_number(written, "threat.eps")


@pytest.mark.parametrize("value", [float("inf"), float("nan"), float("-inf")])
def test_infinite_numbers_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="is not finite"):
        parse_number(value, "threat.eps")


@pytest.mark.parametrize("value", ["1e400", 10**400], ids=["written", "integer"])
def test_numbers_too_large_for_a_float_are_refused(value: float | str) -> None:
    with pytest.raises(InputError, match=r"threat\.eps"):
        parse_number(value, "threat.eps")


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("l1", 0.1, "unknown norm 'l1'; choose linf or l2"),
        ("linf", -0.1, "is negative"),
        ("l2", "-1/2", "is negative"),
        ("linf", 1.5, r"above the pixel range 1; images are in \[0, 1\]"),
        ("linf", 8, "above the pixel range"),
    ],
)
def test_impossible_threats_are_refused(norm: str, eps: float | str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Threat(norm, eps)


@pytest.mark.parametrize("bounds", [(-1, 1), [0, 255], (1, 0), [0, 1, 1], None, 1])
def test_other_bounds_are_refused(bounds: Any) -> None:
    with pytest.raises(InputError, match=r"^threat\.bounds=.*; expected \[0, 1\]: .*saddlepoint\.models\.Normalized"):
        Threat("linf", 0.1, bounds)
    assert Threat("linf", 0.1, [0.0, 1.0]).bounds == Threat("linf", 0.1, (0, 1)).bounds == (0, 1)


def test_eps_is_printed_as_it_was_written() -> None:
    assert repr(Threat("linf", "8/255")) == "Threat(linf, eps=8/255)"


def test_the_whole_pixel_range_is_a_threat_and_l2_may_exceed_it() -> None:
    assert Threat("linf", 1).eps == 1
    assert Threat("l2", 1.5).eps == 1.5


def test_scaled_multiplies_eps_and_keeps_the_rest() -> None:
    threat = Threat("l2", "1/2").scaled(0.5)
    assert (threat.norm, threat.eps) == ("l2", 0.25)


@given(threats, images(PIXEL), images(ANY_PIXEL))
def test_projection_is_inside_the_ball_and_the_bounds(threat: Threat, x: Tensor, anywhere: Tensor) -> None:
    point = threat.project(anywhere, x)
    assert_inside(threat, point, x)
    assert threat.contains(point, x).all()


@given(
    norm=st.sampled_from(["linf", "l2"]),
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    eps=st.sampled_from([0.0, 1e-9, 1.0]) | st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_projection_for_any_shape_and_type(
    norm: str, shape: list[int], dtype: torch.dtype, eps: float, seed: int
) -> None:
    threat, generator = Threat(norm, eps), torch.Generator().manual_seed(seed)
    x = (torch.rand(shape, generator=generator, dtype=dtype) * 1.5 - 0.25).clamp(0, 1)
    anywhere = x + torch.randn(shape, generator=generator, dtype=dtype)
    for point in (threat.project(anywhere, x), threat.random_point(x, generator)):
        assert (point.shape, point.dtype) == (x.shape, dtype)
        assert_inside(threat, point, x)
        torch.testing.assert_close(threat.project(point, x), point, atol=1e-6, rtol=0)
    if eps == 0:
        assert torch.equal(threat.project(anywhere, x), x)


@given(images(PIXEL), images(ANY_PIXEL), st.floats(0, 1))
def test_projections_are_the_nearest_points(x: Tensor, anywhere: Tensor, eps: float) -> None:
    """In closed form, pixel by pixel and image by image."""
    x, anywhere = x.double(), anywhere.double()
    found = Threat("linf", eps).project(anywhere, x).flatten().tolist()
    for mine, a, b in zip(found, anywhere.flatten().tolist(), x.flatten().tolist(), strict=True):
        assert mine == pytest.approx(min(max(a, b - eps, 0.0), b + eps, 1.0), abs=1e-12)
    found_l2 = L2.projection(x, eps, (-torch.inf, torch.inf))(anywhere)  # the ball alone
    for mine_l2, a_l2, b_l2 in zip(found_l2, anywhere, x, strict=True):
        distance = float((a_l2 - b_l2).norm())
        expected = a_l2 if distance <= eps else b_l2 + (a_l2 - b_l2) * (eps / distance)
        torch.testing.assert_close(mine_l2, expected, atol=1e-9, rtol=0)


@given(threats, images(PIXEL), images(ANY_PIXEL))
def test_projection_is_idempotent(threat: Threat, x: Tensor, anywhere: Tensor) -> None:
    once = threat.project(anywhere, x)
    torch.testing.assert_close(threat.project(once, x), once, atol=1e-6, rtol=0)


@given(threats, images(PIXEL), images(ANY_PIXEL), st.floats(0, 0.99))
def test_projection_leaves_points_inside_alone(threat: Threat, x: Tensor, anywhere: Tensor, part: float) -> None:
    size = length(anywhere - x, threat.norm).float().clamp_min(1e-6).reshape(2, 1, 1, 1)
    inside = (x + (anywhere - x) / size * threat.eps * part).clamp(0, 1)
    torch.testing.assert_close(threat.project(inside, x), inside, atol=1e-6, rtol=0)


@given(threats, images(PIXEL), st.integers(0, 1000))
def test_random_points_are_inside(threat: Threat, x: Tensor, seed: int) -> None:
    assert_inside(threat, threat.random_point(x, torch.Generator().manual_seed(seed)), x)


def test_projection_by_hand() -> None:
    x = torch.full((1, 1, 1, 2), 0.5)
    far = x + torch.tensor([0.3, -0.4])
    torch.testing.assert_close(Threat("l2", 0.25).project(far, x), x + torch.tensor([0.15, -0.2]))
    torch.testing.assert_close(Threat("linf", 0.35).project(far, x), x + torch.tensor([0.3, -0.35]))


def test_projection_clips_to_the_range_of_images() -> None:
    x = torch.tensor([[[[0.1, 0.9]]]])
    assert torch.equal(Threat("linf", 0.3).project(x + torch.tensor([-1, 1]), x), torch.tensor([[[[0.0, 1.0]]]]))


def test_no_radius_leaves_only_the_image() -> None:
    x = torch.rand(3, 1, 2, 2)
    for norm in ("linf", "l2"):
        assert torch.equal(Threat(norm, 0).project(torch.rand(3, 1, 2, 2), x), x)
        assert torch.equal(Threat(norm, 0).random_point(x), x)


def test_linf_steps_along_the_sign() -> None:
    x, grad = torch.full((1, 1, 1, 3), 0.5), torch.tensor([[[[7.0, -1e-9, 0.0]]]])
    torch.testing.assert_close(Threat("linf", 0.3).step(x, grad, 0.1), torch.tensor([[[[0.6, 0.4, 0.5]]]]))


def test_l2_steps_have_the_step_size_as_length_and_the_gradient_as_direction() -> None:
    x = torch.full((3, 1, 1, 2), 0.5)
    grad = torch.tensor([[3.0, 4.0], [-3e-9, 4e-9], [0.0, 0.0]]).reshape(3, 1, 1, 2)
    expected = torch.tensor([[0.06, 0.08], [-0.06, 0.08], [0.0, 0.0]]).reshape(3, 1, 1, 2)
    torch.testing.assert_close(Threat("l2", 0.3).step(x, grad, 0.1) - x, expected)


def test_an_l2_step_without_a_gradient_stays_where_it_is_however_long() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    assert torch.equal(Threat("l2", 6).step(x, torch.zeros_like(x), 6.0), x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_step_leaves_pixels_without_a_gradient_and_moves_the_others(norm: str) -> None:
    """NaN is no direction; infinite is one."""
    x, grad = torch.full((2, 1, 1, 2), 0.5), torch.tensor([[torch.nan, -3.0], [torch.inf, 0.0]]).reshape(2, 1, 1, 2)
    delta = Threat(norm, 0.3).step(x, grad, 0.1) - x
    torch.testing.assert_close(delta, torch.tensor([[0.0, -0.1], [0.1, 0.0]]).reshape(2, 1, 1, 2))


def test_an_l2_step_along_a_minute_gradient_has_the_step_size() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    delta = Threat("l2", 0.5).step(x, torch.full_like(x, 1e-25), 0.1) - x
    torch.testing.assert_close(delta, torch.full_like(x, 0.05))


def test_l2_random_points_are_uniform_in_volume() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    delta = Threat("l2", 0.3).random_point(x, torch.Generator().manual_seed(0)) - x
    volume = (delta.flatten(1).norm(dim=1) / 0.3) ** 4
    quantiles = torch.quantile(volume, torch.tensor([0.1, 0.5, 0.9]))
    assert volume.mean().item() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.5, 0.9]), atol=0.03, rtol=0)
    assert delta.flatten(1).mean(0).abs().max() < 0.01  # no direction is preferred


def test_linf_random_points_are_uniform_in_the_cube() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    delta = (Threat("linf", 0.3).random_point(x, torch.Generator().manual_seed(0)) - x).flatten() / 0.3
    quantiles = torch.quantile(delta, torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([-0.8, 0.0, 0.8]), atol=0.03, rtol=0)


def test_random_points_follow_the_generator() -> None:
    x = torch.rand(2, 1, 2, 2)
    for threat in (Threat("linf", 0.3), Threat("l2", 0.3)):
        first, again, other = (threat.random_point(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_distance_by_hand() -> None:
    x = torch.zeros(2, 1, 1, 2)
    x_adv = torch.tensor([[0.3, 0.4], [0.0, 0.1]]).reshape(2, 1, 1, 2)
    torch.testing.assert_close(Threat("l2", 1).distance(x_adv, x), torch.tensor([0.5, 0.1]))
    torch.testing.assert_close(Threat("linf", 1).distance(x_adv, x), torch.tensor([0.4, 0.1]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_contains_tells_every_kind_of_outsider(norm: str) -> None:
    x = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.95, 0.05]).reshape(6, 1, 1, 1)
    x_adv = torch.tensor([0.6, 0.600002, 0.61, torch.nan, 1.0001, -0.0001]).reshape(6, 1, 1, 1)
    assert Threat(norm, 0.1).contains(x_adv, x).tolist() == [True, True, False, False, False, False]
    barely = torch.tensor([0.600005, 0.60002]).reshape(2, 1, 1, 1)
    assert Threat(norm, 0.1).contains(barely, x[:2]).tolist() == [True, False]


def test_rounding_grows_with_eps_in_l2() -> None:
    x = torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    threat = Threat("l2", 60)
    outside = x + 10 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    assert threat.contains(threat.project(outside, x), x).all()


def test_contains_sees_a_single_bad_pixel() -> None:
    x = torch.full((3, 1, 2, 2), 0.5)
    x_adv = x.clone()
    x_adv[0, 0, 1, 1], x_adv[1, 0, 0, 1] = torch.nan, torch.inf
    assert Threat("linf", 0.1).contains(x_adv, x).tolist() == [False, False, True]
    assert Threat("l2", 0.1).contains(x_adv, x).tolist() == [False, False, True]

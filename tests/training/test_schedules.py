from __future__ import annotations

import pytest

from saddlepoint.training.schedules import Constant, OneCycle, Steps


def test_constant_is_the_peak_throughout() -> None:
    assert [Constant(0.1)(progress) for progress in (0, 0.5, 0.999)] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize(("progress", "rate"), [(0, 0.1), (0.4999, 0.1), (0.5, 0.01), (0.7499, 0.01), (0.75, 0.001)])
def test_steps_falls_by_ten_at_each_point(progress: float, rate: float) -> None:
    assert Steps(0.1, (0.5, 0.75))(progress) == pytest.approx(rate)


def test_steps_falls_by_the_given_factor() -> None:
    assert Steps(8.0, (0.2, 0.4, 0.6), factor=0.5)(0.5) == 2.0


@pytest.mark.parametrize(("progress", "rate"), [(0, 0), (0.15, 0.1), (0.3, 0.2), (0.65, 0.1), (0.93, 0.02), (1, 0)])
def test_one_cycle_rises_to_the_peak_and_falls_to_nothing(progress: float, rate: float) -> None:
    assert OneCycle(0.2, rise=0.3)(progress) == pytest.approx(rate)


def test_one_cycle_without_a_rise_only_falls() -> None:
    assert [OneCycle(1.0, rise=0)(progress) for progress in (0, 0.25, 1)] == [1, 0.75, 0]

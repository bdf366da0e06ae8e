from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from saddlepoint.errors import InputError
from saddlepoint.training.schedules import Constant, OneCycle, Steps, checked


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


@pytest.mark.parametrize("wrong", ["fast", None, True, -1, float("nan"), float("inf")])
def test_impossible_peaks_are_refused(wrong: Any) -> None:
    for kind in (Constant, OneCycle, lambda peak: Steps(peak, (0.5,))):
        with pytest.raises(InputError, match=rf"recipe\.schedule\.peak={wrong}; expected a number of at least 0"):
            kind(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneCycle(1.0, rise=1), r"recipe\.schedule\.rise=1; expected at least 0 and below 1"),
        (lambda: OneCycle(1.0, rise="a third"), r"recipe\.schedule\.rise=a third; expected at least 0"),  # type: ignore[arg-type]
        (lambda: OneCycle(1.0, rise=float("nan")), r"recipe\.schedule\.rise=nan; expected at least 0"),
        (lambda: Steps(1.0, 0.5), r"recipe\.schedule\.at=0\.5; expected numbers between 0 and 1"),  # type: ignore[arg-type]
        (lambda: Steps(1.0, (40000, 60000)), r"recipe\.schedule\.at=\(40000, 60000\); expected numbers between 0"),
        (lambda: Steps(1.0, ("1/2",)), r"recipe\.schedule\.at=\('1/2',\); expected numbers"),  # type: ignore[arg-type]
        (lambda: Steps(1.0, (0.5,), factor=0), r"recipe\.schedule\.factor=0; expected a number above 0"),
        (lambda: Steps(1.0, (0.5,), factor=float("inf")), r"recipe\.schedule\.factor=inf; expected a number above 0"),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("schedule", [Constant(0.1), Steps(0.1, (0.5,)), OneCycle(0.1), lambda p: np.float32(1 - p)])
def test_a_schedule_of_rates_is_itself(schedule: Callable[[float], float]) -> None:
    assert checked(schedule) is schedule


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("cosine", r"recipe\.schedule=cosine; expected a function of progress, such as \{_target_: "),
        (lambda progress: 0.5 - progress, r"recipe\.schedule is -0\.5 at progress 1\.0; expected a finite rate"),
        (lambda progress: float("nan"), r"recipe\.schedule is nan at progress 0\.0"),
        (lambda progress: 1e999 * (progress > 0.4), "recipe.schedule is (nan|inf) at progress"),
        (lambda progress: None, r"recipe\.schedule is None at progress 0\.0"),
        (lambda progress: "0.1", r"recipe\.schedule is 0\.1 at progress 0\.0"),
        (lambda progress: 1 / progress, r"recipe\.schedule fails at progress 0\.0 \(ZeroDivisionError: "),
        (lambda progress, steps: 0.1, r"recipe\.schedule fails at progress 0\.0 \(TypeError: .*'steps'"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        checked(schedule)
    assert "\n" not in str(error.value)

"""What make benchmark counts and compares; the other libraries live in an environment of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch
from command_line import ROOT, load_script
from hydra import compose, initialize_config_dir
from matplotlib.container import BarContainer
from omegaconf import DictConfig
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from saddlepoint.attacks import PGD
from saddlepoint.compose import CONFIGS
from saddlepoint.models import CNN, ResNet
from saddlepoint.runtime import Runtime
from saddlepoint.threat import Threat


class Counted(TorchDispatchMode):
    """How many operations are started."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += 1
        return operation(*arguments, **(named or {}))


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(ROOT / "scripts" / "dev")  # for the process of the plain contenders
        yield load_script("scripts/dev/benchmark.py")


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("benchmark", ["peers=[]", "repeats=1"])


def test_a_step_starts_no_more_operations_than_one_of_the_bare_loop(benchmark: ModuleType) -> None:
    """They are what a step costs on a GPU that waits for the processor."""
    model, x, y = CNN(16).eval(), torch.rand(2, 1, 28, 28), torch.tensor([0, 1])

    def a_step(craft: Callable[[int], Tensor]) -> int:
        counts = []
        for steps in (2, 3):
            with Counted() as counted:
                craft(steps)
            counts.append(counted.count)
        return counts[1] - counts[0]

    ours = a_step(lambda steps: PGD(Threat("linf", 0.3), steps, 0.15, random_start=False).craft(model, x, y))
    bare = a_step(lambda steps: benchmark.bare_loop(model, x, y, 0.3, 0.15, steps))
    assert 0 < ours <= bare


def test_every_product_of_the_mnist_network_is_counted(benchmark: ModuleType) -> None:
    convolutions = 32 * 25 * 28 * 28 + 64 * 32 * 25 * 14 * 14
    matrices = 3136 * 1024 + 1024 * 10
    plain = benchmark.plain_copy(CNN(16))
    assert benchmark.multiply_adds(plain, torch.rand(2, 1, 28, 28)) == convolutions + matrices


def test_every_product_of_the_cifar10_network_is_counted(benchmark: ModuleType) -> None:
    """Of 1 + 5 x 2 x 3 convolutions, two projections of the shortcut would be products too: here they are padding."""
    size, filters = 32 * 32, (16, 16, 32, 64)
    expected = size * 27 * filters[0]
    for before, after in pairwise(filters):
        size = size if before == after else size // 4
        expected += size * 9 * (before * after + 9 * after * after)
    expected += filters[-1] * 10
    plain = benchmark.plain_copy(ResNet(1))
    assert benchmark.multiply_adds(plain, torch.rand(2, 3, 32, 32)) == expected


def test_the_plain_copy_is_the_same_function(benchmark: ModuleType) -> None:
    model, x = CNN(2, image_size=8).eval(), torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(benchmark.plain_copy(model)(x), model(x))


def test_contenders_are_measured_in_two_processes(benchmark: ModuleType, cfg: DictConfig) -> None:
    rows = benchmark.measure("digits", cfg.cases["digits-wide-50"], cfg, Runtime(device="cpu", threads=1))
    found = {row["contender"]: row for row in rows}
    assert {"saddlepoint, float32", "bare loop, plain"} <= set(found)
    losses = [row["final_loss"] for name, row in found.items() if "bfloat16" not in name]
    assert losses == pytest.approx([losses[0]] * len(losses), rel=1e-4)
    assert all(row["image_steps_per_second"] > 0 for row in rows)


def test_shares_are_of_the_fastest_product_of_the_run(benchmark: ModuleType) -> None:
    """In the same precision: another case's may have been measured at a better moment."""
    rows = [
        {"precision": "float32", "gflops": 100.0, "ceiling_gflops": 150.0},
        {"precision": "float32", "gflops": 50.0, "ceiling_gflops": 200.0},
        {"precision": "bfloat16", "gflops": 300.0, "ceiling_gflops": 400.0},
    ]
    assert [row["fraction_of_ceiling"] for row in benchmark.with_shares(rows)] == [0.5, 0.25, 0.75]


def test_another_attack_is_refused(benchmark: ModuleType, cfg: DictConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that is fast because it does something else."""
    idle = {"saddlepoint, float32": lambda: benchmark.problem(cfg.cases["digits-wide-50"], torch.device("cpu"))[1]}
    monkeypatch.setattr(benchmark, "own_contenders", lambda *_: idle)
    with pytest.raises(RuntimeError, match="saddlepoint, float32 ends at loss"):
        benchmark.measure("digits", cfg.cases["digits-wide-50"], cfg, Runtime(device="cpu", threads=1))


def test_speeds_have_a_panel_for_each_case_and_a_bar_for_each_contender(benchmark: ModuleType) -> None:
    names = ["saddlepoint, float32", "peer, our network", "peer, plain"]
    records = [
        {"case": case, "contender": name, "image_steps_per_second": rate, "slowest": rate - 1, "fastest": rate + 2}
        for case, rates in {"a": (30, 20, 10), "b": (6, 5, 4)}.items()
        for name, rate in zip(names, rates, strict=True)
    ]
    figure = benchmark.attack_speed(records[:-1])  # b has no peer on the plain network
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [names[0], names[2], names[1]]
    for axis, rates in zip(figure.axes, ([30, 10, 20], [6, 5]), strict=True):
        bars = [each for each in axis.containers if isinstance(each, BarContainer)]
        assert [bar.get_width() for each in bars for bar in each] == rates
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first above
    assert figure.axes[1].patches[1].get_y() > 1  # at the height of its name
    plt.close(figure)

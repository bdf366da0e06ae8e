"""Tiny networks, data and run directories that several tests share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from command_line import Run, run
from hypothesis import settings
from torch import nn

from saddlepoint.data import Data, Split
from saddlepoint.models import CNN
from saddlepoint.runtime import Runtime
from saddlepoint.training.checkpoint import RunDirectory

torch.set_num_threads(1)  # for what a module prepares, too
# Commands read the same configs a thousand times here: by the same parser, written in C.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # type: ignore[misc]
settings.register_profile("tests", deadline=None)  # a busy machine is no failure
settings.load_profile("tests")


# The files that take longest, which start first: no process should end long after the others.
LONGEST = (
    *("test_command_line", "test_scripts", "test_soak", "test_notebooks", "test_cli", "test_own"),
    *("test_second_opinions", "test_page", "test_figures", "test_attacks", "test_sweep", "test_dashboard"),
    *("test_export", "test_configs", "test_reproduce", "test_cost_table", "test_trainer", "test_page_in_browser"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _settings_of_torch() -> Iterator[None]:
    """Threads, determinism and torch's generator are global to the process: every test starts from the same ones."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """train.py or a script, inside this process."""
    return partial(run, capsys=capsys, monkeypatch=monkeypatch)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(device="cpu", deterministic=False)


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "tiny" / "simple-pgd" / "seed0")


@pytest.fixture
def network() -> CNN:
    """For the images of `data`."""
    return CNN(1, image_size=4, classes=2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def batch_norm_network() -> nn.Sequential:
    """For images (n, 1, 4, 4); three classes; its batch normalisation has seen some other images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        )
        with torch.no_grad():
            model(torch.rand(32, 1, 4, 4))
    return model.eval()


def halves(count: int, seed: int) -> Split:
    """Class 0 is bright on the left, class 1 on the right; 17 grey levels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    pixels = torch.randint(0, 7, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    for label, columns in enumerate((slice(0, 2), slice(2, 4))):
        pixels[labels == label, :, :, columns] += 10
    return Split(pixels, labels, 16)


@pytest.fixture
def data() -> Data:
    """Two classes that a linear model separates."""
    return Data(train=halves(60, 0), validation=halves(20, 1), test=halves(20, 2))

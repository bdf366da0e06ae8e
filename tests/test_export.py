"""What scripts/export.py writes works where the project's own files are not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY, Outcome, load_script, run
from omegaconf import OmegaConf

from saddlepoint import runs
from saddlepoint.build import build
from saddlepoint.data import load
from saddlepoint.errors import InputError
from saddlepoint.files import read_json

Run = Callable[..., Outcome]
USE = """
import sys, numpy, torch
sys.path.insert(0, sys.argv[1])
from load import load_model
model = load_model()
assert isinstance(model, torch.nn.Module) and not model.training
x = torch.from_numpy(numpy.load(sys.argv[1] + "/pgd.npy")).view(-1, 1, 8, 8)
torch.save(model(x).detach(), "logits.pt")

from pyautoattack import AutoAttack
x, y = x[:50], model(x[:50]).argmax(1)
ensemble = AutoAttack(model, norm="Linf", eps=0.25, seed=0, version="custom", attacks=["apgd-ce"], device="cpu")
x_adv, _ = ensemble.run_standard_evaluation(x, y, batch_size=50)
assert (model(x_adv).argmax(1) == y).float().mean() < 0.5 and (x_adv - x).abs().max() <= 0.25 + 1e-6
"""


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda path, *arguments: run(path, *arguments, capsys=capsys, monkeypatch=monkeypatch)


def test_an_exported_network_and_its_adversarial_images(command: Run, tmp_path: Path) -> None:
    common = [*TINY, f"output_dir={tmp_path}"]
    assert command("train.py", *common, "training=standard", "recipe.steps=200").status == 0
    common += ["recipe.steps=200", "models=[simple]", "trainings=[standard]", "attacks.pgd.steps=3"]
    assert command("scripts/accuracy_table.py", *common).status == 0
    assert command("scripts/export.py", *common).status == 0
    (run_directory,) = (path.parent for path in tmp_path.rglob("training.json"))
    folder = run_directory / "export"
    assert sorted(path.name for path in folder.iterdir()) == ["fgsm.npy", "load.py", "pgd.npy", "weights.pt"]

    x_adv = np.load(folder / "pgd.npy")
    test = load("digits", "nowhere", 197).test
    natural = test.images(slice(None)).flatten(1).numpy()
    assert (x_adv.shape, x_adv.dtype) == ((500, 64), np.float32)
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    assert 0.2 < np.abs(x_adv - natural).max() <= 0.25 + 1e-6

    subprocess.run([sys.executable, "-c", USE, str(folder)], cwd=tmp_path, check=True)
    logits = torch.load(tmp_path / "logits.pt", weights_only=True)
    ours = runs.load(run_directory)
    torch.testing.assert_close(logits, ours(torch.from_numpy(x_adv).view(-1, 1, 8, 8)))
    # The images are those that the table counts.
    accuracy = (logits.argmax(1) == test.labels).float().mean().item()
    assert accuracy == pytest.approx(read_json(*(run_directory / "results").glob("last-pgd-*.json"))["accuracy"])


def test_colours_are_stored_as_the_cifar10_challenge_has_them() -> None:
    export = load_script("scripts/export.py")
    x = torch.rand(2, 3, 4, 5)
    stored = export.challenge_layout(x)
    assert (stored.shape, stored.dtype) == ((2, 4, 5, 3), np.float32)
    assert stored[1, 2, 4, 0] == 255 * x[1, 0, 2, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:1], r"expected shape \(2, 4\), found \(1, 4\)"),
        (lambda x: x + np.float32("nan"), "expected pixels in"),
        (lambda x: x - 0.6, r"expected pixels in \[0, 1\], found \[-0.1"),
        (lambda x: x + 0.6, "expected pixels in"),
        (lambda x: x + 0.3002, "changed by 0.300"),
    ],
)
def test_what_the_authors_would_refuse_is_refused(change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    export = load_script("scripts/export.py")
    x = np.full((2, 4), 0.5, np.float32)
    export.check(x + np.float32(0.3), x, 0.3)
    with pytest.raises(RuntimeError, match=message):
        export.check(change(x), x, 0.3)


def test_the_loader_of_a_network_within_a_network() -> None:
    export = load_script("scripts/export.py")
    inner = {"_target_": "mine.nets.MyNet", "hidden": 3, "name": "a'b"}
    text, modules = export.expression({"_target_": "saddlepoint.models.Normalized", "mean": [0.5], "network": inner})
    listed, _ = export.expression({"_target_": "mine.nets.All", "parts": [inner, 1]})
    assert listed == """mine.nets.All(parts=[mine.nets.MyNet(hidden=3, name="a'b"), 1])"""
    assert text == """saddlepoint.models.Normalized(mean=[0.5], network=mine.nets.MyNet(hidden=3, name="a'b"))"""
    assert modules == {"saddlepoint.models", "mine.nets"}


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, depth=1, *, activation=nn.ReLU, scale=None):
        super().__init__()
        self.first = nn.Linear(16, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.activation, self.scale = activation(), scale or {"by": 1.0}

    @classmethod
    def small(cls, width):
        return cls(width, 2)

    def forward(self, x):
        x = self.first(x.flatten(1))
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.scale["by"] * x

class Tied(Net):
    def __init__(self):
        super().__init__(4)
        self.again = self.layers[0]
        self.part = nn.Parameter(torch.arange(1000.0)[:4])

class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(())
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose exported_nets can be imported."""
    (tmp_path / "exported_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "exported_nets", raising=False)
    return tmp_path


LOAD = """
import json, torch
from load import load_model
print(json.dumps(load_model()(torch.ones(1, 1, 4, 4)).tolist()))
"""


@pytest.mark.slow  # each of them starts a process
@pytest.mark.parametrize(
    ("network", "code"),
    [
        ({"_target_": "exported_nets.Net", "_args_": [4, 3]}, "exported_nets.Net(4, 3)"),
        ({"_target_": "exported_nets.Net", "_args_": [4], "depth": 2}, "exported_nets.Net(4, depth=2)"),
        ({"_target_": "exported_nets.Net.small", "width": 4}, "exported_nets.Net.small(width=4)"),
        ({"_target_": "exported_nets.Net.small", "_args_": [4]}, "exported_nets.Net.small(4)"),
        (
            {"_target_": "exported_nets.Net", "_args_": [4], "_convert_": "all", "scale": {"by": 0.5}},
            "exported_nets.Net(4, scale={'by': 0.5})",
        ),
        (
            {
                "_target_": "exported_nets.Net",
                "width": 4,
                "activation": {"_target_": "torch.nn.LeakyReLU", "_partial_": True, "negative_slope": 0.5},
            },
            "exported_nets.Net(width=4, activation=functools.partial(torch.nn.LeakyReLU, negative_slope=0.5))",
        ),
        ({"_target_": "exported_nets.Tied"}, "exported_nets.Tied()"),
        ({"_target_": "exported_nets.Noisy", "width": 4}, "exported_nets.Noisy(width=4)"),
    ],
)
def test_whatever_a_config_says_is_loaded_elsewhere(nets: Path, network: dict[str, Any], code: str) -> None:
    model = build(OmegaConf.create(network)).train()
    folder = nets / "run" / "export"
    folder.parent.mkdir()
    load_script("scripts/export.py").write_network(folder, model, network, torch.rand(3, 1, 4, 4), 'a "name" \\ of it')
    assert f"    model = {code}\n" in (folder / "load.py").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["load.py", "weights.pt"]
    assert [path.name for path in folder.parent.iterdir()] == ["export"]
    assert (folder / "weights.pt").stat().st_size < 6000  # nothing but the values
    assert model.training
    out = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=folder, env={"PYTHONPATH": str(nets)}, check=True, capture_output=True
    )
    if not code.startswith("exported_nets.Noisy"):
        expected = model.eval()(torch.ones(1, 1, 4, 4)).detach()
        torch.testing.assert_close(torch.tensor(json.loads(out.stdout)), expected)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"_target_": "exported_nets.Net.small", "width": 5}, r"does not load again \(.*size mismatch"),
        ({"_target_": "exported_nets.Gone", "width": 4}, r"does not load again \(AttributeError: .*Gone"),
        (
            {"_target_": "exported_nets.Net", "width": 4, "scale": {"by": 2.0}},
            r"does not load again \(its logits differ by [\d.e-]+\); nothing was written",
        ),
        ({"_target_": "exported_nets.Net", "width": 4, "lambda": 1}, "names 'lambda', which is no name in Python"),
        ({"_target_": "exported_nets.Net", "_args_": 4}, "has _args_: 4; expected a list"),
    ],
)
def test_what_does_not_load_again_is_not_written(nets: Path, network: dict[str, Any], message: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)  # of some networks no unit is alive, so that none of it is seen
        model = build(OmegaConf.create({"_target_": "exported_nets.Net", "width": 4}))
    images = torch.linspace(0, 1, 48).view(3, 1, 4, 4)
    folder = nets / "run" / "export"
    folder.mkdir(parents=True)
    (folder / "load.py").write_text("before")
    with pytest.raises(InputError, match=message) as error:
        load_script("scripts/export.py").write_network(folder, model, network, images, "it")
    assert "\n" not in str(error.value)
    assert [path.name for path in folder.iterdir()] == ["load.py"]
    assert (folder / "load.py").read_text() == "before"
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


def test_a_folder_may_be_relative(nets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As output_dir is, unless somebody types another."""
    monkeypatch.chdir(nets)
    network = {"_target_": "exported_nets.Net", "width": 4}
    model, folder = build(OmegaConf.create(network)), Path("run/export")
    folder.parent.mkdir()
    load_script("scripts/export.py").write_network(folder, model, network, torch.rand(3, 1, 4, 4), "it")
    assert sorted(path.name for path in folder.iterdir()) == ["load.py", "weights.pt"]


def test_the_loader_builds_what_hydra_builds_within_dictionaries() -> None:
    export = load_script("scripts/export.py")
    node = {"_target_": "torch.nn.Flatten", "extra": {"a": {"_target_": "torch.nn.ReLU"}, 3: float("-inf")}}
    text, modules = export.expression(node)
    assert text == "torch.nn.Flatten(extra={'a': torch.nn.ReLU(), 3: float('-inf')})"
    assert modules == {"torch.nn"}
    unbuilt, _ = export.expression({**node, "_recursive_": False, "extra": [{"_target_": "torch.nn.ReLU"}]})
    assert unbuilt == "torch.nn.Flatten(extra=[{'_target_': 'torch.nn.ReLU'}])"

"""What scripts/export.py writes works where the project's own files are not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import TINY, Outcome, load_script, run

from saddlepoint.config import load_network
from saddlepoint.data import load
from saddlepoint.results import read_json
from saddlepoint.training.checkpoint import RunDirectory

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
    common += ["recipe.steps=200", "models=[simple]", "trainings=[standard]", "evaluation.attacks.pgd.steps=3"]
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
    ours = load_network(RunDirectory(run_directory), "last", torch.device("cpu"))
    torch.testing.assert_close(logits, ours(torch.from_numpy(x_adv).view(-1, 1, 8, 8)))
    # The images are those that the table counts.
    accuracy = (logits.argmax(1) == test.labels).float().mean().item()
    assert accuracy == pytest.approx(read_json(run_directory / "results" / "last-pgd.json")["accuracy"])


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

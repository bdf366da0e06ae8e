"""Data-parallel training and evaluation: two gloo processes against one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ROOT
from safetensors.numpy import load_file

from saddlepoint.files import read_json
from saddlepoint.measure.store import unpack
from saddlepoint.training.checkpoint import RunDirectory

pytestmark = pytest.mark.slow  # every test starts two or three processes

# Without a random start every process count solves the same problem, up to the rounding of sums.
SETTINGS = [
    "recipe.steps=40",
    "recipe.evaluations=2",
    "recipe.monitor.steps=2",
    "recipe.attack.model_mode=eval",
    "runtime.threads=1",
]


# Two processes also where there is one GPU or none.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(processes: int, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, script, *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The same training and evaluation by one process and by two."""
    folders = {}
    for processes in (1, 2):
        folders[processes] = tmp_path_factory.mktemp(f"processes{processes}")
        arguments = [*SETTINGS, f"output_dir={folders[processes]}"]
        trained = run(processes, "train.py", *arguments, "training=fgsm")
        assert trained.returncode == 0, trained.stderr
        assert trained.stdout.count("finished in") == 1  # one of them speaks
        measured = run(processes, "scripts/accuracy_table.py", *arguments, "models=[simple]", "trainings=[fgsm,pgd]",
                       "evaluation.batch_size=70")  # fmt: skip
        assert measured.returncode == 0, measured.stderr
        assert [measured.stdout.count(words) for words in ("measuring pgd of", "not trained yet")] == [1, 1]
    return folders


def only(folder: Path, name: str) -> Path:
    (path,) = folder.rglob(name)
    return path


def test_weights_agree(outputs: dict[int, Path]) -> None:
    one, two = (load_file(only(outputs[count], "last.safetensors")) for count in (1, 2))
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, atol=2e-4, err_msg=name)


def test_histories_agree(outputs: dict[int, Path]) -> None:
    one, two = (list(csv.DictReader(only(outputs[count], "history.csv").open())) for count in (1, 2))
    assert [row["step"] for row in one] == [row["step"] for row in two] == ["20", "40"]
    for first, second in zip(one, two, strict=True):
        for key in ("train_loss", "train_accuracy"):
            assert float(first[key]) == pytest.approx(float(second[key]), abs=1e-3)


def test_evaluation_agrees(outputs: dict[int, Path]) -> None:
    for name in ("natural", "fgsm"):
        one, two = (read_json(only(outputs[count], f"last-{name}-*.json")) for count in (1, 2))
        first, second = (unpack(result["correct"], result["key"]["examples"]) for result in (one, two))
        assert len(first) == 500
        assert (first != second).mean() < 0.01
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


BATCH_NORM = """
import signal
import sys
from functools import partial
import torch
from saddlepoint.attacks import PGD
from saddlepoint.data import Data, Split
from saddlepoint.models import ResNet
from saddlepoint.runtime import Runtime, part
from saddlepoint.threat import Threat
from saddlepoint.tracking import Tracker
from saddlepoint.training import Monitor, Recipe, Trainer
from saddlepoint.training.checkpoint import RunDirectory
from saddlepoint.training.objectives import Adversarial, Standard
from saddlepoint.training.schedules import Constant

noise = torch.Generator().manual_seed(0)
pixels = torch.randint(256, (8, 3, 8, 8), generator=noise, dtype=torch.uint8)
labels = torch.randint(2, (8,), generator=noise)
# Every share of every batch holds the same images: its statistics are the whole batch's.
split = Split(pixels[:1].repeat(16, 1, 1, 1), torch.ones(16, dtype=torch.int64), 255) if "alike" in sys.argv else Split(
    pixels.repeat(2, 1, 1, 1), labels.repeat(2), 255)
model = ResNet(1, units=1, classes=2, generator=torch.Generator().manual_seed(1))
attack = PGD(Threat("linf", 0.1), 1)
runtime = Runtime("cpu", threads=1)
objective = Adversarial(attack) if "attacked" in sys.argv else Standard()

recipe = Recipe(8, partial(torch.optim.SGD, lr=0.01), Constant(0.01), steps=6, evaluations=2, averaging=0.5)

def stopping(*arguments):
    if arguments[-1] == 0.5:  # in the fourth step of six, between two rows of history
        signal.raise_signal(signal.SIGTERM)
    return objective(*arguments)

Trainer(
    model, stopping if "stopped" in sys.argv else objective,
    Data(split, split, split), recipe, runtime=runtime, directory=RunDirectory(sys.argv[1]),
    tracker=Tracker(), monitor=Monitor(attack, 8), metadata={}, seed=0,
).fit()
torch.save(model.state_dict(), f"{sys.argv[1]}/rank{runtime.processes.rank}.pt")
part()
"""


def batch_norm_states(folder: Path, processes: int, *arguments: str) -> list[dict[str, torch.Tensor]]:
    """Weights and buffers after training a small ResNet, of every process."""
    script = folder / "script.py"
    script.write_text(BATCH_NORM)
    out = folder / f"of{processes}"
    out.mkdir()
    if "stopped" in arguments:
        assert run(processes, str(script), str(out), *arguments).returncode != 0
        assert only(out, "state.pt")
        arguments = tuple(each for each in arguments if each != "stopped")
    trained = run(processes, str(script), str(out), *arguments)
    assert trained.returncode == 0, trained.stderr
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(processes)]


def test_batch_normalisation_is_the_same_in_every_process(tmp_path: Path) -> None:
    first, second = batch_norm_states(tmp_path, 2)
    assert any(name.endswith("running_var") for name in first)
    for name in first:
        assert torch.equal(first[name], second[name]), name
    (alone,) = batch_norm_states(tmp_path, 1)
    # Each normalises by its own half of the batch. The first layer's mean does not depend on how images are
    # grouped, up to the weights before it, so the processes' average is close to what one process finds.
    name = "units.0.norm1.running_mean"
    assert (alone[name] - first[name]).norm() < 0.1 * alone[name].norm()


def test_batch_normalisation_over_equal_shares_is_that_of_one_process(tmp_path: Path) -> None:
    (alone,) = batch_norm_states(tmp_path, 1, "alike")
    for state in batch_norm_states(tmp_path, 2, "alike"):
        for name, values in alone.items():
            if name.endswith("running_var"):  # unbiased: n / (n - 1) differs with the size of the share
                continue
            torch.testing.assert_close(state[name], values, atol=1e-4, rtol=1e-3, msg=name)


def test_each_process_goes_on_with_its_own_batch_normalisation(tmp_path: Path) -> None:
    """Stopped between two rows of history, where processes differ and an attack in eval mode sees it."""
    states = []
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
        states.append(batch_norm_states(tmp_path / name, 2, "attacked", name))
    for whole, stopped in zip(*states, strict=True):
        for name, values in whole.items():
            assert torch.equal(stopped[name], values), name


def test_a_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    outcome = run(2, "train.py", "recipe.batch_size=33", f"output_dir={tmp_path}/out")
    assert outcome.returncode != 0
    assert "error: recipe.batch_size=33 is for all processes; 2 cannot share it evenly" in outcome.stderr
    assert not (tmp_path / "out").exists()


def test_a_share_of_one_image_is_too_small_for_some_networks(tmp_path: Path) -> None:
    """Batch normalisation of vectors needs two: it takes a batch of 4 images in two processes, and not one of 2."""
    layers = (
        "[{_target_:torch.nn.Flatten},{_target_:torch.nn.Linear,in_features:64,out_features:10},"
        "{_target_:torch.nn.BatchNorm1d,num_features:10}]"
    )
    network = ["dataset.network._target_=torch.nn.Sequential", f"+dataset.network._args_={layers}"]
    network += ["~dataset.network.capacity", "~dataset.network.image_size"]
    for size, ends_well in ((2, False), (4, True)):
        settings = [*SETTINGS, *network, f"recipe.batch_size={size}", f"output_dir={tmp_path}/{size}"]
        outcome = run(2, "train.py", *settings)
        assert (outcome.returncode == 0) == ends_well, outcome.stderr
        assert ("error: in train mode the network does not take images" in outcome.stderr) != ends_well
        assert (tmp_path / str(size)).exists() == ends_well


def test_a_signal_stops_all_of_them_at_the_same_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train.py"]
    settings = ["training=standard", "recipe.steps=100000", "recipe.evaluations=10000", "recipe.monitor.steps=1"]
    arguments = [*command, *settings, "runtime.threads=1", f"output_dir={tmp_path}"]
    pipe = subprocess.PIPE
    process = subprocess.Popen(arguments, cwd=ROOT, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)
    while process.poll() is None and not list(tmp_path.rglob("previous.pt")):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert err.count("stopped by SIGTERM; repeat the command to resume") == 1, err
    state = RunDirectory(only(tmp_path, "state.pt").parent).read_state()
    assert state is not None
    assert len(state["processes"]) == 2
    assert state["step"] >= 10 * len(state["rows"]) > 0


def test_an_error_in_one_process_ends_the_others() -> None:
    """Only the first finds out that the place cannot be written to; the other waits for it."""
    outcome = run(2, "train.py", "output_dir=/proc/nowhere")
    assert outcome.returncode != 0
    assert outcome.stderr.count("error: cannot write to /proc/nowhere") == 1

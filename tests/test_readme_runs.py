"""The commands of the README and of docs/, in order, as a newcomer types them in a fresh clone: each with less to do.

Minutes, and so not part of make test: make test ARGS="-m slow". test_own and test_dashboard have those of their own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, TINY
from test_readme import COMMANDS

pytestmark = pytest.mark.slow

# Said in every command, so that scripts find what train.py made.
TRAINING = [*TINY, "recipe.epochs=null", "recipe.batch_size=4"]
STARTS = ["landscape.examples=2", "landscape.starts=2", "landscape.histogram_starts=20", "attacks.pgd_100.steps=3"]
MEASURING = ["evaluation.examples=4", *STARTS]
LESS = {
    "scripts/adversaries_table.py": ["report.adversaries.A=[natural,fgsm,pgd]"],
    "scripts/cost_table.py": ["models=[simple]", "trainings=[pgd]", "report.cost.seconds=0.5", "recipe.steps=300"],
    "scripts/epsilon_curves.py": ["report.epsilon.examples=4", "report.epsilon.steps=3", "report.epsilon.queries=10"],
}
REAL = ("dataset=mnist", "dataset=cifar10", "DATASET=mnist", "DATASET=cifar10")
# Not from here: other environments, servers, terminals; CI runs tests and lint themselves, test_soak the soak.
ELSEWHERE = r"wandb |make (test|lint|soak|benchmark)|.*hydra/launcher=slurm"


def smaller(command: str) -> str:
    """The same command with a training of six steps and four images to measure."""
    words = shlex.split(command)
    if words[0] == "make":
        words[1:1] = ["-o", ".venv/ready"]  # what runs these tests
        words += (
            ["ARGS=" + shlex.join([*TRAINING, *MEASURING, "items=[accuracy,landscape]"])]
            if "reproduce" in words
            else []
        )
    elif "logger=wandb" in words or "hydra/launcher=parallel" in words:  # not what is trained already
        words += [
            *(each for each in TRAINING if each != "logger=none"),
            *(MEASURING if "train.py" not in words else []),
        ]
        words += ["output_dir=outputs/wandb" if "logger=wandb" in words else "output_dir=outputs/parallel"]
    elif "--cfg" not in words and "scripts/report.py" not in words:
        committed = "output_dir=outputs/reference" in words  # trained as the recipe says
        words += [] if committed else TRAINING
        words += [] if "train.py" in words else ["evaluation.examples=4"] if committed else MEASURING
        words += LESS.get(words[1], [])
    return shlex.join(words)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone holds; the data, where there are any."""
    folder = tmp_path_factory.mktemp("clone")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    for report in ("digits/report", "mnist/report-fast"):  # those of a small reproduction have longer names
        shutil.copytree(folder / "outputs" / "reference" / report, folder / "outputs" / report)
    (folder / "data").symlink_to(ROOT / "data")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.mark.parametrize("command", [each for each in COMMANDS if not re.match(ELSEWHERE, each)])
def test_it_runs(command: str, clone: Path) -> None:
    real = any(word in REAL for word in shlex.split(command)) and "--cfg" not in command
    if real and not (ROOT / "data" / "MNIST").exists():
        pytest.skip("the real data are not under data/")
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),
        "WANDB_MODE": "offline",
    }
    done = subprocess.run(
        ["bash", "-c", smaller(command)], cwd=clone, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_they_made(clone: Path) -> None:
    """After all of them: every kind of file that the pages promise."""
    copied = {"digits/report", "mnist/report-fast"}
    made = {
        path.name
        for path in (clone / "outputs").glob("[!r]*/**/*")
        if not any(folder in str(path.parent) + "/" for folder in (f"{each}/" for each in copied))
    }
    assert {"last.safetensors", "history.csv", "accuracy-first4.md", "index.html", "loss_histograms.png"} <= made
    assert len(list(clone.glob("outputs/parallel/*/*/seed0/train.log"))) == 6
    assert len(list(clone.glob("outputs/wandb/*/*/seed0/wandb/offline-run-*"))) == 12  # trained, and measured

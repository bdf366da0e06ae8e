"""The README's commands, in its order, as a newcomer types them in a fresh clone: each with less to do.

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
STARTS = ["landscape.examples=2", "landscape.starts=2", "landscape.histogram_starts=20", "landscape.attack.steps=3"]
MEASURING = ["evaluation.examples=4", *STARTS]
REAL = ("dataset=mnist", "dataset=cifar10", "DATASET=mnist", "DATASET=cifar10")
# Not from here: other environments, servers, terminals; CI runs tests and lint themselves, test_soak the soak.
ELSEWHERE = r"wandb |make (test|lint|soak|benchmark)|.*hydra/launcher=slurm"


def smaller(command: str) -> str:
    """The same command with a training of six steps and four images to measure."""
    words = shlex.split(command)
    if words[0] == "make":
        words[1:1] = ["-o", ".venv/ready"]  # what runs these tests
        words += ["ARGS=" + shlex.join([*TRAINING, *MEASURING, "extras=false"])] if "reproduce" in words else []
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
        words += ["report.adversaries.A=[natural,fgsm,pgd]"] if "scripts/adversaries_table.py" in words else []
    return shlex.join(words)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a clone holds; the data, where there are any."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    for report in ("digits/report", "mnist/report-fast"):  # those of a small reproduction have longer names
        shutil.copytree(tmp_path / "outputs" / "reference" / report, tmp_path / "outputs" / report)
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_they_run_in_order_and_make_what_is_promised(clone: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone / "src"),
        "WANDB_MODE": "offline",
    }
    for command in (each for each in COMMANDS if not re.match(ELSEWHERE, each)):
        real = any(word in REAL for word in shlex.split(command)) and "--cfg" not in command
        if real and not (ROOT / "data" / "MNIST").exists():
            continue
        done = subprocess.run(
            ["bash", "-c", smaller(command)], cwd=clone, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, command + done.stdout + done.stderr
    copied = {"digits/report", "mnist/report-fast"}
    made = {
        path.name
        for path in (clone / "outputs").glob("[!r]*/**/*")
        if not any(folder in str(path.parent) + "/" for folder in (f"{each}/" for each in copied))
    }
    assert {"last.safetensors", "history.csv", "accuracy-first4.md", "index.html", "loss_histograms.png"} <= made
    assert len(list(clone.glob("outputs/parallel/*/*/seed0/train.log"))) == 6
    assert len(list(clone.glob("outputs/wandb/*/*/seed0/wandb/offline-run-*"))) == 12  # trained, and measured

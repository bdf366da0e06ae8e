"""A sweep goes on like a single run, and a job that fails takes no other with it."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import ROOT, TINY, Run, killed_after, refused

SWEEP = ["-m", "training=standard,fgsm", "seed=range(2)"]


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("last.safetensors")}


def test_a_sweep_does_only_what_is_missing(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *SWEEP, *TINY, f"output_dir={tmp_path}").status == 0
    whole = weights(tmp_path)
    assert len(whole) == 4
    lost = next(tmp_path.glob("*/simple-fgsm*/seed1"))
    for path in lost.iterdir():
        path.unlink()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.safetensors")}
    assert command("train.py", *SWEEP, *TINY, f"output_dir={tmp_path}").status == 0
    assert weights(tmp_path) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_side_by_side_it_makes_the_same(command: Run, tmp_path: Path) -> None:
    sweep = [*SWEEP, *TINY, "runtime.threads=1"]
    assert command("train.py", *sweep, f"output_dir={tmp_path}/one").status == 0
    beside = ["hydra/launcher=parallel", "hydra.launcher.jobs=2"]
    outcome = command("train.py", *sweep, *beside, f"output_dir={tmp_path}/two")
    assert outcome.status == 0
    assert weights(tmp_path / "one") == weights(tmp_path / "two")
    assert len(list(tmp_path.glob("two/*/*/*/train.log"))) == 4


def test_side_by_side_a_failed_job_loses_no_other(command: Run, tmp_path: Path) -> None:
    sweep = ["-m", "hydra/launcher=parallel", "training=standard", "recipe.batch_size=0,50"]
    outcome = command("train.py", *sweep, *TINY, f"output_dir={tmp_path}")
    assert outcome.status == 2
    assert "recipe.batch_size=0" in outcome.err
    assert len(weights(tmp_path)) == 1


@pytest.mark.slow
def test_side_by_side_overwrite_trains_again_and_another_config_is_refused(command: Run, tmp_path: Path) -> None:
    """As one after the other: it is train.py that looks at what is there."""
    sweep = ["-m", "hydra/launcher=parallel", "training=standard", *TINY, f"output_dir={tmp_path}"]
    assert command("train.py", *sweep).status == 0
    (found,) = tmp_path.rglob("last.safetensors")
    before = found.stat().st_mtime_ns
    assert command("train.py", *sweep).status == 0
    assert found.stat().st_mtime_ns == before
    config = found.with_name("config.yaml")
    config.write_text(config.read_text().replace("seed: 0", "seed: 5"))
    outcome = command("train.py", *sweep)
    assert (outcome.status, "seed is 5" in outcome.err) == (2, True)
    assert command("train.py", *sweep, "overwrite=true").status == 0
    assert found.stat().st_mtime_ns > before


@pytest.mark.slow
def test_a_sweep_written_in_a_file_is_one_sweep(command: Run, tmp_path: Path) -> None:
    """Its children compose the same file, and are no sweeps again."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "both.yaml").write_text(
        "# @package _global_\ndefaults: [{override /hydra/launcher: parallel}]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '0,1'}}}\n"
    )
    chosen = [f"--config-dir={tmp_path}/mine", "experiment=both", "training=standard"]
    assert command("train.py", *chosen, *TINY, f"output_dir={tmp_path}/out").status == 0
    assert len(weights(tmp_path / "out")) == 2


def test_only_trainings_go_side_by_side(command: Run) -> None:
    outcome = command("scripts/accuracy_table.py", "-m", "hydra/launcher=parallel", "seeds=1,2")
    assert refused(outcome, "hydra/launcher=parallel")


def test_a_killed_sweep_goes_on_bit_for_bit(command: Run, tmp_path: Path) -> None:
    settings = ["recipe.steps=20", "recipe.evaluations=4", "recipe.monitor.examples=20", "recipe.monitor.steps=1"]
    settings += ["training=standard", "runtime.threads=1", "logger=none"]
    sweep = ["train.py", "-m", "seed=range(2)", *settings]
    killed_after("seed1/state.pt", tmp_path, *sweep, f"output_dir={tmp_path}/killed")
    assert len(weights(tmp_path / "killed")) == 1
    for place in ("killed", "whole"):
        assert command(*sweep, f"output_dir={tmp_path}/{place}").status == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert len(weights(tmp_path / "whole")) == 2


def test_a_failed_job_is_said_and_loses_no_other(command: Run, tmp_path: Path) -> None:
    sweep = ["-m", "training=standard", "recipe.batch_size=0,50,9999", "seed=0,1"]
    outcome = command("train.py", *sweep, *TINY, f"output_dir={tmp_path}")
    assert outcome.status == 2
    assert "recipe.batch_size=0" in outcome.err
    assert (outcome.out + outcome.err).count("recipe.batch_size=9999") >= 2
    assert len(weights(tmp_path)) == 2


@pytest.mark.skipif(find_spec("submitit") is not None, reason="submitit is installed")
def test_slurm_without_its_package_names_the_extra(command: Run, tmp_path: Path) -> None:
    outcome = command("train.py", "-m", "hydra/launcher=slurm", *TINY, f"output_dir={tmp_path}")
    assert refused(outcome, "pip install -e .[slurm]")


def test_slurm_shows_itself_or_says_why_not() -> None:
    """The whole script takes minutes: here only that it says what is missing, where something is."""
    script = "scripts/dev/try_slurm.sh"
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    environment = {**os.environ, "PYTHON": "/bin/false"}
    outcome = subprocess.run([f"./{script}"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert outcome.stdout.startswith("skipped: no ")

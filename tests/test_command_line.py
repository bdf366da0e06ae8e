"""What a user types, and the one line that answers a mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import ROOT, TINY, Outcome, run

Run = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda path, *arguments: run(path, *arguments, capsys=capsys, monkeypatch=monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BAD_INPUT = [
    (["dataset=mnst"], "unknown dataset 'mnst'; choose cifar10, digits, mnist (did you mean mnist?)"),
    (["model=huge"], "unknown model 'huge'; choose capacity2, capacity4, capacity8, simple, wide"),
    (["training=pgdd"], "unknown training 'pgdd'; choose fgsm, pgd, standard (did you mean pgd?)"),
    (["attack=cw"], "unknown attack 'cw'; choose fgsm, pgd"),
    (["recipe=quick"], "unknown recipe 'quick'; choose fast, paper"),
    (["threat=l1"], "unknown threat 'l1'; choose l2, linf"),
    (["threat.epsilon=0.1"], "unknown setting 'threat.epsilon'"),
    (["threat.eps=-0.1"], "threat.eps=-0.1 is negative; expected a radius of at least 0"),
    (["threat.eps=8/"], "threat.eps=8/ is not a number; write it like 0.3 or 8/255"),
    (["threat.eps=8"], "threat.eps=8 is above the pixel range 1; images are in [0, 1]"),
    (["threat.eps=nan"], "threat.eps=nan is not"),
    (["attack.steps=0"], "attack.steps=0; expected a whole number of at least 1"),
    (["attack.steps=-3"], "attack.steps=-3; expected a whole number of at least 1"),
    (["attack.steps=1.5"], "attack.steps=1.5; expected a whole number of at least 1"),
    (["attack.step_size=-1"], "attack.step_size=-1 is negative"),
    (["recipe.batch_size=0"], "recipe.batch_size=0; expected between 1 and the 1100 training images"),
    (["recipe.batch_size=2000"], "recipe.batch_size=2000; expected between 1 and the 1100 training images"),
    (["recipe.steps=0"], "0 training steps"),
    (["recipe.epochs=2"], "recipe.steps=4000 and recipe.epochs=2; give one of them"),
    (["model.capacity=0"], "model.capacity=0; expected at least 1"),
    (["runtime.device=cpux"], "runtime.device=cpux is no device; choose auto, cpu or cuda"),
    (["runtime.precision=float8"], "runtime.precision=float8; choose auto, float32 or bfloat16"),
    (["runtime.threads=0"], "runtime.threads=0; expected at least 1"),
    (["dataset.data.held_out=5000"], "dataset.held_out=5000; expected between 1 and 1296"),
    (["model=simple,wide"], "Ambiguous value for argument 'model=simple,wide'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT, ids=[" ".join(a) for a, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, command: Run, tmp_path: Path
) -> None:
    outcome = command("train.py", *arguments, f"output_dir={tmp_path}/out")
    assert outcome.status == 2
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_cuda_asked_for_and_absent(command: Run, tmp_path: Path) -> None:
    outcome = command("train.py", "runtime.device=cuda", f"output_dir={tmp_path}/out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "no GPU is visible here; use runtime.device=cpu or auto" in outcome.err


def test_unwritable_output(command: Run) -> None:
    outcome = command("train.py", *TINY, "output_dir=/proc/nowhere")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "cannot write to /proc/nowhere" in outcome.err


def test_training_twice_trains_once(command: Run, tmp_path: Path) -> None:
    arguments = [*TINY, "model=simple", f"output_dir={tmp_path}"]
    assert command("train.py", *arguments).status == 0
    before = files(tmp_path)
    again = command("train.py", *arguments, "logger=csv")
    assert "is finished; overwrite=true trains it again" in again.out
    assert files(tmp_path) == before


def test_another_configuration_in_the_directory(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *TINY, f"output_dir={tmp_path}").status == 0
    (config,) = tmp_path.rglob("config.yaml")
    config.write_text(config.read_text().replace("batch_size: 50", "batch_size: 40"))
    before = files(tmp_path)
    outcome = command("train.py", *TINY, f"output_dir={tmp_path}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "holds another configuration (recipe.batch_size is 40 there and 50 here)" in outcome.err
    assert files(tmp_path) == before
    assert command("train.py", *TINY, f"output_dir={tmp_path}", "overwrite=true").status == 0


def test_a_directory_that_another_process_holds(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *TINY, f"output_dir={tmp_path}").status == 0
    (run_directory,) = (path.parent for path in tmp_path.rglob("config.yaml"))
    holder = "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(run_directory / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"held\n"
        outcome = command("train.py", *TINY, f"output_dir={tmp_path}", "overwrite=true")
        process.communicate(b"\n")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "which trains there; wait or stop it" in outcome.err


def test_variations_have_directories_of_their_own(command: Run, tmp_path: Path) -> None:
    assert command("train.py", *TINY, "threat.eps=2/16", f"output_dir={tmp_path}").status == 0
    assert command("train.py", *TINY, "seed=1", "threat.eps=0.1", f"output_dir={tmp_path}").status == 0
    names = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("training.json"))
    assert len(names) == 2
    assert names[0].endswith("threat.eps=0.1/seed1")
    assert names[1].endswith("threat.eps=2_16/seed0")


def test_sweep(command: Run, tmp_path: Path) -> None:
    outcome = command("train.py", "-m", *TINY, "training=standard,fgsm", "threat.eps=-1,0.1", f"output_dir={tmp_path}")
    assert "threat.eps=-1 is negative" in outcome.err  # and the jobs after it still ran
    assert outcome.status == 2
    assert len(list(tmp_path.rglob("training.json"))) == 2


def test_kill_and_go_on_is_bitwise_the_same(command: Run, tmp_path: Path) -> None:
    """A process killed in the middle; the same command again ends where an undisturbed run ends."""
    settings = ["training=fgsm", "recipe.steps=200", "recipe.evaluations=20", "recipe.monitor.examples=20"]
    settings += ["runtime.threads=1", "logger=none", "recipe.monitor.steps=1"]
    arguments = [sys.executable, "train.py", *settings, f"output_dir={tmp_path}/killed"]
    process = subprocess.Popen(arguments, cwd=ROOT)
    while process.poll() is None and not list((tmp_path / "killed").rglob("state.pt")):
        pass
    process.kill()
    process.wait()
    assert not list((tmp_path / "killed").rglob("training.json"))
    assert command("train.py", *settings, f"output_dir={tmp_path}/killed").status == 0
    assert command("train.py", *settings, f"output_dir={tmp_path}/whole").status == 0
    for name in ("last.safetensors", "best.safetensors", "history.csv"):
        (killed,), (whole,) = (tmp_path / "killed").rglob(name), (tmp_path / "whole").rglob(name)
        assert killed.read_bytes() == whole.read_bytes(), name


@pytest.fixture
def trained(command: Run, tmp_path: Path) -> Path:
    assert command("train.py", *TINY, "training=standard", f"output_dir={tmp_path}").status == 0
    return tmp_path


SCRIPT = [*TINY, "models=[simple]", "trainings=[standard]"]


def test_accuracy_table_measures_once(command: Run, trained: Path) -> None:
    arguments = [*SCRIPT, f"output_dir={trained}", "logger=csv"]
    first = command("scripts/accuracy_table.py", *arguments)
    assert first.status == 0
    assert "measuring pgd" in first.out
    (table,) = trained.rglob("accuracy.md")
    before = table.read_bytes()
    second = command("scripts/accuracy_table.py", *arguments)
    assert "measuring" not in second.out
    assert table.read_bytes() == before
    other = command("scripts/accuracy_table.py", *arguments, "evaluation.attacks.pgd.steps=3")
    assert other.out.count("measuring") == 1  # only what changed


def test_accuracy_table_says_what_is_not_run(command: Run, trained: Path) -> None:
    outcome = command("scripts/accuracy_table.py", *TINY, "models=[simple,wide]", f"output_dir={trained}", "logger=csv")
    assert outcome.status == 0
    assert "not trained yet" in outcome.out
    assert "not run" in outcome.out


@pytest.mark.parametrize("damage", ["missing", "truncated", "other"])
def test_damaged_checkpoint(command: Run, trained: Path, damage: str) -> None:
    (weights,) = trained.rglob("last.safetensors")
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        (config,) = trained.rglob("config.yaml")
        config.write_text(config.read_text().replace("    capacity: 1", "    capacity: 2"))
    outcome = command("scripts/accuracy_table.py", *SCRIPT, f"output_dir={trained}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    expected = {"missing": "cannot read", "truncated": "is damaged", "other": "holds another network"}
    assert expected[damage] in outcome.err
    assert not list(trained.rglob("report*"))


def test_a_stored_config_builds_only_our_networks(command: Run, trained: Path) -> None:
    (config,) = trained.rglob("config.yaml")
    config.write_text(config.read_text().replace("saddlepoint.models.CNN", "os.system"))
    outcome = command("scripts/accuracy_table.py", *SCRIPT, f"output_dir={trained}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "wants to build os.system" in outcome.err


def test_a_variation_never_replaces_the_default_report(command: Run, trained: Path) -> None:
    for eps in ("4/16", "3/16"):
        arguments = [*TINY, "training=standard", f"threat.eps={eps}", f"output_dir={trained}"]
        assert command("train.py", *arguments).status == 0
        arguments = [*SCRIPT, f"threat.eps={eps}", f"output_dir={trained}"]
        assert command("scripts/accuracy_table.py", *arguments).status == 0
    tables = {path.read_text().splitlines()[0] for path in trained.rglob("accuracy.md")}
    assert tables == {f"**digits, linf eps {eps}: accuracy by training method and model**" for eps in ("4/16", "3/16")}


@pytest.mark.parametrize("setting", ["model=wide", "training=pgd", "seed=3"])
def test_scripts_say_how_runs_are_chosen(command: Run, tmp_path: Path, setting: str) -> None:
    outcome = command("scripts/accuracy_table.py", setting, f"output_dir={tmp_path}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "scripts choose runs by models=[...] trainings=[...] seeds=number" in outcome.err


def test_loss_histograms(command: Run, trained: Path) -> None:
    outcome = command(
        "scripts/loss_histograms.py",
        *SCRIPT,
        "landscape.model=simple",
        "landscape.trainings=[standard]",
        "landscape.examples=2",
        "landscape.starts=3",
        "landscape.histogram_starts=7",
        "landscape.attack.steps=4",
        f"output_dir={trained}",
        "logger=csv",
    )
    assert outcome.status == 0
    assert "Distance between maxima" in outcome.out
    (figures,) = trained.rglob("figures")
    assert {path.name for path in figures.iterdir()} == {
        f"{name}.{suffix}" for name in ("loss_trajectories", "loss_histograms") for suffix in ("pdf", "png", "json")
    }


def test_data_that_cannot_be_had(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):  # nothing listens there: no network, wherever the test runs
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    outcome = command("train.py", "dataset=mnist", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out")
    assert outcome.status == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: mnist is not under")
    assert "use dataset=digits, which needs none" in last
    assert not (tmp_path / "out").exists()


def test_reproduce_is_done_once(tmp_path: Path) -> None:
    """The whole chain in miniature, as make reproduce runs it; the second time nothing is left to do."""
    arguments = [
        *(setting for setting in TINY if setting != "logger=none"),
        "models=[simple]",
        "trainings=[standard]",
        "landscape.model=simple",
        "landscape.trainings=[standard]",
        "landscape.examples=1",
        "landscape.starts=2",
        "landscape.histogram_starts=4",
        "landscape.attack.steps=2",
        f"output_dir={tmp_path}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def reproduce() -> str:
        return subprocess.run(
            [sys.executable, "scripts/reproduce.py", *arguments],
            cwd=ROOT,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    first = reproduce()
    assert "training 1 of 1 networks" in first
    assert "Standard simple" in first
    done = {name: content for name, content in files(tmp_path).items() if not name.endswith((".pdf", ".png"))}
    second = reproduce()
    assert "training 0 of 1 networks" in second
    assert "measuring" not in second
    assert {name: content for name, content in files(tmp_path).items() if name in done} == done


def test_reproduce_names_the_training_that_failed(command: Run, tmp_path: Path) -> None:
    outcome = command("scripts/reproduce.py", "models=[simple]", "threat.eps=9", f"output_dir={tmp_path}")
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].startswith("error: python train.py")
    assert "threat.eps=9 is above the pixel range" in outcome.err

"""What a user types, and the one line that answers a mistake."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import ROOT, TINY, Outcome, load_script, run
from test_configs import composed

from saddlepoint.data import MNIST_MD5
from saddlepoint.training.checkpoint import RunDirectory

Run = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda path, *arguments: run(path, *arguments, capsys=capsys, monkeypatch=monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


BAD_INPUT = [
    (["dataset=mnst"], "unknown dataset 'mnst'; choose cifar10, digits, mnist, own (did you mean mnist?)"),
    (["model=huge"], "unknown model 'huge'; choose "),
    (["training=pgdd"], "(did you mean pgd?)"),
    (["attack=cw"], "unknown attack 'cw'; choose fgsm, "),
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
    (["recipe.batch_size=0"], "recipe.batch_size=0; expected a whole number of at least 1"),
    (["recipe.batch_size=abc"], "recipe.batch_size=abc; expected a whole number of at least 1"),
    (["recipe.batch_size=2000"], "recipe.batch_size=2000; expected between 1 and the 1100 training images"),
    (["+attack.restarts=5"], "attack.restarts=5; training makes its examples from one start"),
    (["attack=trades"], "attack=trades maximises what only training=trades gives it; choose another attack"),
    (["+monitor.batch_size=0"], "monitor.batch_size=0; expected a whole number of at least 1"),
    (["recipe.steps=0"], "recipe.steps=0; expected a whole number of at least 1"),
    (["recipe.steps=many"], "recipe.steps=many; expected a whole number of at least 1"),
    (["recipe.steps=null"], "recipe.steps=None and recipe.epochs=None; give one of them"),
    (["recipe.steps=null", "recipe.epochs=-1"], "recipe.steps=-22; expected"),
    (["recipe.evaluations=0"], "recipe.evaluations=0; expected a whole number of at least 1"),
    (["recipe.monitor.examples=0"], "recipe.monitor.examples=0; expected a whole number of at least 1"),
    (["recipe.reduction=max"], "recipe.reduction=max; choose mean or sum"),
    (["recipe.precision=float16"], "recipe.precision=float16; choose float32 or bfloat16"),
    (["+attack.targeted=true"], "attack.targeted=true lowers the loss; training maximises it over the threat"),
    (["recipe.warmup=2"], "recipe.warmup=2; expected at least 0 and below 1"),
    (["recipe.schedule.peak=fast"], "recipe.schedule.peak=fast; expected a number of at least 0, such as 1e-3"),
    (["recipe.schedule.peak=-1"], "recipe.schedule.peak=-1; expected a number of at least 0"),
    (["recipe.schedule.peak=inf"], "recipe.schedule.peak=inf; expected a number of at least 0"),
    (["recipe.weight_decay=-1"], "recipe.weight_decay=-1; expected a number of at least 0"),
    (["recipe.optimizer._target_=torch.optim.Nope"], "Error locating target 'torch.optim.Nope'"),
    (["recipe.attack.model_mode=test"], "attack.model_mode=test; choose eval or train"),
    (["training.select=accuracy"], "training.select=accuracy; choose robust or natural"),
    (["threat.norm=l3"], "l3"),
    (["threat.bounds=[1,0]"], "threat.bounds=[1, 0]; expected [0, 1]"),
    (["threat.eps="], "threat.eps= is not a number"),
    (["threat.eps='"], "threat.eps='"),
    (["+threat.colour=red"], "unexpected keyword argument 'colour'"),
    (["seed=abc"], "seed=abc; expected a whole number of at least 0"),
    (["seed=1.5"], "seed=1.5; expected a whole number of at least 0"),
    (["seed=../../x"], "seed=../../x; expected a whole number of at least 0"),
    (["model.name=../../x"], "is no name of a directory; a run lies inside output_dir"),
    (["dataset.name=../x"], "dataset.name=../x; expected a text that can name a directory in output_dir"),
    (["dataset.name=2024"], "dataset.name=2024; expected a text that can name a directory in output_dir"),
    (["model.name=" + "x" * 300], "is too long for a directory; put the settings into an experiment of yours"),
    (["logger=wnadb"], "unknown logger 'wnadb'; choose csv, none, wandb (did you mean wandb?)"),
    (["overwrite=maybe"], "overwrite=maybe; choose true or false"),
    (["foo"], "missing EQUAL"),
    (["recipe.epochs=2"], "and recipe.epochs=2; give one of them"),
    (["model.capacity=0"], "model.capacity=0; expected at least 1"),
    (["runtime.device=cpux"], "runtime.device=cpux is no device; choose auto, cpu or cuda"),
    (["runtime.device=mps"], "runtime.device=mps is no device; choose auto, cpu or cuda"),
    (["runtime.threads=abc"], "runtime.threads=abc; expected a whole number of at least 1"),
    (["runtime.precision=float8"], "runtime.precision=float8; choose auto, float32 or bfloat16"),
    (["runtime.threads=0"], "runtime.threads=0; expected a whole number of at least 1"),
    (["dataset.data.held_out=5000"], "dataset.data.held_out=5000; expected between 1 and 1296"),
    (["expriment=table1"], "unknown setting 'expriment' (did you mean experiment?)"),
    (["-m", "hydra/sweeper=optuna", "seed=1,2"], "unknown hydra/sweeper 'optuna'\n"),
    (["+dataset.network.channels_of._target_=nowhere.Net"], "nowhere cannot be imported; put the folder it is in into"),
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


TABLE, HISTOGRAMS, REPRODUCE = (f"scripts/{name}.py" for name in ("accuracy_table", "loss_histograms", "reproduce"))
BAD_SCRIPT_INPUT = [
    (TABLE, "models=wide", "models=wide; expected a list such as [wide]"),
    (TABLE, "trainings=pgd", "trainings=pgd; expected a list such as [pgd]"),
    (TABLE, "models=[widee]", "models=[widee]: unknown model 'widee'; choose from architecture_b, capacity2,"),
    (TABLE, "models=[wid]", "simple, wide (did you mean wide?)"),
    ("scripts/export.py", "models=[wide]", "nothing to export; train a network first"),
    (REPRODUCE, "trainings=[pdg]", "trainings=[pdg]: unknown training 'pdg'; choose from fgsm, fgsm_rs, pgd,"),
    (TABLE, "seeds=0", "seeds=0; expected a whole number of at least 1"),
    (TABLE, "seeds=abc", "seeds=abc; expected a whole number of at least 1"),
    (TABLE, "evaluation=blackbox", "unknown evaluation 'blackbox'"),
    (TABLE, "evaluation.checkpoint=middle", "evaluation.checkpoint=middle; choose last or best"),
    (TABLE, "evaluation.examples=0", "evaluation.examples=0; expected between 1 and the 500 test images"),
    (TABLE, "evaluation.examples=501", "evaluation.examples=501; expected between 1 and the 500 test images"),
    (TABLE, "evaluation.examples=abc", "evaluation.examples=abc; expected between 1 and the 500 test images"),
    (TABLE, "evaluation.batch_size=0", "evaluation.batch_size=0; expected a whole number of at least 1"),
    (HISTOGRAMS, "landscape.starts=0", "landscape.starts=0; expected a whole number of at least 2"),
    (HISTOGRAMS, "landscape.histogram_starts=1", "histogram_starts=1; expected a whole number of at least 2"),
    (HISTOGRAMS, "landscape.examples=-1", "landscape.examples=-1; expected a whole number of at least 1"),
    (REPRODUCE, "model=wide", "scripts choose runs by models=[...]"),
    (REPRODUCE, "evaluation.checkpoint=best", "evaluation.checkpoint=best is for accuracy_table.py and export.py"),
    ("scripts/diagnostics.py", "trainings=pgd", "trainings=pgd; expected a list such as [pgd]"),
    ("scripts/transfer_tables.py", "trainings=pgd", "trainings=pgd; expected a list such as [pgd]"),
    ("scripts/transfer_tables.py", "report.transfer=[pgd,pgd_7]", "expected one FGSM and one PGD, a table for each"),
    ("scripts/filters.py", "report.filters.examples=0", "examples=0; expected a whole number of at least 1"),
    (TABLE, "dataset.name=2024", "dataset.name=2024; expected a text that can name a directory in output_dir"),
    (REPRODUCE, "jobs=0", "jobs=0; expected a whole number of at least 1"),
    (REPRODUCE, "jobs=abc", "jobs=abc; expected a whole number of at least 1"),
    (REPRODUCE, "models=[]", "expected at least one of each"),
]


@pytest.mark.parametrize(("script", "setting", "message"), BAD_SCRIPT_INPUT)
def test_bad_input_of_a_script(script: str, setting: str, message: str, command: Run, tmp_path: Path) -> None:
    outcome = command(script, setting, f"output_dir={tmp_path}/out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("error: ") and message in outcome.err
    assert not (tmp_path / "out").exists()


BAD_ENVIRONMENT = [
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE is set, but not as torchrun does"),
    ({"WORLD_SIZE": "2"}, "unset it, or use torchrun"),
    ({"WORLD_SIZE": "2", "RANK": "0"}, "unset it, or use torchrun"),
]


@pytest.mark.parametrize(("environment", "message"), BAD_ENVIRONMENT)
def test_bad_environment(
    environment: dict[str, str], message: str, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = command("train.py", f"output_dir={tmp_path}/out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def begun(trained: Path) -> Path:
    """A run that has a state to go on from."""
    (summary,) = trained.rglob("training.json")
    summary.unlink()
    RunDirectory(summary.parent).write_state({"step": 1})
    return trained


# A file of a run, what it then holds (None: a directory stands there), what is run, and what it says.
BAD_FILES = [
    ("begun", "config.yaml", b"{", "config.yaml is damaged"),
    ("begun", "config.yaml", b"\xff\xfe\x00", "config.yaml is damaged"),
    ("begun", "config.yaml", b"", "holds another configuration"),
    ("begun", "config.yaml", b"[1, 2]", "holds another configuration"),
    ("begun", "state.pt", b"", "state.pt is damaged"),
    ("begun", "state.pt", b"garbage", "state.pt is damaged"),
    ("begun", "state.pt", pickle.dumps({"step": print}), "state.pt is damaged"),
    ("trained", "config.yaml", b"{", "is no run's config"),
    ("trained", "config.yaml", b"\xff\xfe\x00", "is no run's config"),
    ("trained", "config.yaml", b"dataset: 3", "is no run's config"),
    ("trained", "config.yaml", b"", "is no run's config"),
    ("trained", "training.json", b"{", "is not valid JSON"),
    ("trained", "training.json", b"\xff", "is not valid JSON"),
    ("trained", "training.json", b"[]", "does not hold a result"),
    ("trained", "training.json", b"{}", "is no summary of a training"),
    ("trained", "results/last-natural.json", b"{", "is not valid JSON; delete it"),
    ("trained", "results/last-natural.json", b"7", "does not hold a result; delete it"),
    ("trained", "last.safetensors", b"", "is damaged or no safetensors file"),
    ("trained", "last.safetensors", (10**12).to_bytes(8, "little") + b"{}", "is damaged or no safetensors file"),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("kind", "name", "content", "message"), BAD_FILES)
def test_bad_files_are_named_and_nothing_is_changed(
    kind: str, name: str, content: bytes, message: str, command: Run, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    (directory,) = (path.parent for path in folder.rglob("config.yaml"))
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(content)
    before = files(folder)
    script = ["train.py", *TINY, "training=standard"] if kind == "begun" else [TABLE, *SCRIPT]
    outcome = command(*script, f"output_dir={folder}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("error: ") and message in outcome.err
    assert directory.name in outcome.err
    after = files(folder)
    for each in (before, after):
        each.pop(str(directory.relative_to(folder) / ".lock"))  # holds a process number
    assert after == before


def test_data_that_are_not_the_published_ones(command: Run, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_MD5:
        (raw / name).write_bytes(b"no images")
    outcome = command("train.py", "dataset=mnist", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert "is not the published file (wrong md5)" in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_is_a_file(command: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    outcome = command("train.py", *TINY, f"output_dir={tmp_path}/out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert f"cannot write to {tmp_path}/out" in outcome.err
    assert (tmp_path / "out").read_text() == "mine"


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


def start(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stderr=pipe, stdout=pipe, text=True
    )


@pytest.mark.parametrize("script", ["train.py", "scripts/reproduce.py"])
def test_a_signal_leaves_a_state_a_status_and_one_line(script: str, tmp_path: Path) -> None:
    own = ["jobs=1", "models=[simple]", "trainings=[pgd]", "extras=false"] if script == "scripts/reproduce.py" else []
    process = start(script, *own, "recipe.steps=100000", "recipe.evaluations=10000", f"output_dir={tmp_path}")
    while process.poll() is None and not list(tmp_path.rglob("previous.pt")):
        time.sleep(0.1)
    number = signal.SIGTERM if script == "train.py" else signal.SIGINT
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == f"error: stopped by {number.name}; the same command goes on from here\n"
    (directory,) = (path.parent for path in tmp_path.rglob("config.yaml"))
    with RunDirectory(directory).hold():  # nobody trains there any more
        state = RunDirectory(directory).read_state()
    assert state is not None
    assert state["step"] >= len(state["rows"]) * 10 > 0
    if script != "train.py":
        assert (
            (directory / "train.log").read_text().endswith("stopped by SIGTERM; the same command goes on from here\n")
        )


def test_no_key_is_ever_written(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789abcdef" * 2 + "planted!"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = [setting for setting in TINY if setting != "logger=none"]
    arguments = ["logger=wandb", f"output_dir={tmp_path}"]
    outcomes = [
        command("train.py", *settings, "training=standard", *arguments),
        command(TABLE, *settings, "models=[simple]", "trainings=[standard]", *arguments),
    ]
    assert [outcome.status for outcome in outcomes] == [0, 0]
    written = files(tmp_path)
    assert any(name.endswith(".wandb") for name in written)
    assert not [name for name, content in written.items() if key.encode() in content]
    assert not [outcome for outcome in outcomes if key in outcome.out + outcome.err]


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


@pytest.mark.parametrize("damage", ["missing", "truncated", "other", "altered"])
def test_damaged_checkpoint(command: Run, trained: Path, damage: str) -> None:
    (weights,) = trained.rglob("last.safetensors")
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "altered":  # one bit of one weight
        weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    else:
        (config,) = trained.rglob("config.yaml")
        config.write_text(config.read_text().replace("    capacity: 1", "    capacity: 2"))
    outcome = command("scripts/accuracy_table.py", *SCRIPT, f"output_dir={trained}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    expected = {
        "missing": "cannot read",
        "truncated": "is damaged",
        "other": "holds another network",
        "altered": "is not what the training wrote",
    }
    assert expected[damage] in outcome.err
    assert not list(trained.rglob("report*"))


def test_a_stored_config_builds_only_our_networks(command: Run, trained: Path) -> None:
    (config,) = trained.rglob("config.yaml")
    config.write_text(config.read_text().replace("saddlepoint.models.CNN", "os.system"))
    outcome = command("scripts/accuracy_table.py", *SCRIPT, f"output_dir={trained}")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "wants to build os.system" in outcome.err


def test_names_in_a_strangers_run_do_not_lead_out_of_the_directory(command: Run, trained: Path) -> None:
    (summary,) = trained.rglob("training.json")
    told = json.loads(summary.read_text())
    evil = "../../../../../evil"
    summary.write_text(json.dumps(told | {"dataset": evil, "model": evil, "training": evil, "recipe": evil}))
    (config,) = trained.rglob("config.yaml")
    config.write_text(config.read_text().replace("name: digits", f"name: {evil}"))
    before = set(trained.parent.rglob("*"))
    outcome = command(TABLE, *SCRIPT, f"output_dir={trained}")
    assert "Traceback" not in outcome.err
    assert all(path.is_relative_to(trained) for path in set(trained.parent.rglob("*")) - before)
    assert not list(trained.parent.rglob("*evil*"))


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
    # Each image's starts are kept as they are done: 100,000 of them take hours.
    assert len(list(trained.rglob("last-maxima-*.npz"))) == 2
    (figures,) = trained.rglob("figures")
    assert {path.name for path in figures.iterdir()} == {
        f"{name}.{suffix}"
        for name in ("loss_trajectories", "loss_histograms", "segments")
        for suffix in ("pdf", "png", "json")
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
        "extras=false",
        "models=[simple]",
        "trainings=[standard]",
        "landscape.model=simple",
        "landscape.trainings=[standard]",
        "landscape.examples=1",
        "landscape.starts=2",
        "landscape.histogram_starts=4",
        "landscape.attack.steps=2",
        "extras=false",
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


@pytest.mark.parametrize(
    ("dataset", "count"), [("digits", 6 + 6 + 1 + 3), ("mnist", 6 + 3 + 1 + 3), ("cifar10", 6 + 6 + 3)]
)
def test_reproduce_plans_what_the_tables_need(dataset: str, count: int) -> None:
    script = load_script("scripts/reproduce.py")
    plan = script.networks(composed(f"dataset={dataset}", name="evaluate"))
    assert len(set(plan)) == len(plan) == count
    assert {("wide", "pgd", 1), ("wide", "standard", 1), ("wide", "trades", 0)} < set(plan)
    assert (("architecture_b", "standard", 0) in plan) == (dataset != "cifar10")
    assert len(script.networks(composed("extras=false", "seeds=2", name="evaluate"))) == 12
    static = script.networks(composed("extras=false", "models=[simple]", "trainings=[static]", name="evaluate"))
    assert static == [("simple", "static", 0), ("simple", "standard", 0)]  # which it waits for


def test_reproduce_names_the_training_that_failed(command: Run, tmp_path: Path) -> None:
    outcome = command("scripts/reproduce.py", "models=[simple]", "threat.eps=9", f"output_dir={tmp_path}")
    assert outcome.status == 2
    assert outcome.err.splitlines()[-1].startswith("error: python train.py")
    assert "threat.eps=9 is above the pixel range" in outcome.err

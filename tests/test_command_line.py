"""What a user types: what it makes, and the one line that answers a mistake."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import ROOT, TINY, Run, call, killed_after, refused

from saddlepoint.data import MNIST_MD5
from saddlepoint.files import read_json
from saddlepoint.training.checkpoint import RunDirectory

TRAIN, TABLE, HISTOGRAMS, REPRODUCE, TRANSFER, FILTERS, EXPORT = (
    "train.py",
    *(
        f"scripts/{name}.py"
        for name in ("accuracy_table", "loss_histograms", "reproduce", "transfer_tables", "filters", "export")
    ),
)
SCRIPT = [*TINY, "models=[simple]", "trainings=[standard]"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# One of each class of mistake: the command, what is typed, and what the line has to name.
MISTAKES = [
    (TRAIN, "dataset=mnst", "mnist"),  # the nearest choice
    (TRAIN, "threat.epsilon=0.1", "threat.epsilon"),  # no such setting
    (TRAIN, "expriment=table1", "experiment"),  # no such group; the nearest one
    (TRAIN, "foo", "foo"),
    (TRAIN, "model=simple,wide", "model=simple,wide"),  # a sweep without -m
    (TRAIN, "-m hydra/sweeper=optuna seed=1,2", "hydra/sweeper"),
    (TRAIN, "threat.eps=8/", "threat.eps"),  # no number
    (TRAIN, "threat.eps=8", "threat.eps"),  # out of range
    (TRAIN, "threat.bounds=[1,0]", "threat.bounds"),
    (TRAIN, "+threat.colour=red", "colour"),
    (TRAIN, "attack.steps=1.5", "attack.steps"),  # no whole number
    (TRAIN, "attack=trades", "attack=trades"),  # not for this training
    (TRAIN, "+attack.targeted=true", "attack.targeted"),
    (TRAIN, "recipe.reduction=max", "recipe.reduction"),  # none of the choices
    (TRAIN, "recipe.batch_size=2000", "recipe.batch_size"),  # more than there are images
    (TRAIN, "recipe.epochs=2", "recipe.steps"),  # beside the steps of the recipe
    (TRAIN, "recipe.schedule.peak=fast", "recipe.schedule.peak"),
    (TRAIN, "recipe.optimizer._target_=torch.optim.Nope", "torch.optim.Nope"),
    (TRAIN, "dataset.network._target_=nowhere.Net", "nowhere"),  # cannot be imported
    (TRAIN, "recipe.optimizer=sgd", "recipe.optimizer._target_=torch.optim.Adam"),  # one value for several settings
    (TRAIN, "recipe.schedule=cosine", "recipe.schedule.peak"),
    (TRAIN, "recipe.schedule=nan", "recipe.schedule"),
    (TRAIN, "trainer.schedule=8/0", "trainer.schedule"),
    (TRAIN, "++monitor.attack=0", "monitor.attack"),
    (TRAIN, "dataset.network=nan", "dataset.network"),
    (TRAIN, "monitor=null", "monitor"),
    (TRAIN, "recipe.reduction=[mean]", "recipe.reduction=[mean];"),  # several for one
    (TRAIN, "threat.bounds=1", "[0,1]"),
    (TRAIN, "training=nan", "trades"),
    (TRAIN, "+training=pgd", " training=pgd"),
    (TRAIN, "++recipe=fast", " recipe=fast"),
    (TRAIN, "~dataset", "mnist"),
    *(
        (TRAIN, f"{each}._target_=builtins.dict", f"{each}._target_=builtins.dict makes a dict; expected a ")
        for each in ("dataset.data", "runtime", "monitor", "trainer", "logger.tracker")
    ),
    *(
        (TRAIN, f"'{each}=${{threat}}'", f"{each}=${{threat}}; expected settings of its own")
        for each in ("dataset.data", "monitor", "trainer", "logger.tracker")
    ),
    (TRAIN, "monitor.attack._target_=builtins.dict", "monitor.attack is a dict"),
    (TABLE, "dataset.data._target_=builtins.dict", "expected a Data"),
    (TRAIN, "~seeed", " seed?"),
    (TRAIN, "~hydra recipe.steps=0", "choose quiet"),
    (TRAIN, "hydra=[] recipe.steps=0", "choose quiet"),
    (TABLE, "report.filters.model=???", "report.filters.model"),
    (TRAIN, "~trainer", "trainer"),
    (TRAIN, "+seed=1", " seed=1"),
    (TRAIN, "seed=${nowhere}", "nowhere"),
    (TRAIN, "threat.bounds.x=1", "threat.bounds.x"),
    (TRAIN, "recipe.epochs=[nan]", "recipe.epochs"),
    (TRAIN, f"recipe.steps={10**30}", "recipe.steps"),
    (TRAIN, "dataset.augmentation=inf", "dataset.augmentation"),
    (TRAIN, "'recipe.optimizer={_target_: torch.optim.SGD, _partial_: true}'", "~recipe.optimizer.eps"),  # is merged
    (TRAIN, "+recipe.optimizer.momentum=0.9", "momentum"),  # which Adam does not take
    (TRAIN, "recipe.optimizer.eps=-1", "recipe.optimizer"),
    (TRAIN, "recipe.optimizer._target_=torch.optim.Adamm", "recipe.optimizer._target_=torch.optim.Adamm"),
    (TRAIN, "recipe.optimizer._target_=torch.optim.Adamm", "mean Adam?"),
    (TRAIN, "recipe.optimizer._target_=Adam", "PYTHONPATH"),
    (TRAIN, "recipe.optimizer._target_=torch.optim", "recipe.optimizer._target_"),  # a module
    (TRAIN, "recipe.optimizer._partial_=false", "recipe.optimizer._partial_=true"),
    (TRAIN, "recipe.optimizer._partial_=0.1", "recipe.optimizer._partial_"),
    (TRAIN, "+recipe.optimizer.nesterov=true", "~recipe.optimizer.nesterov"),
    (TRAIN, "recipe.schedule._target_=saddlepoint.training.schedules.Steps", "+recipe.schedule.at="),
    (TRAIN, "training.objective._target_=saddlepoint.training.Standard", "training.objective._target_"),
    (TRAIN, "+training.objective.betas=3", "training.objective.betas"),
    (TRAIN, "dataset.network.image_size=text", "dataset.network.image_size=text"),
    (TRAIN, "'+dataset.augmentation={_target_: torch.nn.ReLU}'", "dataset.augmentation"),  # takes no generator
    (TABLE, "training.objective.warmup=3", "training"),  # what its config does not have
    (TRAIN, "recipe.optimizer._target_=builtins.dict", "torch.optim.Optimizer"),
    (TRAIN, "output_dir=~nobody-of-this-name/x", "~nobody-of-this-name"),
    (TRAIN, "dataset.data.held_out=5000", "dataset.data.held_out"),
    (TRAIN, "runtime.device=cpux", "runtime.device"),
    (TRAIN, "overwrite=maybe", "overwrite"),
    (TRAIN, "seed=../../x", "seed"),
    (TRAIN, "model.name=../../x", "../../x"),  # leads out of the directory
    (TRAIN, "dataset.name=2024", "dataset.name"),
    (TRAIN, f"dataset.name={300 * 'x'}", "File name too long"),
    (TABLE, "models=wide", "error: models=wide; expected a list such as [simple,wide]"),
    (TABLE, "models=null", "error: models=null; expected a list such as [simple,wide]"),
    (TABLE, "models=[widee]", "wide"),
    (TABLE, "model=wide", "models"),  # train.py's way to choose
    (TABLE, "models=[] trainings=pgd", "such as [standard,fgsm,pgd]"),
    (TABLE, "seeds=0", "seeds"),
    (TABLE, "evaluation.attacks.pgd=null", "evaluation.attacks=[natural,fgsm,pgd]"),  # to drop a row
    (TABLE, "attacks.pgd=null", "attacks.pgd"),
    (TABLE, "evaluation.checkpoint=middle", "evaluation.checkpoint"),
    (TABLE, "evaluation.examples=501", "evaluation.examples"),  # more than there are images
    (HISTOGRAMS, "landscape.starts=1", "landscape.starts"),
    (TRANSFER, "report.transfer=[pgd,pgd_7]", "report.transfer"),
    ("scripts/adversaries_table.py", "+report.adversaries.C=[pgd]", "report.sources.C"),
    (FILTERS, "report.filters.trainings=pgd", "report.filters.trainings"),
    (TABLE, "-m seed=1", "models=[...]"),
    (TRAIN, "dataset.network.image_size=0", "dataset.network.image_size"),
    (TRAIN, "logger.level=loud", "logger.level"),
    (TRAIN, "~dataset.data", "dataset.data"),
    (FILTERS, "report.filters.examples=0", "report.filters.examples"),
    (FILTERS, "evaluation.checkpoint=best", "evaluation.checkpoint"),
    (TABLE, "+attacks.pgd.targeted=true", "attacks.pgd.targeted=true"),
    (TABLE, "+attacks.pgd.loss={_target_: torch.nn.CrossEntropyLoss}", "attacks.pgd.loss"),
    (TABLE, "'+attacks.natural={_target_: saddlepoint.attacks.PGD}'", "attacks.natural"),
    (TABLE, "threat.eps=true", "threat.eps"),
    (TRAIN, "+monitor.attack.targeted=true", "monitor.attack.targeted=true"),
    (TRAIN, "attack.random_start=no", "attack.random_start=no; choose true or false"),
    (TRAIN, "trust_network=off", "trust_network=off; choose true or false"),
    (TRAIN, "+recipe.optimizer.weight_decay=1", "write recipe.weight_decay="),
    (TRAIN, "+recipe.ema=0.999", "nothing reads recipe.ema (did you mean recipe.averaging?)"),
    (TRAIN, "+weights=theirs.pt", "nothing reads weights (did you mean init?)"),
    (TRAIN, "++recipe.monitor.attack.steps=3", "nothing reads recipe.monitor.attack.steps"),
    (TRAIN, "init=no/such/file", "init=no/such/file is no file"),
    (TRAIN, "'recipe.schedule={_target_: mine.rate, _partial_: true}'", "write '~recipe.schedule' '+recipe.schedule={"),
    (TRAIN, "-m --cfg job seed=0,1", "leave out -m"),
    (TRAIN, "logger=wandb logger.tracker.name=mine", "unknown setting 'logger.tracker.name'"),
    (TRAIN, "recipe.optimizer._target_=torch.optim.SparseAdam", "does not support dense gradients"),
    (HISTOGRAMS, "+attacks.pgd_100.model_mode=train", "attacks.pgd_100.model_mode=train"),
    (EXPORT, "evaluation.precision=float16", "evaluation.precision=float16"),
    (REPRODUCE, "models=[]", "models"),
    (REPRODUCE, "jobs=0", "jobs"),
    (REPRODUCE, "models=[simple] trainings=[standard] items=[accuracy] attack=[]", "attack"),
    (EXPORT, "models=[wide]", "train"),  # nothing is trained
]


@pytest.mark.parametrize(("script", "typed", "named"), MISTAKES, ids=[f"{s} {typed[:40]}" for s, typed, _ in MISTAKES])
def test_a_mistake_is_named_in_one_line_and_writes_nothing(
    script: str, typed: str, named: str, command: Run, tmp_path: Path
) -> None:
    elsewhere = [] if typed.startswith("output_dir") else [f"output_dir={tmp_path}/out"]
    outcome = command(script, *shlex.split(typed), *elsewhere)
    assert refused(outcome, named), outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("environment", [{"WORLD_SIZE": "two"}, {"WORLD_SIZE": "2", "RANK": "0"}])
def test_an_environment_that_torchrun_did_not_make(
    environment: dict[str, str], command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert refused(command(TRAIN, f"output_dir={tmp_path}/out"), "WORLD_SIZE")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patched:
        assert call(TRAIN, *TINY, "training=standard", f"output_dir={folder}", monkeypatch=patched) == 0
    return folder


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


# Which command reads it, a file of a run, what it holds by mistake, and what the line has to name.
DAMAGE = [
    (TRAIN, "config.yaml", b"{", "config.yaml"),
    (TRAIN, "config.yaml", b"[1, 2]", "seed0"),  # the directory, which holds another configuration
    (TRAIN, "state.pt", b"garbage", "state.pt"),
    (TRAIN, "state.pt", pickle.dumps({"step": print}), "state.pt"),
    (TABLE, "config.yaml", b"dataset: 3", "config.yaml"),
    (TABLE, "training.json", b"{}", "training.json"),
    (TABLE, "results/last-natural-*.json", b"7", "last-natural"),
    (TABLE, "last.safetensors", b"", "last.safetensors"),
]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("script", "name", "content", "named"), DAMAGE)
def test_a_damaged_file_is_named_and_nothing_is_changed(
    script: str, name: str, content: bytes, named: str, command: Run, trained: Path
) -> None:
    (summary,) = trained.rglob("training.json")
    directory = summary.parent
    if script == TRAIN:  # a run that has a state to go on from
        summary.unlink()
        RunDirectory(directory).write_state({"step": 1})
    if name.startswith("results/"):
        assert command(script, *SCRIPT, f"output_dir={trained}").status == 0
    for path in [*directory.glob(name)] or [directory / name]:
        path.write_bytes(content)
    before = files(trained)
    outcome = command(script, *([*TINY, "training=standard"] if script == TRAIN else SCRIPT), f"output_dir={trained}")
    assert refused(outcome, named), outcome.err
    after = files(trained)
    for each in (before, after):
        each.pop(str(directory.relative_to(trained) / ".lock"))  # holds a process number
    assert after == before


@pytest.mark.parametrize("damage", ["missing", "other", "altered"])
def test_weights_that_are_not_the_trainings_are_not_measured(command: Run, trained: Path, damage: str) -> None:
    (weights,) = trained.rglob("last.safetensors")
    if damage == "missing":
        weights.unlink()
    elif damage == "altered":  # one bit of one weight
        weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    else:
        (config,) = trained.rglob("config.yaml")
        config.write_text(config.read_text().replace("    capacity: 1", "    capacity: 2"))
    before = files(trained)
    named = "dataset.network.capacity" if damage == "other" else "last.safetensors"
    assert refused(command(TABLE, *SCRIPT, f"output_dir={trained}"), named)
    assert files(trained) == before


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


def test_data_that_are_not_the_published_ones(command: Run, tmp_path: Path) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in MNIST_MD5:
        (raw / name).write_bytes(b"no images")
    outcome = command(TRAIN, "dataset=mnist", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out")
    assert refused(outcome, next(iter(MNIST_MD5)))
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_had(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):  # nothing listens there: no network, wherever the test runs
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    outcome = command(TRAIN, "dataset=mnist", f"data_dir={tmp_path}/data", f"output_dir={tmp_path}/out")
    last = outcome.err.splitlines()[-1]
    assert outcome.status == 2 and last.startswith("error: ") and f"{tmp_path}/data" in last
    assert not list(tmp_path.iterdir())


def test_an_output_folder_that_is_a_file(command: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    assert refused(command(TRAIN, *TINY, f"output_dir={tmp_path}/out"), f"{tmp_path}/out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_finished_run_is_not_trained_again_unless_asked(command: Run, trained: Path) -> None:
    before = files(trained)
    again = [*TINY, "training=standard", f"output_dir={trained}"]
    assert command(TRAIN, *again).status == 0
    assert files(trained) == before
    (summary,) = trained.rglob("training.json")
    summary.write_text("{}")
    assert command(TRAIN, *again, "overwrite=true").status == 0
    assert read_json(summary)["steps"] == 6


def test_a_run_of_another_configuration_is_kept(command: Run, trained: Path) -> None:
    (config,) = trained.rglob("config.yaml")
    config.write_text(config.read_text().replace("batch_size: 50", "batch_size: 40"))
    before = files(trained)
    outcome = command(TRAIN, *TINY, "training=standard", f"output_dir={trained}")
    assert refused(outcome, "recipe.batch_size is 40")
    assert files(trained).keys() == before.keys()
    assert config.read_bytes() == before[str(config.relative_to(trained))]


def test_a_directory_that_another_training_holds(command: Run, trained: Path) -> None:
    (config,) = trained.rglob("config.yaml")
    with RunDirectory(config.parent).hold():
        outcome = command(TRAIN, *TINY, "training=standard", f"output_dir={trained}", "overwrite=true")
    assert refused(outcome, str(config.parent))
    assert (config.parent / "training.json").exists()


def test_variations_have_runs_and_reports_of_their_own(command: Run, trained: Path) -> None:
    for eps in ("2/16", "3/16"):
        arguments = [f"threat.eps={eps}", f"output_dir={trained}"]
        assert command(TRAIN, *TINY, "training=standard", *arguments).status == 0
        assert command(TABLE, *SCRIPT, *arguments).status == 0
    found = [yaml.safe_load(path.read_text())["threat"]["eps"] for path in trained.rglob("config.yaml")]
    assert len(found) == 3 and {"2/16", "3/16"} < set(found)
    titles = [read_json(path)["title"] for path in trained.rglob("accuracy.json")]
    assert sorted(eps for title in titles for eps in ("2/16", "3/16") if eps in title) == ["2/16", "3/16"]


def test_attacks_in_bfloat16_have_results_and_a_report_of_their_own(command: Run, trained: Path) -> None:
    arguments = [*SCRIPT, f"output_dir={trained}"]
    assert command(TABLE, *arguments).status == 0
    before = files(trained)
    shown = command(TABLE, *arguments, "evaluation.precision=bfloat16")
    assert shown.status == 0 and "Made in a lower precision" in shown.out
    after = files(trained)
    assert {name: after[name] for name in before} == before
    measured = [name for name in after.keys() - before.keys() if "/results/" in name]
    assert len(measured) == 2 and all(b'"precision": "bfloat16"' in after[name] for name in measured)
    assert command(TABLE, *arguments, "evaluation.precision=half").status == 2


def test_killed_and_started_again_it_ends_as_if_undisturbed(command: Run, tmp_path: Path) -> None:
    settings = ["training=fgsm", "recipe.steps=40", "recipe.evaluations=4", "recipe.monitor.examples=20"]
    settings += ["runtime.threads=1", "logger=none", "recipe.monitor.steps=1"]
    killed_after("state.pt", tmp_path, TRAIN, *settings, f"output_dir={tmp_path}/killed")
    assert not list((tmp_path / "killed").rglob("training.json"))
    for folder in ("killed", "whole"):
        assert command(TRAIN, *settings, f"output_dir={tmp_path}/{folder}").status == 0
    for name in ("last.safetensors", "best.safetensors", "history.csv"):
        (killed,), (whole,) = (tmp_path / "killed").rglob(name), (tmp_path / "whole").rglob(name)
        assert killed.read_bytes() == whole.read_bytes(), name


@pytest.fixture
def endless(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, in a training without end that has written states."""
    settings = [
        "recipe.steps=100000",
        "recipe.evaluations=10000",
        "recipe.monitor.steps=1",
        "recipe.monitor.examples=20",
    ]
    settings.append(f"output_dir={tmp_path}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, *request.param, *settings]
    with subprocess.Popen(arguments, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.rglob("previous.pt")):
            time.sleep(0.1)
        yield process
        process.kill()


ENDLESS = [
    ([TRAIN], signal.SIGTERM),
    ([REPRODUCE, "jobs=1", "models=[simple]", "trainings=[pgd]", "items=[accuracy]"], signal.SIGINT),
]


@pytest.mark.parametrize(("endless", "number"), ENDLESS, indirect=["endless"], ids=[TRAIN, REPRODUCE])
def test_a_signal_leaves_a_state_a_status_and_one_line(
    endless: subprocess.Popen[str], number: signal.Signals, tmp_path: Path
) -> None:
    endless.send_signal(number)
    _, err = endless.communicate(timeout=300)
    assert endless.returncode == 128 + number
    assert err.startswith("error: ") and err.count("\n") == 1 and number.name in err
    (directory,) = (path.parent for path in tmp_path.rglob("config.yaml"))
    with RunDirectory(directory).hold():  # nobody trains there any more
        state = RunDirectory(directory).read_state()
    assert state is not None
    assert state["step"] >= len(state["rows"]) * 10 > 0


def test_no_key_is_ever_written(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "0123456789abcdef" * 2 + "planted!"
    for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("WANDB_MODE", "offline")
    settings = [setting for setting in TINY if setting != "logger=none"]
    arguments = ["logger=wandb", f"output_dir={tmp_path}"]
    outcomes = [
        command(TRAIN, *settings, "training=standard", *arguments),
        command(TABLE, *settings, "models=[simple]", "trainings=[standard]", *arguments),
    ]
    assert [outcome.status for outcome in outcomes] == [0, 0]
    written = files(tmp_path)
    assert any(name.endswith(".wandb") for name in written)
    assert not [name for name, content in written.items() if key.encode() in content]
    assert not [outcome for outcome in outcomes if key in outcome.out + outcome.err]


def test_accuracy_table_measures_only_what_is_missing(command: Run, trained: Path) -> None:
    arguments = [*SCRIPT, f"output_dir={trained}", "logger=csv"]
    assert command(TABLE, *arguments).out.count("measuring") == 3
    (table,) = trained.rglob("accuracy.md")
    before = table.read_bytes()
    assert "measuring" not in command(TABLE, *arguments).out
    assert table.read_bytes() == before
    assert command(TABLE, *arguments, "attacks.pgd.steps=3").out.count("measuring") == 1


def test_a_row_that_is_no_name_is_refused(command: Run, trained: Path) -> None:
    assert refused(
        command(TABLE, *SCRIPT, "evaluation.attacks=[natural,null]", f"output_dir={trained}"), "attack null;"
    )


def test_accuracy_table_has_a_place_for_what_is_not_trained(command: Run, trained: Path) -> None:
    outcome = command(TABLE, *TINY, "models=[simple,wide]", "trainings=[standard]", f"output_dir={trained}")
    assert outcome.status == 0
    (path,) = trained.rglob("accuracy.json")
    measured = {each["model"]: each["value"] is not None for each in read_json(path)["records"]}
    assert measured == {"simple": True, "wide": False}


def test_loss_histograms(command: Run, trained: Path) -> None:
    outcome = command(
        HISTOGRAMS,
        *SCRIPT,
        "landscape.model=simple",
        "landscape.trainings=[standard]",
        "landscape.examples=2",
        "landscape.starts=3",
        "landscape.histogram_starts=7",
        "attacks.pgd_100.steps=4",
        f"output_dir={trained}",
    )
    assert outcome.status == 0
    # Each image's starts are kept as they are done: 100,000 of them take hours.
    assert len(list(trained.rglob("last-maxima-*.npz"))) == 2
    (figures,) = trained.rglob("figures")
    assert {path.name for path in figures.iterdir()} == {
        f"{name}.{suffix}"
        for name in ("loss_trajectories", "loss_histograms", "segments")
        for suffix in ("pdf", "png", "json")
    }


def test_reproduce_is_done_once(command: Run, tmp_path: Path) -> None:
    """The whole chain in miniature, as make reproduce runs it; the second time nothing is left to do."""
    arguments = [
        *(setting for setting in TINY if setting != "logger=none"),
        "items=[accuracy,landscape]",
        "models=[simple]",
        "trainings=[standard]",
        "landscape.model=simple",
        "landscape.trainings=[standard]",
        "landscape.examples=1",
        "landscape.starts=2",
        "landscape.histogram_starts=4",
        "attacks.pgd_100.steps=2",
        f"output_dir={tmp_path}",
    ]
    assert command(REPRODUCE, *arguments).status == 0
    done = {name: content for name, content in files(tmp_path).items() if not name.endswith((".pdf", ".png"))}
    names = {re.sub("-[0-9a-f]{6}(?=[.])", "", Path(name).name) for name in done}
    assert {"last.safetensors", "last-pgd.json", "accuracy.json", "loss_histograms.json", "index.html"} <= names
    written = {path: path.stat().st_mtime_ns for kind in ("training.json", "last-*") for path in tmp_path.rglob(kind)}
    assert command(REPRODUCE, *arguments).status == 0
    assert {name: content for name, content in files(tmp_path).items() if name in done} == done
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_reproduce_names_the_training_that_failed(command: Run, tmp_path: Path) -> None:
    outcome = command(REPRODUCE, "models=[simple]", "trainings=[pgd]", "recipe.batch_size=0", f"output_dir={tmp_path}")
    assert outcome.status == 2
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ") and "train.py" in last and "recipe.batch_size=0" in last
    assert [path.name for path in tmp_path.rglob("*")] == ["digits"]

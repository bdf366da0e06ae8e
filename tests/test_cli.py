"""The command line tells people where they are."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path

import pytest
import torch
from command_line import TINY, Run, refused
from omegaconf import OmegaConf

from saddlepoint import cli
from saddlepoint.cli import _memory, arguments
from saddlepoint.compose import CONFIGS, compose
from saddlepoint.errors import InputError
from saddlepoint.measure.subject import Subject
from saddlepoint.runtime import STOPS
from saddlepoint.training.trainer import Trainer


@pytest.mark.parametrize("script", ["train.py", "scripts/accuracy_table.py", "scripts/reproduce.py"])
def test_help_begins_with_the_script_and_lists_the_choices(command: Run, script: str) -> None:
    page = command(script, "--help").out
    assert f"python {script}" in page
    for group in ("dataset", "model", "training", "recipe", "threat", "attack", "logger", "runtime"):
        choices = ", ".join(sorted(path.stem for path in (CONFIGS / group).glob("*.yaml")))
        assert f"{group}: {choices}\n" in page
    assert "hydra/" not in page
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("recipe.epoch=3", "recipe.epochs"),
        ("epochs=3", "recipe.epochs"),
        ("datset=mnist", "dataset"),
        ("attack.step=3", "attack.steps"),
    ],
)
def test_the_nearest_setting_is_named(command: Run, typed: str, meant: str) -> None:
    assert refused(command("train.py", typed), f" {meant}?")


@pytest.mark.parametrize(
    ("script", "of", "named"),
    [
        ("train.py", Trainer, "recipe.batch_size=50"),
        ("scripts/accuracy_table.py", Subject, "evaluation.batch_size=250"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(
    command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, of: type, named: str
) -> None:
    def huge(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    folder = f"output_dir={tmp_path}"
    if of is Subject:
        command("train.py", *TINY, "training=standard", folder)
    monkeypatch.setattr(of, "_step" if of is Trainer else "accuracy", huge)
    outcome = command(script, *TINY, folder, *(["evaluation.batch_size=250"] if of is Subject else []))
    assert refused(outcome, named)


def test_too_little_memory_without_a_batch_size_to_lower() -> None:
    with (
        pytest.raises(InputError, match="memory"),
        _memory(OmegaConf.create(), "a"),
    ):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    with pytest.raises(RuntimeError, match="else"), _memory(OmegaConf.create(), "a"):
        raise RuntimeError("something else")


def test_a_setting_unlike_any_other_gets_no_suggestion(command: Run) -> None:
    assert "did you mean" not in command("train.py", "xyzzy=1").err


@pytest.mark.parametrize(
    "own",
    [
        ["seed=1"],
        ["monitor.examples=10"],
        ["training=trades", "training.objective.beta=3"],
        ["~monitor.select"],
        ["training=trades", "~training.objective.beta"],
        ["++model.extra=1", "~model.extra"],
        ["~attack.loss"],
        ["recipe.warmup=${recipe.averaging}"],  # printed as it was typed, not as what it is now
    ],
    ids=" ".join,
)
def test_the_command_that_is_named_measures_the_run(command: Run, tmp_path: Path, own: list[str]) -> None:
    """Also where what was typed is no setting of the scripts."""
    trained = command("train.py", *TINY[:-1], *own, f"output_dir={tmp_path}")
    _, script, *arguments = shlex.split(trained.out.splitlines()[-1].partition(": ")[2])
    assert {each for each in own if "${" in each} <= {*arguments}
    measured = command(script, *arguments, "evaluation.examples=10")
    assert measured.status == 0, measured.err
    assert len(list(tmp_path.rglob("last-natural*.json"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("own", [[], ["~monitor.select"]], ids=" ".join)
def test_every_command_that_is_printed_can_be_typed(command: Run, tmp_path: Path, own: list[str]) -> None:
    """One of each kind, from the first training to the page: what is quick is run, the others are composed."""
    folder, small = f"output_dir={tmp_path}", ["evaluation.examples=10", "attacks.pgd.steps=1"]
    sweep = ["-m", "hydra/launcher=parallel", "training=standard,fgsm"]
    typed = {
        "train.py": [*TINY[:-1], *own, "training=standard", folder],
        "train.py in a sweep": [*TINY[:-1], *own, *sweep, folder],
        "scripts/accuracy_table.py": [*TINY[:-1], *own, "models=[simple]", "trainings=[standard]", *small, folder],
        "scripts/filters.py": [*TINY[:-1], *own, folder],
    }
    kinds = set()
    for name, given in typed.items():
        outcome = command(name.split(" ")[0], *given)
        assert outcome.status == 0, outcome.err
        for kind, line in re.findall(r"^(.*): (python .*)$", outcome.out, re.M):
            kinds.add(kind.split(",")[0])
            _, script, *again = shlex.split(line)
            quick = kind.startswith(("measure", "everything"))
            more = small if kind.startswith("measure") else []
            typed_again = command(script, *again, *(more if quick else ["--cfg", "job"]))
            assert typed_again.status == 0, (line, typed_again.err)
            assert quick or "seeds: " in typed_again.out
    assert kinds == {
        "measure it",
        "measure them",
        "everything on one page",
        "next",
        "train what is missing and make this again",
    }


def test_options_may_stand_among_the_overrides(command: Run, tmp_path: Path) -> None:
    outcome = command("train.py", "model=wide", "--cfg", "job", "seed=7", "--config-dir", str(tmp_path))
    assert (outcome.status, "seed: 7" in outcome.out, "name: wide" in outcome.out) == (0, True, True)


def test_a_mistake_beside_a_choice_of_ones_own_is_named(command: Run, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mynet.yaml").write_text("name: mynet")
    outcome = command("train.py", "--config-dir", str(tmp_path), "model=mynet", "~attack.stepz")
    assert refused(outcome, "~attack.stepz: unknown setting 'attack.stepz' (did you mean attack.steps?)")


@pytest.mark.parametrize("option", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_choices_of_ones_own_are_named(command: Run, tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mynet.yaml").write_text("")
    given = [part.format(tmp_path) for part in option]
    assert refused(command("train.py", *given, "model=mynett"), " mynet?")


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("--seed=1", " seed=1\n"),
        ("--epochs 10", " recipe.epochs=10\n"),
        ("--batch-size=64", " recipe.batch_size=64\n"),
        ("--model wide", " model=wide\n"),
        ("--lr 0.1", " recipe.schedule.peak=0.1\n"),
        ("--learning-rate=0.1", " recipe.schedule.peak=0.1\n"),
        ("--eps 8/255", " threat.eps=8/255\n"),
        ("--epsilon=0.3", " threat.eps=0.3\n"),
        ("--gpu 1", " runtime.device=cuda:1\n"),
        ("--gpu", " runtime.device=cuda\n"),
        ("--device cpu", " runtime.device=cpu\n"),
        ("--output there", " output_dir=there\n"),
        ("--wandb", " logger=wandb\n"),
        ("--bs 64", " recipe.batch_size=64\n"),
        ("--resume", " with --cfg job\n"),  # nothing of the kind
        ("-overwrite seed=1", " overwrite=true\n"),
        ("--cfg everything", " job, hydra or all\n"),
    ],
)
def test_an_option_that_is_a_setting(command: Run, typed: str, written: str) -> None:
    outcome = command("train.py", *typed.split())
    assert refused(outcome, written) and outcome.err.endswith(written)
    if "write " in outcome.err:
        compose("train", arguments(shlex.split(outcome.err.rpartition("write ")[2]), "train"))


def test_an_option_of_a_script_is_of_its_measurement(command: Run) -> None:
    assert refused(command("scripts/accuracy_table.py", "--batch-size", "64"), "write evaluation.batch_size=64")
    assert refused(command("scripts/accuracy_table.py", "--arch", "wide"), "write models=[wide]\n")


@pytest.mark.parametrize(
    ("script", "typed", "said"),
    [
        ("train.py", "recipe.reduction=null", "recipe.reduction=null; "),
        ("train.py", "seed=null", "seed=null; "),
        ("train.py", "threat.bounds=[null, 1]", "threat.bounds=[null, 1]; "),
        ("train.py", "monitor=null", "monitor=null; "),
        ("scripts/accuracy_table.py", "evaluation.checkpoint=null", "evaluation.checkpoint=null; "),
        ("scripts/accuracy_table.py", "models=[null]", "models=[null]: unknown model null; "),
    ],
)
def test_null_is_said_as_it_is_typed(command: Run, script: str, typed: str, said: str) -> None:
    outcome = command(script, typed)
    assert refused(outcome, said), outcome.err
    assert "None" not in outcome.err


@pytest.mark.parametrize("typed", ["seed='a\n", "seed=a\u2028b", "model.name='\udcff'", "seed=\x1b[31m", "'a\nb'=1"])
def test_whatever_is_typed_is_answered_in_one_line_that_shows(command: Run, typed: str) -> None:
    outcome = command("train.py", typed)
    assert refused(outcome, "") and outcome.err[:-1].isprintable()


def test_what_a_script_takes_away_is_a_setting_of_a_training(command: Run) -> None:
    """A misspelt one does not become another report of the same network."""
    assert refused(command("scripts/accuracy_table.py", "~training.objective.wramup"), " training.objective.warmup?")


PATHS = [
    "logs/epoch=10-step=500.ckpt",
    "outputs/digits/simple-pgd,threat.eps=0.2/seed0/last.safetensors",
    "model (1).pt",
    "modèle.pt",
    "it's.pt",
    "{a}[b].pt",
    "2024_11",  # Hydra knows a number of this name
    "1e5",
    "nan",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_taken_as_they_are_typed(path: str) -> None:
    for key in ("weights", "+weights", "output_dir", "data_dir"):
        given = arguments([f"{key}={path}"], "import_network")
        assert compose("import_network", given)[key.lstrip("+")] == path
        # The same again, as a printed command has it.
        assert arguments(given, "import_network") == given


def test_what_hydra_reads_in_a_path_stays() -> None:
    for typed in ("weights=null", "weights='a,b'", "weights=${output_dir}/a.pt", "seed=1", "weights=a\\,b"):
        assert arguments([typed], "import_network") == [typed]


def test_paths_of_a_sweep(tmp_path: Path) -> None:
    assert arguments(["-m", "weights=a,b"], "import_network") == ["-m", "weights=a,b"]
    sweep = arguments(["weights=logs/epoch=1.ckpt,logs/epoch=2.ckpt", "-m"], "import_network")
    assert sweep == ["-m", "weights='logs/epoch=1.ckpt','logs/epoch=2.ckpt'"]
    (tmp_path / "a=1,b=2").touch()
    assert arguments(["-m", f"weights={tmp_path}/a=1,b=2"], "import_network")[1] == f"weights='{tmp_path}/a=1,b=2'"


@pytest.mark.parametrize("value", ["a=b", "é,", "(", "it's"])
def test_the_quotes_that_are_named_work(value: str, command: Run) -> None:
    outcome = command("train.py", f"model.name={value}")
    assert refused(outcome, "write ")
    (again,) = shlex.split(outcome.err.rpartition("write ")[2])
    assert compose("train", arguments([again], "train")).model.name == value


def test_the_home_folder_of_a_path(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = command("train.py", *TINY, "training=standard", "output_dir=~/my runs")
    assert outcome.status == 0, outcome.err
    assert len(list((tmp_path / "my runs").rglob("training.json"))) == 1


def test_a_replaced_optimizer_trains(command: Run, tmp_path: Path) -> None:
    sgd = "+recipe.optimizer={_target_: torch.optim.SGD, _partial_: true, momentum: 0.9}"
    outcome = command("train.py", *TINY, "training=standard", sgd, "~recipe.optimizer.eps", f"output_dir={tmp_path}")
    assert outcome.status == 0, outcome.err
    (written,) = tmp_path.rglob("config.yaml")
    assert OmegaConf.load(written).recipe.optimizer.keys() == {"_target_", "_partial_", "momentum"}


@pytest.mark.parametrize(
    ("script", "typed", "said"),
    [
        (
            "scripts/training_curves.py",
            ["report.methods.trainings=[nan]"],
            "training=nan; expected names, such as wide",
        ),
        ("scripts/export.py", ["++seeds=-inf"], "seeds=-inf; expected a whole number of at least 1"),
        (
            "train.py",
            ["dataset.pgd.step_size.l2=[1,2]", "++dataset.pgd.step_size.l2.extra=text"],
            "++dataset.pgd.step_size.l2.extra=text: ",
        ),
        ("scripts/export.py", ["~evaluation.seed"], "evaluation.seed"),
        (
            "scripts/import_network.py",
            ["~recipe.attack.step_size.l2", "report=base", "training=standard", "weights=x"],
            "Could not override 'report'",
        ),
    ],
)
def test_what_random_overrides_found(command: Run, tmp_path: Path, script: str, typed: list[str], said: str) -> None:
    assert refused(command(script, *typed, f"output_dir={tmp_path}"), said)


def test_only_the_first_process_speaks_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun ends the others once it has left, so they wait."""
    waited: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    handlers = {each: signal.getsignal(each) for each in STOPS}
    try:
        for rank, expected in (("0", []), ("1", [5])):
            monkeypatch.setenv("RANK", rank)
            with pytest.raises(SystemExit):
                cli._leave("wrong")
            assert waited == expected
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def test_a_network_may_be_named_by_a_number(command: Run, tmp_path: Path) -> None:
    """As in the command that measures it."""
    assert command("train.py", *TINY, "model.name=18", f"output_dir={tmp_path}").status == 0

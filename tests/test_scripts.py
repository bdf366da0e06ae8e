"""Every script that makes a part of the report, on networks of a second's training."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from command_line import TINY, Run, call, refused

from saddlepoint.files import read_csv, read_json
from saddlepoint.training.trainer import Trainer

# The networks that the tables need, all simple.
NETWORKS = [
    ("simple", "standard", 0),
    ("simple", "standard", 1),
    ("simple", "pgd", 0),
    ("simple", "pgd", 1),
    ("simple", "static", 0),
    ("architecture_b", "standard", 0),
]
SETTINGS = [
    *TINY[:-1],
    "models=[simple]",
    "trainings=[standard,pgd]",
    "evaluation.examples=12",
    *(f"report.{part}.model=simple" for part in ("network", "epsilon", "directions", "angles", "filters")),
    *(f"report.{part}.model=simple" for part in ("diagnostics", "methods")),
    "report.sources.A_prime.model=simple",
    "report.sources.A_nat.model=simple",
    "attacks.square.queries=5",
    "report.at_most.square=6",
    "report.angles.trainings=[standard,pgd]",
    "report.epsilon.linf=[0,2/16]",
    "report.epsilon.l2=[0,1]",
    "report.epsilon.steps=3",
    "report.epsilon.queries=5",
    "report.diagnostics.steps=[2,4]",
    "report.diagnostics.examples=12",
    "report.methods.trainings=[standard,static,pgd]",
    "report.adversaries.A=[natural,fgsm,targeted,square]",
    "report.adversaries.A_prime=[fgsm]",
    "report.white_box=[natural,fgsm,pgd]",
    "report.methods.attacks=[natural,fgsm]",
]
# The tables and figures of each script.
PARTS = {
    "adversaries_table": (["adversaries"], []),
    "transfer_tables": (["transfer_fgsm", "transfer_pgd", "white_box", "transfer_copy"], ["directions", "angles"]),
    "epsilon_curves": (["epsilon_linf", "epsilon_l2"], ["epsilon"]),
    "training_curves": ([], ["training_loss", "robust_overfitting"]),
    "filters": (["filters"], ["filters", "output_layer"]),
    "diagnostics": (["diagnostics"], []),
    "methods_table": (["methods"], []),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The networks, and every script's part of their report; no test changes them."""
    outputs = tmp_path_factory.mktemp("outputs")
    with pytest.MonkeyPatch.context() as patched:
        for model, training, seed in NETWORKS:
            arguments = [f"model={model}", f"training={training}", f"seed={seed}", f"output_dir={outputs}"]
            assert call("train.py", *TINY, *arguments, monkeypatch=patched) == 0
        for script in PARTS:
            assert call(f"scripts/{script}.py", *SETTINGS, f"output_dir={outputs}", monkeypatch=patched) == 0
    return outputs


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def report(outputs: Path, kind: str, name: str) -> Path:
    """The file of the report that was written last."""
    return max(outputs.glob(f"digits/report*/{kind}/{name}"), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("script", PARTS)
def test_scripts_make_their_part_once(script: str, made: Path, copied: Path, command: Run) -> None:
    tables, figures = PARTS[script]
    paths = [report(copied, "tables", f"{name}.json") for name in tables]
    paths += [report(copied, "figures", f"{name}.json") for name in figures]
    before = [path.read_text() for path in paths]
    for path in paths[: len(tables)]:
        records = read_json(path)["records"]
        assert records and not any(record.get("value", 0) is None for record in records)
        for record in records:
            for file in record["files"].split("; "):
                assert (copied / "digits" / file).exists()
    outcome = command(f"scripts/{script}.py", *SETTINGS, f"output_dir={copied}")
    assert (outcome.status, outcome.err) == (0, "")
    assert "measuring" not in outcome.out  # all of it is there
    # But for the folder, which stands in the commands.
    assert [path.read_text().replace(str(copied), str(made)) for path in paths] == before


def test_the_tables_agree_with_each_other(made: Path) -> None:
    """What two tables measure alike is the same number."""

    def values(name: str, *keys: str) -> dict[tuple[str, ...], str]:
        rows = read_csv(report(made, "tables", f"{name}.csv"))
        return {tuple(row[key] for key in keys): row["value"] for row in rows}

    adversaries = values("adversaries", "attack", "source")
    white = values("white_box", "network", "attack")
    for attack in ("natural", "fgsm"):
        assert adversaries[attack, "A"] == white["pgd simple", attack]
    assert adversaries["fgsm", "A_prime"] == values("transfer_fgsm", "target", "source")["pgd simple", "pgd simple"]
    methods = values("methods", "training", "attack")
    assert methods["pgd", "Natural, last"] == white["pgd simple", "natural"]
    assert methods["standard", "FGSM, last"] == white["standard simple", "fgsm"]
    epsilon = values("epsilon_linf", "training", "attack", "eps")
    for attack in ("pgd", "square"):  # no eps is natural
        assert epsilon["pgd", attack, "0"] == white["pgd simple", "natural"]


def test_every_seed_is_measured_but_for_the_source_itself(command: Run, copied: Path) -> None:
    arguments = [*SETTINGS, f"output_dir={copied}", "seeds=2"]
    assert command("scripts/transfer_tables.py", *arguments).status == 0
    white, transfer = (
        read_json(report(copied, "tables", f"{name}.json"))["records"] for name in ("white_box", "transfer_pgd")
    )
    assert {each["seeds"] for each in white} == {2}
    seeds = {(each["target"], each["source"]): each["seeds"] for each in transfer}
    assert seeds["pgd simple", "pgd simple"] == 1  # of the two, one is the source
    assert seeds["pgd simple", "standard simple"] == 2


def test_a_source_is_another_training(command: Run, copied: Path) -> None:
    outcome = command("scripts/transfer_tables.py", *SETTINGS, f"output_dir={copied}", "report.copies.seed=0")
    assert refused(outcome, "seed")


def test_static_needs_its_source(command: Run, tmp_path: Path) -> None:
    outcome = command("train.py", *TINY, "training=static", f"output_dir={tmp_path}")
    assert refused(outcome, "standard")
    assert not list(tmp_path.iterdir())


def test_dropout_resumes_bit_for_bit(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Architecture B draws its dropout from a generator that is saved with the rest."""
    step = Trainer._step

    def dying(self: Trainer) -> None:
        if self.step == 3:  # which is saved
            raise ZeroDivisionError
        step(self)

    arguments = ["train.py", *TINY, "model=architecture_b", "training=standard"]
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Trainer, "_step", dying)
        command(*arguments, f"output_dir={tmp_path}/halves")
    weights = []
    for folder in ("halves", "whole"):
        torch.rand(7)  # whatever ran before in this process
        assert command(*arguments, f"output_dir={tmp_path}/{folder}").status == 0
        weights.append(next((tmp_path / folder).rglob("last.safetensors")).read_bytes())
    assert weights[0] == weights[1]


def test_eps_beyond_half_of_the_pixel_range_is_diagnosed_too(command: Run, tmp_path: Path) -> None:
    arguments = ["threat.eps=10/16", f"output_dir={tmp_path}"]
    assert command("train.py", *TINY, *arguments).status == 0
    outcome = command("scripts/diagnostics.py", *SETTINGS, *arguments, "trainings=[pgd]")
    assert outcome.status == 0, outcome.err
    records = read_json(report(tmp_path, "tables", "diagnostics.json"))["records"]
    (larger,) = (record["numbers"] for record in records if record["name"] == "larger eps")
    assert re.findall(r"eps ([\d.]+)", larger) == ["0.3125", "0.625", "0.9375"]  # and not twice 10/16
    again = ["report.diagnostics.examples=null", "evaluation.examples=6", "attacks.pgd_x20.restarts=3"]
    outcome = command("scripts/diagnostics.py", *SETTINGS, *arguments, "trainings=[pgd]", *again)
    assert outcome.status == 0, outcome.err
    table = read_json(report(tmp_path, "tables", "diagnostics.json"))
    assert "first 6 test images" in table["notes"][0]
    (restarts,) = (record["numbers"] for record in table["records"] if record["name"] == "more restarts")
    assert re.findall(r"restarts (\d+)", restarts) == ["1", "3"]
    outcome = command("scripts/diagnostics.py", *SETTINGS, *arguments, "attacks.pgd_x20.restarts=1")
    assert refused(outcome, "restarts=1")

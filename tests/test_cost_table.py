from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import Outcome, load_script

from saddlepoint.errors import InputError
from saddlepoint.files import read_json

Calls = list[tuple[list[str], int]]
SETTINGS = ["recipe=fast", "models=[simple]", "trainings=[standard,pgd]", "report.cost.seconds=4", "logger=wandb"]


@pytest.fixture
def table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Outcome, Calls]]:
    """Runs the script with trainings that start in half a second and take, by recipe, 0.01 or 0.1 s a step."""
    calls: Calls = []

    def few_steps(arguments: list[str], steps: int, pace: float = 1.0) -> tuple[float, dict[str, Any]]:
        calls.append((arguments, steps))
        seconds = 0.5 + pace * steps * (0.1 if "recipe=paper" in arguments else 0.01)
        made = {"device": "CPU", "torch": "2", "precision": "float32", "batch_size": 50}
        return seconds, {**made, "peak_memory_mib": 100 + steps}

    def run(*arguments: str, pace: float = 1.0) -> tuple[Outcome, Calls]:
        def loaded(path: str) -> Any:
            script = load_script(path)
            monkeypatch.setattr(script, "few_steps", lambda given, steps: few_steps(given, steps, pace))
            return script

        monkeypatch.setattr(command_line, "load_script", loaded)
        command = ["scripts/cost_table.py", *SETTINGS, f"output_dir={tmp_path}", *arguments]
        return command_line.run(*command, capsys=capsys, monkeypatch=monkeypatch), calls

    return run


def test_costs_are_worked_out_from_the_steps_after_the_first(
    table: Callable[..., tuple[Outcome, Calls]], tmp_path: Path
) -> None:
    outcome, calls = table()
    assert outcome.err == "" and outcome.status == 0
    records = read_json(*tmp_path.glob("digits/report-fast*/tables/cost-cpu.json"))["records"]
    assert [(each["training"], each["recipe"]) for each in records] == [
        *[("standard", "fast"), ("standard", "paper")],
        *[("pgd", "fast"), ("pgd", "paper")],
    ]
    fast, paper = records[2:]
    # digits: 1,100 images are 22 batches of 50; the paper's schedule in small is 1,500 steps.
    assert paper["steps_timed"] == 48  # 1 and 20 took less than 4 s
    assert paper["images_per_second"] == pytest.approx(500)
    assert paper["minutes_per_epoch"] == pytest.approx(22 * 0.1 / 60)
    assert paper["epochs"] == pytest.approx(1500 / 22)
    assert paper["hours"] == pytest.approx(150 / 3600)
    assert paper["peak_memory_mib"] == 149  # the longest training's
    assert fast["images_per_second"] == pytest.approx(5000)
    assert paper["times_the_first_recipe"] == pytest.approx(paper["hours"] / fast["hours"])
    assert calls[-1] == (["model=simple", "training=pgd", "recipe=paper"], 49)


def test_what_is_typed_changes_ones_own_recipe_only(
    table: Callable[..., tuple[Outcome, Calls]], tmp_path: Path
) -> None:
    _, calls = table("recipe.steps=5", "recipe.epochs=null", "threat.eps=1/16")
    given = [["threat.eps=1/16"], ["recipe.steps=5", "recipe.epochs=null", "threat.eps=1/16"]]
    firsts = [arguments[:-3] for arguments, steps in calls if steps == 1]
    assert firsts == [given[1], given[0]] * 2
    assert [steps for _, steps in calls[:3]] == [1, 2, 6]  # four seconds would take more, but a training has five steps
    (path,) = tmp_path.glob("digits/*/tables/cost-cpu.json")
    assert read_json(path)["records"][0]["epochs"] == pytest.approx(5 / 22)


def test_one_recipe_stands_alone(table: Callable[..., tuple[Outcome, Calls]], tmp_path: Path) -> None:
    outcome, _ = table("recipe=paper", "trainings=[pgd]")
    assert outcome.status == 0
    (row,) = read_json(*tmp_path.glob("digits/report*/tables/cost-cpu.json"))["rows"]
    assert row == ["PGD simple, paper", "float32", "500.0", "0.04", "68.2", "0.042", "", "149"]


def test_noise_is_no_result(table: Callable[..., tuple[Outcome, Calls]], tmp_path: Path) -> None:
    outcome, _ = table(pace=0.0)
    assert outcome.status == 2 and "took no time compared with a training's start" in outcome.err
    assert not list(tmp_path.iterdir())


def test_training_on_examples_made_once_has_no_row(table: Callable[..., tuple[Outcome, Calls]]) -> None:
    outcome, calls = table("trainings=[standard,static]")
    assert outcome.status == 2 and not calls
    assert "training=static learns as standard does, on examples made once; leave it out" in outcome.err


def test_nothing_chosen_is_refused(table: Callable[..., tuple[Outcome, Calls]]) -> None:
    outcome, calls = table("trainings=[]")
    assert outcome.err == "error: models=['simple'] trainings=[]; expected at least one of each\n" and not calls


def test_few_steps_of_a_real_training() -> None:
    script = load_script("scripts/cost_table.py")
    seconds, summary = script.few_steps(["model=simple", "training=standard", "recipe=paper"], 2)
    assert summary["steps"] == 2 and summary["batch_size"] == 50 and summary["peak_memory_mib"] > 50
    assert 0 < seconds < 60
    with pytest.raises(InputError, match="unknown model 'narrow'"):
        script.few_steps(["model=narrow"], 1)


def test_cost_table_puts_a_second_recipe_beside_the_first() -> None:
    script = load_script("scripts/cost_table.py")

    def cost(training: str, recipe: str, hours: float) -> Any:
        return script.Cost(
            dataset="cifar10",
            training=training,
            model="wide",
            recipe=recipe,
            device="CPU",
            torch="2",
            precision="bfloat16",
            batch_size=128,
            epochs=208.98,
            images_per_second=1234.56,
            minutes_per_epoch=0.66,
            hours=hours,
            peak_memory_mib=2031,
            steps_timed=int(hours),
            command="c",
        )

    found = [cost("standard", "fast", 2), cost("standard", "paper", 5), cost("pgd", "fast", 4), cost("pgd", "paper", 6)]
    made = script.table(found, dataset="cifar10")
    assert made.rows[0] == ["Standard wide, fast", "bfloat16", "1,234.6", "0.66", "209.0", "2.00", "", "2,031"]
    assert [row[6] for row in made.rows] == ["", "2.5x", "", "1.5x"]
    assert made.header[6] == "Against fast"
    assert made.at == [(row, 5) for row in range(4)]
    assert made.records[1] == {**dataclasses.asdict(found[1]), "times_the_first_recipe": 2.5}
    assert "Timed over 2 to 6 steps" in made.notes[0]

from __future__ import annotations

from pathlib import Path
from typing import Any

from saddlepoint.compose import compose, differences, for_training, shortened, spelled


def test_a_long_name_ends_in_a_digest_of_it() -> None:
    names = [shortened("simple-pgd" + "".join(f",recipe.{letter}={end}" for letter in "abcdefghij")) for end in (1, 2)]
    assert all(len(name) <= 80 and name.startswith("simple-pgd,recipe.a=") for name in names)
    assert names[0] != names[1]
    assert shortened("simple-pgd,threat.eps=0.2") == "simple-pgd,threat.eps=0.2"


def test_values_are_spelled_so_that_a_folder_can_have_the_name() -> None:
    differing = {"models": ["simple", "wide"], "~a.b": None, "c": 0.5, "d": "x/y z", "e": None, "f": 20}
    assert spelled(differing) == ",models=simple+wide,~a.b,c=0.5,d=x_y_z,e=null,f=20"


def test_scripts_pass_on_what_a_training_knows() -> None:
    known = [
        "dataset=mnist",
        "threat=l2",
        "+monitor.batch_size=5",
        "~attack.loss",
        "recipe.steps=3",
        "experiment=table1",
    ]
    others = ["models=[wide]", "evaluation.seed=1", "report.methods.model=simple", "seeds=2", "attacks.pgd.steps=3"]
    assert for_training([*others, *known]) == known


def test_only_differences_of_an_evaluation_are_told(tmp_path: Path) -> None:
    def told(*overrides: str) -> dict[str, Any]:
        return differences(compose("evaluate", overrides))

    assert told("dataset=mnist", "recipe=fast", "experiment=table1", "output_dir=x") == {}
    assert told("evaluation.seed=0", "models=[simple,wide]") == {}  # as it is anyway
    assert told("evaluation.seed=1", "models=[simple]") == {"evaluation.seed": 1, "models": ["simple"]}
    assert told("attacks.pgd.steps=100") == {"attacks.pgd.steps": 100}

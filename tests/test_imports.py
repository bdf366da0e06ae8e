"""Which module may know which: read from the source, and once by importing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import saddlepoint

ROOT = Path(saddlepoint.__file__).parent
NAMES = {
    ".".join(["saddlepoint", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


def imports(name: str, top_level_only: bool = False) -> set[str]:
    """All modules that a module names in imports, each with the packages above it."""
    tree = ast.parse(NAMES[name].read_text())
    named: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            named |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {".".join(parts[: end + 1]) for parts in (each.split(".") for each in named) for end in range(len(parts))}


def reached(name: str) -> set[str]:
    """All modules that importing this one imports, through the package's own."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for each in imports(waiting.pop(), top_level_only=True) - found:
            found.add(each)
            if each in NAMES:
                waiting.append(each)
    return found


def users(*libraries: str) -> set[str]:
    return {name for name in NAMES if imports(name) & set(libraries)}


def test_the_graph_is_read_right() -> None:
    assert {"saddlepoint.attacks", "torch", "torch.nn"} <= imports("saddlepoint.training.objectives")
    assert "fractions" in reached("saddlepoint.training.trainer")
    assert len(NAMES) >= 20


def test_only_tracking_imports_wandb() -> None:
    assert users("wandb") == {"saddlepoint.tracking"}


def test_few_know_hydra() -> None:
    few = ("saddlepoint.build", "saddlepoint.compose", "saddlepoint.runs", "saddlepoint.lab", "saddlepoint.cli")
    assert all(name.startswith(few) for name in users("hydra", "omegaconf"))


def test_only_runtime_imports_torch_distributed() -> None:
    assert users("torch.distributed") <= {"saddlepoint.runtime"}


@pytest.mark.parametrize(
    "name",
    [
        "saddlepoint.files",
        "saddlepoint.measure.result",
        "saddlepoint.measure.store",
        *(name for name in NAMES if name.startswith("saddlepoint.show")),
    ],
)
def test_what_is_stored_and_shown_needs_neither_torch_nor_hydra(name: str) -> None:
    assert not {"torch", "torchvision", "hydra", "omegaconf", "wandb"} & reached(name)


COMPOSED = ["build", "compose", "runs", "lab"]  # what knows configs


@pytest.mark.parametrize(
    ("lower", "uppers"),
    [
        ("saddlepoint.threat", ["attacks", "models", "data", "measure", "training", "runtime"]),
        ("saddlepoint.losses", ["attacks", "models", "data", "measure", "training", "runtime"]),
        (
            "saddlepoint.attacks",
            ["models", "data", "measure", "training", "runtime", *COMPOSED],
        ),
        ("saddlepoint.models", ["attacks", "data", "measure", "training", "threat", *COMPOSED]),
        ("saddlepoint.data", ["attacks", "models", "measure", "training", "threat", *COMPOSED]),
        ("saddlepoint.training.objectives", ["measure", "data", *COMPOSED, "tracking"]),
        ("saddlepoint.measure.accuracy", ["training", "models", *COMPOSED, "tracking"]),
        ("saddlepoint.training.trainer", [*COMPOSED, "cli", "show", "models", "paper"]),
        ("saddlepoint.compose", ["build", "runs", "lab", "cli", "training", "attacks", "runtime", "paper"]),
        ("saddlepoint.build", ["compose", "runs", "lab", "cli", "paper"]),
        ("saddlepoint.lab", ["paper", "cli"]),
        ("saddlepoint.show.page", ["paper", "lab", "build", "compose", "runs", "measure", "training"]),
        ("saddlepoint.paper.item", ["cli"]),
    ],
)
def test_imports_run_one_way(lower: str, uppers: list[str]) -> None:
    package = lower.rpartition(".")[0]  # a package's own __init__ may gather what lies above
    found = {name for name in reached(lower) if name.startswith("saddlepoint.") and name != package}
    assert not [name for name in found for upper in uppers if name.startswith(f"saddlepoint.{upper}")]


def test_items_name_neither_torch_nor_hydra() -> None:
    assert not {name for name in users("torch", "hydra", "omegaconf") if name.startswith("saddlepoint.paper")}


def test_a_page_is_made_without_torch_and_matplotlib() -> None:
    program = (
        "import sys, saddlepoint.show.page, saddlepoint.show.charts, saddlepoint.measure.store\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'wandb', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""The pages say what the evidence says; their commands and examples work, and their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import ROOT, load_script
from hydra import compose, initialize_config_dir

from saddlepoint.compose import CONFIGS

UPDATE = load_script("scripts/dev/update_readme.py")
PAGES = {page: (ROOT / page).read_text() for page in UPDATE.PAGES}
BLOCKS = "\n".join(re.findall(r"```\w*\n(.*?)```", "\n".join(PAGES.values()), re.S))
# Each once, in the order of the pages, the README's first.
COMMANDS = list(dict.fromkeys(re.findall(r"^((?:python|make|wandb|torchrun) [^#\n]*?)\s*(?:#.*)?$", BLOCKS, re.M)))


@pytest.mark.parametrize("page", PAGES)
def test_numbers_are_those_of_the_evidence(page: str) -> None:
    assert UPDATE.updated(PAGES[page], ROOT / "outputs" / "reference") == PAGES[page]


def test_the_readme_has_the_main_table_and_the_docs_the_others() -> None:
    assert len(UPDATE.RESULTS.findall(PAGES["README.md"])) == 1
    assert UPDATE.TABLE.findall(PAGES["docs/results.md"])
    assert UPDATE.TABLE.findall(PAGES["docs/speed.md"])


def test_a_changed_table_would_be_noticed(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text("new")
    shown = UPDATE.updated("<!-- table: t.md -->\nold\n<!-- end -->", tmp_path)
    assert shown == "<!-- table: t.md -->\n\nnew\n<!-- end -->"


def test_the_main_table_is_computed_from_the_records(tmp_path: Path) -> None:
    shared = {"source": "A", "low": 1.04, "high": 99.06, "examples": 10_000}
    for row in UPDATE.ROWS:
        path = tmp_path / row.table
        records = json.loads(path.read_text())["records"] if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        records.append({**shared, **row.record, "value": 50.26 + len(records), "paper": 50})
        path.write_text(json.dumps({"records": records}))
    mnist, cifar10 = (tmp_path / row.table for row in (UPDATE.ROWS[0], UPDATE.ROWS[-1]))
    for path, changed in (
        (mnist, {"paper": None, "examples": 1000}),
        (cifar10, {"value": None, "low": None, "high": None, "examples": None}),
    ):
        records = json.loads(path.read_text())["records"]
        records[-1] |= changed
        path.write_text(json.dumps({"records": records}))
    shown = UPDATE.updated("<!-- results -->\nold\n<!-- end -->", tmp_path).splitlines()
    assert shown[4:] == [
        "| MNIST wide | none | 50.3 (1.0–99.1) | 50.0 | +0.3 |",
        "| MNIST wide | FGSM | 51.3 (1.0–99.1) | 50.0 | +1.3 |",
        "| MNIST wide | PGD, 40 steps | 52.3 (1.0–99.1) | 50.0 | +2.3 |",
        "| MNIST wide | PGD, 100 steps, 20 restarts | 53.3 (1.0–99.1) | 50.0 | +3.3 |",
        "| MNIST wide | AutoAttack (first 1,000 images) | 54.3 (1.0–99.1) |  |  |",
        "| CIFAR10 simple | none | 50.3 (1.0–99.1) | 50.0 | +0.3 |",
        "| CIFAR10 simple | FGSM | 51.3 (1.0–99.1) | 50.0 | +1.3 |",
        "| CIFAR10 simple | PGD, 20 steps | 52.3 (1.0–99.1) | 50.0 | +2.3 |",
        "| CIFAR10 wide | none | 53.3 (1.0–99.1) | 50.0 | +3.3 |",
        "| CIFAR10 wide | FGSM | 54.3 (1.0–99.1) | 50.0 | +4.3 |",
        "| CIFAR10 wide | PGD, 20 steps | 55.3 (1.0–99.1) | 50.0 | +5.3 |",
        "| CIFAR10 wide | targeted APGD | not trained yet | 50.0 |  |",
        "",
        "<!-- end -->",
    ]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python")])
def test_python_commands_compose(command: str) -> None:
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).exists()
    entry = re.search(r'@entry\("(\w+)"\)', (ROOT / script).read_text())
    if not entry:
        return
    settings = [a for a in arguments if "=" in a and not a.startswith(("-", "hydra"))]  # launchers are extras
    first = [re.sub(r"=range\(.*\)|=([^\[{,]*),[^\]]*$", lambda m: f"={m[1] or 0}", a) for a in settings]  # of a sweep
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        compose(entry[1], first)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(command: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    words = [word for word in shlex.split(command)[1:] if "=" not in word]
    assert words and set(words) <= targets


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (example,) = re.findall(r"```python\n(.*?)```", PAGES["README.md"], re.S)
    x, y = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    names: dict[str, Any] = {"x": x, "y": y}
    exec(example, names)
    assert 0 < (names["x_adv"] - x).abs().amax() <= 0.3 + 1e-6
    assert sum(each.numel() for each in names["model"].parameters()) == 3_274_634  # paper's capacity 16


PATHS = re.findall(r"`((?:src|configs|scripts|tests|notebooks|outputs/reference)/[\w/.-]*)`", "\n".join(PAGES.values()))


@pytest.mark.parametrize("path", sorted(set(PATHS)))
def test_paths_exist(path: str) -> None:
    assert (ROOT / path).exists()


def anchors(text: str) -> set[str]:
    """The fragments that GitHub gives to the headings of a page."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)", text, re.M)
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), link

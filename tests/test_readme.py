"""The README says what the evidence says; its commands and the guide's exist, and their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import ROOT, load_script
from hydra import compose, initialize_config_dir

from saddlepoint.config import CONFIGS

README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs" / "guide.md").read_text()
BLOCKS = "\n".join(re.findall(r"```\w*\n(.*?)```", README + GUIDE, re.S))
COMMANDS = re.findall(r"^((?:python|make|wandb|torchrun) [^#\n]*?)\s*(?:#.*)?$", BLOCKS, re.M)


def test_tables_are_those_of_the_evidence() -> None:
    update = load_script("scripts/dev/update_readme.py")
    assert update.MARKED.search(README)
    assert update.updated(README, ROOT / "outputs" / "reference") == README


def test_a_changed_result_would_be_noticed(tmp_path: Path) -> None:
    update = load_script("scripts/dev/update_readme.py")
    (tmp_path / "t.md").write_text("new")
    shown = update.updated("<!-- table: t.md -->\nold\n<!-- end -->", tmp_path)
    assert shown == "<!-- table: t.md -->\n\nnew\n<!-- end -->"


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python")])
def test_python_commands_compose(command: str) -> None:
    _, script, *arguments = shlex.split(command)
    assert (ROOT / script).exists()
    entry = re.search(r'@entry\("(\w+)"\)', (ROOT / script).read_text())
    if not entry:
        return
    settings = [a for a in arguments if "=" in a and not a.startswith(("-", "hydra"))]  # launchers are extras
    first = [re.sub(r"=range\(.*\)|=([^\[,]*),[^\]]*$", lambda m: f"={m[1] or 0}", a) for a in settings]  # of a sweep
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        compose(entry[1], first)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_make_targets_exist(command: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    words = [word for word in shlex.split(command)[1:] if "=" not in word]
    assert words and set(words) <= targets


@pytest.mark.parametrize(
    "path", re.findall(r"`((?:src|configs|scripts|tests|outputs/reference)/[\w/.-]*)`", README + GUIDE)
)
def test_paths_exist(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        if not link.startswith("https://"):
            assert not path or ((ROOT / page).parent / path).exists(), link
            headings = re.findall(r"^##+ (.*)", text, re.M)
            assert not anchor or anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]

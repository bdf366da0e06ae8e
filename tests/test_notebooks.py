"""The notebooks run from the first cell to the last, as `jupyter` would run them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from command_line import ROOT
from nbclient import NotebookClient

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run(name: str, folder: Path) -> list[Any]:
    """The outputs of all cells, in order."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def kinds(outputs: list[Any], kind: str) -> list[str]:
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def text(outputs: list[Any]) -> str:
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]


def test_the_walkthrough() -> None:
    outputs = run("attack_walkthrough.ipynb", ROOT)
    printed = text(outputs)  # the notebook itself asserts that its hand-made attacks are the package's
    table = {line[:18].strip(): line[18:].split() for line in printed.splitlines() if "training  " in line}
    accuracies = {name: [float(value.rstrip("%")) for value in values] for name, values in table.items()}
    assert list(accuracies) == ["natural training", "FGSM training", "PGD training"]
    natural, fgsm, pgd = accuracies.values()
    assert natural[0] > 90 and natural[2] < 5
    assert fgsm[1] > 2 * fgsm[2]
    assert pgd[2] > fgsm[2] and pgd[0] < natural[0]
    assert kinds(outputs, "image/png")


def test_results_of_the_committed_evidence(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "reference").symlink_to(ROOT / "outputs" / "reference")
    outputs = run("results.ipynb", tmp_path)
    name = "cifar10/report-fast,evaluation.precision=bfloat16"
    listed = text(outputs).splitlines()
    assert listed[0] == f"0 outputs/reference/{name}"
    assert f"{len(listed) - 1} outputs/reference/mnist/report-fast" in listed
    assert any(line.endswith("outputs/reference/log-odds/mnist/report-fast") for line in listed)
    tables = [shown for shown in kinds(outputs, "text/markdown") if "| --- |" in shown]
    folder = ROOT / "outputs" / "reference" / name
    assert tables == [path.read_text() for path in sorted((folder / "tables").glob("*.md"))]
    # the accuracies, the trainings, and every figure
    assert len(kinds(outputs, "image/png")) == 2 + len(list((folder / "figures").glob("*.png")))


def test_your_own_results_come_first(tmp_path: Path) -> None:
    source = ROOT / "outputs" / "reference" / "digits" / "report"
    shutil.copytree(source, tmp_path / "outputs" / "mine" / "report-fast")
    shutil.copytree(source, tmp_path / "outputs" / "reference" / "digits" / "report")
    assert text(run("results.ipynb", tmp_path)) == "0 outputs/mine/report-fast\n"

from __future__ import annotations

from pathlib import Path

from saddlepoint.files import read_json
from saddlepoint.show.table import Cell, Table

SMALL = Table(
    "a & b",
    ["Accuracy in %", "x_1"],
    [[Cell("PGD #1"), Cell("46.7 ± 2.1")], [Cell("FGSM"), Cell("1.0 (0.5–2)")]],
    ["100%"],
    [{"value": 1}],
)


def test_markdown() -> None:
    assert SMALL.markdown().split("\n") == [
        "**a & b**",
        "",
        "| Accuracy in % | x_1 |",
        "| --- | --: |",
        "| PGD #1 | 46.7 ± 2.1 |",
        "| FGSM | 1.0 (0.5–2) |",
        "",
        "100%",
        "",
    ]


def test_latex_escapes_its_special_characters() -> None:
    assert SMALL.latex().split("\n") == [
        "% a & b",
        "% 100%",
        r"\begin{tabular}{lr}",
        r"\hline",
        r"Accuracy in \% & x\_1 \\",
        r"\hline",
        r"PGD \#1 & 46.7 $\pm$ 2.1 \\",
        r"FGSM & 1.0 (0.5--2) \\",
        r"\hline",
        r"\end{tabular}",
        "",
    ]


def test_the_terminals_columns_are_aligned() -> None:
    lines = SMALL.text().split("\n")
    assert lines[0] == "a & b" and lines[-1] == "100%"
    assert lines[2:6] == [
        "Accuracy in %          x_1",
        "-" * 26,
        "PGD #1          46.7 ± 2.1",
        "FGSM           1.0 (0.5–2)",
    ]


def test_a_table_reads_back(tmp_path: Path) -> None:
    assert Table.read(read_json(SMALL.write(tmp_path, "small")[3])) == SMALL

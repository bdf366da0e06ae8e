"""A table as text in several formats, and the numbers behind it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from saddlepoint.results import write_atomically, write_csv, write_json

NAMES = {
    "standard": "Standard",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_100": "PGD, 100 steps",
    "pgd_x20": "PGD, 20 restarts",
    "pgd_100_x20": "PGD, 100 steps, 20 restarts",
    "fgsm_rs": "FGSM, random start",
    "pgd_7": "PGD, 7 steps",
    "targeted": "Targeted",
    "autoattack": "AutoAttack",
    "square": "Square (no gradient)",
    "static": "Static",
    "trades": "TRADES",
    "cw": "CW",
    "cw_30": "CW, 30 steps",
    "cw_plus": "CW+",
    "natural": "Natural",
    "train_loss": "Training loss",
}


def published(dataset: str, item: str) -> dict[str, Any] | None:
    """The paper's numbers for one table, or None where it has none."""
    paper = json.loads(files("saddlepoint.report").joinpath("paper.json").read_text())
    entry: dict[str, Any] | None = paper.get(dataset, {}).get(item)
    return entry


@dataclass(frozen=True)
class Cell:
    """A cell's text and what is behind it, as plain values."""

    text: str
    record: dict[str, Any]


Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Text cells under headers, and the same content as plain `records` for the CSV.

    `at` says which cell each record is behind, as (row, column), where there is one: the report page shows it there.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    at: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, title: str, header: list[str], rows: Sequence[Row], notes: list[str]) -> Table:
        """From rows of texts and Cells, whose records are taken in the order of reading."""
        places = [(row, column) for row, cells in enumerate(rows) for column in range(len(cells))]
        at = [(row, column) for row, column in places if isinstance(rows[row][column], Cell)]
        texts = [[cell.text if isinstance(cell, Cell) else cell for cell in cells] for cells in rows]
        records = [cell.record for cells in rows for cell in cells if isinstance(cell, Cell)]
        return cls(title, header, texts, records, notes, at)

    def markdown(self) -> str:
        lines = [self.header, ["---"] + ["--:"] * (len(self.header) - 1), *self.rows]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"**{self.title}**\n\n{body}\n" + "".join(f"\n{note}\n" for note in self.notes)

    def latex(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return " & ".join(_escape(cell) for cell in cells) + r" \\"

        return "\n".join(
            [
                "% " + self.title,
                *("% " + note for note in self.notes),
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\hline",
                line(self.header),
                r"\hline",
                *(line(row) for row in self.rows),
                r"\hline",
                r"\end{tabular}",
                "",
            ]
        )

    def text(self) -> str:
        """For a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in lines) for column in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            first, *others = zip(cells, widths, strict=True)
            return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

        rule = "-" * len(line(self.header))
        return "\n".join([self.title, rule, line(self.header), rule, *map(line, self.rows), rule, *self.notes])

    def write(self, folder: Path, name: str) -> list[Path]:
        """<name>.md, .tex, .csv and .json under `folder`."""
        paths = [folder / f"{name}.{suffix}" for suffix in ("md", "tex", "csv", "json")]
        write_atomically(paths[0], self.markdown().encode())
        write_atomically(paths[1], self.latex().encode())
        write_csv(paths[2], self.records)
        write_json(paths[3], dataclasses.asdict(self))
        return paths


def _escape(text: str) -> str:
    for character in "&%_#":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")

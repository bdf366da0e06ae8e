"""A table as text in several formats, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saddlepoint.files import write_atomically, write_csv, write_json


@dataclass(frozen=True)
class Cell:
    """A cell's text, what it is, and the record behind it, as plain values.

    `kind`: "ours" is measured, "missing" is not measured yet, "beside" is the paper's or the difference from it, under
    ours.
    """

    text: str
    kind: Literal["text", "ours", "missing", "beside"] = "text"
    record: Mapping[str, object] | None = None

    @classmethod
    def of(cls, text: str, record: Mapping[str, object]) -> Cell:
        """One with a record: it is missing where that has a value, and the value is None."""
        return cls(text, "missing" if record.get("value", text) is None else "ours", record)


@dataclass(frozen=True)
class Table:
    """Cells under headers. `others`: records for the exports that are behind no cell."""

    title: str
    header: Sequence[str]
    cells: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    others: Sequence[Mapping[str, object]] = ()

    @property
    def rows(self) -> list[list[str]]:
        """The cells' texts."""
        return [[cell.text for cell in row] for row in self.cells]

    @property
    def records(self) -> list[Mapping[str, object]]:
        """In the order of reading."""
        return [*(cell.record for row in self.cells for cell in row if cell.record is not None), *self.others]

    @property
    def at(self) -> list[tuple[int, int]]:
        """Which cell each record is behind, as (row, column): the report page shows it there."""
        return [
            (row, column)
            for row, cells in enumerate(self.cells)
            for column, cell in enumerate(cells)
            if cell.record is not None
        ]

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
        stored = ("title", "header", "rows", "records", "notes", "at")
        write_json(paths[3], {each: getattr(self, each) for each in stored})
        return paths

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Table:
        """From the JSON. Raises KeyError, TypeError or ValueError if it is no table."""
        at, records = content["at"], content["records"]
        behind = {tuple(place): record for place, record in zip(at, records, strict=bool(at))}
        with_records = {row for row, _ in behind}
        cells = [
            [
                Cell.of(text, behind[row, column])
                if (row, column) in behind
                else Cell(text, "beside" if behind and row not in with_records else "text")
                for column, text in enumerate(map(str, texts))
            ]
            for row, texts in enumerate(content["rows"])
        ]
        return cls(content["title"], list(content["header"]), cells, list(content["notes"]), [] if at else records)


def _escape(text: str) -> str:
    for character in "&%_#":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")

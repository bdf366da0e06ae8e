"""A table of one accuracy for each row and column, which Tables 3 to 5 and the training methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saddlepoint.paper.numbers import Accuracies, Number, origin, published, said_once, spread, threat_of
from saddlepoint.show.names import named
from saddlepoint.show.table import Cell, Table


def grid_table(
    cells: Mapping[tuple[str, str], Accuracies],
    *,
    dataset: str,
    title: str,
    sides: tuple[str, str],
    notes: Sequence[str],
    item: str | None = None,
    intervals: bool = True,
) -> Table:
    """One accuracy for each (row, column), with the paper's `item`: Tables 3 to 5 and those like them.

    Args:
        cells: a result for each seed, for each (row, column) in their order.
        sides: what rows and columns are, such as ("target", "source").
    """
    paper = published(dataset, item)
    numbers = {place: Number(found, paper.cells.get(place)) for place, found in cells.items()}
    lines, columns = (list(dict.fromkeys(place[side] for place in cells)) for side in (0, 1))
    rows = []
    for line in lines:
        row = [Cell(named(line))]
        for column in columns:
            number = numbers[line, column]
            ends = {"dataset": dataset, sides[0]: line, sides[1]: column}
            text = str(number) if number.value is None or intervals else f"{number.value:.1f}"
            text += "" if number.paper is None else f" [{number.paper:g}]"
            row.append(Cell.of(text, {**ends, **number.record(), **origin(number.found)}))
        rows.append(row)
    results = [result for found in cells.values() for result in found]
    names = [named(column) for column in columns]
    if len({result.key.part for result in results}) > 1:
        for index, column in enumerate(columns):
            (part, *_) = {found[0].key.part for (_, each), found in cells.items() if each == column and found} or {None}
            names[index] += f" (first {part})" if part else ""
    notes = [*notes, *([spread(numbers.values())] if intervals else []), *said_once(results)]
    if paper.source:
        notes.append(f"In square brackets, the paper: {paper.source}.")
    header = [f"{sides[0].capitalize()} / {sides[1]}", *names]
    return Table(f"{dataset}{threat_of(results)}: {title}", header, rows, notes)

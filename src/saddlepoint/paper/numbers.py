"""Numbers of networks with the paper's, and what the notes under a table say of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from saddlepoint.measure.result import Accuracy, Found, Result
from saddlepoint.show.names import named
from saddlepoint.show.table import Cell

Accuracies = Sequence[Result[Accuracy]]
Record = dict[str, object]


@dataclass(frozen=True)
class Published:
    """The paper's numbers for one table or figure, by their place such as (training, model, measurement).

    `released` are those of the network that the authors released; `steps` and `losses` are a training's.
    """

    source: str | None = None
    cells: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    released: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    released_source: str | None = None
    steps: Sequence[float] = ()
    losses: Sequence[float] = ()


def published(dataset: str, item: str | None) -> Published:
    """Empty where the paper has no numbers, and for no item."""
    paper: dict[str, Any] = json.loads(files("saddlepoint.paper").joinpath("numbers.json").read_text())
    entry: dict[str, Any] = paper.get(dataset, {}).get(item, {})
    nested = {name: dict(_flat(value)) for name, value in entry.items() if isinstance(value, dict)}
    return Published(**entry | nested)


def _flat(cells: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, value in cells.items():
        if isinstance(value, dict):
            yield from _flat(value, (*above, name))
        else:
            yield (*above, name), value


@dataclass(frozen=True)
class Number:
    """Of one network an accuracy in percent, or the training loss: `found` has a result for each seed.

    `paper` is the paper's number for it.
    """

    found: Accuracies
    paper: float | None = None
    is_loss: bool = False

    @property
    def values(self) -> list[float]:
        """One for each seed; an imported network's loss is not known."""
        if self.is_loss:
            return [result.train_loss for result in self.found if result.train_loss is not None]
        return [100 * result.found.accuracy for result in self.found]

    @property
    def value(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """95%, of one seed's accuracy: over several seeds the spread says more."""
        if self.is_loss or len(self.found) != 1:
            return None, None
        low, high = self.found[0].found.interval
        return round(100 * low, 6), round(100 * high, 6)

    @property
    def difference(self) -> float | None:
        return None if self.value is None or self.paper is None else self.value - self.paper

    @property
    def bar(self) -> tuple[float | None, float | None]:
        """The ends of its error bar: one seed's interval, which a loss has not, or the spread over seeds."""
        if self.value is None or self.sd is None:
            return self.interval
        return self.value - self.sd, self.value + self.sd

    def record(self) -> Record:
        low, high = self.interval
        return {
            "value": self.value,
            "low": low,
            "high": high,
            "sd": self.sd,
            "seeds": len(self.values),
            "examples": self.found[0].key.examples if self.values else None,
            "paper": self.paper,
        }

    def compared(self) -> Record:
        """Its record with the difference."""
        difference = self.difference
        return {**self.record(), "difference": None if difference is None else round(difference, 4)}

    def __str__(self) -> str:
        low, high = self.interval
        if self.value is None:
            return "not run"
        if self.is_loss:
            return f"{self.value:.3g}" + ("" if self.sd is None else f" ± {self.sd:.1g}")
        return f"{self.value:.1f} ({low:.1f}–{high:.1f})" if self.sd is None else f"{self.value:.1f} ± {self.sd:.1f}"

    def beside(self) -> list[Cell]:
        """The paper's number and the difference from it; empty where there is none."""
        theirs = "" if self.paper is None else f"{self.paper:g}"
        if self.difference is None:
            return [Cell(theirs, "beside"), Cell("", "beside")]
        difference = f"{self.difference:+.3g}" if self.is_loss else f"{round(self.difference, 1) + 0.0:+.1f}"
        return [Cell(theirs, "beside"), Cell(difference, "beside")]


def spread(numbers: Iterable[Number]) -> str:
    """For a note: what stands behind the numbers."""
    counts = {len(number.values) for number in numbers} - {0}
    several = sorted(counts - {1})
    if not several:
        return "In brackets: 95% interval."
    over = f"Mean ± standard deviation over {' or '.join(map(str, several))} seeds"
    return f"{over}; of one seed, in brackets, the 95% interval." if 1 in counts else f"{over}."


def network_of(result: Result[Found]) -> str:
    return f"{named(result.run.training)} {result.run.model}"


def row_of(result: Result[Found], dataset: str, numbers: Record, texts: Iterable[str], which: str = "") -> list[Cell]:
    """One network, whose record has these numbers, and the texts of the other cells."""
    run = {"dataset": dataset, "training": result.run.training, "model": result.run.model}
    record = {**run, **numbers, **origin([result])}
    return [Cell.of(network_of(result) + which, record), *map(Cell, texts)]


def threat_of(results: Accuracies) -> str:
    """For a title: norm and eps of the attacks."""
    attack = next((result.key.description for result in results if result.key.description), None)
    return f", {attack['norm']} eps {attack['eps']}" if attack else ""


def origin(results: Sequence[Result[Found]]) -> Record:
    """Where a number can be traced to."""
    return {"command": results[0].command if results else None, "files": "; ".join(result.file for result in results)}


def parts(results: Sequence[Result[Found]]) -> list[str]:
    parts = sorted({(result.key.part, result.key.of) for result in results if result.key.part})
    return [f"Measured on the first {part} of {total} test images only." for part, total in parts]


def said_once(results: Accuracies) -> list[str]:
    """For a table whose rows or columns name their own part where parts differ."""
    differ = len({result.key.part for result in results}) > 1
    first = ['"first n": measured on the first n test images only.'] if differ else parts(results)
    return first + weaknesses(results)


def weaknesses(results: Accuracies) -> list[str]:
    """Why an accuracy may be too high: an attack sees no gradient, its steps are too short, its passes rounded."""
    blind: dict[str, float] = {}  # of several seeds the largest share
    short: dict[str, str] = {}
    rounded: dict[str, None] = {}
    for result in results:
        attack, share = result.key.description, result.found.no_gradient or 0
        name = named(result.key.measurement)
        if share > 0.01:
            where = f"{name} of {network_of(result)}"
            blind[where] = max(share, blind.get(where, 0))
        if "reach" in attack:
            short[name] = f"{attack['reach']} of eps {attack['eps']}"
        if "precision" in attack:
            rounded[f"{name} ({attack['precision']})"] = None
    notes = [f"{share:.1%} of images ({where})" for where, share in blind.items()]
    notes = [f"No gradient at the start, so that the accuracy may be too high: {', '.join(notes)}."] if notes else []
    steps = [f"{reach} ({name})" for name, reach in short.items()]
    notes += [f"The steps together are shorter than the threat: {', '.join(steps)}."] if steps else []
    made = f"Made in a lower precision, classified in float32: {', '.join(rounded)}."
    return notes + ([made] if rounded else [])

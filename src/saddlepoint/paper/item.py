"""An item of the paper: what has to be measured for it, how that is shown, and where it is on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saddlepoint.attacks import Attack
from saddlepoint.errors import InputError
from saddlepoint.files import read_csv
from saddlepoint.lab import Lab, Measurement, Network
from saddlepoint.measure.result import Accuracy, Result
from saddlepoint.measure.subject import Subject
from saddlepoint.show.charts import Chart
from saddlepoint.show.page import Section
from saddlepoint.show.table import Table

Shown = Iterator[tuple[str, Table | Chart]]  # with the names of their files
History = Sequence[Mapping[str, str]]  # rows of history.csv


@dataclass(frozen=True)
class Item:
    """One item of the paper, or one that belongs with it.

    Args:
        name: what `items=[...]` calls it.
        sections: of the page, in its order.
        needs: what has to be measured, for each place in its tables and figures. It measures nothing.
        show: the tables and figures, from what was measured for each place. A network that is not trained has no
            result.
        script: the script in scripts/ that makes it; for "" reproduce.py does.
    """

    name: str
    sections: tuple[Section, ...]
    needs: Callable[[Lab], Mapping[Any, Sequence[Measurement[Any]]]]
    show: Callable[[Mapping[Any, list[Any]], Lab], Shown]
    script: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The script that makes it, and what to tell it."""
        return (self.script,) if self.script else ("reproduce", f"items=[{self.name}]")

    def networks(self, lab: Lab) -> list[Network]:
        """Those it is made of, each once."""
        needed = [each for measurements in self.needs(lab).values() for each in measurements]
        return list(dict.fromkeys(network for each in needed for network in (each.network, each.source) if network))

    def made(self, folder: Path) -> bool:
        """Whether a report's folder has all of it."""
        return all((folder / f"{part}.json").exists() for section in self.sections for part in section.parts)


def over_seeds(lab: Lab, model: str, training: str) -> list[Network]:
    """The network with each of the seeds."""
    return [(model, training, seed) for seed in range(lab.cfg.seeds)]


def accuracy_of(
    lab: Lab,
    network: Network,
    name: str,
    *,
    attack: Attack | None = None,
    source: Network | None = None,
    checkpoint: str | None = None,
    examples: int | None = None,
) -> Measurement[Result[Accuracy]]:
    """The accuracy under an attack, one of `attacks` unless it is given, on examples made on the `source`, if any.

    The slowest attacks see only the first `report.at_most` images. Raises InputError for an unknown attack.
    """
    attack = attack or lab.attack(name)

    def make(lab: Lab, subject: Subject, other: Subject | None) -> Result[Accuracy]:
        return lab.accuracy(subject, name, attack, other, examples)

    return Measurement(network, make, source, checkpoint)


def against(
    lab: Lab, networks: Sequence[Network], attack: str, source: Network | None, examples: int | None = None
) -> list[Measurement[Result[Accuracy]]]:
    """The accuracy of each on examples made on the source, or on itself for None. A network that is it is left out.

    Raises InputError if there is no other.
    """
    others = [network for network in networks if network != source]
    if networks and not others:
        path = lab.run(*networks[0]).directory.path
        raise InputError(f"{path} is no independent source for itself; choose another seed for it")
    return [accuracy_of(lab, network, attack, source=source, examples=examples) for network in others]


def history(network: Network) -> Measurement[History]:
    """What a training noted; nothing of an imported network."""

    def make(lab: Lab, subject: Subject, _: Subject | None) -> History:
        path = subject.directory.history
        if not path.exists():
            return []
        rows = read_csv(path)
        try:
            numbers = [float(value) for row in rows for value in row.values() if value != ""]
        except (TypeError, ValueError):
            numbers = []
        if not numbers:
            raise InputError(f"{path} is damaged; restore it, or train again with overwrite=true")
        return rows

    return Measurement(network, make)


def column(history: History, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in history])

"""An item of the paper: the networks it needs, how it is made, and how the page shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saddlepoint.lab import Lab, Network, Settings, listed
from saddlepoint.report.folder import Report
from saddlepoint.report.page import Section


@dataclass(frozen=True)
class Item:
    """One item of the paper, or one that belongs with it.

    Args:
        name: what `items=[...]` calls it.
        sections: of the page, in its order.
        networks: the networks it is made of, from the settings.
        make: measures what is missing and writes the tables and figures.
        script: the script in scripts/ that makes it; for "" reproduce.py does.
    """

    name: str
    sections: tuple[Section, ...]
    networks: Callable[[Settings], list[Network]]
    make: Callable[[Lab, Report], None]
    script: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The script that makes it, and what to tell it."""
        return (self.script,) if self.script else ("reproduce", f"items=[{self.name}]")

    def made(self, folder: Path) -> bool:
        """Whether a report's folder has all of it."""
        return all((folder / f"{part}.json").exists() for section in self.sections for part in section.parts)


def grid(models: Sequence[str], trainings: Sequence[str], seeds: Iterable[int] = (0,)) -> list[Network]:
    """Every combination, model by model. Raises InputError for a text in place of a list."""
    seeds = list(seeds)
    listed("models", models)
    listed("trainings", trainings)
    return [(model, training, seed) for model in models for training in trainings for seed in seeds]

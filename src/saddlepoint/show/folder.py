"""A report's folder as the scripts fill it."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from saddlepoint.files import write_json
from saddlepoint.show.table import Table

if TYPE_CHECKING:
    from saddlepoint.show.charts import Chart
    from saddlepoint.tracking import Tracker

log = logging.getLogger(__name__)


class Report:
    """tables/ and figures/ under `path`; at the end the figures are shown in the tracker.

    Args:
        command: makes the same again.
        config: for the tracker.
        overrides: the settings, which report.json keeps: the page's commands are made from them.
    """

    def __init__(
        self, path: Path, command: str, tracker: Tracker, config: dict[str, Any], overrides: Sequence[str]
    ) -> None:
        self.path, self.command, self.tracker, self.config = path, command, tracker, config
        self.overrides = overrides
        self.tables: list[Table] = []
        self.written: list[Path] = []

    def add(self, name: str, shown: Table | Chart) -> None:
        """Write a table or a figure."""
        if isinstance(shown, Table):
            self.written += shown.write(self.path / "tables", name)
            self.tables.append(shown)
        else:
            self.written += shown.write(self.path / "figures", name, self.command)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self.written:
            return
        write_json(self.path / "report.json", {"overrides": list(self.overrides)})
        pictures = [path for path in self.written if path.suffix == ".png"]
        if pictures:
            self.tracker.start(self.path, self.config, job="report")
            for path in pictures:
                self.tracker.images(0, path.stem, partial(_picture, path))
            self.tracker.finish({})

    def show(self) -> None:
        """Print the tables."""
        for table in self.tables:
            log.info("\n%s", table.text())

    def tell(self) -> None:
        """Print the tables, and what was written."""
        self.show()
        if self.written:
            log.info("\nwrote %s", ", ".join(map(str, self.written)))
            log.info("everything on one page: python scripts/report.py %s", shlex.quote(str(self.path)))


def _picture(path: Path) -> tuple[np.ndarray, list[str]]:
    from matplotlib.image import imread  # here alone: most runs have no tracker

    return imread(path)[None], [path.stem]

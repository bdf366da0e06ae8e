"""Loss curves, a row of panels for each training method: Figures 1 and 7, and the segments between maxima."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from saddlepoint.show.charts import Panel, Series
from saddlepoint.show.names import colour, title

Lines = Mapping[tuple[str, str], np.ndarray]  # (name, colour) -> (examples, lines, points)


def alone(losses: Mapping[str, np.ndarray]) -> dict[str, Lines]:
    """Of each training method, lines of one kind, in its colour."""
    return {training: {(title(training), colour(training)): lines} for training, lines in losses.items()}


def by_image(losses: Mapping[str, Lines], x: np.ndarray, label: str) -> list[list[Panel]]:
    """Lines against x: a row of panels for each training method, a column for each test image."""
    return [
        [
            Panel(
                [Series(name, x, line, shade) for (name, shade), lines in kinds.items() for line in lines[example]],
                title=f"test image {example}" if row == 0 else "",
                x=label if row == len(losses) - 1 else "",
                y=f"{title(training)}\nloss" if example == 0 else "",
                from_zero=True,
            )
            for example in range(len(next(iter(kinds.values()))))
        ]
        for row, (training, kinds) in enumerate(losses.items())
    ]

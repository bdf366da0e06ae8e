"""One description of a figure: matplotlib draws it for print (pdf, png), the report page for the screen (json)."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saddlepoint.files import write_atomically

# matplotlib is imported where something is drawn: a command that finds its figures drawn starts sooner.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,
}

Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one kind, in a colour such as "#c8352c". Series of the same name share one entry of the legend.

    `kind` "bars" reads x as the edges of the bars, one more than y. `low` and `high` are the ends of the error bars,
    None where a point has none.
    """

    name: str
    x: Numbers
    y: Numbers
    colour: str
    kind: Literal["line", "dashed", "points", "bars"] = "line"
    low: Sequence[float | None] | np.ndarray | None = None
    high: Sequence[float | None] | np.ndarray | None = None


@dataclass(frozen=True)
class Image:
    """Pixels (h, w) or (h, w, 3); shown from `low` to `high`, with a colour bar where `signed`."""

    pixels: np.ndarray
    low: float = 0.0
    high: float = 1.0
    signed: bool = False


@dataclass(frozen=True)
class Panel:
    """Axes with series, or one image."""

    series: Sequence[Series] = ()
    title: str = ""
    x: str = ""
    y: str = ""
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = False
    image: Image | None = None


@dataclass(frozen=True)
class Chart:
    """Rows of panels. `share`: every panel has the same axes. `caption` says what is seen and which figure it is."""

    title: str
    rows: Sequence[Sequence[Panel]]
    share: bool = False
    caption: str = ""
    size: tuple[float, float] = (1.9, 1.9)  # of a panel, inches

    def draw(self) -> Figure:
        """With matplotlib."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        columns = max(len(row) for row in self.rows)
        width, height = self.size
        with plt.rc_context(STYLE):
            figure, axes = plt.subplots(
                len(self.rows),
                columns,
                figsize=(width * columns, height * len(self.rows) + 0.6),
                squeeze=False,
                sharex=self.share,
                sharey=self.share,
                layout="constrained",
            )
            for line, row in zip(axes, self.rows, strict=True):
                for axis, panel in zip(line, row, strict=False):
                    _draw(axis, panel)
                for axis in line[len(row) :]:
                    axis.set_axis_off()
            handles = {
                label: handle
                for axis in figure.axes
                for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
            }
            if len(handles) > 1:
                figure.legend(
                    handles.values(),
                    handles.keys(),
                    loc="outside lower center",
                    ncols=min(4, len(handles)),
                    frameon=False,
                )
            figure.suptitle(self.title)
        return figure

    def as_json(self, command: str = "") -> str:
        """Everything but the size, arrays to five significant digits; and the command that makes it."""
        content = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "size"}
        return json.dumps({**content, "command": command}, default=_plain)

    def write(self, folder: Path, name: str, command: str = "") -> list[Path]:
        """<name>.pdf, .png and .json; the same chart gives the same bytes, and is not drawn again."""
        path, content = folder / f"{name}.json", self.as_json(command).encode()
        pictures = [folder / f"{name}.{suffix}" for suffix in ("pdf", "png")]
        if not all(each.exists() for each in (path, *pictures)) or path.read_bytes() != content:
            path.unlink(missing_ok=True)  # it vouches for the pictures, and comes after them
            print_figure(self.draw(), folder, name)
            write_atomically(path, content)
        return [*pictures, path]


def print_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """<name>.pdf and <name>.png; the same figure gives the same bytes."""
    from matplotlib.pyplot import close

    paths = []
    for suffix, changing in (("pdf", "CreationDate"), ("png", "Software")):
        content = io.BytesIO()
        figure.savefig(content, format=suffix, metadata={changing: None})
        paths.append(folder / f"{name}.{suffix}")
        write_atomically(paths[-1], content.getvalue())
    close(figure)
    return paths


def _plain(value: Any) -> Any:
    """Arrays and numbers as JSON has them; what is not finite becomes null."""
    if isinstance(value, np.ndarray):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic):
        number = float(value)
        return float(f"{number:.5g}") if np.isfinite(number) else None
    if dataclasses.is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} in a chart")


def _draw(axis: Axes, panel: Panel) -> None:
    axis.set_title(panel.title)
    if panel.image is not None:
        image = panel.image
        shown = axis.imshow(
            image.pixels, vmin=image.low, vmax=image.high, cmap="RdBu_r" if image.signed else "gray", resample=False
        )
        if image.signed:
            axis.figure.colorbar(shown, ax=axis, shrink=0.7)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        axis.set_xlabel(panel.x)
        axis.set_ylabel(panel.y)
        return
    crowded = len(panel.series) > 8
    for series in panel.series:
        x, y = np.asarray(series.x, float), np.asarray(series.y, float)
        if series.kind == "bars":
            axis.bar(x[:-1], y, np.diff(x), align="edge", color=series.colour, alpha=0.8, label=series.name)
            continue
        axis.plot(
            x,
            y,
            color=series.colour,
            label=series.name,
            linestyle={"line": "-", "dashed": "--", "points": ""}[series.kind],
            marker="o" if series.kind == "points" or len(x) <= 20 else None,
            markersize=3,
            alpha=0.45 if crowded else 1.0,
            linewidth=0.8 if crowded else 1.3,
        )
        if series.low is not None and series.high is not None:
            ends = np.stack([y - np.asarray(series.low, float), np.asarray(series.high, float) - y])
            axis.errorbar(x, y, ends.clip(min=0), fmt="none", ecolor=series.colour, capsize=2, linewidth=0.8)
    axis.set_xlabel(panel.x)
    axis.set_ylabel(panel.y)
    if panel.log_x:
        axis.set_xscale("log", base=2)
    if panel.log_y:
        axis.set_yscale("log")
    bars = [series for series in panel.series if series.kind == "bars"]
    if bars and panel.log_y:
        axis.set_ylim(bottom=0.8)
    elif panel.from_zero:
        axis.set_ylim(bottom=0)

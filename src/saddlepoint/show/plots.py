"""A chart's JSON as Plotly draws it: one plot for each panel, so that a page can set them in as many columns as fit."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

Content = dict[str, Any]


def figure(chart: Content) -> Content:
    """`rows` of panels with the plot of each, the `legend` as (name, colour, kind), and the `scales` of signed images.

    Raises KeyError, TypeError or ValueError if it is no chart.
    """
    chart = json.loads(json.dumps(chart), parse_constant=lambda _: None)  # JSON has no NaN: Plotly leaves null out
    rows = chart["rows"]
    every = [panel for row in rows for panel in row]
    keys = dict.fromkeys((e["name"], e["colour"], e["kind"]) for panel in every for e in panel["series"])
    images = [panel["image"] for panel in every if panel["image"]]
    scales = dict.fromkeys((image["low"], image["high"]) for image in images if image["signed"])
    return {
        "title": chart["title"],
        "caption": chart["caption"],
        "columns": max(len(row) for row in rows),
        "rows": [_panels(rows, index, every if chart["share"] else []) for index in range(len(rows))],
        "legend": list(keys) if len({name for name, _, _ in keys}) > 1 else [],
        "scales": [(exact(low), exact(high)) for low, high in scales],
    }


def exact(value: Any) -> str:
    """Numbers to twelve significant digits, which hides only what binary fractions add."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _panels(rows: Sequence[Sequence[Content]], index: int, everywhere: Sequence[Content]) -> list[Content]:
    """Panels that can stand alone, as they must on a phone: axes take the labels that the grid has at its edges.

    `everywhere`: the panels that share their axes.
    """
    made = []
    for column, panel in enumerate(rows[index]):
        above = rows[0][column]["title"] if column < len(rows[0]) else ""
        labels = {"title": panel["title"] or above, "x": panel["x"], "y": panel["y"]}
        image = panel["image"]
        if not image:
            below = [row[column]["x"] for row in rows[index:] if column < len(row)]
            labels |= {"x": next(filter(None, below), ""), "y": panel["y"] or rows[index][0]["y"]}
        plot = _picture(image) if image else _axes(panel, labels, everywhere or [panel])
        ratio = f"{len(image['pixels'][0])} / {len(image['pixels'])}" if image else None
        made.append({**labels, "image": bool(image), "ratio": ratio, "plot": plot})
    return made


def _axes(panel: Content, labels: Content, everywhere: Sequence[Content]) -> Content:
    axes: Content = {}
    for name in ("x", "y"):
        log = panel[f"log_{name}"]
        low, high = _range(everywhere, name)
        axis: Content = {
            "title": {"text": _text(labels[name])},
            "type": "log" if log else "linear",
            "range": [low, high],
        }
        values = sorted({value for each in panel["series"] for value in each["x"] if value})
        if log and name == "x" and len(values) <= 12:
            axis |= {"tickvals": values, "ticktext": [exact(value) for value in values]}
        elif log:
            axis |= {"tickformat": "~g", **({"dtick": 1} if high - low > 1 else {})}
        axes[f"{name}axis"] = axis
    layout = {**axes, "barmode": "overlay", "showlegend": False, "hovermode": "closest"}
    crowded = len(panel["series"]) > 8
    return {"data": [_trace(each, crowded) for each in panel["series"]], "layout": layout}


def _range(panels: Iterable[Content], axis: str) -> tuple[float, float]:
    """What all the panels' series span with a margin, in Plotly's units: the logarithm on a logarithmic axis."""
    panels = [panel for panel in panels if panel["series"]]
    log = any(panel[f"log_{axis}"] for panel in panels)
    names = ("x",) if axis == "x" else ("y", "low", "high")
    every = [value for panel in panels for each in panel["series"] for name in names for value in each[name] or ()]
    values = [value for value in every if value is not None and (value > 0 or not log)] or [1]
    low, high = (math.log10(end) if log else float(end) for end in (min(values), max(values)))
    margin = 0.04 * (high - low) or 0.5
    bars = axis == "y" and any(each["kind"] == "bars" for panel in panels for each in panel["series"])
    if bars and log:
        return math.log10(0.8), high + margin
    from_zero = bars or (axis == "y" and any(panel["from_zero"] for panel in panels))
    return 0.0 if from_zero and not log else low - margin, high + margin


def _trace(series: Content, crowded: bool) -> Content:
    colour, x, y = series["colour"], list(series["x"]), list(series["y"])
    named = {"name": _text(series["name"]), "hoverlabel": {"namelength": -1}}
    if series["kind"] == "bars":
        bars = list(pairwise(x))
        return {
            **named,
            "type": "bar",
            "x": [(left + right) / 2 for left, right in bars],
            "y": y,
            "width": [right - left for left, right in bars],
            "customdata": bars,
            "marker": {"color": colour, "opacity": 0.8, "line": {"width": 0}},
            "hovertemplate": "%{customdata[0]:.6~g} to %{customdata[1]:.6~g}: %{y:.6~g}<extra>%{fullData.name}</extra>",
        }
    mode = {"line": "lines", "dashed": "lines", "points": "markers"}[series["kind"]]
    plain = "(%{x:.6~g}, %{y:.6~g})<extra>%{fullData.name}</extra>"
    trace = {
        **named,
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "lines+markers" if mode == "lines" and len(x) <= 20 else mode,
        "opacity": 0.5 if crowded else 1,
        "line": {
            "color": colour,
            "width": 1 if crowded else 1.8,
            "dash": "dash" if series["kind"] == "dashed" else "solid",
        },
        "marker": {"color": colour, "size": 5},
        "hovertemplate": plain,
    }
    if series["low"] is not None and series["high"] is not None:
        low, high = list(series["low"]), list(series["high"])
        trace["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [None if None in (at, end) else max(0, end - at) for at, end in zip(y, high, strict=True)],
            "arrayminus": [None if None in (at, end) else max(0, at - end) for at, end in zip(y, low, strict=True)],
            "color": colour,
            "thickness": 1,
            "width": 3,
        }
        trace["customdata"] = ranges = list(zip(low, high, strict=True))
        ranged = plain.replace("<extra>", "<br>%{customdata[0]:.6~g} to %{customdata[1]:.6~g}<extra>")
        trace["hovertemplate"] = [plain if None in ends else ranged for ends in ranges]
    return trace


# matplotlib's gray and RdBu_r, as the printed figure has them.
GREY = [[0, "#000000"], [1, "#ffffff"]]
BLUE_RED = [
    "#053061",
    "#2166ac",
    "#4393c3",
    "#92c5de",
    "#d1e5f0",
    "#f7f7f7",
    "#fddbc7",
    "#f4a582",
    "#d6604d",
    "#b2182b",
    "#67001f",
]


def _picture(image: Content) -> Content:
    pixels, low, high = image["pixels"], image["low"], image["high"]
    trace: Content
    hidden = {"visible": False, "fixedrange": True, "constrain": "domain"}
    layout = {"xaxis": hidden, "yaxis": {**hidden, "autorange": "reversed", "scaleanchor": "x"}}
    where = "row %{y}, column %{x}: "
    if isinstance(pixels[0][0], list):
        shown = [[[255 * (value - low) / (high - low) for value in pixel] for pixel in line] for line in pixels]
        text = [[", ".join(exact(value) for value in pixel) for pixel in line] for line in pixels]
        trace = {"type": "image", "z": shown, "text": text, "hovertemplate": where + "%{text}<extra></extra>"}
    else:
        scale = [[place / 10, colour] for place, colour in enumerate(BLUE_RED)] if image["signed"] else GREY
        trace = {
            "type": "heatmap",
            "z": pixels,
            "zmin": low,
            "zmax": high,
            "colorscale": scale,
            "showscale": False,
            "hovertemplate": where + "%{z:.6~g}<extra></extra>",
        }
    return {"data": [trace], "layout": layout}


def _text(label: str) -> str:
    """A label as Plotly must be given it: it reads a part of HTML."""
    return html.escape(label, quote=False).replace("\n", "<br>")

"""One self-contained HTML page from a report's tables/*.json and figures/*.json: it needs no network and no server.

Everything that comes from those files is escaped: by Jinja in the page, as text in Plotly's labels, and as JSON that
cannot end its script element. The page's content policy lets only its own scripts run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

from saddlepoint.errors import InputError
from saddlepoint.results import read_json, write_atomically

Content = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One thing the paper shows, or that belongs beside it.

    `tables` and `figures` are the names of the files it is made of, `script` the one that writes them; where several
    do, `make reproduce` is the command.
    """

    title: str
    place: str
    claim: str
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    script: str | None = None

    @property
    def anchor(self) -> str:
        return (*self.tables, *self.figures)[0]


BEYOND = "Beyond the paper"

ITEMS = (
    Item(
        "Capacity and training method",
        "Figure 4 and its table",
        "Wider networks withstand one-step attacks better; networks trained on FGSM examples fall to PGD all the same; "
        "networks trained on PGD examples withstand it, the better the wider, and small ones may not learn at all.",
        tables=("accuracy",),
        figures=("capacity",),
    ),
    Item(
        "One robust network against every adversary",
        "Tables 1 and 2",
        "PGD is the strongest first-order adversary: nothing else, from the network itself or from another one, does "
        "much worse. MNIST keeps 89.3% and CIFAR10 45.8% against the strongest.",
        tables=("adversaries",),
    ),
    Item(
        "The loss along PGD",
        "Figure 1",
        "From every random start the loss rises and plateaus after a few iterations, at clustered values, far lower on "
        "the adversarially trained network.",
        figures=("loss_trajectories",),
        script="loss_histograms",
    ),
    Item(
        "Where PGD ends",
        "Figure 2",
        "Over 100,000 random starts the losses of the maxima are concentrated and have no outliers, and are far lower "
        "on the adversarially trained network.",
        figures=("loss_histograms",),
        script="loss_histograms",
    ),
    Item(
        "The maxima that PGD finds",
        "Text after Figure 2",
        "They are distinct: as far apart as random points of the ball and at angles close to 90°; between two of them "
        "the loss is lower by a constant factor, and still far above that of a random point.",
        tables=("maxima",),
        figures=("segments",),
    ),
    Item(
        "Training loss",
        "Figure 5",
        "The loss on adversarial examples falls steadily during training: the saddle point problem can be optimised.",
        figures=("training_loss",),
    ),
    Item(
        "Accuracy against eps",
        "Figure 6",
        "For eps up to that of the training the accuracy is equal or better. In l_2 a gradient-free attack finds far "
        "less robustness on MNIST than PGD does: its gradients are masked.",
        tables=("epsilon",),
        figures=("epsilon",),
    ),
    Item(
        "Transfer between networks",
        "Tables 3 and 4",
        "Examples made on one network fool another less the wider the networks are and the stronger the adversary they "
        "were trained against. Rows are targets, columns the networks the examples were made on.",
        tables=("transfer_fgsm", "transfer_pgd"),
    ),
    Item(
        "White-box accuracy of the six networks",
        "Table 5",
        "Only the networks trained on PGD examples keep an accuracy against PGD, however well the others do on FGSM.",
        tables=("white_box",),
    ),
    Item(
        "Loss along own and transferred perturbations",
        "ICLR Figure 7",
        "From an image to its adversarial examples, its own or an independent copy's, the loss of the naturally trained "
        "network climbs more than ten times as high as that of the adversarially trained one.",
        figures=("directions",),
    ),
    Item(
        "Two trainings of one network",
        "ICLR Figure 8",
        "The input gradients of two independently trained networks are correlated and attacks transfer between them; "
        "both much less after training on FGSM examples.",
        tables=("transfer_copy",),
        figures=("angles",),
    ),
    Item(
        "Inside the robust MNIST network",
        "ICLR Figures 9 and 10",
        "It uses 3 of its 32 first filters, each with a single weight, as thresholds; the biases of its output layer "
        "are far from uniform.",
        figures=("filters", "output_layer"),
    ),
    Item(
        "Signs of masked gradients",
        BEYOND,
        "Robustness that only hides from gradients shows: in attacks that get weaker with more steps, restarts or eps, "
        "in transferred attacks that beat the white box, in gradients of zero.",
        tables=("diagnostics",),
    ),
    Item(
        "Training methods beside each other",
        BEYOND,
        "Adversarial examples made once (static), FGSM with a random start and TRADES beside the paper's methods, each "
        "at its last checkpoint and at the one that did best on held-out images.",
        tables=("methods",),
    ),
    Item(
        "Robust overfitting",
        BEYOND,
        "Accuracy under attack on held-out images can fall while the training goes on.",
        figures=("robust_overfitting",),
    ),
)


def write(folder: Path) -> Path:
    """index.html in a report's folder, such as outputs/digits/report; the same files give the same bytes.

    Raises InputError if there is no such folder, or a file in it is not what its place says.
    """
    if not folder.is_dir():
        raise InputError(f"no report at {folder}; make reproduce makes it, and DATASET= and RECIPE= choose which")
    path = folder / "index.html"
    write_atomically(path, render(folder).encode())
    return path


def render(folder: Path) -> str:
    """The page. Links in it are relative to the folder."""
    folder = folder.resolve()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("saddlepoint", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = files("saddlepoint.report")
    scripts = [get_plotlyjs(), source.joinpath("page.js").read_text()]
    sections = [_section(folder, item) for item in _all_items(folder)]
    return environment.get_template("page.html").render(
        dataset=folder.parent.name,
        settings=_settings(folder)[1:],
        sections=sections,
        headline=_headline(sections[0]),
        style=Markup(source.joinpath("page.css").read_text()),
        scripts=[Markup(script) for script in scripts],
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


def _settings(folder: Path) -> list[str]:
    """What the folder's name says of the runs, as overrides: report-fast,threat.eps=0.2 is recipe=fast threat.eps=0.2."""
    recipe, *overrides = folder.name.removeprefix("report").split(",")
    return [f"dataset={folder.parent.name}", *([f"recipe={recipe[1:]}"] if recipe else []), *overrides]


def _command(folder: Path, item: Item) -> str:
    settings = _settings(folder)
    if folder.parent.parent.name != "outputs":
        settings.append(f"output_dir={folder.parent.parent.name}")
    if item.script:
        return shlex.join(["python", f"scripts/{item.script}.py", *settings])
    chosen = [each.replace(name, name.upper(), 1) for each in settings for name in ("dataset", "recipe") if each.startswith(f"{name}=")]
    others = [each for each in settings if not each.startswith(("dataset=", "recipe="))]
    return shlex.join(["make", "reproduce", *chosen, *([f"ARGS={shlex.join(others)}"] if others else [])])


def _all_items(folder: Path) -> Iterator[Item]:
    """The paper's, then what else lies in the folder."""
    yield from ITEMS
    found = {kind: _stems(folder / kind) for kind in ("tables", "figures")}
    for item in ITEMS:
        for kind, names in (("tables", item.tables), ("figures", item.figures)):
            found[kind] -= {stem for name in names for stem in _versions(folder / kind, name)}
    if found["tables"] or found["figures"]:
        yield Item(
            "Other results",
            BEYOND,
            "Further tables and figures of this report.",
            tables=tuple(sorted(found["tables"])),
            figures=tuple(sorted(found["figures"])),
        )


def _stems(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.json")}


def _versions(folder: Path, name: str) -> list[str]:
    """The file of this name, and those of a part of the test set or of another checkpoint: accuracy, accuracy-best."""
    return sorted(stem for stem in _stems(folder) if stem == name or stem.startswith(f"{name}-"))


def _section(folder: Path, item: Item) -> Content:
    parts: list[Content] = []
    missing: list[str] = []
    for kind, names, read in (("tables", item.tables, _table), ("figures", item.figures, _figure)):
        for name in names:
            versions = _versions(folder / kind, name)
            parts += [_checked(folder / kind / f"{version}.json", read) for version in versions]
            missing += [] if versions else [f"{kind}/{name}.json"]
    return {"item": item, "parts": parts, "missing": missing, "command": _command(folder, item)}


def _checked(path: Path, read: Any) -> Content:
    content = read_json(path)
    try:
        part: Content = read(path, content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise InputError(f"{path} does not describe a {path.parent.name[:-1]}; delete it to have it made again") from None
    return part


def _files(path: Path, suffixes: Sequence[str]) -> list[str]:
    """Those of a part's files that there are, as the page links them."""
    found = [path.with_suffix(f".{suffix}") for suffix in suffixes]
    return [f"{each.parent.name}/{each.name}" for each in found if each.exists()]


# Tables


def _table(path: Path, content: Content) -> Content:
    behind = {(row, column): record for (row, column), record in zip(content["at"], content["records"], strict=False)}
    rows = [
        [
            {
                "text": text,
                "record": _details(behind[row, column]) if (row, column) in behind else None,
                "of": f"{cells[0]}, {content['header'][column]}" if column else text,
            }
            for column, text in enumerate(cells)
        ]
        for row, cells in enumerate(content["rows"])
    ]
    commands = list(dict.fromkeys(record["command"] for record in content["records"] if record.get("command")))
    return {
        "kind": "table",
        "name": path.stem,
        "title": content["title"],
        "header": list(content["header"]),
        "rows": rows,
        "notes": list(content["notes"]),
        "records": content["records"],
        "commands": commands,
        "files": _files(path, ("json", "csv", "md", "tex")),
    }


LABELS = {"value": "Ours", "sd": "Standard deviation", "paper": "The paper", "source": "In the paper"}


def _details(record: Content) -> list[Content]:
    """What a cell's card shows: (name, text, links)."""
    rows: list[Content] = []
    for key, value in record.items():
        if key in ("high", "command", "files") or value is None or value == "":
            continue
        if key == "low":
            rows.append({"name": "95% interval", "text": f"{_exact(value)} to {_exact(record.get('high'))}"})
        else:
            rows.append({"name": LABELS.get(key, key.replace("_", " ").capitalize()), "text": _exact(value)})
    if record.get("command"):
        rows.append({"name": "Command", "text": record["command"], "code": True})
    if record.get("files"):
        # Relative to the data set's folder, in which the report's lies.
        names = str(record["files"]).split("; ")
        rows.append({"name": "Files", "links": [(name, "../" + quote(name)) for name in names]})
    return rows


def _exact(value: Any) -> str:
    """Numbers to twelve significant digits, which hides only what binary fractions add."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _headline(accuracy: Content) -> Content | None:
    """Of the accuracy table: the widest network trained naturally and adversarially, ours beside the paper's."""
    table = next((part for part in accuracy["parts"] if part["kind"] == "table"), None)
    if table is None:
        return None
    records = [record for record in table["records"] if record["value"] is not None]
    rows = []
    for training, name in (("standard", "Trained naturally"), ("pgd", "Trained on PGD examples")):
        of_training = [record for record in records if record["training"] == training]
        if not of_training:
            continue
        model = of_training[-1]["model"]
        for record in of_training:
            if record["model"] == model and record["measurement"] != "train_loss":
                rows.append({"network": name, "model": model, "record": _details(record), **_in_words(record)})
    return {"rows": rows, "name": table["name"], "source": next((r["source"] for r in records if r["source"]), None)}


def _in_words(record: Content) -> Content:
    names = {"natural": "Natural images", "fgsm": "FGSM", "pgd": "PGD"}
    spread = ""
    if record["sd"] is not None:
        spread = f" ± {record['sd']:.1f}"
    elif record["low"] is not None:
        spread = f" ({record['low']:.1f}–{record['high']:.1f})"
    difference = record["difference"]
    return {
        "measurement": names.get(record["measurement"], record["measurement"]),
        "ours": f"{record['value']:.1f}",
        "spread": spread,
        "paper": "—" if record["paper"] is None else f"{record['paper']:g}",
        "difference": "—" if difference is None else f"{round(difference, 1) + 0.0:+.1f}",
    }


# Figures


def _figure(path: Path, content: Content) -> Content:
    rows = content["rows"]
    shared = _shared_ranges(rows) if content["share"] else {}
    picture = path.with_suffix(".png")
    series = [each for row in rows for panel in row for each in panel["series"]]
    keys = {(each["name"], to_hex(each["colour"]), each["kind"]): None for each in series}
    scales = {(each["low"], each["high"]): None for row in rows for each in (p["image"] for p in row) if each and each["signed"]}
    return {
        "kind": "figure",
        "name": path.stem,
        "title": content["title"],
        "caption": content["caption"],
        "columns": max(len(row) for row in rows),
        "rows": [_row(rows, index, shared) for index in range(len(rows))],
        "legend": list(keys) if len({name for name, _, _ in keys}) > 1 else [],
        "scales": [(_exact(low), _exact(high)) for low, high in scales],
        "picture": base64.b64encode(picture.read_bytes()).decode() if picture.exists() else None,
        "commands": [content["provenance"]["command"]] if content["provenance"].get("command") else [],
        "files": _files(path, ("json", "png", "pdf")),
    }


def _row(rows: Sequence[Sequence[Content]], index: int, shared: Content) -> list[Content]:
    """Panels that can stand alone, as they must on a phone: each takes the labels that the grid has at its edges."""
    made = []
    for column, panel in enumerate(rows[index]):
        below = next((row[column]["x"] for row in rows[index:] if column < len(row) and row[column]["x"]), "")
        above = rows[0][column]["title"] if column < len(rows[0]) else ""
        labels = {"title": panel["title"] or above, "x": panel["x"] or below, "y": panel["y"] or rows[index][0]["y"]}
        image = panel["image"]
        plot = _picture(image) if image else _axes(panel, labels, shared)
        made.append({**labels, "image": bool(image), "ratio": _ratio(image) if image else None, "plot": _finite(plot)})
    return made


def _axes(panel: Content, labels: Content, shared: Content) -> Content:
    crowded = len(panel["series"]) > 8
    x = {"title": {"text": _text(labels["x"])}, "type": "log" if panel["log_x"] else "linear"}
    y = {"title": {"text": _text(labels["y"])}, "type": "log" if panel["log_y"] else "linear"}
    if panel["log_x"]:
        values = sorted({value for each in panel["series"] for value in each["x"] if value})
        if len(values) <= 12:
            x |= {"tickvals": values, "ticktext": [_exact(value) for value in values]}
    if panel["from_zero"] and not panel["log_y"]:
        y["rangemode"] = "tozero"
    for axis, name in ((x, "x"), (y, "y")):
        if name in shared:
            low, high = shared[name]
            axis["range"] = [low, high]
    layout = {"xaxis": x, "yaxis": y, "barmode": "overlay", "showlegend": False, "hovermode": "closest"}
    return {"data": [_trace(each, crowded) for each in panel["series"]], "layout": layout}


def _trace(series: Content, crowded: bool) -> Content:
    colour, x, y = to_hex(series["colour"]), list(series["x"]), list(series["y"])
    named = {"name": _text(series["name"]), "hoverlabel": {"namelength": -1}}
    if series["kind"] == "bars":
        bars = list(zip(x[:-1], x[1:], strict=True))
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
    trace = {
        **named,
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "lines+markers" if mode == "lines" and len(x) <= 20 else mode,
        "opacity": 0.5 if crowded else 1,
        "line": {"color": colour, "width": 1 if crowded else 1.8, "dash": "dash" if series["kind"] == "dashed" else "solid"},
        "marker": {"color": colour, "size": 5},
        "hovertemplate": "(%{x:.6~g}, %{y:.6~g})<extra>%{fullData.name}</extra>",
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
        trace["customdata"] = list(zip(low, high, strict=True))
        trace["hovertemplate"] = (
            "(%{x:.6~g}, %{y:.6~g})<br>%{customdata[0]:.6~g} to %{customdata[1]:.6~g}<extra>%{fullData.name}</extra>"
        )
    return trace


# matplotlib's gray and RdBu_r, as the printed figure has them.
GREY = [[0, "#000000"], [1, "#ffffff"]]
BLUE_RED = ["#053061", "#2166ac", "#4393c3", "#92c5de", "#d1e5f0", "#f7f7f7", "#fddbc7", "#f4a582", "#d6604d", "#b2182b", "#67001f"]


def _picture(image: Content) -> Content:
    pixels, low, high = image["pixels"], image["low"], image["high"]
    hidden = {"visible": False, "fixedrange": True, "constrain": "domain"}
    layout = {"xaxis": hidden, "yaxis": {**hidden, "autorange": "reversed", "scaleanchor": "x"}}
    where = "row %{y}, column %{x}: "
    if isinstance(pixels[0][0], list):
        shown = [[[255 * (value - low) / (high - low) for value in pixel] for pixel in line] for line in pixels]
        text = [[", ".join(_exact(value) for value in pixel) for pixel in line] for line in pixels]
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


def _ratio(image: Content) -> str:
    return f"{len(image['pixels'][0])} / {len(image['pixels'])}"


def _shared_ranges(rows: Iterable[Iterable[Content]]) -> Content:
    """One range of each axis for all panels, in Plotly's units: the logarithm on a logarithmic axis."""
    panels = [panel for row in rows for panel in row if panel["series"]]
    ranges = {}
    for axis in ("x", "y") if panels else ():
        log = any(panel[f"log_{axis}"] for panel in panels)
        names = ("x",) if axis == "x" else ("y", "low", "high")
        every = [value for panel in panels for each in panel["series"] for name in names for value in each[name] or ()]
        values = [math.log10(value) if log else value for value in every if value is not None and (value > 0 or not log)]
        low, high = (min(values), max(values)) if values else (0, 1)
        margin = 0.04 * (high - low) or 0.5
        bars = any(each["kind"] == "bars" for panel in panels for each in panel["series"])
        if axis == "y" and log and bars:
            ranges[axis] = (math.log10(0.8), high + margin)
        elif axis == "y" and not log and (bars or any(panel["from_zero"] for panel in panels)):
            ranges[axis] = (0.0, high + margin)
        else:
            ranges[axis] = (low - margin, high + margin)
    return ranges


def _text(label: str) -> str:
    """A label as Plotly must be given it: it reads a part of HTML."""
    return html.escape(label, quote=False).replace("\n", "<br>")


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null, which Plotly leaves out."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

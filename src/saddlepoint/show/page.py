"""One self-contained HTML page from a report's tables/*.json and figures/*.json: it needs no network and no server.

Everything that comes from those files is escaped: by Jinja in the page, as text in Plotly's labels, and as JSON that
cannot end its script element. The page's content policy lets only its own scripts run.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from saddlepoint.errors import InputError
from saddlepoint.files import read_json, write_atomically
from saddlepoint.overrides import for_any_script
from saddlepoint.show.names import named
from saddlepoint.show.plots import exact, figure
from saddlepoint.show.table import Table

Content = dict[str, Any]

BEYOND = "Beyond the paper"


@dataclass(frozen=True)
class Section:
    """A part of the page: something that the paper shows, or that belongs with it.

    `tables` and `figures` are the names of the files it is made of, `arguments` the script that makes them and what to
    tell it.
    """

    title: str
    place: str
    claim: str
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        return (*self.tables, *self.figures)[0]

    @property
    def parts(self) -> list[str]:
        """Its files in the report's folder, without their endings."""
        return [*(f"tables/{name}" for name in self.tables), *(f"figures/{name}" for name in self.figures)]


def write(folder: Path, sections: Sequence[Section]) -> Path:
    """index.html in a report's folder, such as outputs/digits/report; the same files give the same bytes.

    `sections` are shown in their order, and then whatever else is there.
    Raises InputError if there is no such folder, or a file in it is not what its place says.
    """
    if not folder.is_dir():
        raise InputError(f"no report at {folder}; make reproduce makes it, and DATASET= and RECIPE= choose which")
    path = folder / "index.html"
    write_atomically(path, render(folder, sections).encode())
    return path


def render(folder: Path, sections: Sequence[Section]) -> str:
    """The page. Links in it are relative to the folder."""
    folder = folder.resolve()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("saddlepoint", "show"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = files("saddlepoint.show")
    scripts = [get_plotlyjs(), source.joinpath("page.js").read_text()]
    shown = [_section(folder, each) for each in [*sections, *_others(folder, sections)]]
    return environment.get_template("page.html").render(
        dataset=folder.parent.name,
        settings=[each for each in _settings(folder) if not each.startswith(("dataset=", "output_dir="))],
        sections=shown,
        headline=_headline(folder, shown),
        style=Markup(source.joinpath("page.css").read_text()),
        scripts=[Markup(script) for script in scripts],
        hashes=[base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts],
    )


def _settings(folder: Path) -> list[str]:
    """What the report's command was told, as its report.json keeps it; where it is now, if not below outputs/."""
    path = folder / "report.json"
    if not path.exists():
        raise InputError(f"no report at {folder}: it has no report.json; run the script that made it once more")
    overrides = read_json(path).get("overrides")
    if not isinstance(overrides, list):
        raise InputError(f"{path} lists no overrides; delete it, and run the script that made it once more")
    settings = [for_any_script(str(each)) for each in overrides if not str(each).startswith("output_dir=")]
    outputs, here = folder.parent.parent, Path(__file__).resolve().parents[3]
    if outputs != here / "outputs":  # as it is typed in the repository
        settings.append(f"output_dir={outputs.relative_to(here) if outputs.is_relative_to(here) else outputs}")
    return settings


def _command(folder: Path, section: Section) -> str:
    script, *settings = section.arguments
    return shlex.join(["python", f"scripts/{script}.py", *_settings(folder), *settings])


def _others(folder: Path, sections: Sequence[Section]) -> Iterator[Section]:
    """One for what else is in the folder, if anything is."""
    found = {kind: _stems(folder / kind) for kind in ("tables", "figures")}
    for section in sections:
        for kind, names in (("tables", section.tables), ("figures", section.figures)):
            found[kind] -= {stem for name in names for stem in _versions(folder / kind, name)}
    if found["tables"] or found["figures"]:
        yield Section(
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


def _section(folder: Path, section: Section) -> Content:
    parts: list[Content] = []
    missing: list[str] = []
    command = _command(folder, section) if section.arguments else ""
    for kind, names, read in (("tables", section.tables, _table), ("figures", section.figures, _figure)):
        for name in names:
            versions = _versions(folder / kind, name)
            parts += [_checked(folder / kind / f"{version}.json", read, command) for version in versions]
            missing += [] if versions else [f"{kind}/{name}.json"]
    return {"item": section, "parts": parts, "missing": missing, "command": command}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Whatever goes wrong with the content of a file becomes one line about that file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        kind = path.parent.name.removesuffix("s")
        raise InputError(f"{path} does not describe a {kind}; delete it to have it made again") from None


def _checked(path: Path, read: Callable[[Path, Content, str], Content], command: str) -> Content:
    with _naming(path):
        return read(path, read_json(path), command)


def _files(path: Path, suffixes: Sequence[str]) -> list[tuple[str, str]]:
    """Those of a part's files that there are: (suffix, link)."""
    found = [(suffix, path.with_suffix(f".{suffix}")) for suffix in suffixes]
    return [(suffix, quote(f"{each.parent.name}/{each.name}")) for suffix, each in found if each.exists()]


def _figure(path: Path, content: Content, command: str) -> Content:
    picture = path.with_suffix(".png")
    return {
        **figure(content),
        "kind": "figure",
        "name": path.stem,
        "picture": base64.b64encode(picture.read_bytes()).decode() if picture.exists() else None,
        "commands": [each for each in (content.get("command") or command,) if each],
        "files": _files(path, ("json", "png", "pdf")),
    }


def _table(path: Path, content: Content, command: str) -> Content:
    table = Table.read(content)
    commands = list(dict.fromkeys(str(record["command"]) for record in table.records if record.get("command")))
    # Another table's script may have measured a part of it first, and does not make this table.
    script = command.split()[:2]
    commands = [each for each in commands if not script or each.split()[:2] == script] or [command] * bool(command)
    command = next(iter(commands), command)
    rows = [
        [
            {
                "text": cell.text,
                "kind": cell.kind,
                "details": _details(cell.record, command) if cell.record is not None else None,
                "of": f"{cells[0].text}, {table.header[column]}" if column else cell.text,
            }
            for column, cell in enumerate(cells)
        ]
        for cells in table.cells
    ]
    return {
        "kind": "table",
        "name": path.stem,
        "title": table.title,
        "header": table.header,
        "rows": rows,
        "notes": table.notes,
        "records": table.records,
        "commands": commands,
        "files": _files(path, ("json", "csv", "md", "tex")),
    }


# In this order, and before everything else that a record holds.
LABELS = {
    "value": "Ours",
    "low": "95% interval",
    "sd": "Standard deviation",
    "seeds": "Seeds",
    "examples": "Examples",
    "paper": "The paper's",
    "difference": "Difference",
    "source": "In the paper",
}


def _details(record: Mapping[str, object], command: str) -> list[Content]:
    """What a cell's card shows: name and text, code or links. `command` is for a record without its own."""
    rows: list[Content] = []
    for key in [*LABELS, *(key for key in record if key not in (*LABELS, "high", "command", "files"))]:
        value = record.get(key)
        if value is None or value == "":
            continue
        text = f"{exact(value)} to {exact(record['high'])}" if key == "low" else exact(value)
        rows.append({"name": LABELS.get(key, key.replace("_", " ").capitalize()), "text": text})
    own = record.get("command") or command
    if own:
        rows.append({"name": "Command", "code": own})
    if record.get("files"):
        # Relative to the data set's folder, which the report's folder is in.
        names = str(record["files"]).split("; ")
        rows.append({"name": "Files", "links": [(name, "../" + quote(name)) for name in names]})
    return rows


def _headline(folder: Path, sections: Sequence[Content]) -> Content | None:
    """Of the accuracy table: the widest networks trained adversarially and naturally, with the paper's."""
    parts = [part for each in sections if "accuracy" in each["item"].tables for part in each["parts"]]
    table = next((part for part in parts if part["kind"] == "table"), None)
    if table is None:
        return None
    networks, command = [], table["commands"][0]
    with _naming(folder / "tables" / f"{table['name']}.json"):
        records = [
            each for each in table["records"] if each["value"] is not None and each["measurement"] != "train_loss"
        ]
        for training, name in (("pgd", "Trained on PGD examples"), ("standard", "Trained naturally")):
            models = [each["model"] for each in records if each["training"] == training]
            model = "wide" if "wide" in models else (models or [None])[-1]
            chosen = [each for each in records if (each["training"], each["model"]) == (training, model)]
            if chosen:
                rows = [{"details": _details(each, command), **_in_words(each)} for each in chosen]
                networks.append({"name": name, "model": model, "rows": rows})
        source = next((each["source"] for each in records if each["source"]), None)
    return {"networks": networks, "name": table["name"], "source": source} if networks else None


def _in_words(record: Content) -> Content:
    spread = ""
    if record["sd"] is not None:
        spread = f" ± {record['sd']:.1f}"
    elif record["low"] is not None:
        spread = f" ({record['low']:.1f}–{record['high']:.1f})"
    difference = record["difference"]
    return {
        "measurement": "Natural images" if record["measurement"] == "natural" else named(record["measurement"]),
        "ours": f"{record['value']:.1f}",
        "spread": spread,
        "paper": "—" if record["paper"] is None else f"{record['paper']:g}",
        "difference": "—" if difference is None else f"{round(difference, 1) + 0.0:+.1f}",
    }

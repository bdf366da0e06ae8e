"""The accuracy table: training method by width, each number beside the paper's where the paper has one."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from saddlepoint.results import Result, write_atomically, write_csv, write_json

NAMES = {
    "standard": "Standard",
    "fgsm": "FGSM",
    "pgd": "PGD",
    "pgd_100": "PGD, 100 steps",
    "pgd_x20": "PGD, 20 restarts",
    "pgd_100_x20": "PGD, 100 steps, 20 restarts",
    "cw": "CW",
    "cw_plus": "CW+",
    "natural": "Natural",
    "train_loss": "Training loss",
}


def published(dataset: str, item: str) -> dict[str, Any] | None:
    """The paper's numbers for one table, or None where it has none."""
    paper = json.loads(files("saddlepoint.report").joinpath("paper.json").read_text())
    entry: dict[str, Any] | None = paper.get(dataset, {}).get(item)
    return entry


@dataclass(frozen=True)
class Table:
    """Text cells under headers, and the same content as plain `records` for the CSV.

    `at` says which cell each record is behind, as (row, column), where there is one: the report page shows it there.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    at: list[tuple[int, int]] = field(default_factory=list)

    def markdown(self) -> str:
        lines = [self.header, ["---"] + ["--:"] * (len(self.header) - 1), *self.rows]
        body = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        return f"**{self.title}**\n\n{body}\n" + "".join(f"\n{note}\n" for note in self.notes)

    def latex(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return " & ".join(_escape(cell) for cell in cells) + r" \\"

        return "\n".join(
            [
                "% " + self.title,
                *("% " + note for note in self.notes),
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\hline",
                line(self.header),
                r"\hline",
                *(line(row) for row in self.rows),
                r"\hline",
                r"\end{tabular}",
                "",
            ]
        )

    def text(self) -> str:
        """For a terminal."""
        lines = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in lines) for column in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            first, *others = zip(cells, widths, strict=True)
            return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

        rule = "-" * len(line(self.header))
        return "\n".join([self.title, rule, line(self.header), rule, *map(line, self.rows), rule, *self.notes])

    def write(self, folder: Path, name: str) -> list[Path]:
        """<name>.md, .tex, .csv and .json under `folder`."""
        paths = [folder / f"{name}.{suffix}" for suffix in ("md", "tex", "csv", "json")]
        write_atomically(paths[0], self.markdown().encode())
        write_atomically(paths[1], self.latex().encode())
        write_csv(paths[2], self.records)
        write_json(paths[3], dataclasses.asdict(self))
        return paths


def _escape(text: str) -> str:
    for character in "&%_#":
        text = text.replace(character, "\\" + character)
    return text.replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")


def accuracy_table(
    results: Sequence[Result],
    *,
    dataset: str,
    measurements: Sequence[str],
    models: Sequence[str],
    trainings: Sequence[str],
    compare: bool = True,
) -> Table:
    """Rows: evaluations and the training loss; columns: training method by model (Figure 4 and its CIFAR10 table).

    A cell that has no result says "not run". Several seeds become mean ± standard deviation; one number
    has its 95% interval. With `compare` the paper's numbers and the differences stand below ours.
    """
    paper = published(dataset, "accuracy") if compare else None
    columns = [(training, model) for training in trainings for model in models]
    rows: list[list[str]] = []
    records, at = [], []
    # The training loss is the last step's: it says nothing of the best checkpoint.
    of_best = any(result["key"]["checkpoint"] == "best" for result in results)
    for measurement in [*measurements, *([] if of_best else ["train_loss"])]:
        name = NAMES.get(measurement, measurement)
        ours, theirs, differences = [name], [f"{name}, paper"], [f"{name}, difference"]
        for training, model in columns:
            found = [
                result
                for result in results
                if (result["run"]["training"], result["run"]["model"]) == (training, model)
                and result["key"]["measurement"] == (measurements[0] if measurement == "train_loss" else measurement)
            ]
            reference = paper["cells"].get(training, {}).get(model, {}).get(measurement) if paper else None
            is_loss = measurement == "train_loss"
            record = _summary(found, is_loss)
            value = record["value"]
            difference = None if value is None or reference is None else value - reference
            ours.append(_in_words(record, is_loss))
            theirs.append("" if reference is None else f"{reference:g}")
            differences.append(
                "" if difference is None else f"{difference:+.3g}" if is_loss else f"{round(difference, 1) + 0.0:+.1f}"
            )
            at.append((len(rows), len(ours) - 1))
            records.append(
                {
                    "dataset": dataset,
                    "training": training,
                    "model": model,
                    "measurement": measurement,
                    **record,
                    "paper": reference,
                    "difference": None if difference is None else round(difference, 4),
                    "source": paper["source"] if paper else None,
                    "command": found[0]["command"] if found else None,
                    "files": "; ".join(result["file"] for result in found),
                }
            )
        rows += [ours, theirs, differences] if any(theirs[1:]) else [ours]
    header = ["Accuracy in %", *(f"{NAMES.get(training, training)} {model}" for training, model in columns)]
    seeds = {record["seeds"] for record in records if record["seeds"]}
    spread = "In brackets: 95% interval." if seeds <= {1} else f"Mean ± standard deviation over {max(seeds)} seeds."
    notes = [f"Columns: training method and model. Rows: what it is tested on. {spread}"]
    examples = {(result["key"]["examples"], result["key"]["of"]) for result in results}
    notes += [f"Measured on the first {n} of {total} test images only." for n, total in sorted(examples) if n < total]
    if paper:
        notes.append(f"Paper: {paper['source']}.")
    if of_best:
        notes.append("Checkpoint: the best on the held-out images, not the last.")
    attack = next((result["key"]["attack"] for result in results if result["key"]["attack"]), None)
    threat = f", {attack['norm']} eps {attack['eps']}" if attack else ""
    return Table(f"{dataset}{threat}: accuracy by training method and model", header, rows, records, notes, at)


def geometry_table(results: Sequence[Result], *, dataset: str) -> Table:
    """What the text after Figure 2 says of the maxima around one example: their distances and angles."""
    records = [
        {
            "dataset": dataset,
            "training": result["run"]["training"],
            "model": result["run"]["model"],
            "image": image,
            "starts": result["key"]["starts"],
            "loss_median": result["loss_median"][image],
            **geometry,
            "command": result["command"],
            "files": result["file"],
        }
        for result in results
        for image, geometry in enumerate(result["geometry"])
    ]
    rows = [
        [
            f"{NAMES.get(record['training'], record['training'])} {record['model']}, image {record['image']}",
            f"{record['loss_median']:.3g}",
            f"{record['distance_mean']:.2f} ± {record['distance_sd']:.2f}",
            f"{record['random_distance']:.2f}",
            f"{record['angle_mean']:.0f} ± {record['angle_sd']:.0f}",
        ]
        for record in records
    ]
    header = ["Network", "Median loss", "Distance between maxima", "Between random points", "Angle (degrees)"]
    notes = [
        "Euclidean distances on images in [0, 1], mean ± standard deviation over pairs of end points of PGD.",
        'Paper: distances "close to the expected distance between two random points", angles "close to 90°".',
    ]
    return Table(
        f"{dataset}: the maxima that PGD finds", header, rows, records, notes, [(row, 0) for row in range(len(rows))]
    )


def _summary(found: Sequence[Result], is_loss: bool) -> dict[str, Any]:
    """Mean over seeds with spread, or one seed's accuracy in percent with its 95% interval."""
    if not found:
        return {"value": None, "low": None, "high": None, "sd": None, "seeds": 0, "examples": None}
    values = [result["train_loss"] if is_loss else 100 * result["accuracy"] for result in found]
    low = high = None
    if not is_loss and len(found) == 1:  # over several seeds the spread says more
        low, high = (round(100 * bound, 6) for bound in found[0]["interval"])
    return {
        "value": statistics.fmean(values),
        "low": low,
        "high": high,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "seeds": len(values),
        "examples": found[0]["key"]["examples"],
    }


def _in_words(record: dict[str, Any], is_loss: bool) -> str:
    if record["value"] is None:
        return "not run"
    if is_loss:
        return f"{record['value']:.3g}"
    if record["sd"] is not None:
        return f"{record['value']:.1f} ± {record['sd']:.1f}"
    return f"{record['value']:.1f} ({record['low']:.1f}–{record['high']:.1f})"

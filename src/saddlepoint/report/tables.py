"""The tables, from results: each number beside the paper's where the paper has one."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from saddlepoint.report.table import NAMES, Cell, Row, Table, published
from saddlepoint.results import Result


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
    rows: list[Row] = []
    # The training loss is the last step's: it says nothing of another checkpoint.
    others = {result["key"]["checkpoint"] for result in results} - {"last"}
    for measurement in [*measurements, *([] if others else ["train_loss"])]:
        name, is_loss = NAMES.get(measurement, measurement), measurement == "train_loss"
        ours: list[str | Cell] = [name]
        theirs, differences = [f"{name}, paper"], [f"{name}, difference"]
        for training, model in columns:
            found = [
                result
                for result in results
                if (result["run"]["training"], result["run"]["model"]) == (training, model)
                and result["key"]["measurement"] == (measurements[0] if is_loss else measurement)
            ]
            reference = paper["cells"].get(training, {}).get(model, {}).get(measurement) if paper else None
            record = {
                "dataset": dataset,
                "training": training,
                "model": model,
                "measurement": measurement,
                **_beside(_summary(found, is_loss), reference),
                "source": paper["source"] if paper else None,
                **_origin(found),
            }
            ours.append(Cell(_in_words(record, is_loss), record))
            theirs.append("" if reference is None else f"{reference:g}")
            differences.append(_difference(record, is_loss))
        rows += [ours, theirs, differences] if any(theirs[1:]) else [ours]
    header = ["Accuracy in %", *(f"{NAMES.get(training, training)} {model}" for training, model in columns)]
    notes = [f"Columns: training method and model. Rows: what it is tested on. {_spread(rows)}"]
    notes += _said_once(results)
    if paper:
        notes.append(f"Paper: {paper['source']}.")
    meanings = {"best": "the best on the held-out images", "averaged": "the mean of the weights over the training"}
    notes += [f"Checkpoint: {meanings[each]}, not the last." for each in sorted(others)]
    return Table.of(f"{dataset}{_threat(results)}: accuracy by training method and model", header, rows, notes)


def geometry_table(results: Sequence[Result], *, dataset: str) -> Table:
    """What the text after Figure 2 says of the maxima around one example: their distances and angles."""
    rows: list[Row] = []
    for result in results:
        around = {"image": result["key"]["image"], "starts": result["key"]["starts"]}
        found = result["geometry"]
        record = _record(result, dataset, **around, loss_median=result["loss_median"], **found)
        cells: Row = [
            Cell(f"{_network(result)}, image {around['image']}", record),
            f"{result['loss_median']:.3g}",
            f"{found['distance_mean']:.2f} ± {found['distance_sd']:.2f}",
            f"{found['random_distance']:.2f}",
            f"{found['angle_mean']:.0f} ± {found['angle_sd']:.0f}",
        ]
        rows.append(cells)
    header = ["Network", "Median loss", "Distance between maxima", "Between random points", "Angle (degrees)"]
    notes = [
        "Euclidean distances on images in [0, 1], mean ± standard deviation over pairs of end points of PGD.",
        'Paper: distances "close to the expected distance between two random points", angles "close to 90°".',
    ]
    return Table.of(f"{dataset}: the maxima that PGD finds", header, rows, notes)


def _summary(found: Sequence[Result], is_loss: bool) -> dict[str, Any]:
    """Mean over seeds with spread, or one seed's accuracy in percent with its 95% interval."""
    if is_loss:  # an imported network's is not known
        found = [result for result in found if result["train_loss"] is not None]
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


def _beside(summary: dict[str, Any], reference: float | None) -> dict[str, Any]:
    """The summary, the paper's number and the difference from it."""
    known = summary["value"] is not None and reference is not None
    return {**summary, "paper": reference, "difference": round(summary["value"] - reference, 4) if known else None}


def _spread(rows: Sequence[Row]) -> str:
    """For a note: what stands behind the numbers."""
    counts = {cell.record["seeds"] for cells in rows for cell in cells if isinstance(cell, Cell)} - {0}
    several = sorted(counts - {1})
    if not several:
        return "In brackets: 95% interval."
    over = f"Mean ± standard deviation over {' or '.join(map(str, several))} seeds"
    return f"{over}; of one seed, in brackets, the 95% interval." if 1 in counts else f"{over}."


def _in_words(record: dict[str, Any], is_loss: bool) -> str:
    if record["value"] is None:
        return "not run"
    if is_loss:
        return f"{record['value']:.3g}" + ("" if record["sd"] is None else f" ± {record['sd']:.1g}")
    if record["sd"] is not None:
        return f"{record['value']:.1f} ± {record['sd']:.1f}"
    return f"{record['value']:.1f} ({record['low']:.1f}–{record['high']:.1f})"


def adversaries_table(
    rows: Sequence[tuple[str, str, Sequence[Result]]], *, dataset: str, network: str, compare: bool = True
) -> Table:
    """Tables 1 and 2: one network against every adversary.

    Args:
        rows: (attack's name, source, a result for each seed). Source "A" is the network itself.
        network: its name in words.
        compare: whether it is the network that the paper's numbers are of.
    """
    paper = published(dataset, "adversaries") if compare else None
    cells = paper["cells"] if paper else {}
    others = paper.get("released", {}) if paper else {}
    lines: list[Row] = []
    results = [result for _, _, found in rows for result in found]
    parts = {_part(result) for result in results}
    for name, source, found in rows:
        attack = found[0]["key"]["attack"] or {} if found else {}
        reference, released = (each.get(source, {}).get(name) for each in (cells, others))
        record = {
            "dataset": dataset,
            "attack": name,
            "source": source,
            **_beside(_summary(found, False), reference),
            "released_model": released,
            **_origin(found),
        }
        part = _part(found[0]) if found and len(parts) > 1 else None
        lines.append(
            [
                NAMES.get(name, name) + (f" (first {part})" if part else ""),
                str(attack.get("steps", "")),
                str(attack.get("restarts", "")),
                "" if name == "natural" else source.replace("_prime", "'"),
                Cell(_in_words(record, False), record),
                *(["" if reference is None else f"{reference:g}", _difference(record, False)] if paper else []),
                *(["" if released is None else f"{released:g}"] if others else []),
            ]
        )
    header = ["Adversary", "Steps", "Restarts", "Source", "Accuracy in %", *(["Paper", "Difference"] if paper else [])]
    header += ["Released model"] if others else []
    notes = [
        "Source: A the network itself (white box), A' an independently trained copy, A_nat a naturally trained copy, "
        f"B another architecture. {_spread(lines)}",
    ]
    shown = {name for name, _, _ in rows} | {source for _, source, _ in rows}
    unsaid = {
        "pgd_100": "the step size of its 100-step rows (here as in the others)",
        "cw": "CW's kappa (0; CW+: 50)",
        "cw_30": "CW's kappa (0)",
        "targeted": "what Targeted aims at (the likeliest wrong class)",
        "B": "how B was trained (naturally)",
    }
    said = [words for name, words in unsaid.items() if name in shown]
    notes += [f"The paper does not say: {', '.join(said)}."] if said else []
    notes += _said_once(results)
    if paper:
        notes.append(f"Paper: {paper['source']}." + (f" Released model: {paper['released_source']}." if others else ""))
    return Table.of(f"{dataset}{_threat(results)}: {network} against every adversary", header, lines, notes)


def grid_table(
    cells: Mapping[tuple[str, str], Sequence[Result]],
    *,
    dataset: str,
    title: str,
    sides: tuple[str, str],
    notes: Sequence[str],
    item: str | None = None,
    intervals: bool = True,
) -> Table:
    """One accuracy for each (row, column), beside the paper's `item`: Tables 3 to 5 and those like them.

    Args:
        cells: a result for each seed, for each (row, column) in their order.
        sides: what rows and columns are, such as ("target", "source").
    """
    paper = published(dataset, item) if item else None
    lines, columns = (list(dict.fromkeys(pair[side] for pair in cells)) for side in (0, 1))
    rows: list[Row] = []
    for line in lines:
        row: list[str | Cell] = [NAMES.get(line, line)]
        for column in columns:
            found = cells[line, column]
            reference = paper["cells"].get(line, {}).get(column) if paper else None
            record = {
                "dataset": dataset,
                sides[0]: line,
                sides[1]: column,
                **_summary(found, False),
                "paper": reference,
                **_origin(found),
            }
            short = record["value"] is not None and not intervals
            text = f"{record['value']:.1f}" if short else _in_words(record, False)
            row.append(Cell(text + ("" if reference is None else f" [{reference:g}]"), record))
        rows.append(row)
    results = [result for found in cells.values() for result in found]
    names = [NAMES.get(column, column) for column in columns]
    if len({_part(result) for result in results}) > 1:
        for number, column in enumerate(columns):
            (part, *_) = {_part(found[0]) for (_, each), found in cells.items() if each == column and found} or {None}
            names[number] += f" (first {part})" if part else ""
    notes = [*notes, *([_spread(rows)] if intervals else []), *_said_once(results)]
    if paper:
        notes.append(f"In square brackets, the paper: {paper['source']}.")
    header = [f"{sides[0].capitalize()} / {sides[1]}", *names]
    return Table.of(f"{dataset}{_threat(results)}: {title}", header, rows, notes)


def epsilon_table(results: Sequence[Result], *, dataset: str, compare: bool = True) -> Table:
    """Figure 6 in numbers: a row for each network and attack, a column for each eps; one norm's results."""
    paper = published(dataset, "epsilon") if compare else None
    norm, all_eps = results[0]["key"]["norm"], results[0]["key"]["eps"]
    rows: list[Row] = []
    for result in results:
        training, attack = result["run"]["training"], result["key"]["attack"]
        theirs = paper["cells"].get(norm, {}).get(training, {}).get(attack, {}) if paper else {}
        row: list[str | Cell] = [f"{NAMES.get(training, training)}, {NAMES.get(attack, attack)}"]
        for eps, accuracy, (low, high) in zip(all_eps, result["accuracies"], result["intervals"], strict=True):
            record = {
                "dataset": dataset,
                "norm": norm,
                "eps": eps,
                "training": training,
                "attack": attack,
                "value": 100 * accuracy,
                "low": 100 * low,
                "high": 100 * high,
                "examples": result["key"]["examples"],
                "paper": theirs.get(eps),
                **_origin([result]),
            }
            row.append(Cell(f"{100 * accuracy:.1f}" + (f" ({theirs[eps]:g})" if eps in theirs else ""), record))
        rows.append(row)
    notes = ["Accuracy in %.", *_parts(results)]
    if paper:
        notes.append(f"In brackets, the paper: {paper['source']}.")
    return Table.of(f"{dataset}: accuracy against eps, {norm}", ["Training, attack", *all_eps], rows, notes)


def segments_table(results: Sequence[Result], *, dataset: str) -> Table:
    """What the text says of the segment between two maxima, and of the gradient; a row for each network."""
    header = [
        "Network",
        "Loss at the maxima",
        "In the middle",
        "At random points",
        "Highest at an end",
        "Cosine with the gradient",
        "Negative cosines",
    ]
    names = ("ends", "middle", "random", "highest_at_an_end", "cosine", "negative_cosines")
    rows: list[Row] = []
    for result in results:
        cells: Row = [
            Cell(_network(result), _record(result, dataset, **{name: result[name] for name in names})),
            *(f"{result[name]:.3g}" for name in names[:3]),
            f"{100 * result['highest_at_an_end']:.0f}%",
            f"{result['cosine']:.3f}",
            f"{100 * result['negative_cosines']:.0f}%",
        ]
        rows.append(cells)
    notes = [
        "Means over pairs of maxima around a few test images. The paper: along the segment between two maxima the loss "
        "is highest at the ends and lower by a constant factor in the middle, still far above that of a random point; "
        "some adversarial perturbations have a negative inner product with the gradient."
    ]
    return Table.of(f"{dataset}: between the maxima", header, rows, notes)


def filters_table(results: Sequence[Result], *, dataset: str) -> Table:
    """ICLR Figures 9 and 10 in numbers: a row for each network."""
    names = ("filters", "alive", "single_weight", "bias_low", "bias_high")
    rows: list[Row] = []
    for result in results:
        cells: Row = [
            Cell(_network(result), _record(result, dataset, **{name: result[name] for name in names})),
            f"{result['alive']} of {result['filters']}",
            f"{result['single_weight']} of {result['alive']}",
            f"{result['bias_low']:.3f} to {result['bias_high']:.3f}",
        ]
        rows.append(cells)
    header = ["Network", "Filters alive", "Of these, one weight has 90%", "Biases of the output layer"]
    notes = [
        "First convolution: a filter is alive if its response to test images varies by more than 1% of the most "
        "varying one's. The paper, on MNIST: 3 of 32 filters of the robust networks are used, each with one weight."
    ]
    return Table.of(f"{dataset}: the first and the last layer", header, rows, notes)


def diagnostics_table(found: Mapping[str, Sequence[Mapping[str, Any]]], *, dataset: str, notes: Sequence[str]) -> Table:
    """Signs of masked gradients: `found` is network -> checks (name, expected, numbers, passed, command, files)."""
    rows: list[Row] = []
    for network, checks in found.items():
        for check in checks:
            numbers = ", ".join(f"{name}: {value:.1%}" for name, value in check["numbers"].items())
            verdict = "pass" if check["passed"] else "suspicious"
            record = {"dataset": dataset, "network": network, **check, "numbers": numbers, "verdict": verdict}
            rows.append([f"{network}: {check['name']}", check["expected"], numbers, Cell(verdict, record)])
    header = ["Network: sign", "Where nothing is masked", "Found", "Verdict"]
    return Table.of(f"{dataset}: signs of masked gradients", header, rows, list(notes))


def cost_table(found: Sequence[Mapping[str, Any]], *, dataset: str) -> Table:
    """What trainings cost: a row for each network and recipe (scripts/cost_table.py), recipes of a network together.

    From the second recipe of a network on, its time stands beside the first one's.
    """
    first: dict[tuple[str, str], float] = {}
    rows: list[Row] = []
    for each in found:
        training, model, hours = each["training"], each["model"], each["hours"]
        times = hours / first.setdefault((training, model), hours)
        rows.append(
            [
                f"{NAMES.get(training, training)} {model}, {each['recipe']}",
                each["precision"],
                f"{each['images_per_second']:,.1f}",
                f"{each['minutes_per_epoch']:,.2f}",
                f"{each['epochs']:,.1f}",
                Cell(f"{hours:,.2f}" if hours >= 0.1 else f"{hours:.2g}", {**each, "times_the_first_recipe": times}),
                f"{times:.1f}x" if each["recipe"] != found[0]["recipe"] else "",
                f"{each['peak_memory_mib']:,}",
            ]
        )
    header = ["Network, recipe", "Precision", "Images/s", "Minutes an epoch", "Epochs", "Hours in all"]
    header += [f"Against {found[0]['recipe']}", "Memory in MiB"]
    counts = [each["steps_timed"] for each in found]
    batches = " or ".join(dict.fromkeys(str(each["batch_size"]) for each in found))
    notes = [
        f"{found[0]['device']}; torch {found[0]['torch']}; batches of {batches}. Timed over "
        f"{min(counts)} to {max(counts)} steps after the first and worked out from there, measurements on held-out "
        "images left out. Memory: the most that the process held, libraries and data included."
    ]
    return Table.of(f"{dataset}: what a training costs", header, rows, notes)


def _network(result: Result) -> str:
    training, model = result["run"]["training"], result["run"]["model"]
    return f"{NAMES.get(training, training)} {model}"


def _record(result: Result, dataset: str, **numbers: Any) -> dict[str, Any]:
    """These numbers of one network."""
    run = {"dataset": dataset, "training": result["run"]["training"], "model": result["run"]["model"]}
    return {**run, **numbers, **_origin([result])}


def _threat(results: Sequence[Result]) -> str:
    """For a title: norm and eps of the attacks."""
    attack = next((result["key"]["attack"] for result in results if result["key"]["attack"]), None)
    return f", {attack['norm']} eps {attack['eps']}" if attack else ""


def _origin(results: Sequence[Result]) -> dict[str, Any]:
    """Where a number can be traced to."""
    return {
        "command": results[0]["command"] if results else None,
        "files": "; ".join(result["file"] for result in results),
    }


def _part(result: Result) -> int | None:
    """How many test images, if not all."""
    if result["key"]["examples"] == result["key"]["of"]:
        return None
    return int(result["key"]["examples"])


def _parts(results: Sequence[Result]) -> list[str]:
    parts = sorted({(result["key"]["examples"], result["key"]["of"]) for result in results if _part(result)})
    return [f"Measured on the first {examples} of {total} test images only." for examples, total in parts]


def _said_once(results: Sequence[Result]) -> list[str]:
    """For a table whose rows or columns name their own part where parts differ."""
    differ = len({_part(result) for result in results}) > 1
    first = ['"first n": measured on the first n test images only.'] if differ else _parts(results)
    return first + _weaknesses(results)


def _weaknesses(results: Sequence[Result]) -> list[str]:
    """Why an accuracy may be too high: an attack sees no gradient, its steps are too short, its passes rounded."""
    blind: dict[str, float] = {}  # of several seeds the largest share
    short: dict[str, str] = {}
    rounded: dict[str, None] = {}
    for result in results:
        attack, share = result["key"]["attack"] or {}, result.get("no_gradient") or 0
        name = NAMES.get(result["key"]["measurement"], result["key"]["measurement"])
        if share > 0.01:
            where = f"{name} of {_network(result)}"
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


def _difference(record: Mapping[str, Any], is_loss: bool) -> str:
    """In words; from the numbers themselves, as the record's has been rounded."""
    if record["difference"] is None:
        return ""
    difference = record["value"] - record["paper"]
    return f"{difference:+.3g}" if is_loss else f"{round(difference, 1) + 0.0:+.1f}"

"""The tables, from results: each number beside the paper's where the paper has one."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from saddlepoint.evaluation.result import Accuracy, Between, Curve, Diagnosis, Found, Learned, Maxima, Result
from saddlepoint.report.table import Cell, Table, named, published

Accuracies = Sequence[Result[Accuracy]]
Place = tuple[str, str, str]  # training method, model, measurement
Record = dict[str, object]


@dataclass(frozen=True)
class Number:
    """Of one network an accuracy in percent, or the training loss: `found` has a result for each seed.

    `paper` is the paper's number for it.
    """

    found: Accuracies
    paper: float | None = None
    is_loss: bool = False

    @property
    def values(self) -> list[float]:
        """One for each seed; an imported network's loss is not known."""
        if self.is_loss:
            return [result.train_loss for result in self.found if result.train_loss is not None]
        return [100 * result.found.accuracy for result in self.found]

    @property
    def value(self) -> float | None:
        return statistics.fmean(self.values) if self.values else None

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """95%, of one seed's accuracy: over several seeds the spread says more."""
        if self.is_loss or len(self.found) != 1:
            return None, None
        low, high = self.found[0].found.interval
        return round(100 * low, 6), round(100 * high, 6)

    @property
    def difference(self) -> float | None:
        return None if self.value is None or self.paper is None else self.value - self.paper

    @property
    def bar(self) -> tuple[float | None, float | None]:
        """The ends of its error bar: one seed's interval, which a loss has not, or the spread over seeds."""
        if self.value is None or self.sd is None:
            return self.interval
        return self.value - self.sd, self.value + self.sd

    def record(self) -> Record:
        low, high = self.interval
        return {
            "value": self.value,
            "low": low,
            "high": high,
            "sd": self.sd,
            "seeds": len(self.values),
            "examples": self.found[0].key.examples if self.values else None,
            "paper": self.paper,
        }

    def compared(self) -> Record:
        """Its record with the difference."""
        difference = self.difference
        return {**self.record(), "difference": None if difference is None else round(difference, 4)}

    def __str__(self) -> str:
        low, high = self.interval
        if self.value is None:
            return "not run"
        if self.is_loss:
            return f"{self.value:.3g}" + ("" if self.sd is None else f" ± {self.sd:.1g}")
        return f"{self.value:.1f} ({low:.1f}–{high:.1f})" if self.sd is None else f"{self.value:.1f} ± {self.sd:.1f}"

    def beside(self) -> list[Cell]:
        """The paper's number and the difference from it; empty where there is none."""
        theirs = "" if self.paper is None else f"{self.paper:g}"
        if self.difference is None:
            return [Cell(theirs, "beside"), Cell("", "beside")]
        difference = f"{self.difference:+.3g}" if self.is_loss else f"{round(self.difference, 1) + 0.0:+.1f}"
        return [Cell(theirs, "beside"), Cell(difference, "beside")]


def accuracy_numbers(found: Mapping[Place, Accuracies], *, dataset: str, compare: bool = True) -> dict[Place, Number]:
    """The accuracies, and the training loss behind those of the first attack; with `compare` beside the paper's."""
    paper = published(dataset, "accuracy" if compare else None)
    numbers = {place: Number(results, paper.cells.get(place)) for place, results in found.items()}
    # The training loss is the last step's: it says nothing of another checkpoint.
    if all(result.key.checkpoint == "last" for results in found.values() for result in results):
        for (training, model, _), results in found.items():
            place = (training, model, "train_loss")
            numbers.setdefault(place, Number(results, paper.cells.get(place), is_loss=True))
    return numbers


def accuracy_table(numbers: Mapping[Place, Number], *, dataset: str, compare: bool = True) -> Table:
    """Rows: evaluations and the training loss; columns: training method by model (Figure 4 and its CIFAR10 table).

    A cell that has no result says "not run". With `compare` the paper's numbers and the differences stand below ours.
    """
    results = [result for number in numbers.values() for result in number.found if not number.is_loss]
    paper = published(dataset, "accuracy" if compare else None)
    columns = list(dict.fromkeys((training, model) for training, model, _ in numbers))
    rows: list[list[Cell]] = []
    for measurement in dict.fromkeys(measurement for _, _, measurement in numbers):
        ours = [Cell(named(measurement))]
        below = [[Cell(f"{named(measurement)}, {each}", "beside")] for each in ("paper", "difference")]
        for training, model in columns:
            number = numbers[training, model, measurement]
            record = {
                "dataset": dataset,
                "training": training,
                "model": model,
                "measurement": measurement,
                **number.compared(),
                "source": paper.source,
                **_origin(number.found),
            }
            ours.append(Cell.of(str(number), record))
            for row, cell in zip(below, number.beside(), strict=True):
                row.append(cell)
        rows += [ours, *below] if any(cell.text for cell in below[0][1:]) else [ours]
    header = ["Accuracy in %", *(f"{named(training)} {model}" for training, model in columns)]
    notes = [f"Columns: training method and model. Rows: what it is tested on. {_spread(numbers.values())}"]
    notes += _said_once(results)
    if paper.source:
        notes.append(f"Paper: {paper.source}.")
    meanings = {"best": "the best on the held-out images", "averaged": "the mean of the weights over the training"}
    others = sorted({result.key.checkpoint for result in results} - {"last"})
    notes += [f"Checkpoint: {meanings[each]}, not the last." for each in others]
    return Table(f"{dataset}{_threat(results)}: accuracy by training method and model", header, rows, notes)


def _spread(numbers: Iterable[Number]) -> str:
    """For a note: what stands behind the numbers."""
    counts = {len(number.values) for number in numbers} - {0}
    several = sorted(counts - {1})
    if not several:
        return "In brackets: 95% interval."
    over = f"Mean ± standard deviation over {' or '.join(map(str, several))} seeds"
    return f"{over}; of one seed, in brackets, the 95% interval." if 1 in counts else f"{over}."


def adversaries_table(
    rows: Sequence[tuple[str, str, Accuracies]], *, dataset: str, network: str, compare: bool = True
) -> Table:
    """Tables 1 and 2: one network against every adversary.

    Args:
        rows: (attack's name, source, a result for each seed). Source "A" is the network itself.
        network: its name in words.
        compare: whether it is the network that the paper's numbers are of.
    """
    paper = published(dataset, "adversaries" if compare else None)
    results = [result for _, _, found in rows for result in found]
    parts = {result.key.part for result in results}
    numbers = [Number(found, paper.cells.get((source, name))) for name, source, found in rows]
    cells = []
    for (name, source, found), number in zip(rows, numbers, strict=True):
        attack = found[0].key.description if found else {}
        part = found[0].key.part if found and len(parts) > 1 else None
        released = paper.released.get((source, name))
        record = {
            "dataset": dataset,
            "attack": name,
            "source": source,
            **number.compared(),
            "released_model": released,
            **_origin(found),
        }
        row = [
            Cell(named(name) + (f" (first {part})" if part else "")),
            Cell(str(attack.get("steps", ""))),
            Cell(str(attack.get("restarts", ""))),
            Cell("" if name == "natural" else source.replace("_prime", "'")),
            Cell.of(str(number), record),
        ]
        if paper.source:
            row += number.beside()
        if paper.released:
            row.append(Cell("" if released is None else f"{released:g}", "beside"))
        cells.append(row)
    header = ["Adversary", "Steps", "Restarts", "Source", "Accuracy in %"]
    header += ["Paper", "Difference"] if paper.source else []
    header += ["Released model"] if paper.released else []
    notes = [
        "Source: A the network itself (white box), A' an independently trained copy, A_nat a naturally trained copy, "
        f"B another architecture. {_spread(numbers)}",
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
    if paper.source:
        source = f" Released model: {paper.released_source}." if paper.released else ""
        notes.append(f"Paper: {paper.source}.{source}")
    return Table(f"{dataset}{_threat(results)}: {network} against every adversary", header, cells, notes)


def grid_table(
    cells: Mapping[tuple[str, str], Accuracies],
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
    paper = published(dataset, item)
    numbers = {place: Number(found, paper.cells.get(place)) for place, found in cells.items()}
    lines, columns = (list(dict.fromkeys(place[side] for place in cells)) for side in (0, 1))
    rows = []
    for line in lines:
        row = [Cell(named(line))]
        for column in columns:
            number = numbers[line, column]
            ends = {"dataset": dataset, sides[0]: line, sides[1]: column}
            text = str(number) if number.value is None or intervals else f"{number.value:.1f}"
            text += "" if number.paper is None else f" [{number.paper:g}]"
            row.append(Cell.of(text, {**ends, **number.record(), **_origin(number.found)}))
        rows.append(row)
    results = [result for found in cells.values() for result in found]
    names = [named(column) for column in columns]
    if len({result.key.part for result in results}) > 1:
        for index, column in enumerate(columns):
            (part, *_) = {found[0].key.part for (_, each), found in cells.items() if each == column and found} or {None}
            names[index] += f" (first {part})" if part else ""
    notes = [*notes, *([_spread(numbers.values())] if intervals else []), *_said_once(results)]
    if paper.source:
        notes.append(f"In square brackets, the paper: {paper.source}.")
    header = [f"{sides[0].capitalize()} / {sides[1]}", *names]
    return Table(f"{dataset}{_threat(results)}: {title}", header, rows, notes)


def epsilon_table(results: Sequence[Result[Curve]], *, dataset: str, compare: bool = True) -> Table:
    """Figure 6 in numbers: a row for each network and attack, a column for each eps; one norm's results."""
    paper = published(dataset, "epsilon" if compare else None)
    norm, all_eps = str(results[0].key.norm), results[0].key.eps or ()
    rows = []
    for result in results:
        training, attack, curve = result.run.training, str(result.key.attack), result.found
        row = [Cell(f"{named(training)}, {named(attack)}")]
        for eps, accuracy, (low, high) in zip(all_eps, curve.accuracies, curve.intervals, strict=True):
            theirs = paper.cells.get((norm, training, attack, eps))
            record = {
                "dataset": dataset,
                "norm": norm,
                "eps": eps,
                "training": training,
                "attack": attack,
                "value": 100 * accuracy,
                "low": 100 * low,
                "high": 100 * high,
                "examples": result.key.examples,
                "paper": theirs,
                **_origin([result]),
            }
            row.append(Cell.of(f"{100 * accuracy:.1f}" + ("" if theirs is None else f" ({theirs:g})"), record))
        rows.append(row)
    notes = ["Accuracy in %.", *_parts(results)]
    if paper.source:
        notes.append(f"In brackets, the paper: {paper.source}.")
    return Table(f"{dataset}: accuracy against eps, {norm}", ["Training, attack", *all_eps], rows, notes)


def geometry_table(results: Sequence[Result[Maxima]], *, dataset: str) -> Table:
    """What the text after Figure 2 says of the maxima around one example: their distances and angles."""
    rows = []
    for result in results:
        image, loss, found = result.key.image, result.found.loss_median, result.found.geometry
        numbers = {"image": image, "starts": result.key.starts, "loss_median": loss, **dataclasses.asdict(found)}
        texts = (
            f"{loss:.3g}",
            f"{found.distance_mean:.2f} ± {found.distance_sd:.2f}",
            f"{found.random_distance:.2f}",
            f"{found.angle_mean:.0f} ± {found.angle_sd:.0f}",
        )
        rows.append(_row(result, dataset, numbers, texts, f", image {image}"))
    header = ["Network", "Median loss", "Distance between maxima", "Between random points", "Angle (degrees)"]
    notes = [
        "Euclidean distances on images in [0, 1], mean ± standard deviation over pairs of end points of PGD.",
        'Paper: distances "close to the expected distance between two random points", angles "close to 90°".',
    ]
    return Table(f"{dataset}: the maxima that PGD finds", header, rows, notes)


def segments_table(results: Sequence[Result[Between]], *, dataset: str) -> Table:
    """What the text says of the segment between two maxima, and of the gradient; a row for each network."""
    header = ["Network", "Loss at the maxima", "In the middle", "At random points", "Highest at an end"]
    header += ["Cosine with the gradient", "Negative cosines"]
    rows = []
    for result in results:
        found = result.found
        texts = (
            *(f"{loss:.3g}" for loss in (found.ends, found.middle, found.random)),
            f"{100 * found.highest_at_an_end:.0f}%",
            f"{found.cosine:.3f}",
            f"{100 * found.negative_cosines:.0f}%",
        )
        rows.append(_row(result, dataset, dataclasses.asdict(found), texts))
    notes = [
        "Means over pairs of maxima around a few test images. The paper: along the segment between two maxima the loss "
        "is highest at the ends and lower by a constant factor in the middle, still far above that of a random point; "
        "some adversarial perturbations have a negative inner product with the gradient."
    ]
    return Table(f"{dataset}: between the maxima", header, rows, notes)


def filters_table(results: Sequence[Result[Learned]], *, dataset: str) -> Table:
    """ICLR Figures 9 and 10 in numbers: a row for each network."""
    rows = []
    for result in results:
        found = result.found
        texts = (
            f"{found.alive} of {found.filters}",
            f"{found.single_weight} of {found.alive}",
            f"{found.bias_low:.3f} to {found.bias_high:.3f}",
        )
        rows.append(_row(result, dataset, dataclasses.asdict(found), texts))
    header = ["Network", "Filters alive", "Of these, one weight has 90%", "Biases of the output layer"]
    notes = [
        "First convolution: a filter is alive if its response to test images varies by more than 1% of the most "
        "varying one's. The paper, on MNIST: 3 of 32 filters of the robust networks are used, each with one weight."
    ]
    return Table(f"{dataset}: the first and the last layer", header, rows, notes)


def diagnostics_table(found: Mapping[str, Diagnosis], *, dataset: str, notes: Sequence[str]) -> Table:
    """Signs of masked gradients, by network."""
    rows = []
    for network, diagnosis in found.items():
        for check in diagnosis.checks:
            numbers = ", ".join(f"{name}: {value:.1%}" for name, value in check.numbers.items())
            verdict = "pass" if check.passed else "suspicious"
            record = {
                "dataset": dataset,
                "network": network,
                "name": check.name,
                "expected": check.expected,
                "numbers": numbers,
                "passed": check.passed,
                "command": diagnosis.command,
                "files": "; ".join(diagnosis.files),
                "verdict": verdict,
            }
            texts = (f"{network}: {check.name}", check.expected, numbers)
            rows.append([*map(Cell, texts), Cell.of(verdict, record)])
    header = ["Network: sign", "Where nothing is masked", "Found", "Verdict"]
    return Table(f"{dataset}: signs of masked gradients", header, rows, notes)


def _network(result: Result[Found]) -> str:
    return f"{named(result.run.training)} {result.run.model}"


def _row(result: Result[Found], dataset: str, numbers: Record, texts: Iterable[str], which: str = "") -> list[Cell]:
    """One network, whose record has these numbers, and the texts of the other cells."""
    run = {"dataset": dataset, "training": result.run.training, "model": result.run.model}
    record = {**run, **numbers, **_origin([result])}
    return [Cell.of(_network(result) + which, record), *map(Cell, texts)]


def _threat(results: Accuracies) -> str:
    """For a title: norm and eps of the attacks."""
    attack = next((result.key.description for result in results if result.key.description), None)
    return f", {attack['norm']} eps {attack['eps']}" if attack else ""


def _origin(results: Sequence[Result[Found]]) -> Record:
    """Where a number can be traced to."""
    return {"command": results[0].command if results else None, "files": "; ".join(result.file for result in results)}


def _parts(results: Sequence[Result[Found]]) -> list[str]:
    parts = sorted({(result.key.part, result.key.of) for result in results if result.key.part})
    return [f"Measured on the first {part} of {total} test images only." for part, total in parts]


def _said_once(results: Accuracies) -> list[str]:
    """For a table whose rows or columns name their own part where parts differ."""
    differ = len({result.key.part for result in results}) > 1
    first = ['"first n": measured on the first n test images only.'] if differ else _parts(results)
    return first + _weaknesses(results)


def _weaknesses(results: Accuracies) -> list[str]:
    """Why an accuracy may be too high: an attack sees no gradient, its steps are too short, its passes rounded."""
    blind: dict[str, float] = {}  # of several seeds the largest share
    short: dict[str, str] = {}
    rounded: dict[str, None] = {}
    for result in results:
        attack, share = result.key.description, result.found.no_gradient or 0
        name = named(result.key.measurement)
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

"""Figure 4 and its table: accuracy by capacity and training method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from saddlepoint.lab import Lab, Measurement
from saddlepoint.measure.result import Accuracy, Result
from saddlepoint.measure.subject import Subject
from saddlepoint.paper.item import Item, Shown, over_seeds
from saddlepoint.paper.numbers import Accuracies, Number, origin, published, said_once, spread, threat_of
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.names import ATTACK_COLOURS, colour, named, title
from saddlepoint.show.page import Section
from saddlepoint.show.table import Cell, Table

Place = tuple[str, str, str]  # training method, model, measurement


@dataclass(frozen=True)
class Column:
    """What was measured of one network: its accuracies by attack, and its width in the units of its family, if any."""

    results: Mapping[str, Result[Accuracy]]
    capacity: int | None


def needs(lab: Lab) -> dict[tuple[str, str], list[Measurement[Column]]]:
    """By (training method, model)."""
    cfg = lab.cfg
    for attack in cfg.evaluation.attacks:
        lab.attack(attack)
    return {
        (training, model): [Measurement(network, column) for network in over_seeds(lab, model, training)]
        for training in cfg.trainings
        for model in cfg.models
    }


def column(lab: Lab, subject: Subject, _: Subject | None) -> Column:
    """Measured on all test images, and shown in the run itself where the logger keeps runs."""
    attacks = {name: lab.attack(name) for name in lab.cfg.evaluation.attacks}
    results = {name: lab.accuracy(subject, name, attack, limited=False) for name, attack in attacks.items()}
    if lab.runtime.processes.first:
        subject.track(lab.tracker(), list(results.values()))
    return Column(results, subject.capacity)


def show(found: Mapping[tuple[str, str], Sequence[Column]], lab: Lab) -> Shown:
    settings, dataset, examples = lab.cfg.evaluation, lab.cfg.dataset.name, len(lab.test_images)
    results = {
        (training, model, attack): [each.results[attack] for each in columns]
        for (training, model), columns in found.items()
        for attack in settings.attacks
    }
    numbers = accuracy_numbers(results, dataset=dataset, compare=lab.comparable)
    suffix = "" if settings.checkpoint == "last" else f"-{settings.checkpoint}"
    suffix += "" if examples == lab.total else f"-first{examples}"
    widths = "-widths" if len(lab.cfg.models) > 2 else ""
    yield f"{settings.name}{widths}{suffix}", accuracy_table(numbers, dataset=dataset, compare=lab.comparable)
    capacities = {model: each.capacity for (_, model), columns in found.items() for each in columns if each.capacity}
    if len(capacities) > 1:
        in_order = dict(sorted(capacities.items(), key=itemgetter(1)))
        yield f"capacity{widths}{suffix}", capacity(numbers, in_order, dataset)


def accuracy_numbers(found: Mapping[Place, Accuracies], *, dataset: str, compare: bool = True) -> dict[Place, Number]:
    """The accuracies, and the training loss behind those of the first attack; with `compare` with the paper's."""
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
                **origin(number.found),
            }
            ours.append(Cell.of(str(number), record))
            for row, cell in zip(below, number.beside(), strict=True):
                row.append(cell)
        rows += [ours, *below] if any(cell.text for cell in below[0][1:]) else [ours]
    header = ["Accuracy in %", *(f"{named(training)} {model}" for training, model in columns)]
    notes = [f"Columns: training method and model. Rows: what it is tested on. {spread(numbers.values())}"]
    notes += said_once(results)
    if paper.source:
        notes.append(f"Paper: {paper.source}.")
    meanings = {"best": "the best on the held-out images", "averaged": "the mean of the weights over the training"}
    others = sorted({result.key.checkpoint for result in results} - {"last"})
    notes += [f"Checkpoint: {meanings[each]}, not the last." for each in others]
    return Table(f"{dataset}{threat_of(results)}: accuracy by training method and model", header, rows, notes)


def capacity(numbers: Mapping[Place, Number], capacities: Mapping[str, int], dataset: str) -> Chart:
    """Figure 4: accuracy and training loss against capacity, a panel for each training method.

    Args:
        numbers: the accuracy table's.
        capacities: model -> capacity, in order.
    """
    trainings = list(dict.fromkeys(training for training, _, _ in numbers))

    def series(training: str, measurement: str, name: str, colour: str) -> list[Series]:
        """Ours, and the paper's dashed."""
        places = {(training, model, measurement): capacity for model, capacity in capacities.items()}
        found = {capacity: numbers[place] for place, capacity in places.items() if place in numbers}
        ours = {capacity: number.value for capacity, number in found.items() if number.value is not None}
        theirs = {capacity: number.paper for capacity, number in found.items() if number.paper is not None}
        drawn = []
        if ours:
            low, high = zip(*(found[capacity].bar for capacity in ours), strict=True)
            drawn.append(Series(name, list(ours), list(ours.values()), colour, "line", low, high))
        if theirs:
            drawn.append(Series(f"{name}, paper", list(theirs), list(theirs.values()), colour, "dashed"))
        return drawn

    panels = [
        Panel(
            [each for name in ATTACK_COLOURS for each in series(training, name, named(name), ATTACK_COLOURS[name])],
            title=title(training),
            x="capacity",
            y="accuracy in %" if training == trainings[0] else "",
            log_x=True,
            from_zero=True,
        )
        for training in trainings
    ]
    losses = [
        each for training in trainings for each in series(training, "train_loss", title(training), colour(training))
    ]
    panels.append(
        Panel(losses, title="training loss", x="capacity", y="loss on what is trained on", log_x=True, log_y=True)
    )
    return Chart(
        f"{dataset}: capacity",
        [panels],
        size=(2.7, 3.0),
        caption="Figure 4. Accuracy by capacity and training method, and the training loss. The paper: capacity alone "
        "helps; FGSM training does not withstand PGD; small networks may learn nothing under PGD training; the value "
        "of the saddle point problem falls with capacity. Bars: 95% interval, or deviation over seeds.",
    )


ITEM = Item(
    name="accuracy",
    script="accuracy_table",
    needs=needs,
    show=show,
    sections=(
        Section(
            "Capacity and training method",
            "Figure 4 and its table",
            "Wider networks withstand one-step attacks better; networks trained on FGSM examples fall to PGD all the "
            "same; networks trained on PGD examples withstand it, the better the wider, and small ones may not learn "
            "at all.",
            tables=("accuracy",),
            figures=("capacity",),
        ),
    ),
)

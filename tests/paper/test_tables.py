from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sample_report import measurement

from saddlepoint.files import read_csv, read_json
from saddlepoint.measure.result import (
    Accuracy,
    Between,
    Check,
    Curve,
    Diagnosis,
    Geometry,
    Learned,
    Maxima,
    Result,
    RunName,
    interval,
)
from saddlepoint.paper.accuracy import accuracy_numbers, accuracy_table
from saddlepoint.paper.adversaries import adversaries_table
from saddlepoint.paper.diagnostics import diagnostics_table
from saddlepoint.paper.epsilon import epsilon_table
from saddlepoint.paper.filters import filters_table
from saddlepoint.paper.grid import grid_table
from saddlepoint.paper.landscape import geometry_table, segments_table
from saddlepoint.paper.numbers import published
from saddlepoint.show.names import NAMES
from saddlepoint.show.table import Table

MEASUREMENTS = ("natural", "fgsm", "pgd")
MODELS = ("simple", "wide")


def result(
    training: str, model: str, name: str, accuracy: float, train_loss: float = 0.5, seed: int = 0, **key: Any
) -> Result[Accuracy]:
    attack = {} if name == "natural" else {"norm": "linf", "eps": "8/255"}
    examples = key.get("examples", 10000)
    found = Accuracy(accuracy, interval(round(accuracy * examples), examples), "", 0.5)
    run = RunName("cifar10", model, training, "paper", str(seed))
    return dataclasses.replace(measurement(found, name, run, **{"attack": attack} | key), train_loss=train_loss)


def table(results: Sequence[Result[Accuracy]], dataset: str = "cifar10") -> Table:
    places = [(training, model, name) for training in ("standard", "pgd") for model in MODELS for name in MEASUREMENTS]
    found = {place: [each for each in results if place_of(each) == place] for place in places}
    return accuracy_table(accuracy_numbers(found, dataset=dataset), dataset=dataset)


def place_of(result: Result[Accuracy]) -> tuple[str, str, str]:
    return result.run.training, result.run.model, result.key.measurement


@pytest.fixture
def wide_pgd() -> list[Result[Accuracy]]:
    accuracies = zip(MEASUREMENTS, (0.868, 0.5609, 0.46), strict=True)
    return [result("pgd", "wide", name, accuracy, 0.0318) for name, accuracy in accuracies]


def rows_by_name(made: Table) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in made.rows}


def test_cells_without_a_result_say_not_run(wide_pgd: list[Result[Accuracy]]) -> None:
    made = table(wide_pgd)
    assert made.header == ["Accuracy in %", "Standard simple", "Standard wide", "PGD simple", "PGD wide"]
    for name in ("Natural", "FGSM", "PGD", "Training loss"):
        assert rows_by_name(made)[name][:3] == ["not run"] * 3
        assert rows_by_name(made)[name][3] != "not run"
    for name in ("Natural, difference", "Training loss, difference"):
        assert rows_by_name(made)[name][:3] == [""] * 3


def test_cifar10_has_the_papers_numbers_and_the_differences(wide_pgd: list[Result[Accuracy]]) -> None:
    rows = rows_by_name(table(wide_pgd))
    assert rows["Natural, paper"] == ["92.7", "95.2", "79.4", "87.3"]
    assert rows["PGD, paper"] == ["0.8", "3.5", "43.7", "45.8"]
    assert rows["Training loss, paper"] == ["0.00357", "0.00371", "1.11", "0.0218"]
    assert [rows[f"{name}, difference"][3] for name in ("Natural", "FGSM", "PGD")] == ["-0.5", "+0.0", "+0.2"]
    assert rows["Training loss, difference"][3] == "+0.01"


def test_one_number_has_its_interval(wide_pgd: list[Result[Accuracy]]) -> None:
    low, high = interval(4600, 10000)
    assert f"({100 * low:.1f}–{100 * high:.1f})" == "(45.0–47.0)"
    assert rows_by_name(table(wide_pgd))["PGD"][3] == "46.0 (45.0–47.0)"
    assert rows_by_name(table(wide_pgd))["Training loss"][3] == "0.0318"


def test_the_interval_is_rounded_once(wide_pgd: list[Result[Accuracy]]) -> None:
    assert f"{100 * interval(8680, 10000)[1]:.1f}" == "87.4"
    assert rows_by_name(table(wide_pgd))["Natural"][3] == "86.8 (86.1–87.4)"


def test_several_seeds_are_mean_and_deviation() -> None:
    accuracies = (0.45, 0.46, 0.49)
    results = [result("pgd", "wide", "pgd", value, seed=seed) for seed, value in enumerate(accuracies)]
    made = table(results)
    assert rows_by_name(made)["PGD"][3] == "46.7 ± 2.1"
    record = next(each for each in made.records if each["measurement"] == "pgd" and each["value"] is not None)
    assert record["value"] == pytest.approx(140 / 3)
    assert record["sd"] == pytest.approx(statistics.stdev([45, 46, 49]))
    assert (record["seeds"], record["examples"]) == (3, 10000)
    assert record["low"] is record["high"] is None
    assert any("standard deviation over 3 seeds" in note for note in made.notes)
    assert made.title == "cifar10, linf eps 8/255: accuracy by training method and model"
    assert record["difference"] == pytest.approx(140 / 3 - 45.8, abs=1e-4)


def test_the_training_loss_is_the_mean_over_seeds_and_counted_once() -> None:
    results = [
        result("pgd", "wide", name, 0.5, train_loss=loss, seed=seed)
        for seed, loss in enumerate((0.02, 0.04))
        for name in MEASUREMENTS
    ]
    made = table(results)
    assert rows_by_name(made)["Training loss"][3] == "0.03 ± 0.01"
    assert [each["seeds"] for each in made.records if each["measurement"] == "train_loss"] == [0, 0, 0, 2]


def test_a_data_set_without_published_numbers_has_only_ours() -> None:
    made = table([result("pgd", "wide", "natural", 0.9)], dataset="digits")
    assert list(rows_by_name(made)) == ["Natural", "FGSM", "PGD", "Training loss"]
    assert not any(note.startswith("Paper") for note in made.notes)


def test_notes_say_what_was_measured(wide_pgd: list[Result[Accuracy]]) -> None:
    assert "Paper: Figure 4, CIFAR10 panels a-d." in table(wide_pgd).notes
    assert not any("only" in note or "Checkpoint" in note for note in table(wide_pgd).notes)
    part = [result("pgd", "wide", "pgd", 0.5, examples=1000, checkpoint="best")]
    assert "Measured on the first 1000 of 10000 test images only." in table(part).notes
    assert any(note.startswith("Checkpoint: the best") for note in table(part).notes)


def test_published_numbers_are_the_papers() -> None:
    cifar10, mnist = published("cifar10", "accuracy"), published("mnist", "accuracy")
    found = {place[2]: value for place, value in cifar10.cells.items() if place[:2] == ("fgsm", "wide")}
    assert found == {"natural": 90.3, "fgsm": 95.1, "pgd": 0.0, "train_loss": 0.00557}
    assert mnist.cells["pgd", "simple", "natural"] == 11.35
    for nothing in (published("digits", "accuracy"), published("cifar10", "nothing"), published("cifar10", None)):
        assert nothing.source is None and not nothing.cells


def test_records_come_back_from_the_csv(tmp_path: Path, wide_pgd: list[Result[Accuracy]]) -> None:
    made = table(wide_pgd)
    paths = made.write(tmp_path / "tables", "accuracy")
    assert [path.name for path in paths] == ["accuracy.md", "accuracy.tex", "accuracy.csv", "accuracy.json"]
    assert paths[0].read_text() == made.markdown()
    assert paths[1].read_text() == made.latex()
    read = read_csv(paths[2])
    assert len(read) == 4 * 4
    for row, record in zip(read, made.records, strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in record.items()}
    cell = next(
        row for row in read if (row["training"], row["model"], row["measurement"]) == ("pgd", "wide", "natural")
    )
    assert (float(cell["value"]), float(cell["paper"]), float(cell["difference"])) == (86.8, 87.3, -0.5)
    assert cell["source"] == "Figure 4, CIFAR10 panels a-d"
    assert cell["command"] == "python scripts/accuracy_table.py seed=0"


def test_each_record_is_behind_its_cell(tmp_path: Path, wide_pgd: list[Result[Accuracy]]) -> None:
    made = table(wide_pgd)
    stored = read_json(made.write(tmp_path, "accuracy")[3])
    assert (stored["header"], stored["rows"], stored["notes"]) == (made.header, made.rows, made.notes)
    behind = {tuple(place): record for place, record in zip(stored["at"], stored["records"], strict=True)}
    assert len(behind) == 4 * 4
    for (row, column), record in behind.items():
        assert made.rows[row][0] == NAMES[record["measurement"]]
        assert made.header[column] == f"{NAMES[record['training']]} {record['model']}"
    files = {record["files"] for record in behind.values()} - {""}
    assert "wide-pgd/seed0/results/last-pgd.json" in files


def test_a_table_reads_back_with_what_its_cells_are(tmp_path: Path, wide_pgd: list[Result[Accuracy]]) -> None:
    made = table(wide_pgd)
    assert Table.read(read_json(made.write(tmp_path, "accuracy")[3])).cells == made.cells
    kinds = {row[0].text: [cell.kind for cell in row] for row in made.cells}
    assert kinds["PGD"] == ["text", "missing", "missing", "missing", "ours"]
    assert set(kinds["PGD, paper"]) == set(kinds["PGD, difference"]) == {"beside"}


def test_the_same_results_make_the_same_bytes(tmp_path: Path, wide_pgd: list[Result[Accuracy]]) -> None:
    first, again = table(wide_pgd).write(tmp_path / "1", "a"), table(wide_pgd).write(tmp_path / "2", "a")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_the_geometry_table_has_a_row_for_each_image() -> None:
    found = [Maxima(loss, Geometry(1.234, 0.056, 1.3, angle, 3.2)) for loss, angle in ((0.12345, 88.6), (2.0, 45.0))]
    results = [measurement(each, image=image, starts=100) for image, each in enumerate(found)]
    made = geometry_table(results, dataset="mnist")
    assert made.rows == [
        ["PGD wide, image 0", "0.123", "1.23 ± 0.06", "1.30", "89 ± 3"],
        ["PGD wide, image 1", "2", "1.23 ± 0.06", "1.30", "45 ± 3"],
    ]
    assert [record["image"] for record in made.records] == [0, 1]
    assert (made.records[1]["angle_mean"], made.records[1]["starts"]) == (45.0, 100)


def under(attack: str, accuracy: float, **key: Any) -> Result[Accuracy]:
    described = {} if attack == "natural" else {"norm": "linf", "eps": "0.3", "steps": 40, "restarts": 1}
    return result("pgd", "wide", attack, accuracy, attack=described, **key)


def test_adversaries_are_beside_table_1() -> None:
    rows = {
        ("natural", "A"): [under("natural", 0.988)],
        ("pgd", "A"): [under("pgd", 0.94)],
        ("autoattack", "A"): [under("autoattack", 0.88, examples=1000)],
        ("fgsm", "A_prime"): [under("fgsm", 0.965)],
        ("pgd", "A_nat"): [],
    }
    made = adversaries_table(rows, dataset="mnist", network="wide network")
    assert made.header[-3:] == ["Paper", "Difference", "Released model"]
    assert made.rows[0][:4] == ["Natural", "", "", ""] and made.rows[0][-3:] == ["98.8", "+0.0", "98.53"]
    assert made.rows[1] == ["PGD", "40", "1", "A", "94.0 (93.5–94.4)", "93.2", "+0.8", ""]
    assert made.rows[2][0] == "AutoAttack (first 1000)" and made.rows[2][-1] == "88.5"
    assert made.rows[3][3:] == ["A'", "96.5 (96.1–96.8)", "96.8", "-0.3", ""]
    assert made.rows[4][3:] == ["A_nat", "not run", "", "", ""]
    assert '"first n": measured on the first n test images only.' in made.notes
    assert [record["files"] for record in made.records][-1] == ""


def test_another_threat_is_named_and_not_compared() -> None:
    made = adversaries_table(
        {("pgd", "A"): [under("pgd", 0.9)]}, dataset="mnist", network="wide network", compare=False
    )
    assert made.title == "mnist, linf eps 0.3: wide network against every adversary"
    assert made.header[-1] == "Accuracy in %" and made.records[0]["paper"] is None


def test_a_part_common_to_all_rows_is_said_once() -> None:
    made = adversaries_table({("pgd", "A"): [under("pgd", 0.9, examples=500)]}, dataset="digits", network="x")
    assert made.rows[0][0] == "PGD"
    assert "Measured on the first 500 of 10000 test images only." in made.notes
    assert made.header == ["Adversary", "Steps", "Restarts", "Source", "Accuracy in %"]


def test_several_seeds_are_a_mean_with_its_deviation() -> None:
    found = [under("pgd", 0.94), under("pgd", 0.92)]
    made = adversaries_table({("pgd", "A"): found, ("fgsm", "A_prime"): found[:1]}, dataset="mnist", network="x")
    assert [row[4] for row in made.rows] == ["93.0 ± 1.4", "94.0 (93.5–94.4)"]
    assert "Mean ± standard deviation over 2 seeds; of one seed, in brackets, the 95% interval." in made.notes[0]
    assert made.records[0]["files"] == "; ".join(["wide-pgd/seed0/results/last-pgd.json"] * 2)
    grid = grid_table({("pgd wide", "pgd"): found}, dataset="mnist", title="t", sides=("network", "attack"), notes=[])
    assert grid.rows == [["pgd wide", "93.0 ± 1.4"]]
    assert grid.notes == ["Mean ± standard deviation over 2 seeds."]


def test_an_attack_that_is_blind_or_short_is_named_under_the_table(wide_pgd: list[Result[Accuracy]]) -> None:
    def blind(result: Result[Accuracy], share: float) -> Result[Accuracy]:
        return dataclasses.replace(result, found=dataclasses.replace(result.found, no_gradient=share))

    short = {"norm": "linf", "eps": "8/255", "reach": "0.02"}
    natural, fgsm = wide_pgd[0], blind(wide_pgd[1], 0.01)
    pgd = blind(result("pgd", "wide", "pgd", 0.46, 0.0318, attack=short), 0.0123)
    seen = result("pgd", "wide", "pgd", 0.4, seed=1)  # as of a result from before the share was kept
    other = blind(seen, 0.0456)
    said = [
        "No gradient at the start, so that the accuracy may be too high: 4.6% of images (PGD of PGD wide).",
        "The steps together are shorter than the threat: 0.02 of eps 8/255 (PGD).",
    ]
    assert set(said) <= set(table([natural, fgsm, pgd, other]).notes)
    cells = {("pgd wide", "fgsm"): [fgsm], ("pgd wide", "pgd"): [other, pgd]}
    grid = grid_table(cells, dataset="mnist", title="t", sides=("network", "attack"), notes=[])
    assert grid.notes[-2:] == said
    assert not set(said) & set(table([natural, fgsm, seen]).notes)


def test_a_column_on_a_part_says_so_where_others_are_whole() -> None:
    cells = {
        ("pgd wide", "pgd"): [under("pgd", 0.94)],
        ("pgd wide", "autoattack"): [under("autoattack", 0.88, examples=1000)],
        ("fgsm wide", "pgd"): [],
        ("fgsm wide", "autoattack"): [],
    }
    made = grid_table(cells, dataset="mnist", title="t", sides=("network", "attack"), notes=[])
    assert made.header[1:] == ["PGD", "AutoAttack (first 1000)"]
    assert made.notes[-1] == '"first n": measured on the first n test images only.'


def test_the_transfer_grid_has_the_papers_rows_as_targets() -> None:
    cells = {
        ("standard wide", "pgd wide"): [under("pgd_7", 0.8)],
        ("standard wide", "standard wide"): [under("pgd_7", 0.01)],
        ("pgd wide", "pgd wide"): [under("pgd_7", 0.65)],
        ("pgd wide", "standard wide"): [],
    }
    made = grid_table(
        cells,
        dataset="cifar10",
        title="t",
        sides=("target", "source"),
        notes=[],
        item="transfer_pgd_7",
        intervals=False,
    )
    assert made.header == ["Target / source", "pgd wide", "standard wide"]
    assert made.rows == [
        ["standard wide", "80.0 [79.7]", "1.0 [0]"],
        ["pgd wide", "65.0 [64.2]", "not run [86]"],
    ]
    places = {place: (record["target"], record["source"]) for place, record in zip(made.at, made.records, strict=True)}
    assert places[1, 1] == ("pgd wide", "pgd wide")
    assert made.notes[-1] == "In square brackets, the paper: Table 4 (ICLR)."


def test_tables_3_to_5_are_the_papers() -> None:
    fgsm, pgd, white = (published("cifar10", item) for item in ("transfer_fgsm", "transfer_pgd_7", "white_box"))
    # The check that says which side is the source: Table 2's A' and A_nat rows.
    assert (fgsm.cells["pgd wide", "pgd wide"], fgsm.cells["pgd wide", "standard wide"]) == (67.0, 85.6)
    assert (pgd.cells["pgd wide", "pgd wide"], pgd.cells["pgd wide", "standard wide"]) == (64.2, 86.0)
    row = {attack: value for (network, attack), value in white.cells.items() if network == "pgd simple"}
    assert row == {"natural": 79.4, "fgsm": 51.7, "fgsm_rs": 55.9, "pgd_7": 47.1, "pgd": 43.7}


def test_epsilon_rows_are_networks_and_attacks() -> None:
    curve = Curve([0.99, 0.5], [[0.98, 1.0], [0.4, 0.6]])
    measured = measurement(curve, "epsilon-linf-square", norm="linf", attack="square", eps=["0", "0.3"])
    made = epsilon_table([measured], dataset="mnist")
    assert made.header == ["Training, attack", "0", "0.3"]
    assert made.rows == [["PGD, Square (no gradient)", "99.0 (98.8)", "50.0 (98)"]]
    assert [record["value"] for record in made.records] == [99.0, 50.0]


def test_segments_and_filters_in_words() -> None:
    between = measurement(Between(2.0, 1.5, 0.1, highest_at_an_end=0.9, cosine=0.25, negative_cosines=0.1))
    assert segments_table([between], dataset="x").rows == [["PGD wide", "2", "1.5", "0.1", "90%", "0.250", "10%"]]
    learned = measurement(Learned(filters=32, alive=5, single_weight=3, bias_low=0.05, bias_high=0.175))
    assert filters_table([learned], dataset="x").rows == [["PGD wide", "5 of 32", "3 of 5", "0.050 to 0.175"]]


def test_diagnostics_say_pass_or_suspicious() -> None:
    check = Check("more steps", "no weaker", {"steps 5": 0.5, "steps 20": 0.25}, passed=True)
    found = {
        "pgd wide": Diagnosis([check], "c", ["f", "g"]),
        "fgsm wide": Diagnosis([dataclasses.replace(check, passed=False)], "c", ["f"]),
    }
    made = diagnostics_table(found, dataset="x", notes=["n"])
    assert made.rows == [
        ["pgd wide: more steps", "no weaker", "steps 5: 50.0%, steps 20: 25.0%", "pass"],
        ["fgsm wide: more steps", "no weaker", "steps 5: 50.0%, steps 20: 25.0%", "suspicious"],
    ]

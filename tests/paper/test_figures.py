from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.container import BarContainer
from sample_report import measurement, result

from saddlepoint.measure.result import Curve, interval
from saddlepoint.paper.accuracy import capacity
from saddlepoint.paper.epsilon import epsilon
from saddlepoint.paper.filters import filters, output_layer
from saddlepoint.paper.landscape import loss_histograms, loss_trajectories, segments
from saddlepoint.paper.numbers import Number
from saddlepoint.paper.overfitting import robust_overfitting
from saddlepoint.paper.samples import samples
from saddlepoint.paper.training_curves import training_loss
from saddlepoint.paper.transfer import directions, gradient_angles
from saddlepoint.show.charts import Chart, Panel, Series
from saddlepoint.show.names import COLOURS
from saddlepoint.show.plots import figure

EXAMPLES, STARTS, STEPS = 3, 5, 8
RANDOM = np.random.default_rng(0)
PATHS = {name: np.sort(RANDOM.random((EXAMPLES, STARTS, STEPS + 1)), axis=2) for name in ("standard", "pgd")}
ENDS = {"standard": 40 * RANDOM.random((EXAMPLES, 200)), "pgd": RANDOM.random((EXAMPLES, 200)).astype(np.float32)}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def test_trajectories_have_a_panel_for_each_network_and_image_and_a_line_for_each_start() -> None:
    figure = loss_trajectories(PATHS, "mnist").draw()
    assert len(figure.axes) == 2 * EXAMPLES
    for row, (training, paths) in enumerate(PATHS.items()):
        for example in range(EXAMPLES):
            axis = figure.axes[row * EXAMPLES + example]
            assert [line.get_color() for line in axis.lines] == [COLOURS[training]] * STARTS
            for start, line in enumerate(axis.lines):
                assert np.array_equal(line.get_ydata(), paths[example, start])
                assert np.array_equal(line.get_xdata(), np.arange(STEPS + 1))
            assert axis.get_ylim()[0] == 0
    assert figure.axes[0].get_ylabel().startswith("standard training")
    assert figure.get_suptitle() == "mnist: loss along PGD from 5 random starts"


def test_histograms_count_every_start_once() -> None:
    figure = loss_histograms(ENDS, "mnist").draw()
    assert len(figure.axes) == EXAMPLES
    for example, axis in enumerate(figure.axes):
        histograms = [each for each in axis.containers if isinstance(each, BarContainer)]
        assert len(histograms) == 2
        for bars, values in zip(histograms, ENDS.values(), strict=True):
            edges = np.array([*(bar.get_x() for bar in bars), bars[-1].get_x() + bars[-1].get_width()])
            heights = [bar.get_height() for bar in bars]
            assert sum(heights) == 200
            assert heights == np.histogram(values[example], edges)[0].tolist()
        assert axis.get_yscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["standard training", "PGD training"]
    assert figure.get_suptitle() == "mnist: loss at the end of PGD from 200 random starts"


def test_one_network_of_no_loss_has_a_histogram_too() -> None:
    (axis,) = loss_histograms({"pgd": np.zeros((1, 7))}, "mnist").draw().axes
    assert sum(bar.get_height() for bar in axis.patches) == 7


@pytest.mark.parametrize("kind", ["trajectories", "histograms"])
def test_legend_and_title_do_not_cover_the_panels(kind: str) -> None:
    chart = loss_trajectories(PATHS, "mnist") if kind == "trajectories" else loss_histograms(ENDS, "mnist")
    figure = chart.draw()
    figure.draw_without_rendering()
    assert figure._suptitle is not None
    around = [figure._suptitle.get_window_extent(), *(legend.get_window_extent() for legend in figure.legends)]
    for panel in (axis.get_tightbbox() for axis in figure.axes):
        assert panel is not None
        assert not any(panel.overlaps(each) for each in around)


def test_the_same_figure_is_the_same_bytes(tmp_path: Path) -> None:
    def written(folder: str, height: float) -> list[Path]:
        panel = Panel([Series("s", [0, 1], [1, height], "#000000")])
        return Chart("a chart", [[panel]]).write(tmp_path / folder, "line")

    first, again, other = written("1", 2), written("2", 2), written("3", 3)
    assert [path.name for path in first] == ["line.pdf", "line.png", "line.json"]
    assert first[0].read_bytes().startswith(b"%PDF") and first[1].read_bytes().startswith(b"\x89PNG")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert not {path.read_bytes() for path in first} & {path.read_bytes() for path in other}
    assert plt.get_fignums() == []


def series(chart: Chart) -> dict[str, tuple[list[float], list[float]]]:
    """The curves of a chart's panels, by panel title and name."""
    return {
        f"{panel.title}: {each.name}": ([float(x) for x in each.x], [float(y) for y in each.y])
        for row in chart.rows
        for panel in row
        for each in panel.series
    }


def test_capacity_shows_ours_and_the_papers() -> None:
    cells = {"simple": ((0.795, 0.805), 11.35), "wide": ((0.935, 0.945), 93.2), "capacity4": ((), 87.5)}
    numbers = {
        ("pgd", model, "pgd"): Number([result("pgd", model, "pgd", accuracy) for accuracy in accuracies], paper)
        for model, (accuracies, paper) in cells.items()
    }
    chart = capacity(numbers, {"simple": 1, "capacity4": 4, "wide": 16}, "mnist")
    assert series(chart) == {
        "PGD training: PGD": ([1, 16], pytest.approx([80, 94])),
        "PGD training: PGD, paper": ([1, 4, 16], [11.35, 87.5, 93.2]),
    }
    ours = chart.rows[0][0].series[0]
    spread = 0.5 * 2**0.5
    assert ours.low is not None and list(ours.low) == pytest.approx([80 - spread, 94 - spread])
    chart.draw()


def test_a_loss_of_one_seed_has_no_bar() -> None:
    found = [result("pgd", "simple", "pgd", 0.8)]
    numbers = {("pgd", "simple", "pgd"): Number(found), ("pgd", "simple", "train_loss"): Number(found, is_loss=True)}
    chart = capacity(numbers, {"simple": 1}, "mnist")
    accuracy, loss = (panel.series[0] for panel in chart.rows[0])
    low, high = interval(8000, 10000)
    assert (accuracy.low, accuracy.high) == (pytest.approx((100 * low,)), pytest.approx((100 * high,)))
    assert (loss.low, loss.high) == ((None,), (None,))
    chart.draw()
    (drawn,) = figure(json.loads(chart.as_json()))["rows"][0][1]["plot"]["data"]
    assert drawn["error_y"]["array"] == [None]
    assert "customdata" not in drawn["hovertemplate"][0]


def test_training_loss_is_the_history() -> None:
    history = [{"step": "10", "train_loss": "2.0"}, {"step": "20", "train_loss": "0.5"}]
    chart = training_loss({"wide": history}, "mnist")
    found = series(chart)
    assert found[": wide"] == ([10, 20], [2.0, 0.5])
    assert found[": paper, wide"][1][0] == 4.8
    assert set(series(training_loss({"wide": history}, "digits"))) == {": wide"}


def test_overfitting_has_both_accuracies_in_percent() -> None:
    history = [{"step": "10", "held_out_natural": "0.5", "held_out_robust": "0.25"}]
    found = series(robust_overfitting({"pgd": history}, "x"))
    assert found["held-out images: PGD training"] == ([10], [50])
    assert found["held-out images under PGD: PGD training"] == ([10], [25])


def test_epsilon_reads_fractions() -> None:
    measured = measurement(Curve([0.9, 0.45], [[0.8, 1.0], [0.4, 0.5]]), norm="linf", attack="pgd", eps=["0", "8/255"])
    ((x, y),) = series(epsilon([measured], "cifar10")).values()
    assert x == [0, 8 / 255] and y == [90, 45]


def test_the_papers_gradient_free_attack_has_its_own_name() -> None:
    measured = measurement(Curve([0.4], [[0.36, 0.44]]), norm="l2", attack="square", eps=["2"])
    (row,) = epsilon([measured], "mnist").rows
    ours, paper = row[0].series
    assert (ours.name, paper.name) == ("Square (no gradient)", "Decision-boundary attack, paper")
    assert paper.y[list(paper.x).index(2)] == 10.8


def test_angles_count_the_images_that_have_one() -> None:
    angles = {"same": np.array([10.0, 170.0, np.nan]), "other": np.array([90.0, 90.0, 90.0])}
    found = series(gradient_angles({"standard": angles}, "x"))
    assert [sum(y) for _, y in found.values()] == [2, 3]


def test_filters_keep_every_weight() -> None:
    kernels = RANDOM.normal(size=(18, 1, 5, 5))
    (row,) = filters({"pgd": kernels}, "mnist").rows
    image = row[0].image
    assert image is not None
    assert image.pixels.shape == (11, 95)
    assert np.isfinite(image.pixels).sum() == kernels.size
    np.testing.assert_array_equal(image.pixels[:5, :5], kernels[0, 0])
    np.testing.assert_array_equal(image.pixels[6:11, 6:11], kernels[17, 0])
    assert image.high == -image.low == np.abs(kernels).max()


def test_the_output_layer_is_counted_whole() -> None:
    weights = RANDOM.normal(size=(10, 64))
    histogram, biases = output_layer({"pgd": (weights, np.arange(10) / 10)}, "x").rows[0]
    assert sum(histogram.series[0].y) == 640
    assert (biases.series[0].x[9], biases.series[0].y[9]) == (9, 0.9)


def test_segments_and_directions_have_a_panel_for_each_image() -> None:
    lines = {"pgd": RANDOM.random((2, 3, 5))}
    assert [len(panel.series) for panel in segments(lines, "x").rows[0]] == [3, 3]
    kinds = {"own FGSM": RANDOM.random((2, 1, 4)), "copy's PGD": RANDOM.random((2, 5, 4))}
    chart = directions({"pgd": kinds}, "x")
    assert [len(panel.series) for panel in chart.rows[0]] == [6, 6]
    chart.draw()


def test_a_chart_as_json_has_all_numbers() -> None:
    chart = loss_trajectories(PATHS, "mnist")
    read = json.loads(chart.as_json())
    assert read["title"] == chart.title and read["caption"] == chart.caption
    line = read["rows"][1][2]["series"][3]
    np.testing.assert_allclose(line["y"], PATHS["pgd"][2, 3], rtol=1e-4)
    broken = Chart("t", [[Panel([Series("s", [0.0, 1.0], np.array([np.nan, 1.0]), "#000")])]])
    assert json.loads(broken.as_json())["rows"][0][0]["series"][0]["y"] == [None, 1.0]


def test_a_method_of_ones_own_has_a_name_and_a_colour() -> None:
    losses = {"mixed": np.ones((1, 2, 3)), "pgd": np.ones((1, 2, 3))}
    own, pgd = (row[0].series[0] for row in loss_trajectories(losses, "digits").rows)
    assert (own.name, pgd.name) == ("mixed training", "PGD training")
    assert own.colour != pgd.colour


def test_a_figure_is_drawn_again_only_if_it_changed_or_a_file_is_gone(tmp_path: Path) -> None:
    def drawn(loss: float, command: str = "") -> set[str]:
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        chart = Chart("losses", [[Panel([Series("loss", [0, 1], [1, loss], "#000000")])]])
        written = chart.write(tmp_path, "loss", command)
        assert {path.suffix for path in written} == {".pdf", ".png", ".json"}
        return {path.suffix for path in written if path.stat().st_mtime > 0}

    everything = {".pdf", ".png", ".json"}
    assert drawn(0.5) == everything
    assert drawn(0.5) == set()
    assert drawn(0.25) == everything
    (tmp_path / "loss.pdf").unlink()
    assert drawn(0.25) == everything


def test_samples_show_the_images_then_a_perturbation_and_its_end_for_each_attack() -> None:
    images = np.full((2, 3, 4, 4), 0.5)
    ends = images.copy()
    ends[0, 1, 2, 3] += 0.25
    found = {("pgd", "l2 4"): {"images": ends, "before": np.array([7, 1]), "after": np.array([3, 1])}}
    natural, perturbation, adversarial = samples(images, [7, 1], found, "cifar10").rows
    assert [panel.x for panel in (*natural, *adversarial)] == ["class 7", "class 1", "7 → 3", "1 → 1"]
    shown = [panel.image.pixels for panel in perturbation if panel.image]
    assert shown[0][2, 3].tolist() == [0.5, 1.0, 0.5]  # scaled to its largest
    assert (shown[1] == 0.5).all()
    assert adversarial[0].image is not None and adversarial[0].image.pixels[2, 3, 1] == 0.75

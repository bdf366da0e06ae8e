from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from saddlepoint.report.figures import COLOURS, attack_speed, loss_histograms, loss_trajectories, write

EXAMPLES, STARTS, STEPS = 3, 5, 8
RANDOM = np.random.default_rng(0)
PATHS = {name: np.sort(RANDOM.random((EXAMPLES, STARTS, STEPS + 1)), axis=2) for name in ("standard", "pgd")}
ENDS = {"standard": 40 * RANDOM.random((EXAMPLES, 200)), "pgd": RANDOM.random((EXAMPLES, 200)).astype(np.float32)}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def test_trajectories_have_a_panel_for_each_network_and_image_and_a_line_for_each_start() -> None:
    figure = loss_trajectories(PATHS, "mnist")
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
    figure = loss_histograms(ENDS, "mnist")
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
    (axis,) = loss_histograms({"pgd": np.zeros((1, 7))}, "mnist").axes
    assert sum(bar.get_height() for bar in axis.patches) == 7


def test_speeds_have_a_panel_for_each_case_and_a_bar_for_each_contender() -> None:
    names = ["saddlepoint, float32", "peer, our network", "peer, plain"]
    records = [
        {"case": case, "contender": name, "image_steps_per_second": rate, "slowest": rate - 1, "fastest": rate + 2}
        for case, rates in {"a": (30, 20, 10), "b": (6, 5, 4)}.items()
        for name, rate in zip(names, rates, strict=True)
    ]
    figure = attack_speed(records[:-1])  # b has no peer on the plain network
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [names[0], names[2], names[1]]
    for axis, rates in zip(figure.axes, ([30, 10, 20], [6, 5]), strict=True):
        bars = [each for each in axis.containers if isinstance(each, BarContainer)]
        assert [bar.get_width() for each in bars for bar in each] == rates
        assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first above
    assert figure.axes[1].patches[1].get_y() > 1  # at the height of its name


@pytest.mark.parametrize("kind", ["trajectories", "histograms"])
def test_legend_and_title_do_not_cover_the_panels(kind: str) -> None:
    figure = loss_trajectories(PATHS, "mnist") if kind == "trajectories" else loss_histograms(ENDS, "mnist")
    figure.draw_without_rendering()
    assert figure._suptitle is not None
    around = [figure._suptitle.get_window_extent(), *(legend.get_window_extent() for legend in figure.legends)]
    for panel in (axis.get_tightbbox() for axis in figure.axes):
        assert panel is not None
        assert not any(panel.overlaps(each) for each in around)


@pytest.mark.parametrize("kind", ["trajectories", "histograms"])
def test_the_same_figure_is_the_same_bytes(tmp_path: Path, kind: str) -> None:
    def figure() -> Figure:
        return loss_trajectories(PATHS, "mnist") if kind == "trajectories" else loss_histograms(ENDS, "mnist")

    first, again = write(figure(), tmp_path / "1", kind), write(figure(), tmp_path / "2", kind)
    assert [path.name for path in first] == [f"{kind}.pdf", f"{kind}.png"]
    assert first[0].read_bytes().startswith(b"%PDF") and first[1].read_bytes().startswith(b"\x89PNG")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert plt.get_fignums() == []
    other = {name: values[:, ::-1] / 2 for name, values in (PATHS if kind == "trajectories" else ENDS).items()}
    changed = (loss_trajectories if kind == "trajectories" else loss_histograms)(other, "mnist")
    assert write(changed, tmp_path / "3", kind)[1].read_bytes() != first[1].read_bytes()

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.container import BarContainer

from saddlepoint.report.charts import Chart
from saddlepoint.report.figures import COLOURS, loss_histograms, loss_trajectories

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


@pytest.mark.parametrize("kind", ["trajectories", "histograms"])
def test_the_same_figure_is_the_same_bytes(tmp_path: Path, kind: str) -> None:
    def chart() -> Chart:
        return loss_trajectories(PATHS, "mnist") if kind == "trajectories" else loss_histograms(ENDS, "mnist")

    first, again = chart().write(tmp_path / "1", kind), chart().write(tmp_path / "2", kind)
    assert [path.name for path in first] == [f"{kind}.pdf", f"{kind}.png", f"{kind}.json"]
    assert first[0].read_bytes().startswith(b"%PDF") and first[1].read_bytes().startswith(b"\x89PNG")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert plt.get_fignums() == []
    other = {name: values[:, ::-1] / 2 for name, values in (PATHS if kind == "trajectories" else ENDS).items()}
    changed = (loss_trajectories if kind == "trajectories" else loss_histograms)(other, "mnist")
    assert changed.write(tmp_path / "3", kind)[1].read_bytes() != first[1].read_bytes()

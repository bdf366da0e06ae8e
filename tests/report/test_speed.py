from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.container import BarContainer

from saddlepoint.report.speed import attack_speed


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
    plt.close(figure)

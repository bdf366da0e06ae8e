"""The benchmark's figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from saddlepoint.report.charts import STYLE
from saddlepoint.report.figures import COLOURS

RATES = ("image_steps_per_second", "slowest", "fastest")  # of every contender


def attack_speed(records: Sequence[Mapping[str, Any]]) -> Figure:
    """The benchmark's image-steps a second: a panel for each case, a bar for each contender with its spread.

    `records`: case, contender, and the median, slowest and fastest rate of each.
    """
    cases = list(dict.fromkeys(record["case"] for record in records))
    contenders = list(dict.fromkeys(record["contender"] for record in records))
    contenders.sort(key=lambda name: name.endswith("our network"))  # stable: ours, the plain network's, then the rest
    columns = min(3, len(cases))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            -(-len(cases) // columns),
            columns,
            figsize=(2.4 * columns + 1.6, (0.19 * len(contenders) + 0.7) * -(-len(cases) // columns)),
            squeeze=False,
            sharey=True,
            layout="constrained",
        )
        for case, axis in zip(cases, axes.flat, strict=False):
            found = {record["contender"]: record for record in records if record["case"] == case}
            for position, name in enumerate(contenders):
                if name not in found:
                    continue
                rate, slowest, fastest = (found[name][key] for key in RATES)
                axis.barh(
                    position,
                    rate,
                    xerr=[[rate - slowest], [fastest - rate]],
                    color=COLOURS["pgd" if name.startswith("saddlepoint") else "fgsm"],
                    alpha=0.55 if name.endswith("our network") else 1,
                    error_kw={"elinewidth": 0.8},
                )
            axis.set_title(case)
            axis.set_yticks(range(len(contenders)), contenders)
            axis.set_xlim(left=0)
            axis.xaxis.set_major_locator(MaxNLocator(3))
            axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes[0, 0].invert_yaxis()  # shared: ours above
        for axis in axes.flat[len(cases) :]:
            axis.set_visible(False)
        figure.supxlabel("image-steps a second; whiskers: slowest and fastest repeat", fontsize=9)
    return figure

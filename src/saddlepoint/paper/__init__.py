"""The items of the paper, a module for each, in the order of the page."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saddlepoint.compose import next_command
from saddlepoint.errors import InputError, nearest
from saddlepoint.lab import Lab, Network
from saddlepoint.paper import (
    accuracy,
    adversaries,
    diagnostics,
    epsilon,
    filters,
    landscape,
    methods,
    overfitting,
    samples,
    training_curves,
    transfer,
)
from saddlepoint.paper.item import Item
from saddlepoint.show import page
from saddlepoint.show.folder import Report

log = logging.getLogger(__name__)

ITEMS: tuple[Item, ...] = (
    accuracy.ITEM,
    adversaries.ITEM,
    landscape.ITEM,
    training_curves.ITEM,
    epsilon.ITEM,
    transfer.ITEM,
    filters.ITEM,
    samples.ITEM,
    diagnostics.ITEM,
    methods.ITEM,
    overfitting.ITEM,
)

# With the command of each, as the page shows them.
SECTIONS = tuple(dataclasses.replace(section, arguments=item.arguments) for item in ITEMS for section in item.sections)


def items_named(names: Sequence[str] | None) -> list[Item]:
    """The items of these names, all for None. Raises InputError for an unknown name, or none at all."""
    known = {item.name: item for item in ITEMS}
    if names is None:
        return list(ITEMS)
    if isinstance(names, str) or not names:
        raise InputError(f"items={names}; expected a list such as [{names or ITEMS[0].name}] of {', '.join(known)}")
    for name in map(str, names):
        if name not in known:
            raise InputError(
                f"items=[{name}]: unknown item {name!r}; choose from {', '.join(known)}{nearest(name, list(known))}"
            )
    return [item for item in ITEMS if item.name in names]


def planned(lab: Lab, items: Sequence[Item]) -> list[Network]:
    """The networks that items are made of and those that they are taught by, each once; wide ones first.

    The longest trainings should not be the last to start.
    """
    found = [network for item in items for network in item.networks(lab)]
    sources = [
        (model, name, seed) for model, training, seed in found if (name := lab.run(model, training, seed).taught_by)
    ]
    widths = list(lab.cfg.models)
    return sorted(dict.fromkeys(sources + found), key=lambda each: -widths.index(each[0]) if each[0] in widths else 0)


def write(lab: Lab, item: Item) -> Report:
    """Measure what is missing of an item and write its tables and figures."""
    lab.begin(*item.arguments)
    with lab.report() as out:
        found: dict[Any, list[Any]] = {}
        for place, measurements in item.needs(lab).items():
            results = [lab.measure(each) for each in measurements]
            found[place] = [each for each in results if each is not None]
        lab.release()
        if lab.runtime.processes.first:
            for name, shown in item.show(found, lab):
                out.add(name, shown)
    return out


def write_page(folder: Path) -> Path:
    """The page of a report's folder."""
    return page.write(folder, SECTIONS)


def make(lab: Lab, *items: Item) -> None:
    """The body of a script: write the items, print their tables, and say what to do next."""
    for item in items:
        write(lab, item).tell()
    names = ",".join(item.name for item in items)
    following = [item for item in ITEMS if item not in items and not item.made(lab.folder)]
    if lab.missing:
        log.info("train what is missing and make this again: %s", next_command("reproduce", f"items=[{names}]"))
    elif following:
        log.info("next, %s: %s", following[0].sections[0].place, next_command(*following[0].arguments))

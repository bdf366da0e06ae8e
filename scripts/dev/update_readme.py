"""Put the numbers of outputs/reference into README.md and docs/*.md: python scripts/dev/update_readme.py

The text between <!-- table: FILE --> and <!-- end --> becomes the content of outputs/reference/FILE.
The text between <!-- results --> and <!-- end --> becomes the README's main table, computed from tables/*.json.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from saddlepoint.files import read_json

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
RESULTS = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)


class Row(NamedTuple):
    """One row of the main table: `record` holds the values that identify its record in `table`."""

    network: str
    attack: str
    table: str
    record: dict[str, str]


def _mnist(attack: str, name: str) -> Row:
    return Row("MNIST wide", attack, "mnist/report-fast/tables/adversaries.json", {"attack": name, "source": "A"})


def _cifar10(model: str, attack: str, name: str, table: str = "evaluation.precision=bfloat16/tables/accuracy") -> Row:
    record = {"model": model, "training": "pgd", "measurement": name}
    return Row(f"CIFAR10 {model}", attack, f"cifar10/report-fast,{table}.json", record)


APGD_T = "evaluation.attacks=natural+pgd+apgd_t,2dcc63f0f3/tables/apgd_t-first500"
ROWS = [
    _mnist("none", "natural"),
    _mnist("FGSM", "fgsm"),
    _mnist("PGD, 40 steps", "pgd"),
    _mnist("PGD, 100 steps, 20 restarts", "pgd_100_x20"),
    _mnist("AutoAttack", "autoattack"),
    _cifar10("simple", "none", "natural"),
    _cifar10("simple", "FGSM", "fgsm"),
    _cifar10("simple", "PGD, 20 steps", "pgd"),
    _cifar10("wide", "none", "natural"),
    _cifar10("wide", "FGSM", "fgsm"),
    _cifar10("wide", "PGD, 20 steps", "pgd"),
    _cifar10("wide", "targeted APGD", "apgd_t", APGD_T),
]


def results_table(reference: Path) -> str:
    """The main table as Markdown: accuracy in % with its 95% interval, the paper's, and the difference."""
    lines = ["| Network | Attack | Ours | Paper | Difference |", "| --- | --- | --: | --: | --: |"]
    lines += [f"| {' | '.join(_cells(row, reference))} |" for row in ROWS]
    return "\n".join(lines)


def _cells(row: Row, reference: Path) -> list[str]:
    records: list[dict[str, Any]] = read_json(reference / row.table)["records"]
    (record,) = (each for each in records if row.record.items() <= each.items())
    value, paper, examples = record["value"], record["paper"], record["examples"]
    theirs = "" if paper is None else f"{paper:.1f}"
    if value is None:
        return [row.network, row.attack, "not trained yet", theirs, ""]
    attack = f"{row.attack} (first {examples:,} images)" if examples < 10_000 else row.attack
    ours = f"{value:.1f} ({record['low']:.1f}–{record['high']:.1f})"
    return [row.network, attack, ours, theirs, f"{round(value - paper, 1):+.1f}" if theirs else ""]


def updated(page: str, reference: Path) -> str:
    """The page with every marked table replaced."""
    page = TABLE.sub(lambda found: f"{found[1]}\n{(reference / found[2]).read_text()}\n{found[3]}", page)
    return RESULTS.sub(lambda found: f"{found[1]}\n{results_table(reference)}\n\n{found[2]}", page)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    for page in PAGES:
        path = ROOT / page
        path.write_text(updated(path.read_text(), ROOT / "outputs" / "reference"))


if __name__ == "__main__":
    main()

"""Put the tables of outputs/reference into README.md: python scripts/dev/update_readme.py

A table stands between <!-- table: FILE --> and <!-- end --> and is the content of outputs/reference/FILE.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def updated(readme: str, reference: Path) -> str:
    """The text with every marked table replaced by its file."""
    return MARKED.sub(lambda found: f"{found[1]}\n{(reference / found[2]).read_text()}\n{found[3]}", readme)


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    path = ROOT / "README.md"
    path.write_text(updated(path.read_text(), ROOT / "outputs" / "reference"))


if __name__ == "__main__":
    main()

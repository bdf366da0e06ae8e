"""The report as one HTML page: python scripts/report.py outputs/mnist/report-fast

Reads the tables and figures that the other scripts wrote there and writes index.html in the same folder, in seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from saddlepoint.errors import InputError
from saddlepoint.paper import write_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a report's folder, such as outputs/digits/report")
    try:
        print(f"wrote {write_page(parser.parse_args().folder)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

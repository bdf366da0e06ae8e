"""ICLR Figures 9 and 10, the first and the last layer: python scripts/filters.py dataset=mnist recipe=fast"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import filters, make


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), filters.ITEM)


if __name__ == "__main__":
    main()

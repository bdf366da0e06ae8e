"""The paper's training and the methods it is compared with: python scripts/methods_table.py dataset=mnist recipe=fast

Examples made once (static), FGSM with a random start, TRADES; the last and the best checkpoint of each.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import make, methods


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), methods.ITEM)


if __name__ == "__main__":
    main()

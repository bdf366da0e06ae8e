"""Does a network withstand the attack or hide from it? python scripts/diagnostics.py dataset=mnist recipe=fast

Signs of masked gradients for each training method, with the numbers: pass or suspicious.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import diagnostics, make


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), diagnostics.ITEM)


if __name__ == "__main__":
    main()

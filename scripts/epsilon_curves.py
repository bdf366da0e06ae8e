"""Figure 6, accuracy against eps in l_inf and l_2: python scripts/epsilon_curves.py dataset=mnist recipe=fast

By PGD (100 steps of 2.5 eps / 100) and by an attack without gradients, on the networks trained in the configured norm.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import epsilon, make


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), epsilon.ITEM)


if __name__ == "__main__":
    main()

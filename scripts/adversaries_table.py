"""Tables 1 and 2, one network against every adversary: python scripts/adversaries_table.py dataset=mnist recipe=fast

White box, and black box from an independently trained copy (A'), a naturally trained one (A_nat) and another
architecture (B); AutoAttack and an attack without gradients. The rows: report.adversaries.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import adversaries, make


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), adversaries.ITEM)


if __name__ == "__main__":
    main()

"""Tables 3 to 5 and ICLR Figures 7 and 8, transfer: python scripts/transfer_tables.py dataset=mnist recipe=fast

Accuracy of every network on examples made on an independent training of every other (report.copies); the white-box
table; the loss towards own and transferred examples; angles between the gradients of a network and its copy.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import make, transfer


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), transfer.ITEM)


if __name__ == "__main__":
    main()

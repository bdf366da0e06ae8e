"""Figures 1 and 2: python scripts/loss_histograms.py dataset=mnist recipe=fast landscape.histogram_starts=100000

The loss along PGD, and where it ends, from many random starts around a few test images, for the naturally and
the adversarially trained network; and what the text says of the maxima: the distances and angles between them, the
loss on the way from one to another, their perturbations and the gradient.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import landscape, make


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg), landscape.ITEM)


if __name__ == "__main__":
    main()

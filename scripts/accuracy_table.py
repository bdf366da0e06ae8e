"""The paper's accuracy table and Figure 4: python scripts/accuracy_table.py dataset=mnist recipe=fast

Measures what is missing, prints the table, and writes it (md, tex, csv, json) and the figure. Other runs:
models=[simple,wide] trainings=[pgd] seeds=3; another checkpoint: evaluation.checkpoint=best; a part of the test set:
evaluation.examples=1000. With logger=wandb the numbers also join the runs they belong to.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.paper import accuracy, make


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    make(Lab(cfg, alone=False), accuracy.ITEM)


if __name__ == "__main__":
    main()

"""Tables 1 and 2, one network against every adversary: python scripts/adversaries_table.py dataset=mnist recipe=fast

White box, and black box from an independently trained copy (A'), a naturally trained one (A_nat) and another
architecture (B); AutoAttack and an attack without gradients beside them. Rows: report.adversaries.
"""

from __future__ import annotations

from omegaconf import DictConfig

from saddlepoint.cli import entry
from saddlepoint.lab import Lab
from saddlepoint.report.tables import adversaries_table


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab, settings = Lab(cfg), cfg.report
    networks = list(lab.subjects([settings.network.model], [settings.network.training]))
    rows = []
    for name, attacks in settings.adversaries.items():
        source = lab.subject(**settings.sources[name]) if name != "A" and attacks else None
        for attack in attacks:
            trained = name == "A" or source is not None
            rows.append((attack, str(name), lab.measure(networks, attack, source) if trained else []))
    words = f"{settings.network.model} network, {settings.network.training} training"
    is_the_papers = lab.comparable and (settings.network.model, settings.network.training) == ("wide", "pgd")
    table = adversaries_table(rows, dataset=cfg.dataset.name, network=words, compare=is_the_papers)
    with lab.report() as out:
        out.table("adversaries", table)


if __name__ == "__main__":
    main()

"""Import a checkpoint made elsewhere: python scripts/import_network.py dataset=mnist model=simple weights=theirs.pt

Its weights become a run that every script can measure, after a look at whether it is what attacks expect. A network of
your own: --config-dir mine model=theirs, with mine/model/theirs.yaml (docs/guide.md, "Your own"). training=pgd, fgsm or
standard says in which column of the tables it stands.
"""

from __future__ import annotations

import json
import logging

from omegaconf import DictConfig

from saddlepoint.adopt import check, check_range, load_weights
from saddlepoint.build import build
from saddlepoint.cli import entry
from saddlepoint.compose import measuring
from saddlepoint.data import expanded
from saddlepoint.errors import InputError
from saddlepoint.files import sha256
from saddlepoint.runs import Run
from saddlepoint.runtime import Runtime, provenance
from saddlepoint.training.checkpoint import write_weights

log = logging.getLogger("import_network")


@entry("import_network")
def main(cfg: DictConfig) -> None:
    run, weights = Run.current(cfg), expanded(str(cfg.weights))
    directory, overwrite, defined = run.directory, run.overwrites(), run.definition
    runtime: Runtime = build(cfg.runtime)
    model = run.network()
    load_weights(model, weights)
    model.to(runtime.torch_device).eval()
    data = build(cfg.dataset.data).to(runtime.torch_device)
    sample = data.test.take(500)
    check(model, sample.images(slice(0, 8)), data.classes, trust=cfg.trust_network)
    found = check_range(model, sample.images(slice(None)), sample.labels)
    names = {key: cfg[key].name for key in ("dataset", "model", "training")}
    # Of what is built around the weights, such as a normalisation, they say nothing: results must not outlive it.
    built = json.dumps(defined["dataset"]["network"])
    metadata = {**names, "recipe": "imported", "seed": str(cfg.seed), "network": built, **provenance(runtime)}
    with directory.hold():
        if directory.finished and not overwrite:
            raise InputError(f"{directory.path} holds a run already; overwrite=true replaces it, seed=1 makes another")
        run.claim(defined, overwrite)
        source = {"weights": str(weights), "weights_sha256": sha256(weights)}
        for checkpoint in ("last", "best"):  # which are one here
            write_weights(directory.weights(checkpoint), model, {**metadata, "checkpoint": checkpoint})
            source[f"{checkpoint}_sha256"] = sha256(directory.weights(checkpoint))
        directory.finish({**metadata, **source, "train_loss": None})  # which the file does not say
    measure = measuring([cfg.model.name], [cfg.training.name], cfg.seed)
    log.info("%s\nwrote %s\nmeasure it: %s", found, directory.path, measure)


if __name__ == "__main__":
    main()

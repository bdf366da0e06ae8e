"""Take it elsewhere: python scripts/export.py dataset=mnist recipe=fast models=[wide] trainings=[pgd]

Into export/ of each run (export-best/ with evaluation.checkpoint=best): weights.pt, a plain state dict; load.py, whose
load_model() is a module from images in [0, 1] to logits, as RobustBench and AutoAttack take it; and for each attack of
the evaluation the images it makes of the test set, <attack>.npy, as the authors' challenges store them: grey (n, h*w)
in [0, 1], coloured (n, h, w, c) in [0, 255].
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.cli import entry
from saddlepoint.config import alone, build, subjects, test_images
from saddlepoint.data import Split
from saddlepoint.errors import InputError
from saddlepoint.results import write_atomically
from saddlepoint.runtime import generator

log = logging.getLogger("export")

LOADER = '''"""{name}: images {shape} in [0, 1] -> logits. It needs the package saddlepoint{own}."""

from pathlib import Path

import {imports}
import torch


def load_model() -> torch.nn.Module:
    model = {network}
    model.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return model.eval()
'''


def expression(node: Any) -> tuple[str, set[str]]:
    """The Python that builds what a config describes, and the modules it names. Nothing but names is not quoted."""
    if isinstance(node, list):
        items = [expression(each) for each in node]
        return f"[{', '.join(text for text, _ in items)}]", set().union(*(names for _, names in items))
    if not isinstance(node, dict) or "_target_" not in node:
        return repr(node), set()
    for name in (*node["_target_"].split("."), *node):
        if not name.isidentifier():
            raise InputError(f"the stored config names {name!r}, which is no name in Python")
    arguments = {name: expression(value) for name, value in node.items() if name != "_target_"}
    modules = {node["_target_"].rpartition(".")[0]}.union(*(names for _, names in arguments.values()))
    return f"{node['_target_']}({', '.join(f'{name}={text}' for name, (text, _) in arguments.items())})", modules


def challenge_layout(x: Tensor) -> np.ndarray:
    """Images (n, c, h, w) in [0, 1] as the authors' MNIST (one channel) or CIFAR10 challenge stores them, float32."""
    return x.flatten(1).cpu().numpy() if x.shape[1] == 1 else 255 * x.permute(0, 2, 3, 1).cpu().numpy()


def check(x_adv: np.ndarray, x: np.ndarray, eps: float) -> None:
    """What the authors' run_attack.py checks: shape, no NaN, pixel range and the largest change, each within 0.0001."""
    top = 1 if x.ndim == 2 else 255
    if x_adv.shape != x.shape:
        raise RuntimeError(f"expected shape {x.shape}, found {x_adv.shape}")
    if np.isnan(x_adv).any() or x_adv.min() < -0.0001 or x_adv.max() > top + 0.0001:
        raise RuntimeError(f"expected pixels in [0, {top}], found [{x_adv.min()}, {x_adv.max()}]")
    if np.abs(x_adv - x).max() > top * eps + 0.0001:
        raise RuntimeError(f"changed by {np.abs(x_adv - x).max()}, allowed is {top * eps}")


def adversarial(
    model: nn.Module, split: Split, attack: PGD, batch_size: int, seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """The examples that an evaluation with these settings counts, the images they come from, and the accuracy."""
    stored, natural, correct = [], [], 0
    for start, x, y in split.batches(batch_size):
        x_adv = attack(model, x, y, generator(seed, f"evaluation/{start}", x.device))
        if not attack.threat.contains(x_adv, x).all():
            raise RuntimeError(f"{attack} made examples outside its threat model; nothing was written")
        with undisturbed(model), torch.no_grad():
            correct += int((model(x_adv).argmax(1) == y).sum())
        stored.append(challenge_layout(x_adv))
        natural.append(challenge_layout(x))
    return np.concatenate(stored), np.concatenate(natural), correct / len(split)


def save_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    alone(cfg)
    settings, (split, total) = cfg.evaluation, test_images(cfg)
    part = "" if len(split) == total else f"-first{len(split)}"
    attacks = {name: build(attack) for name, attack in settings.attacks.items() if attack is not None}
    networks = list(subjects(cfg, cfg.models, cfg.trainings))
    if not networks:
        raise InputError("nothing to export; train a network first: python train.py --help")
    for subject in networks:
        folder = subject.directory.path / ("export" if subject.checkpoint == "last" else f"export-{subject.checkpoint}")
        subject.model  # noqa: B018 (loading it refuses a config that builds something else)
        stored = OmegaConf.create(subject.directory.read_config())
        network = OmegaConf.to_container(stored.dataset.network, resolve=True)
        text, modules = expression(network)
        loader = LOADER.format(
            name=f"{cfg.dataset.name} {subject.label}",
            shape=tuple(split.pixels.shape[1:]),
            own="".join(f" and {module}" for module in sorted(modules) if not module.startswith("saddlepoint")),
            imports="\nimport ".join(sorted(modules)),
            network=text,
        )
        buffer = io.BytesIO()
        torch.save({name: tensor.cpu().contiguous() for name, tensor in subject.model.state_dict().items()}, buffer)
        write_atomically(folder / "weights.pt", buffer.getvalue())
        write_atomically(folder / "load.py", loader.encode())
        log.info("wrote %s and weights.pt", folder / "load.py")
        for name, attack in attacks.items():
            made, natural, accuracy = adversarial(subject.model, split, attack, settings.batch_size, settings.seed)
            if attack.threat.norm == "linf":
                check(made, natural, attack.threat.eps)
            path = folder / f"{name}{part}.npy"
            save_array(path, made)
            log.info("wrote %s: %.1f%% of %d classified", path, 100 * accuracy, len(split))
    log.info("attack it with others' tools: sys.path.insert(0, folder); from load import load_model")


if __name__ == "__main__":
    main()

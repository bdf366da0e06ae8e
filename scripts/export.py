"""Export a network for use elsewhere: python scripts/export.py dataset=mnist recipe=fast models=[wide] trainings=[pgd]

Into export/ of each run (export-best/ with evaluation.checkpoint=best): weights.pt, a plain state dict; load.py, whose
load_model() is a module from images in [0, 1] to logits, as RobustBench and AutoAttack take it; and for each attack of
the evaluation the images it makes of the test set, <attack>.npy, as the authors' challenges store them: grey (n, h*w)
in [0, 1], coloured (n, h, w, c) in [0, 255]. Nothing is kept that a fresh process does not load with the same logits.
"""

from __future__ import annotations

import io
import keyword
import logging
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from saddlepoint.attacks import PGD, classified, undisturbed
from saddlepoint.build import DIRECTIVES
from saddlepoint.cli import entry
from saddlepoint.data import Split
from saddlepoint.errors import InputError
from saddlepoint.files import write_atomically
from saddlepoint.lab import Lab
from saddlepoint.paper.item import over_seeds
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


# What a fresh process does with the folder it gets: it exits with 0 if the loaded network says the same.
CHECK = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from load import load_model
expected = torch.load(sys.argv[1] + "/expected.pt", weights_only=True)
model = load_model()
torch.manual_seed(0)
with torch.no_grad():
    difference = (model(expected["images"]) - expected["logits"]).abs().max()
if not difference <= 1e-4 * expected["logits"].abs().max():
    sys.exit(f"its logits differ by {difference:.3g}")
"""


def expression(node: Any) -> tuple[str, set[str]]:
    """The Python that builds what a config describes, as Hydra does, and the modules it names.

    Nothing but names is not quoted.
    """
    if isinstance(node, list):
        items = [expression(each) for each in node]
        return f"[{', '.join(text for text, _ in items)}]", set().union(*(names for _, names in items))
    if isinstance(node, float) and not math.isfinite(node):
        return f"float('{node}')", set()
    if not isinstance(node, dict):
        return repr(node), set()
    if "_target_" not in node:
        entries = {key: expression(value) for key, value in node.items()}
        text = ", ".join(f"{key!r}: {value}" for key, (value, _) in entries.items())
        return f"{{{text}}}", set().union(*(names for _, names in entries.values()))
    target = node["_target_"]
    named = {name: value for name, value in node.items() if name not in DIRECTIVES}
    for name in (*target.split("."), *named):
        if not str(name).isidentifier() or keyword.iskeyword(str(name)):
            raise InputError(f"the stored config names {name!r}, which is no name in Python")
    if not isinstance(node.get("_args_", []), list):
        raise InputError(f"the stored config has _args_: {node['_args_']}; expected a list")
    # Without recursion a network builds its parts from their configs by itself.
    build_part = expression if node.get("_recursive_", True) else lambda value: (repr(value), set())
    positional = [build_part(value) for value in node.get("_args_", [])]
    by_name = {name: build_part(value) for name, value in named.items()}
    arguments = [text for text, _ in positional] + [f"{name}={text}" for name, (text, _) in by_name.items()]
    modules = {module_of(target)}.union(*(names for _, names in (*positional, *by_name.values())))
    if node.get("_partial_"):
        return f"functools.partial({', '.join([target, *arguments])})", modules | {"functools"}
    return f"{target}({', '.join(arguments)})", modules


def module_of(target: str) -> str:
    """What to import for a function, a class or a method of one, which has been imported here already."""
    names = target.split(".")
    above = [".".join(names[:count]) for count in range(len(names) - 1, 0, -1)]
    return next((name for name in above if name in sys.modules), above[0] if above else target)


def write_network(folder: Path, model: nn.Module, network: Any, images: Tensor, name: str) -> None:
    """weights.pt and load.py into `folder`, once a fresh process has loaded them and found the logits of `images`.

    `network` is the config that built the model. Raises InputError, with nothing written, if that fails.
    """
    text, modules = expression(network)
    loader = LOADER.format(
        name=name.replace("\\", "/").replace('"', "'"),
        shape=tuple(images.shape[1:]),
        own="".join(f" and {module}" for module in sorted(modules) if not module.startswith("saddlepoint")),
        imports="\nimport ".join(sorted(modules)),
        network=text,
    )
    # Each tensor with a storage of its own: two names of one, or a part of a larger one, would be saved as such.
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in model.state_dict().items()}
    files = {"weights.pt": serialized(weights), "load.py": loader.encode()}
    expected = {"images": images.cpu(), "logits": on_cpu(model, images)}
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as unchecked:
            for file, content in {**files, "expected.pt": serialized(expected)}.items():
                write_atomically(Path(unchecked) / file, content)
            path = os.pathsep.join(filter(None, sys.path))  # whatever this process finds
            environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
            command = [sys.executable, "-c", CHECK, str(Path(unchecked).resolve())]  # which works inside it
            found = subprocess.run(command, env=environment, cwd=unchecked, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"cannot write next to {folder} ({error.strerror})") from None
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or [f"status {found.returncode}"])[-1]
        raise InputError(f"what was to be written into {folder} does not load again ({reason}); nothing was written")
    for file, content in files.items():
        write_atomically(folder / file, content)


def serialized(value: dict[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def on_cpu(model: nn.Module, images: Tensor) -> Tensor:
    """The logits as a process without an accelerator finds them; the model stays where it was."""
    device = images.device
    try:
        with undisturbed(model.cpu()), torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # for a network that draws
            logits: Tensor = model(images.cpu())
            return logits
    finally:
        model.to(device)


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
            correct += int(classified(model(x_adv), y).sum())
        stored.append(challenge_layout(x_adv))
        natural.append(challenge_layout(x))
    return np.concatenate(stored), np.concatenate(natural), correct / len(split)


def save_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


@entry("evaluate")
def main(cfg: DictConfig) -> None:
    lab, settings = Lab(cfg), cfg.evaluation
    if settings.precision != "float32":
        raise InputError(f"evaluation.precision={settings.precision}; export.py makes its examples in float32")
    split, total, size, seed = lab.test_images, lab.total, settings.batch_size, settings.seed
    part = "" if len(split) == total else f"-first{len(split)}"
    attacks = {name: lab.pgd(name) for name in settings.attacks if name != "natural"}
    wanted = [
        network for training in cfg.trainings for model in cfg.models for network in over_seeds(lab, model, training)
    ]
    networks = [subject for each in wanted if (subject := lab.subject(*each))]
    if not networks:
        raise InputError("nothing to export; train a network first: python train.py --help")
    for subject in networks:
        folder = subject.directory.path / ("export" if subject.checkpoint == "last" else f"export-{subject.checkpoint}")
        subject.model  # noqa: B018 (loading it refuses a config that builds something else)
        stored = OmegaConf.create(subject.directory.read_config())
        network = OmegaConf.to_container(stored.dataset.network, resolve=True)
        write_network(folder, subject.model, network, split.images(slice(4)), f"{cfg.dataset.name} {subject.label}")
        log.info("wrote %s and weights.pt", folder / "load.py")
        for name, attack in attacks.items():
            made, natural, accuracy = adversarial(subject.model, split, attack, size, seed)
            if attack.threat.norm == "linf":
                check(made, natural, attack.threat.eps)
            path = folder / f"{name}{part}.npy"
            save_array(path, made)
            log.info("wrote %s: %.1f%% of %d classified", path, 100 * accuracy, len(split))
    log.info("attack it with others' tools: sys.path.insert(0, folder); from load import load_model")


if __name__ == "__main__":
    main()

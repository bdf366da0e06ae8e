"""Do the tests notice? Break the code on purpose, one mistake at a time, and see that they fail.

python scripts/mutation_check.py                 # all of them, on a copy of the tree: about ten minutes on 2 CPU cores
python scripts/mutation_check.py projection      # those whose name has the word
python scripts/mutation_check.py --write=FILE    # and the outcome as JSON: {name: whether it was caught}
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from saddlepoint.results import write_json

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "src",
    "configs",
    "scripts",
    "tests",
    "train.py",
    "Makefile",
    "README.md",
    "docs",
    "pyproject.toml",
    "outputs/reference",
)


class Mutation(NamedTuple):
    """`old`, which stands once in `file` (under src/saddlepoint), becomes `new`; `tests` should fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


ATTACKS, THREAT, LOSSES = "tests/test_attacks.py", "tests/test_threat.py", "tests/test_losses.py"
TRAINER, CHECKPOINT = "tests/training/test_trainer.py", "tests/training/test_checkpoint.py"
ROBUSTNESS, SUBJECT = "tests/evaluation/test_robustness.py", "tests/evaluation/test_subject.py"

MUTATIONS = [
    Mutation(*fields)
    for fields in [
        # the attack
        ("sign of the objective flipped", "attacks.py", "-loss if self.targeted else loss",
         "loss if self.targeted else -loss", ATTACKS),
        ("projection dropped", "attacks.py", "self.threat.project(self.threat.step(x_adv, grad, self.alpha), x)",
         "self.threat.step(x_adv, grad, self.alpha)", ATTACKS),
        ("label replaced by prediction", "attacks.py", "self.ascended(logits, y).sum()",
         "self.ascended(logits, logits.argmax(1)).sum()", ATTACKS),
        ("cross-entropy ascended", "attacks.py", "self._signed(surrogate(self.loss), logits, y)",
         "self._signed(self.loss, logits, y)", ATTACKS),
        ("one step too few", "attacks.py", "in range(self.steps)", "in range(self.steps - 1)", ATTACKS),
        ("step size without its 2.5", "attacks.py", "2.5 * self.threat.eps / self.steps",
         "self.threat.eps / self.steps", ATTACKS),
        ("random start forgotten", "attacks.py", "if self.random_start else x", "if False else x", ATTACKS),
        ("eval mode forgotten", "attacks.py", 'model.train(mode == "train")', "model.train()", ATTACKS),
        ("mode not restored", "attacks.py", "module.training = training", "pass", ATTACKS),
        ("buffers not restored", "attacks.py", "buffer.copy_(before)", "pass", ATTACKS),
        ("restarts keep the best", "attacks.py", "(ascended > highest[standing])", "(ascended < -highest[standing])",
         ATTACKS),
        ("a higher loss beats a broken example", "attacks.py", "better = broken | (ascended", "better = (ascended",
         ATTACKS),
        ("restarts spent on broken examples", "attacks.py", "standing = standing[~broken]", "standing = standing",
         ATTACKS),
        ("targeted judged as untargeted", "attacks.py", "hit if self.targeted else ~hit", "~hit", ATTACKS),
        ("input range unchecked", "attacks.py", "if x.numel() and not", "if False and not", ATTACKS),
        # the threat and the losses
        ("clip dropped", "threat.py", "self._norm.project(x_adv, x, self.eps).clamp_(*self.bounds)",
         "self._norm.project(x_adv, x, self.eps)", THREAT),
        ("random start unclipped", "threat.py", "self._norm.random(x, self.eps, generator).clamp_(*self.bounds)",
         "self._norm.random(x, self.eps, generator)", THREAT),
        ("linf random start on one side", "threat.py", "uniform_(-eps, eps,", "uniform_(0, eps,", THREAT),
        ("l2 random start uniform in radius", "threat.py", "radius ** (1 / x[0].numel())", "radius", THREAT),
        ("eps in the wrong scale", "threat.py", 'self.eps = parse_number(eps, "threat.eps")',
         'self.eps = parse_number(eps, "threat.eps") / 255', THREAT),
        ("linf ball twice too large", "threat.py", "torch.clamp(x_adv, x - eps, x + eps)",
         "torch.clamp(x_adv, x - 2 * eps, x + 2 * eps)", THREAT),
        ("l2 projection onto the sphere", "threat.py", "(eps / length).clamp_max(1)", "(eps / length)", THREAT),
        ("gradient instead of its sign", "threat.py", "x_adv.add(grad.sign(),", "x_adv.add(grad,", THREAT),
        ("l2 step not normalised", "threat.py", "return x_adv + scaled *", "return x_adv + grad *", THREAT),
        ("bounds not verified", "threat.py", "return in_bounds & (", "return (", THREAT),
        ("ball not verified", "threat.py", "<= self.eps + tolerance)", "<= 2 * self.eps + 1)", THREAT),
        ("kappa's sign", "losses.py", "true - others + self.kappa", "true - others - self.kappa", LOSSES),
        ("margin to any class", "losses.py", "logits.scatter(1, y[:, None], -torch.inf).amax(1)", "logits.amax(1)",
         LOSSES),
        # training
        ("attack's generator not saved", "training/trainer.py",
         'each.set_state(own[name].cpu())', "pass", TRAINER),
        ("optimiser not restored", "training/trainer.py", 'self.optimizer.load_state_dict(state["optimizer"])', "pass",
         TRAINER),
        ("place in the epoch not restored", "training/trainer.py", 'self.batches.load_state_dict(state["batches"])',
         "pass", TRAINER),
        ("best weights not restored", "training/trainer.py",
         'write_atomically(self.directory.weights("best"), self.best_file)', "pass", TRAINER),
        ("the best is the last of equals", "training/trainer.py", "if chosen > self.best:", "if chosen >= self.best:",
         TRAINER),
        ("trained in eval mode", "training/trainer.py", "self.model.train()\n", "self.model.eval()\n", TRAINER),
        ("sum instead of mean", "training/trainer.py", '1 if self.reduction == "sum" else 1 / self.batches.size', "1",
         TRAINER),
        ("progress one step ahead", "training/trainer.py", "progress = self.step / self.steps",
         "progress = (self.step + 1) / self.steps", TRAINER),
        ("biases decay", "training/trainer.py", "(decayed if parameter.ndim > 1 else others)", "(decayed)", TRAINER),
        ("not finite goes on", "training/trainer.py", "        if first:\n", "        if False:\n", TRAINER),
        ("signal ignored", "training/trainer.py", "                if stop:\n", "                if False:\n", TRAINER),
        ("trained on natural images", "training/objectives.py", "self._attack(progress).craft(model, x, y, generator)",
         "x", "tests/training/test_objectives.py"),
        ("gradients not shared", "training/trainer.py",
         "self.processes.add([p.grad for p in self.model.parameters() if p.grad is not None])", "pass",
         "tests/test_processes.py"),
        ("checksum not compared", "training/checkpoint.py", "hexdigest().encode():", "hexdigest().encode() and False:",
         CHECKPOINT),
        ("state before not kept", "training/checkpoint.py", "self.state.replace(self.previous)", "pass", CHECKPOINT),
        ("a state may run code", "training/checkpoint.py", "weights_only=True", "weights_only=False", CHECKPOINT),
        ("lock not taken", "training/checkpoint.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_UN", CHECKPOINT),
        ("shapes not compared", "training/checkpoint.py", "if found != expected:", "if False:", CHECKPOINT),
        # data and measurement
        ("held-out images trained on", "data.py", "train=split(pixels[held_out:], labels[held_out:])",
         "train=split(pixels, labels)", "tests/test_data.py"),
        ("pixels in the wrong scale", "data.py", "self.pixels[index].float() / self.pixel_max",
         "self.pixels[index].float() / 255", "tests/test_data.py"),
        ("measured in train mode", "evaluation/robustness.py", "with undisturbed(model), torch.no_grad():",
         "with torch.no_grad():", ROBUSTNESS),
        ("examples not verified", "evaluation/robustness.py", "attack.threat.contains(x_adv, x).all()",
         "attack.threat.contains(x_adv, x).any()", ROBUSTNESS),
        ("natural images counted", "evaluation/robustness.py", "logits = model(x_adv).float()",
         "logits = model(x).float()", ROBUSTNESS),
        ("every batch the same noise", "evaluation/robustness.py", 'f"evaluation/{start}"', '"evaluation"', ROBUSTNESS),
        ("stale result believed", "results.py", 'if result.get("key") == key:', "if True:", "tests/test_results.py"),
        ("checkpoint not in the key", "evaluation/subject.py", ', "checkpoint_sha256": self.checkpoint_sha256}', "}",
         SUBJECT),
        ("another measurement's parts taken", "results.py", 'if each.get("key") == self.key', "if True", SUBJECT),
        ("interval of one sigma", "results.py", "z, share = 1.959964,", "z, share = 1.0,", "tests/test_results.py"),
        ("files written in place", "results.py", 'part = path.with_name(path.name + ".part")', "part = path",
         "tests/test_results.py"),
        ("altered weights are measured", "config.py", "if written not in (None, sha256(path)):", "if False:",
         "tests/test_command_line.py::test_damaged_checkpoint"),
        ("any class may be built", "config.py", "if target not in allow:", "if False:", "tests/test_config.py"),
    ]
]  # fmt: skip


def mutate(root: Path, mutation: Mutation) -> str:
    """Make the mistake in the tree at `root`; returns the file as it was."""
    path = root / "src" / "saddlepoint" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise SystemExit(f"error: {mutation.name}: {mutation.old!r} stands {text.count(mutation.old)} times in {path}")
    path.write_text(text.replace(mutation.old, mutation.new))
    return text


def status(root: Path, tests: str) -> int:
    """pytest's: 0 all passed, 1 some failed, others did not run. A test that hangs has failed."""
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    try:
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=300).returncode
    except subprocess.TimeoutExpired:
        return 1


def main() -> None:
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        return
    words = [argument for argument in sys.argv[1:] if not argument.startswith("--write=")]
    chosen = [each for each in MUTATIONS if not words or any(word in each.name for word in words)]
    if not chosen:
        raise SystemExit(f"error: no mistake is named so: {' '.join(words)}")
    caught: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        for name in COPIED:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            source = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, root / name, ignore=ignore) if source.is_dir() else shutil.copy(source, root / name)
        for tests in sorted({each.tests for each in chosen}):
            if status(root, tests):
                raise SystemExit(f"error: {tests} fails without any mistake; mend that first")
        for each in tqdm(chosen, disable=None, leave=False):
            original = mutate(root, each)
            ended = status(root, each.tests)
            if ended not in (0, 1):
                raise SystemExit(f"error: {each.name}: pytest ended with status {ended}")
            caught[each.name] = ended == 1
            tqdm.write(f"{'caught  ' if ended else 'SURVIVED'}  {each.name}  ({each.tests})")
            (root / "src" / "saddlepoint" / each.file).write_text(original)
    survived = [name for name, each in caught.items() if not each]
    print(f"{len(caught)} mistakes, {len(survived)} not noticed" + (f": {', '.join(survived)}" if survived else ""))
    for argument in sys.argv[1:]:
        if argument.startswith("--write="):
            write_json(Path(argument.removeprefix("--write=")), caught)
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()

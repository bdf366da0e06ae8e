"""From a Hydra configuration to objects, directories and checkpoints. Little else knows Hydra."""

from __future__ import annotations

import fnmatch
import logging
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra.utils
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from saddlepoint.attacks import Attack
from saddlepoint.data import Split, fingerprint
from saddlepoint.errors import InputError, nearest, whole
from saddlepoint.evaluation.subject import Subject
from saddlepoint.report.folder import Report, for_any_script
from saddlepoint.results import Result, sha256, write_atomically
from saddlepoint.runtime import Runtime, generator
from saddlepoint.training.checkpoint import CHECKPOINTS, RunDirectory, read_weights

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("last", lambda values: values[-1], replace=True)

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# Networks of this package, which draw their weights from a generator.
OURS = ("saddlepoint.models.CNN", "saddlepoint.models.ResNet", "saddlepoint.models.ArchitectureB")
# What a stored config may build; and what the user's own model files name, as own_networks reads them.
NETWORKS = (*OURS, "saddlepoint.models.Normalized")
# Where a run lies and how it is watched is not part of what it is.
ELSEWHERE = ("logger", "output_dir", "data_dir", "overwrite", "runtime", "weights")
# Settings of the scripts that no training knows.
SCRIPTS_OWN = ("models", "trainings", "seeds", "jobs", "extras", "evaluation", "landscape", "report")
# Choices that a run directory's name shows already; an experiment of ours is a set of them.
DATA = ("dataset.name", "dataset.data.path", "dataset.channels", "dataset.classes")  # of one's own
NAMED = ("dataset", *DATA, "model", "training", "recipe", "seed", "experiment")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def build(config: Any, *, allow: Sequence[str] | None = None, **extra: Any) -> Any:
    """The object that a config's `_target_` describes; errors of its arguments come out as themselves.

    `allow` lists the only `_target_`s that may be built: for configs that came with somebody's files. Whole names,
    because a dotted path through one of our modules reaches everything which that module imports.
    """
    if allow is not None:
        for target in _targets(OmegaConf.to_container(config, resolve=True)):
            if target not in allow:
                known = " and ".join(allow)
                raise InputError(
                    f"the stored config wants to build {target}; only {known} may be built, "
                    "and what a model file of yours names (model/*.yaml, in configs or --config-dir)"
                )
    try:
        return hydra.utils.instantiate(config, **extra, _convert_="all")
    except InstantiationException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
            if isinstance(cause, InputError):
                raise cause from None
            if isinstance(cause, ModuleNotFoundError) and "." not in str(cause.name):
                raise InputError(
                    f"{cause.name} cannot be imported; put the folder it is in into PYTHONPATH, or install it"
                ) from None
        text = one_line(error).replace(
            "set env var HYDRA_FULL_ERROR=1 to see chained exception.", one_line(cause) + ";"
        )
        raise InputError(text) from error


def _targets(node: Any) -> list[str]:
    if isinstance(node, list):
        return [target for each in node for target in _targets(each)]
    if isinstance(node, dict):
        own = [str(node["_target_"])] if "_target_" in node else []
        return own + [target for each in node.values() for target in _targets(each)]
    return []


def definition(cfg: DictConfig) -> dict[str, Any]:
    """What defines a training run, as plain values with every reference resolved."""
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    resolved["dataset"]["data"] = {**resolved["dataset"]["data"], **_own_data(cfg)}
    resolved["dataset"]["data"].pop("root", None)  # the same data, wherever they lie
    return {str(key): value for key, value in resolved.items() if key not in (*ELSEWHERE, *SCRIPTS_OWN)}


def _own_data(cfg: DictConfig) -> dict[str, str]:
    """What tells data of one's own from others at the same place; published ones are known by their name."""
    path = cfg.dataset.data.get("path")
    return {} if path is None else {"data_sha256": fingerprint(path)}


def new_network(cfg: DictConfig) -> nn.Module:
    """The configured network, its weights drawn from the seed.

    Ours are given a generator; others draw from torch's, which is seeded for them and afterwards as before.
    """
    init = generator(cfg.seed, "init")
    if cfg.dataset.network.get("_target_") in OURS:
        return build(cfg.dataset.network, generator=init)
    with torch.random.fork_rng(devices=[]):  # drawn on the CPU
        torch.default_generator.manual_seed(init.initial_seed())
        network = build(cfg.dataset.network)
    if not isinstance(network, nn.Module):
        raise InputError(f"dataset.network is a {type(network).__name__}; expected a torch.nn.Module")
    return network


def config_folders(provider: str = "") -> list[Path]:
    """Where Hydra looks for config files: ours, and with provider="command-line" what --config-dir named."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(source.path) for source in sources if source.schema == "file" and provider in source.provider]


def own_networks() -> list[str]:
    """NETWORKS, and what model files (model/*.yaml) build: the user wrote their names, whatever a run says."""
    found = list(NETWORKS)
    for path in (path for folder in config_folders() for path in sorted((folder / "model").glob("*.yaml"))):
        try:
            found += _targets(yaml.safe_load(path.read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            raise InputError(f"{path} is not valid YAML") from None
    return found


def run_directory(cfg: DictConfig, model: str, training: str, seed: int) -> RunDirectory:
    """<output_dir>/<dataset>/<model>-<training>/seed<seed>: the same for train.py and every script.

    The short recipe adds -fast, and an override of a value (threat.eps=0.2) adds itself, so that a variation
    never meets the run it varies.
    """
    whole(seed, "seed", least=0)
    name = f"{model}-{training}{cfg.recipe.suffix}{variation()}"
    if Path(name).name != name:
        raise InputError(f"{name} is no name of a directory; a run lies inside output_dir")
    if len(name.encode()) > 255:
        raise InputError(
            f"{name[:60]}... is too long for a directory; put the settings into an experiment of yours (--config-dir)"
        )
    return RunDirectory(data_folder(cfg) / name / f"seed{seed}")


def data_folder(cfg: DictConfig) -> Path:
    """<output_dir>/<dataset>: what is trained on it, and the report."""
    if cfg.output_dir is None:
        raise InputError("output_dir=null; expected a directory, such as outputs")
    name = cfg.dataset.name
    if not isinstance(name, str) or Path(name).name != name:
        raise InputError(f"dataset.name={name}; expected a text that can name a directory in output_dir")
    return Path(str(cfg.output_dir)) / name


def variation() -> str:
    """The overrides that make this another training than the default, such as ",threat.eps=0.2"; "" for none."""
    overrides = (override.lstrip("+~") for override in HydraConfig.get().overrides.task)
    telling = sorted(override for override in overrides if not _says_nothing(override.split("=")[0]))
    return "".join("," + re.sub(r"[^\w.=-]+", "_", override) for override in telling)


def comparable() -> bool:
    """Whether the paper's numbers belong beside these: what trains and what attacks is as our files have it."""
    changed = r"(evaluation|report)\.attacks\b|report\.(sources\b|epsilon(=|\.(steps|queries)))"
    settings = [override.lstrip("+~") for override in HydraConfig.get().overrides.task]
    shipped = all(map(_shipped, ("experiment", "evaluation", "report")))
    return shipped and not variation() and not any(re.match(changed, each) for each in settings)


def _shipped(group: str) -> bool:
    """Whether what was chosen of a group is in our files, if anything was."""
    choice = HydraConfig.get().runtime.choices.get(group)
    return choice in (None, "null") or (CONFIGS / group / f"{choice}.yaml").exists()


def typed() -> list[str]:
    """This command's arguments, for another one like it: --config-dir and overrides."""
    brought = [f"--config-dir={folder}" for folder in config_folders("command-line")]
    return [*brought, *HydraConfig.get().overrides.task]


def typed_for_training() -> list[str]:
    """Of these, what train.py knows too."""
    return [each for each in typed() if each.lstrip("+~").split("=")[0].split(".")[0] not in SCRIPTS_OWN]


def this_command() -> str:
    return shlex.join(["python", f"scripts/{HydraConfig.get().job.name}.py", *typed()])


def next_command(script: str, *settings: str) -> str:
    """A command for what naturally follows: the script with what was typed now, but for the choice of runs."""
    chosen = {"model", "training", "seed", "overwrite", "weights", *(setting.split("=")[0] for setting in settings)}
    kept = [for_any_script(each) for each in typed() if each.lstrip("+~").split("=")[0] not in chosen]
    return shlex.join(["python", f"scripts/{script}.py", *kept, *settings])


def report_folder(cfg: DictConfig) -> Path:
    """<output_dir>/<dataset>/report, with what run_directory adds to a name: tables/ and figures/ go there."""
    return data_folder(cfg) / f"report{cfg.recipe.suffix}{variation()}"


def report(cfg: DictConfig) -> Report:
    """That folder, to be filled; logger=wandb shows its figures."""
    return Report(report_folder(cfg), this_command(), build(cfg.logger.tracker), definition(cfg))


def _says_nothing(key: str) -> bool:
    if key == "experiment" and not _shipped(key):  # nobody knows what it changes
        return False
    return key in NAMED or key.split(".")[0] in (*ELSEWHERE, *SCRIPTS_OWN)


def overwrites(cfg: DictConfig) -> bool:
    """The setting; Hydra knows true and false, and leaves a "no" as a text that would count as true."""
    if not isinstance(cfg.overwrite, bool):
        raise InputError(f"overwrite={cfg.overwrite}; choose true or false")
    if cfg.overwrite and os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        raise InputError(
            "overwrite=true in a job that SLURM has started again would discard its own state; leave it out"
        )
    return cfg.overwrite


def claim(directory: RunDirectory, defined: dict[str, Any], overwrite: bool) -> None:
    """Make the directory this run's. Raises InputError if it holds a run of another configuration."""
    if overwrite:
        # The summary first: it means finished.
        weights = (directory.weights(checkpoint).name for checkpoint in CHECKPOINTS)
        for name in ("training.json", *weights, "state.pt", "previous.pt", "history.csv", "wandb.id", "config.yaml"):
            (directory.path / name).unlink(missing_ok=True)
    if directory.config.exists():
        try:
            stored = yaml.safe_load(directory.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            raise InputError(f"{directory.config} is damaged; overwrite=true starts the run again") from None
        if stored != defined:
            raise InputError(
                f"{directory.path} holds another configuration ({_difference(stored, defined)}); "
                "choose another output_dir, or overwrite=true to start it again"
            )
    else:
        write_atomically(directory.config, yaml.safe_dump(defined, sort_keys=False).encode())


def _difference(stored: Any, wanted: Any, name: str = "") -> str:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in [*wanted, *stored]:
            if stored.get(key) != wanted.get(key):
                return _difference(stored.get(key), wanted.get(key), f"{name}.{key}".lstrip("."))
    return f"{name or 'config'} is {stored} there and {wanted} here"


def load_network(
    directory: RunDirectory, checkpoint: str, device: torch.device, allow: Sequence[str] = NETWORKS
) -> nn.Module:
    """A run's network with its weights, in eval mode. Its config may build what `allow` lists."""
    if not directory.config.exists():
        raise InputError(f"no run at {directory.path}; train it first with train.py")
    stored = directory.read_config()["dataset"]
    name, network = str(stored["name"]), OmegaConf.create(dict(stored["network"]))
    model: nn.Module = build(network, allow=allow).to(device).eval()
    path = directory.weights(checkpoint)
    trained_on = read_weights(path, model).get("dataset", name)
    if trained_on != name:
        raise InputError(f"{path} was trained on {trained_on}, not {name}")
    written = directory.read_summary().get(f"{checkpoint}_sha256") if directory.finished else None
    if written not in (None, sha256(path)):
        raise InputError(f"{path} is not what the training wrote; restore it, or train again with overwrite=true")
    return model


def subject(cfg: DictConfig, model: str, training: str, seed: int, checkpoint: str | None = None) -> Subject | None:
    """A finished run under measurement; None, said so, where there is none. The checkpoint is as configured."""
    refuse_choices(cfg)
    runtime: Runtime = build(cfg.runtime)
    checkpoint = checkpoint or cfg.evaluation.checkpoint
    if checkpoint not in CHECKPOINTS:
        raise InputError(f"evaluation.checkpoint={checkpoint}; choose {', '.join(CHECKPOINTS)}")
    directory = run_directory(cfg, model, training, seed)
    if not directory.finished:
        log.warning("not trained yet: %s", directory.path)
        return None
    trained, wanted = directory.read_config().get("threat"), OmegaConf.to_container(cfg.threat, resolve=True)
    if trained != wanted:  # which a config file of the user's can change under a run's name
        difference = _difference(trained, wanted, "threat")
        raise InputError(f"{directory.path} is of another threat ({difference}); make it again with overwrite=true")

    def load() -> nn.Module:
        return load_network(directory, checkpoint, runtime.torch_device, own_networks())

    return Subject(directory, checkpoint, load, runtime, this_command(), _own_data(cfg))


def refuse_choices(cfg: DictConfig) -> None:
    """Raises InputError where a script is told to choose runs in train.py's way, or in none."""
    for override in HydraConfig.get().overrides.task:
        if override.split("=")[0] in ("model", "training", "seed"):
            raise InputError(f"{override}: scripts choose runs by models=[...] trainings=[...] seeds=number")
    for name, group, runs in (("models", "model", "{}-*"), ("trainings", "training", "*-{}*")):
        if isinstance(cfg[name], str):
            raise InputError(f"{name}={cfg[name]}; expected a list such as [{cfg[name]}]")
        known = sorted({path.stem for folder in config_folders() for path in (folder / group).glob("*.yaml")})
        found = [path.name for path in data_folder(cfg).glob("*")]
        for each in map(str, cfg[name]):  # a file may give it another name, as only its runs can tell
            if each not in known and not fnmatch.filter(found, runs.format(each)):
                choices = f"choose from {', '.join(known)}{nearest(each, known)}"
                raise InputError(f"{name}=[{each}]: unknown {group} {each!r}; {choices}")
    if cfg.evaluation.checkpoint != "last" and HydraConfig.get().job.name not in ("accuracy_table", "export"):
        raise InputError(
            f"evaluation.checkpoint={cfg.evaluation.checkpoint} is for accuracy_table.py and export.py; "
            "methods_table.py shows both checkpoints"
        )


def subjects(
    cfg: DictConfig,
    models: Sequence[str],
    trainings: Sequence[str],
    seeds: int | None = None,
    checkpoint: str | None = None,
) -> Iterator[Subject]:
    """Every finished run of these models and trainings in the first `seeds` (as configured); says which are missing."""
    for name, values in (("models", models), ("trainings", trainings)):
        if isinstance(values, str):
            raise InputError(f"{name}={values}; expected a list such as [{values}]")
    whole(cfg.seeds, "seeds")
    for training in trainings:
        for model in models:
            for seed in range(cfg.seeds if seeds is None else seeds):
                found = subject(cfg, model, training, seed, checkpoint)
                if found:
                    yield found


def alone(cfg: DictConfig) -> None:
    """Raises InputError where torchrun started several processes of a script that works as one."""
    if build(cfg.runtime).processes.count > 1:
        raise InputError(f"{HydraConfig.get().job.name}.py works as one process; start it without torchrun")


def measurer(cfg: DictConfig) -> Callable[..., list[Result]]:
    """(subjects, attack, source=None) -> the accuracy of each under one of `report.attacks`.

    The slowest attacks see only the first `report.at_most` test images. A network that is the source itself is left
    out; it is an InputError if there is no other.
    """
    split, total = test_images(cfg)
    attacks: dict[str, Attack | None] = {}

    def measure(
        of: Sequence[Subject], name: str, source: Subject | None = None, examples: int | None = None
    ) -> list[Result]:
        others = [each for each in of if source is None or each.directory.path != source.directory.path]
        if of and source and not others:
            raise InputError(f"{source.directory.path} is no independent source for itself; choose another seed for it")
        if name not in attacks:
            attacks[name] = build(cfg.report.attacks[name])
        limits = [limit for limit in (examples, cfg.report.at_most.get(name)) if limit is not None]
        part = split.take(min([total, *limits]))
        batch_size, seed = cfg.evaluation.batch_size, cfg.evaluation.seed
        return [
            each.accuracy(name, attacks[name], part, total, batch_size=batch_size, seed=seed, source=source)
            for each in others
        ]

    return measure


def test_images(cfg: DictConfig) -> tuple[Split, int]:
    """The first `examples` test images (all for null) on the device, and how many there are in all."""
    runtime: Runtime = build(cfg.runtime)
    test = build(cfg.dataset.data).test
    examples = cfg.evaluation.examples
    whole(cfg.evaluation.batch_size, "evaluation.batch_size")
    if examples is not None and (not isinstance(examples, int) or not 1 <= examples <= len(test)):
        raise InputError(f"evaluation.examples={examples}; expected between 1 and the {len(test)} test images")
    return test.take(examples).to(runtime.torch_device), len(test)

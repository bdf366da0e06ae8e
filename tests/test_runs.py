from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch import nn

from saddlepoint import runs
from saddlepoint.data import fingerprint
from saddlepoint.errors import InputError
from saddlepoint.files import read_json, write_json
from saddlepoint.models import CNN, ResNet
from saddlepoint.runs import Run, difference_between, load
from saddlepoint.training.checkpoint import RunDirectory, write_weights


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "simple-pgd"),
        (["threat.eps=4/16"], "simple-pgd"),  # the default, however it is written
        (["threat.eps=0.25", "seed=3", "logger=none", "runtime.threads=1", "output_dir=there"], "simple-pgd"),
        (["experiment=table1"], "wide-pgd"),
        (["dataset=mnist", "model=wide", "recipe=fast", "training=fgsm"], "wide-fgsm-fast"),
        (["threat.eps=0.2"], "simple-pgd,threat.eps=0.2"),
        (["threat.eps=2e-1"], "simple-pgd,threat.eps=0.2"),
        (["threat.eps=0.20"], "simple-pgd,threat.eps=0.2"),
        (["threat.eps=2/16"], "simple-pgd,threat.eps=0.125"),
        (["threat.eps=8/255"], "simple-pgd,threat.eps=8_255"),
        (["threat=l2", "threat.eps=1.5"], "simple-pgd,threat=l2,threat.eps=1.5"),
        (["threat=l2", "threat.eps=1"], "simple-pgd,threat=l2"),
        (["+monitor.batch_size=50"], "simple-pgd,monitor.batch_size=50"),
        (["recipe.grow={4:0.5,6:3/4}"], "simple-pgd,recipe.grow.4=0.5,recipe.grow.6=0.75"),
        (["~attack.loss"], "simple-pgd,~attack.loss._target_"),
        (
            ["dataset=cifar10", "model=capacity2", "recipe=fast", "recipe.epochs=20", "recipe.weight_decay=5e-4"],
            "capacity2-pgd-fast,recipe.epochs=20,recipe.weight_decay=0.0005",
        ),
    ],
)
def test_a_run_is_named_by_its_choices_and_what_differs_from_them(overrides: list[str], name: str) -> None:
    assert Run.of(overrides).name == name


def test_the_same_run_has_one_name_in_every_order_of_typing() -> None:
    typed = ["recipe.steps=7", "threat.eps=0.1", "recipe.batch_size=10"]
    assert len({Run.of(list(order)).directory.path for order in itertools.permutations(typed)}) == 1


def test_an_experiment_of_the_users_shows_what_it_changes(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nthreat: {eps: 0.2}\n")
    assert Run.of(["experiment=mine"], config_dir=tmp_path).name == "simple-pgd,threat.eps=0.2"


@pytest.mark.parametrize(
    "typed",
    [
        ["threat.eps=3/16", "recipe.steps=5"],
        ["+monitor.batch_size=50", "dataset=mnist", "model=wide"],
        ["~attack.loss"],
        ["recipe.grow={4:0.5}"],
        ["recipe.schedule.peak=1e-2", "training=fgsm", "seed=4"],
        ["experiment=table1", "recipe=fast"],
        ["dataset.data.path='a b,c.npz'", "dataset=own", "dataset.name=mine"],
    ],
)
def test_the_overrides_that_a_run_keeps_make_it_again(typed: list[str]) -> None:
    run = Run.of(typed)
    again = Run.of(run.overrides)
    assert (again.name, again.overrides, again.config.seed) == (run.name, run.overrides, run.config.seed)
    assert {key: again.config[key] for key in ("threat", "recipe", "monitor", "dataset")} == {
        key: run.config[key] for key in ("threat", "recipe", "monitor", "dataset")
    }


def test_data_of_ones_own_are_known_by_their_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.npz", "two.npz")]
    for path in paths:
        path.write_bytes(b"the same")
    made = [Run.of(["dataset=own", "dataset.name=mine", f"dataset.data.path={path}"]) for path in paths]
    assert made[0].definition == made[1].definition
    assert made[0].definition["dataset"]["data"]["data_sha256"] == fingerprint(paths[0])
    assert made[0].name == "simple-pgd"


@pytest.mark.parametrize(
    ("override", "setting"),
    [("output_dir=null", "output_dir"), ("dataset.name=5", "dataset.name"), ("seed=-1", "seed")],
)
def test_what_cannot_name_a_directory_is_refused(override: str, setting: str) -> None:
    with pytest.raises(InputError, match=f"^{setting}="):
        _ = Run.of([override]).directory


def test_difference_names_the_first_setting_that_differs() -> None:
    stored = {"seed": 0, "threat": {"norm": "linf", "eps": 0.3}, "recipe": {"steps": 5}}
    wanted = {"seed": 0, "threat": {"norm": "linf", "eps": "8/255"}, "recipe": {"steps": 7}}
    assert difference_between(stored, wanted) == "threat.eps is 0.3 there and 8/255 here"
    assert difference_between({"a": 1, "b": 2}, {"a": 1}) == "b is 2 there and null here"
    assert difference_between({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == "a.b is [1, 2] there and [1, 3] here"
    assert difference_between({"a": {"b": 1}}, {"a": 1}) == "a is {'b': 1} there and 1 here"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.of([f"output_dir={tmp_path}", "threat.eps=0.2"])


def test_a_new_directory_is_claimed_and_an_own_one_kept(run: Run) -> None:
    run.claim(run.definition, overwrite=False)
    assert yaml.safe_load(run.directory.config.read_text()) == run.definition
    assert read_json(run.directory.path / "run.json")["overrides"] == run.overrides
    run.directory.write_state({"step": 5})
    written = {**run.definition, "threat": {**run.definition["threat"], "eps": "1/5"}}  # the same number
    run.claim(written, overwrite=False)
    assert run.directory.read_state() == {"step": 5}


def test_a_directory_of_another_configuration_is_refused_and_kept(run: Run) -> None:
    run.claim({"seed": 0, "threat": {"eps": 0.3}}, overwrite=False)
    run.directory.finish({"steps": 1})
    message = r"holds another configuration \(threat\.eps is 0\.3 there and 0\.2 here\).*overwrite=true"
    with pytest.raises(InputError, match=message):
        run.claim({"seed": 0, "threat": {"eps": 0.2}}, overwrite=False)
    assert run.directory.finished
    assert yaml.safe_load(run.directory.config.read_text())["threat"]["eps"] == 0.3


def test_overwriting_starts_from_nothing(run: Run) -> None:
    run.claim({"seed": 0}, overwrite=False)
    run.directory.finish({"steps": 1})
    run.directory.write_state({"step": 5})
    run.directory.weights("best").write_bytes(b"of before")
    run.claim({"seed": 1}, overwrite=True)
    assert not run.directory.weights("best").exists()
    assert not run.directory.finished
    assert run.directory.read_state() is None
    assert yaml.safe_load(run.directory.config.read_text()) == {"seed": 1}


@pytest.mark.parametrize("content", ["a: [", "\x00", "}"])
def test_a_damaged_config_is_not_claimed(run: Run, content: str) -> None:
    run.directory.path.mkdir(parents=True)
    run.directory.config.write_text(content)
    with pytest.raises(InputError, match=f"{run.directory.config} is damaged; overwrite=true"):
        run.claim({"seed": 0}, overwrite=False)


def stored(run: Run, trained: CNN, **changes: Any) -> RunDirectory:
    """What a training of the run leaves, with changes to the stored config of its data."""
    directory = run.directory
    directory.path.mkdir(parents=True, exist_ok=True)
    defined = run.definition
    directory.config.write_text(yaml.safe_dump({**defined, "dataset": defined["dataset"] | changes}))
    write_weights(directory.weights("last"), trained, {"dataset": "digits"})
    return directory


@pytest.fixture
def trained() -> CNN:
    """As digits' simple network is configured."""
    return CNN(1, image_size=8, generator=torch.Generator().manual_seed(5))


def test_the_network_of_a_run_comes_back_in_eval_mode(run: Run, trained: CNN) -> None:
    directory, x = stored(run, trained), torch.rand(3, 1, 8, 8)
    for loaded in (run.load(), load(directory.path)):
        assert torch.equal(loaded(x), trained(x))
        assert not loaded.training


def test_what_a_run_says_of_its_network_is_compared_and_never_built(run: Run, trained: CNN, tmp_path: Path) -> None:
    planted = {"_target_": "os.system", "command": f"touch {tmp_path / 'ran'}"}
    directory = stored(run, trained, network=planted)
    for loading in (run.load, lambda: load(directory.path)):
        with pytest.raises(InputError, match=r"holds another network \(dataset\.network\._target_ is os\.system"):
            loading()
    assert not (tmp_path / "ran").exists()


def test_a_run_that_changed_its_network_is_loaded_with_the_same_change(tmp_path: Path) -> None:
    change = "dataset.network.capacity=3"
    run = Run.of([f"output_dir={tmp_path}", change])
    network = CNN(3, image_size=8, generator=torch.Generator().manual_seed(5))
    directory, x = stored(run, network), torch.rand(2, 1, 8, 8)
    with pytest.raises(InputError, match=r"another network \(dataset\.network\.capacity is 3 there and 1 here"):
        load(directory.path)
    assert torch.equal(load(directory.path, change)(x), network(x))


def test_weights_of_another_data_set_are_refused(run: Run, trained: CNN) -> None:
    directory = stored(run, trained)
    write_weights(directory.weights("last"), trained, {"dataset": "mnist"})
    with pytest.raises(InputError, match="was trained on mnist, not digits"):
        run.load()


def test_weights_changed_after_the_training_are_refused(run: Run, trained: CNN) -> None:
    directory = stored(run, trained)
    directory.finish({"last_sha256": "0" * 64})
    with pytest.raises(InputError, match="is not what the training wrote"):
        run.load()


def test_a_missing_run_and_a_missing_checkpoint_are_named(run: Run, trained: CNN) -> None:
    with pytest.raises(InputError, match=f"no run at {run.directory.path}; train it first"):
        run.load()
    with pytest.raises(InputError, match=f"no run at {run.directory.path}"):
        load(run.directory.path)
    stored(run, trained)
    with pytest.raises(InputError, match=r"no checkpoint at .*best\.safetensors"):
        run.load("best")


@pytest.mark.parametrize(
    "content",
    ["- 1", "dataset: {name: tiny}", "seed: 0", "", "a: [", "dataset: 3", "dataset: {name: tiny, network: null}"],
)
def test_what_is_no_config_of_a_run_is_refused(run: Run, content: str) -> None:
    run.directory.path.mkdir(parents=True)
    run.directory.config.write_text(content)
    with pytest.raises(InputError, match=r"config\.yaml is no run's config"):
        run.load()


def test_a_job_that_slurm_starts_again_does_not_overwrite_its_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert Run.of(["overwrite=true"]).overwrites() is True
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert Run.of(["overwrite=false"]).overwrites() is False
    with pytest.raises(InputError, match=r"overwrite=true .* would discard its own state; leave it out"):
        Run.of(["overwrite=true"]).overwrites()


def test_networks_that_weights_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

    run = Run.of([])
    for network, message in ((nn.LazyLinear(3), "weight has no size yet"), (Extra(2, 2), "keeps _extra_state")):
        monkeypatch.setattr(runs, "build", lambda config, made=network, **extra: made)
        with pytest.raises(InputError, match=message):
            run.network()


def test_a_run_of_ones_own_data_is_loaded_by_its_folder(tmp_path: Path) -> None:
    """With config files of one's own, in a folder whose name has spaces."""
    folder = tmp_path / "my configs"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "narrow.yaml").write_text("name: narrow\ncapacity: ${dataset.capacity.narrow}\n")
    settings = [
        "dataset=own",
        "dataset.name=flowers",
        "dataset.channels=1",
        "model=narrow",
        "+dataset.capacity.narrow=1",
    ]
    with pytest.raises(InputError, match="no folder"):
        load(stored_own(tmp_path, folder, settings), config_dir=tmp_path / "nowhere")
    directory = stored_own(tmp_path, folder, settings)
    with pytest.raises(InputError, match="narrow"):
        load(directory)
    assert isinstance(load(directory, "+dataset.capacity.narrow=1", config_dir=folder), ResNet)


@pytest.mark.parametrize(
    "value", ["{_target_: os.system, _args_: ['touch ran']}", "${oc.decode:'{_target_: os.system}'}"]
)
@pytest.mark.parametrize("key", ["dataset.classes", "dataset.channels", "dataset.network"])
def test_of_a_strangers_overrides_names_and_numbers_are_taken_alone(
    tmp_path: Path, key: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seed0").mkdir()
    config = {"dataset": {"name": "digits", "network": {"_target_": "os.system"}}, "model": {"name": "simple"}}
    (tmp_path / "seed0" / "config.yaml").write_text(yaml.safe_dump(config))
    write_json(tmp_path / "seed0" / "run.json", {"overrides": ["dataset=digits", "model=wide", f"{key}={value}"]})
    asked: list[list[str]] = []
    made = Run.of
    monkeypatch.setattr(Run, "of", lambda overrides, **rest: asked.append(overrides) or made(overrides, **rest))
    with pytest.raises(InputError, match="holds another network"):
        load(tmp_path / "seed0")
    assert asked == [["dataset=digits", "model=wide"]]


def stored_own(tmp_path: Path, folder: Path, settings: list[str]) -> Path:
    run = Run.of([*settings, f"output_dir={tmp_path}"], config_dir=folder)
    directory = RunDirectory(tmp_path / "run")
    write_json(directory.path / "run.json", {"overrides": settings})
    data = OmegaConf.to_container(run.config.dataset, resolve=False)
    network = OmegaConf.to_container(run.config.dataset.network, resolve=True)
    config = {"dataset": {"name": data["name"], "network": network}, "model": {"name": "narrow"}}
    directory.config.write_text(yaml.safe_dump(config))
    write_weights(directory.weights("last"), run.network(), {"dataset": "flowers"})
    return directory.path


def test_every_seed_has_its_own_first_weights() -> None:
    first, again, other = (Run.of([f"seed={seed}"]).network().fc1.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    elsewhere = ["dataset.network._target_=torch.nn.Linear", "~dataset.network.capacity", "~dataset.network.image_size"]
    elsewhere += ["+dataset.network.in_features=3", "+dataset.network.out_features=2"]
    first, again, other = (Run.of([*elsewhere, f"seed={seed}"]).network().weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_source_of_a_training_has_its_seed() -> None:
    source = Run.of(["training=static", "seed=3", "model=wide", "threat.eps=0.1"]).source()
    assert source is not None
    assert (source.config.seed, source.name) == (3, "wide-standard,threat.eps=0.1")


def test_a_training_may_begin_with_the_weights_of_a_file(tmp_path: Path) -> None:
    """The file's content defines the run, and not where it is."""
    plain = Run.of([])
    assert "init_sha256" not in plain.definition
    others = Run.of(["seed=5"]).network()
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        write_weights(path, others, {})
    first, moved = (Run.of([f"init='{path}'"]) for path in paths)
    for name, each in first.first_network().state_dict().items():
        assert torch.equal(each, others.state_dict()[name])
    assert first.definition == moved.definition != plain.definition
    write_weights(paths[1], plain.network(), {})
    assert Run.of([f"init='{paths[1]}'"]).definition != first.definition
    with pytest.raises(InputError, match="holds another network"):
        Run.of([f"init='{paths[0]}'", "model=wide"]).first_network()


def test_all_results_are_rows(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "simple-pgd,threat.eps=0.1" / "seed0"
    write_json(folder / "run.json", {"overrides": ["model=simple", "threat.eps=0.1", "+recipe.x=1", "~recipe.y"]})
    run = {"dataset": "digits", "model": "simple", "training": "pgd", "recipe": "paper", "seed": "0"}
    key = {"measurement": "pgd", "checkpoint": "last", "attack": {"eps": "0.1", "steps": 3}, "examples": 9, "of": 9}
    found = {"accuracy": 0.5, "interval": [0.4, 0.6], "loss": 1.5}
    write_json(folder / "results" / "last-pgd-0.json", {"key": key, "run": run, **found})
    write_json(folder / "results" / "last-maxima-0.json", {"key": {}, "run": run, "loss_median": 1})
    (row,) = runs.results(tmp_path)
    assert row == {
        **run,
        "threat.eps": "0.1",
        "recipe.x": "1",
        "checkpoint": "last",
        "measurement": "pgd",
        "attack.eps": "0.1",
        "attack.steps": 3,
        "accuracy": 0.5,
        "low": 0.4,
        "high": 0.6,
        "examples": 9,
        "loss": 1.5,
        "file": str(folder / "results" / "last-pgd-0.json"),
    }

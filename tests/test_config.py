from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from saddlepoint.config import (
    CONFIGS,
    NETWORKS,
    _difference,
    build,
    claim,
    comparable,
    data_folder,
    load_network,
    overwrites,
)
from saddlepoint.errors import InputError
from saddlepoint.models import CNN
from saddlepoint.threat import Threat
from saddlepoint.training.checkpoint import RunDirectory, write_weights

NETWORK = {"_target_": "saddlepoint.models.CNN", "capacity": 1, "image_size": 4, "classes": 2}
CPU = torch.device("cpu")


def test_build_makes_the_object_with_what_it_refers_to() -> None:
    config = OmegaConf.create(
        {
            "threat": {"_target_": "saddlepoint.threat.Threat", "norm": "linf", "eps": "8/255"},
            "attack": {"_target_": "saddlepoint.attacks.PGD", "threat": "${threat}", "steps": 7},
        }
    )
    attack = build(config.attack, restarts=2)
    assert isinstance(attack.threat, Threat)
    assert (attack.threat.eps, attack.steps, attack.restarts) == (8 / 255, 7, 2)


def test_runs_and_reports_lie_in_a_folder_of_their_data() -> None:
    def folder(output_dir: object, name: object) -> Path:
        return data_folder(OmegaConf.create({"output_dir": output_dir, "dataset": {"name": name}}))

    assert folder("outputs", "digits") == Path("outputs/digits")
    assert folder(2026, "digits") == Path("2026/digits")  # Hydra reads a number
    for output_dir, name, message in ((None, "digits", "output_dir=null"), ("outputs", 5, "dataset.name=5; expected")):
        with pytest.raises(InputError, match=message):
            folder(output_dir, name)


def test_an_error_of_the_arguments_comes_out_as_itself() -> None:
    inner = {"_target_": "saddlepoint.threat.Threat", "norm": "linf", "eps": -1}
    for config in (inner, {"_target_": "saddlepoint.attacks.PGD", "threat": inner, "steps": 1}):
        with pytest.raises(InputError, match=r"^threat\.eps=-1 is negative"):
            build(OmegaConf.create(config))


@pytest.mark.parametrize(
    "config",
    [{"_target_": "saddlepoint.threat.Missing"}, {"_target_": "saddlepoint.threat.Threat", "norms": "linf"}],
)
def test_other_errors_are_one_line(config: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        build(OmegaConf.create(config))
    assert "\n" not in str(error.value)
    assert "saddlepoint.threat" in str(error.value)


def test_what_is_allowed_is_built() -> None:
    network = build(OmegaConf.create(NETWORK), allow=NETWORKS)
    assert isinstance(network, CNN)
    assert network.fc2.out_features == 2


@pytest.mark.parametrize(
    "config",
    [
        {"_target_": "os.system", "command": "touch {}"},
        {"_target_": "subprocess.run", "_args_": [["touch", "{}"]]},
        {"_target_": "saddlepoint.data.load", "name": "digits", "root": ".", "held_out": 10},
        {"_target_": "saddlepoint.modelsandmore.X"},
        {"_target_": "saddlepoint.models"},
        {**NETWORK, "classes": {"_target_": "os.system", "command": "touch {}"}},
        {**NETWORK, "generator": [{"nested": [{"_target_": "os.system", "command": "touch {}"}]}]},
        {"_target_": "${where}.system", "where": "os", "command": "touch {}"},
    ],
)
def test_what_is_not_allowed_is_refused_and_not_run(tmp_path: Path, config: dict[str, Any]) -> None:
    text = yaml.safe_dump(config).replace("{}", str(tmp_path / "ran"))
    with pytest.raises(InputError, match=r"only saddlepoint.models.CNN and"):
        build(OmegaConf.create(text), allow=NETWORKS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("target", ["torch.utils.collect_env.run", "InputError", "torch.load"])
def test_what_an_allowed_module_has_imported_is_not_allowed(tmp_path: Path, target: str) -> None:
    config = {"_target_": f"saddlepoint.models.cnn.{target}", "_args_": [f"touch {tmp_path / 'ran'}"]}
    with pytest.raises(InputError, match=r"only saddlepoint.models.CNN and"):
        build(OmegaConf.create(config), allow=NETWORKS)
    assert not (tmp_path / "ran").exists()


def test_difference_names_the_first_setting_that_differs() -> None:
    stored = {"seed": 0, "threat": {"norm": "linf", "eps": 0.3}, "recipe": {"steps": 5}}
    wanted = {"seed": 0, "threat": {"norm": "linf", "eps": "8/255"}, "recipe": {"steps": 7}}
    assert _difference(stored, wanted) == "threat.eps is 0.3 there and 8/255 here"
    assert _difference({"a": 1, "b": 2}, {"a": 1}) == "b is 2 there and None here"
    assert _difference({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}) == "a.b is [1, 2] there and [1, 3] here"
    assert _difference({"a": {"b": 1}}, {"a": 1}) == "a is {'b': 1} there and 1 here"


def test_a_new_directory_is_claimed_and_an_own_one_kept(directory: RunDirectory) -> None:
    defined = {"seed": 0, "threat": {"eps": "8/255", "bounds": [0, 1]}}
    claim(directory, defined, overwrite=False)
    assert yaml.safe_load(directory.config.read_text()) == defined
    directory.write_state({"step": 5})
    claim(directory, defined, overwrite=False)
    assert directory.read_state() == {"step": 5}


def test_a_directory_of_another_configuration_is_refused_and_kept(directory: RunDirectory) -> None:
    claim(directory, {"seed": 0, "threat": {"eps": 0.3}}, overwrite=False)
    directory.finish({"steps": 1})
    message = r"holds another configuration \(threat\.eps is 0\.3 there and 0\.2 here\).*overwrite=true"
    with pytest.raises(InputError, match=message):
        claim(directory, {"seed": 0, "threat": {"eps": 0.2}}, overwrite=False)
    assert directory.finished
    assert yaml.safe_load(directory.config.read_text())["threat"]["eps"] == 0.3


def test_overwriting_starts_from_nothing(directory: RunDirectory) -> None:
    claim(directory, {"seed": 0}, overwrite=False)
    directory.finish({"steps": 1})
    directory.write_state({"step": 5})
    claim(directory, {"seed": 1}, overwrite=True)
    assert not directory.finished
    assert directory.read_state() is None
    assert yaml.safe_load(directory.config.read_text()) == {"seed": 1}


@pytest.mark.parametrize("content", ["a: [", "\x00", "}"])
def test_a_damaged_config_is_not_claimed(directory: RunDirectory, content: str) -> None:
    directory.path.mkdir(parents=True)
    directory.config.write_text(content)
    with pytest.raises(InputError, match=f"{directory.config} is damaged; overwrite=true"):
        claim(directory, {"seed": 0}, overwrite=False)


def stored_run(directory: RunDirectory, trained: CNN, **changes: Any) -> None:
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.config.write_text(
        yaml.safe_dump({"model": {"name": "simple"}, "dataset": {"name": "tiny", "network": NETWORK} | changes})
    )
    write_weights(directory.weights("last"), trained, {"dataset": "tiny"})


def test_the_network_of_a_run_comes_back_in_eval_mode(directory: RunDirectory, network: CNN) -> None:
    stored_run(directory, network)
    loaded = load_network(directory, "last", CPU)
    x = torch.rand(3, 1, 4, 4)
    assert torch.equal(loaded(x), network(x))
    assert not loaded.training


def test_a_stored_config_builds_only_networks(directory: RunDirectory, network: CNN, tmp_path: Path) -> None:
    stored_run(directory, network, network={"_target_": "os.system", "command": f"touch {tmp_path / 'ran'}"})
    with pytest.raises(InputError, match=r"wants to build os\.system"):
        load_network(directory, "last", CPU)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_data_set_are_refused(directory: RunDirectory, network: CNN) -> None:
    stored_run(directory, network, name="mnist")
    with pytest.raises(InputError, match="was trained on tiny, not mnist"):
        load_network(directory, "last", CPU)


def test_weights_of_another_width_are_refused(directory: RunDirectory, network: CNN) -> None:
    stored_run(directory, network, network={**NETWORK, "capacity": 2})
    with pytest.raises(InputError, match="holds another network"):
        load_network(directory, "last", CPU)


def test_a_missing_run_and_a_missing_checkpoint_are_named(directory: RunDirectory, network: CNN) -> None:
    with pytest.raises(InputError, match=f"no run at {directory.path}; train it first"):
        load_network(directory, "last", CPU)
    stored_run(directory, network)
    with pytest.raises(InputError, match=r"no checkpoint at .*best\.safetensors"):
        load_network(directory, "best", CPU)


@pytest.mark.parametrize("content", ["- 1", "dataset: {name: tiny}", "seed: 0"])
def test_what_is_no_config_of_a_run_is_refused(directory: RunDirectory, content: str) -> None:
    directory.path.mkdir(parents=True)
    directory.config.write_text(content)
    with pytest.raises(InputError, match=r"config\.yaml is no run's config"):
        load_network(directory, "last", CPU)


@pytest.mark.parametrize("content", ["", "a: [", "dataset: 3", "dataset: {name: tiny, network: null}"])
def test_a_damaged_config_of_a_run_is_refused(directory: RunDirectory, content: str) -> None:
    directory.path.mkdir(parents=True)
    directory.config.write_text(content)
    with pytest.raises(InputError, match=r"config\.yaml"):
        load_network(directory, "last", CPU)


def test_a_job_that_slurm_starts_again_does_not_overwrite_its_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    given = OmegaConf.create({"overwrite": True})
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert overwrites(given) is True
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert overwrites(OmegaConf.create({"overwrite": False})) is False
    with pytest.raises(InputError, match="would discard its own state; leave it out"):
        overwrites(given)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], True),
        (["dataset=mnist", "recipe=fast", "models=[wide]", "evaluation.examples=100"], True),
        (["experiment=table1"], True),
        (["experiment=mine"], False),
        (["threat.eps=0.2"], False),
        (["evaluation.attacks.pgd.steps=100"], False),
        (["+report.attacks.mine=null"], False),
        (["report.sources.A_prime.seed=3"], False),
        (["report.epsilon.steps=10"], False),
        (["report.epsilon={steps: 10}"], False),
        (["report.epsilon.queries=10"], False),
        (["report.epsilon.examples=500", "report.epsilon.linf=[0,0.1]"], True),  # fewer numbers, and the same
    ],
)
def test_the_papers_numbers_stand_beside_the_papers_settings(
    tmp_path: Path, overrides: list[str], expected: bool
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nthreat: {eps: 0.2}\n")
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        found = [f"hydra.searchpath=[file://{tmp_path}]", *overrides]
        HydraConfig.instance().set_config(compose("evaluate", found, return_hydra_config=True))
        assert comparable() is expected

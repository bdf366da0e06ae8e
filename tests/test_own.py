"""A network, a method, a checkpoint and data of one's own: the guide's example, run; and what is refused."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import ROOT, TINY, Outcome, refused, run
from safetensors.torch import load_file
from torch import nn

from saddlepoint import own
from saddlepoint.attacks import PGD
from saddlepoint.data import fingerprint
from saddlepoint.files import digest, read_json
from saddlepoint.threat import Threat

Run = Callable[..., Outcome]
GUIDE = (ROOT / "docs" / "guide.md").read_text().split("\n## Your own\n")[1].split("\n## ")[0]
FILES: dict[str, str] = dict(re.findall(r"```\w+\n# (mine/\S+)\n(.*?)```", GUIDE, re.S))
COMMANDS = re.findall(r"^PYTHONPATH=mine python (.*)", GUIDE, re.M)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return lambda path, *arguments: run(path, *arguments, capsys=capsys, monkeypatch=monkeypatch)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The guide's folder; what its Python defines can be imported."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "mine")
    yield tmp_path / "mine"
    for name in ("mine", "momentum", "mydata"):
        sys.modules.pop(name, None)


def forget() -> None:
    """What this process read of your files: as the next command, which is another process."""
    own._as_first_seen.cache_clear()
    own._named.cache_clear()


def shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images (n, 8, 8): a bright row, column or square."""
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 100, (count, 8, 8), np.uint8), np.arange(count) % 3
    x[y == 0, 3, :], x[y == 1, :, 3] = 255, 255
    x[y == 2, 2:6, 2:6] = 255
    return x, y


def test_the_readme_has_the_example() -> None:
    assert sorted(FILES) == [
        "mine/attack/momentum.yaml",
        "mine/experiment/momentum.yaml",
        "mine/experiment/shapes.yaml",
        "mine/mine.py",
        "mine/model/mynet.yaml",
        "mine/momentum.py",
        "mine/training/mixed.yaml",
    ]
    assert len(COMMANDS) == 7


def test_the_readme_example_runs(mine: Path, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = shapes(150, 0)
    np.savez(tmp_path / "shapes.npz", x_train=x, y_train=y, x_test=x[:60], y_test=y[:60])
    small = {
        "train.py": ["recipe.steps=300", "recipe.evaluations=2", "recipe.monitor.examples=50", "attack.steps=2"],
        "scripts/accuracy_table.py": ["attacks.pgd.steps=2", "evaluation.examples=100"],
        "scripts/import_network.py": [],
    }
    experiment = mine / "experiment" / "shapes.yaml"
    experiment.write_text(experiment.read_text().replace("shapes.npz", f"{tmp_path}/shapes.npz"))
    for line in COMMANDS:
        script, *arguments = shlex.split(line)
        arguments = [argument.replace("theirs.pt", f"{tmp_path}/theirs.pt") for argument in arguments]
        if arguments[1] == "mine":
            arguments[1] = str(mine)
        settings = list(small[script])
        if "experiment=shapes" in arguments:
            settings = ["recipe.epochs=2", "recipe.evaluations=1", "recipe.batch_size=20"]
        if "trainings=[mixed]" in arguments or "experiment=momentum" in arguments:
            settings += small["train.py"]
        outcome = command(script, *arguments, *settings, f"output_dir={tmp_path}/out")
        assert outcome.status == 0, (line, outcome.err)
        if "training=mixed" in arguments:  # somebody else publishes its weights
            tensors = load_file(*(tmp_path / "out/digits").glob("mynet-mixed,*/seed0/last.safetensors"))
            inner = {f"module.{name.removeprefix('network.')}": tensor for name, tensor in tensors.items()}
            torch.save({"state_dict": inner, "epoch": 3}, tmp_path / "theirs.pt")
        assert any(name in outcome.out for name in ("mynet", "shapes", "momentum"))
    tables = {path.parent.parent.name: path.read_text() for path in (tmp_path / "out/digits").rglob("*first100.md")}
    (momentum,) = (tables.pop(name) for name, text in list(tables.items()) if "| momentum |" in text)
    assert "PGD simple" in momentum
    naturals = {re.search(r"Natural \| ([\d.]+ \(.*?\))", text)[1] for text in tables.values()}  # type: ignore[index]
    assert len(tables) == 2
    assert len(naturals) == 1  # the imported weights are the trained ones
    assert float(naturals.pop().split()[0]) > 60
    stored = yaml.safe_load(next((tmp_path / "out/digits").glob("mynet-mixed,*/seed0/config.yaml")).read_text())
    assert stored["dataset"]["network"]["network"] == {"_target_": "mine.MyNet", "hidden": 128}
    (shape_run,) = (tmp_path / "out/shapes").glob("*/seed0/training.json")
    assert shape_run.parent.parent.name.startswith("simple-pgd-fast,")  # what the experiment changes


def test_data_of_ones_own_are_known_by_their_content(mine: Path, command: Run, tmp_path: Path) -> None:
    """Other images under the same name are measured anew, and no training goes on over them."""
    file = tmp_path / "shapes.npz"
    (x, y), (other, _) = shapes(60, 0), shapes(60, 1)
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    data = [
        "dataset=own",
        "dataset.name=shapes",
        f"dataset.data.path={file}",
        "dataset.classes=3",
        "dataset.channels=1",
    ]
    common = [*data, *TINY, "recipe.epochs=null", "recipe.batch_size=20", f"output_dir={tmp_path}/out"]
    outcome = command("train.py", *common, "training=standard")
    assert outcome.status == 0, outcome.err
    common += ["evaluation.attacks=[natural]", "models=[simple]", "trainings=[standard]"]
    (training,) = (path.parent for path in (tmp_path / "out").rglob("training.json"))
    keys = []
    for pixels in (x, other, other):
        np.savez(file, x_train=x, y_train=y, x_test=pixels, y_test=y)
        assert command("scripts/accuracy_table.py", *common).status == 0
        keys.append({read_json(path)["key"]["data_sha256"] for path in training.glob("results/last-natural-*.json")})
    assert [len(each) for each in keys] == [1, 2, 2]
    assert keys[1] - keys[0] == {fingerprint(file)}
    again = command("train.py", *common[:-3], "training=standard")
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "holds another configuration (dataset.data.data_sha256 is" in again.err


def test_what_your_changed_code_made_is_measured_again(mine: Path, command: Run, tmp_path: Path) -> None:
    common = ["--config-dir", str(mine), *TINY, f"output_dir={tmp_path}/out"]
    train = ["train.py", *common, "model=mynet", "training=standard"]
    measured = ["models=[mynet]", "trainings=[standard]", "evaluation.examples=20", "attacks.pgd.steps=1"]
    measure = ["scripts/accuracy_table.py", *common, *measured]

    def edited(old: str, new: str) -> None:
        """As the next command, which is another process, finds it."""
        file = mine / "mine.py"
        file.write_text(file.read_text().replace(old, new))
        sys.modules.pop("mine", None)
        forget()

    def results() -> int:
        return len(list((tmp_path / "out").rglob("results/last-*.json")))

    assert command(*train).status == 0
    for expected in (3, 3):
        assert (command(*measure).status, results()) == (0, expected)
    assert "your code has changed" not in command(*train).out
    edited("nn.ReLU()", "nn.Sigmoid()")
    again = command(*measure)
    assert (again.status, results()) == (0, 6)
    assert "your code has changed" in again.out
    assert "your code has changed" in command(*train).out


def test_an_attack_of_your_own_is_another_when_its_code_is(
    tmp_path: Path, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its loss, what that imports, and nothing else; other attacks' results stay."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_help.py").write_text("SCALE = 1\n")
    (tmp_path / "own_loss.py").write_text(
        "import own_help\nfrom saddlepoint.losses import Margin\n"
        "class Mine(Margin):\n    def __call__(self, z, y):\n        return own_help.SCALE * super().__call__(z, y)\n"
    )
    common = [*TINY, f"output_dir={tmp_path}/out"]
    assert command("train.py", *common, "training=standard").status == 0
    mine = "+attacks.mine={_target_:saddlepoint.attacks.PGD,threat:${threat},steps:1,loss:{_target_:own_loss.Mine}}"
    rows = ["evaluation.attacks=[natural,pgd,mine]", "evaluation.examples=20", "attacks.pgd.steps=1", mine]
    rows += ["models=[simple]", "trainings=[standard]"]
    names = []
    for text in ("SCALE = 1\n", "SCALE = 1\n", "SCALE = 1.5\n"):
        (tmp_path / "own_help.py").write_text(text)
        for name in ("own_help", "own_loss"):
            sys.modules.pop(name, None)
        forget()
        assert command("scripts/accuracy_table.py", *common, *rows).status == 0
        names.append({path.name for path in (tmp_path / "out").rglob("results/last-*.json")})
    assert names[0] == names[1]
    assert [name.startswith("last-mine-") for name in names[2] - names[1]] == [True]


def test_an_attack_of_your_own_is_another_when_a_setting_is(
    tmp_path: Path, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it describes itself as PGD does; so is its loss."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_attack.py").write_text(
        "from dataclasses import dataclass\nfrom saddlepoint.attacks import PGD\n"
        "from saddlepoint.losses import Margin\n"
        "@dataclass\nclass Momentum(PGD):\n    decay: float = 1.0\n"
        "class Signed(Margin):\n    def __init__(self, sign):\n        super().__init__()\n"
        "        object.__setattr__(self, 'sign', sign)\n"
    )
    common = [*TINY, f"output_dir={tmp_path}/out"]
    assert command("train.py", *common, "training=standard").status == 0
    rows = ["evaluation.attacks=[mine]", "evaluation.examples=20", "models=[simple]", "trainings=[standard]"]
    for decay, sign, expected in ((1, 1, 1), (1, 1, 1), (-1, 1, 2), (1, -1, 3)):
        mine = f"_target_:own_attack.Momentum,threat:${{threat}},steps:1,decay:{decay}"
        mine += f",loss:{{_target_:own_attack.Signed,sign:{sign}}}"
        assert command("scripts/accuracy_table.py", *common, *rows, f"+attacks.mine={{{mine}}}").status == 0
        assert len(list((tmp_path / "out").rglob("results/last-mine-*.json"))) == expected
    sys.modules.pop("own_attack", None)


@pytest.mark.parametrize(
    "statement",
    [
        "from own_constants import SCALE\n",
        "try:\n    from .own_constants import SCALE\nexcept ImportError:\n    from own_constants import SCALE\n",
    ],
)
def test_a_constant_that_your_code_imports_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_user.py").write_text(f"{statement}\ndef scaled(x): return SCALE * x\n")
    codes = []
    for text in ("SCALE = 1\n", "SCALE = -1\n"):
        (tmp_path / "own_constants.py").write_text(text)
        for name in ("own_user", "own_constants"):
            sys.modules.pop(name, None)
        forget()
        codes.append(own.code(importlib.import_module("own_user").scaled))
    assert codes[0] != codes[1]


def test_your_code_is_the_same_before_and_after_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_late.py").write_text("SCALE = 2\n")
    (tmp_path / "own_early.py").write_text("def scaled(x):\n    import own_late\n    return own_late.SCALE * x\n")
    scaled = importlib.import_module("own_early").scaled
    before = own.code(scaled)
    assert scaled(1) == 2
    assert own.code(scaled) == before
    (tmp_path / "own_early.py").write_text("def scaled(\n")  # edited while a command runs
    assert own.code(scaled) == before


class Hinge(nn.Module):
    def __init__(self, margin: float, weights: torch.Tensor | None = None) -> None:
        super().__init__()
        self.margin = margin
        self.register_buffer("weights", weights)


def test_every_kind_of_attribute_of_an_attack_counts() -> None:
    values = [
        Hinge(1.0),
        Hinge(50.0),
        Hinge(1.0, torch.ones(2)),
        Hinge(1.0, torch.zeros(2)),
        {1, 2},
        Path("a"),
        Path("b"),
    ]
    values += [
        np.arange(3),
        np.arange(3.0),
        torch.float32,
        functools.partial(shapes, 1),
        functools.partial(shapes, 2),
        [],
    ]
    made = [own.settings(types.SimpleNamespace(value=value)) for value in values]
    again = [own.settings(types.SimpleNamespace(value=copy.deepcopy(value))) for value in values]
    assert made == again
    assert len({digest(each) for each in made}) == len(values)


def test_files_of_yours_that_take_a_name_of_ours_are_others(mine: Path, command: Run, tmp_path: Path) -> None:
    """And a loader of your own is part of what is measured with it."""
    (mine / "dataset").mkdir()
    (mine / "dataset" / "mydigits.yaml").write_text("defaults: [digits]\ndata: {_target_: mydata.load}\n")
    brought = ["--config-dir", str(mine), "dataset=mydigits"]
    for missing in ("recipe/paper", "report"):
        script = "train.py" if missing == "recipe/paper" else "scripts/accuracy_table.py"
        assert refused(command(script, *brought), f"dataset=mydigits has no {missing}/mydigits.yaml")
        (mine / missing).mkdir(parents=True)
        (mine / missing / "mydigits.yaml").write_text("defaults: [digits]\n")
    loader = "from saddlepoint import data\ndef load(**settings):\n    return data.load(**settings)\n"
    (mine / "mydata.py").write_text(loader)
    common = [*TINY, f"output_dir={tmp_path}/out"]
    chosen = ["models=[simple]", "trainings=[standard]", "evaluation.attacks=[natural]"]
    assert command("train.py", *brought, *common, "training=standard").status == 0
    assert "not trained yet" in command("scripts/accuracy_table.py", *common, *chosen).out
    for text, expected in ((loader, 1), (loader + "\n# changed\n", 2)):
        (mine / "mydata.py").write_text(text)
        sys.modules.pop("mydata", None)
        forget()
        assert command("scripts/accuracy_table.py", *brought, *common, *chosen).status == 0
        assert len(list((tmp_path / "out").rglob("results/*.json"))) == expected


@pytest.mark.slow
def test_all_is_reproduced_with_a_network_of_your_own(mine: Path, tmp_path: Path) -> None:
    """Its trainings are processes of their own, which find its files too."""
    chosen = ["items=[accuracy]", "models=[mynet]", "trainings=[standard]", "evaluation.attacks=[natural]"]
    done = subprocess.run(
        [
            sys.executable,
            "scripts/reproduce.py",
            "--config-dir",
            str(mine),
            *chosen,
            *TINY,
            f"output_dir={tmp_path}/out",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(mine), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out/digits").glob("mynet-standard,*/seed0/results/last-natural-*.json"))


@pytest.mark.parametrize("reference", ["${oc.select:model.extra,3}", "${.extra}", "${model.${.which}}"])
def test_a_setting_of_your_own_that_your_files_read_may_be_added(
    mine: Path, command: Run, tmp_path: Path, reference: str
) -> None:
    (mine / "model" / "reading.yaml").write_text(
        f"# @package _global_\nmodel: {{name: reading, capacity: '{reference}', which: extra}}\n"
    )
    added = ["--config-dir", str(mine), "model=reading", "+model.extra=none", f"output_dir={tmp_path}/out"]
    # It comes as far as the network, which is not this wide.
    assert refused(command("train.py", *added), "model.capacity=none; expected a whole number")


def test_only_your_code_counts() -> None:
    assert own.code(PGD(Threat("linf", 0.1), 1), torch.optim.Adam, nn.Linear(1, 1), Path, len) is None
    assert own.code(shapes) == own.code(functools.partial(shapes, seed=0)) is not None


def test_the_fingerprint_of_a_folder_is_of_names_and_contents(tmp_path: Path) -> None:
    def made(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return fingerprint(folder)

    assert made(a="1", b="23") == made(b="23", a="1")
    assert len({made(a="1", b="23"), made(a="12", b="3"), made(a="1", c="23"), made(a="1")}) == 4
    hidden = {".directory": "a file manager's", ".thumbnails/a": "a small one"}
    assert made(a="1", **hidden) == made(a="1")


def test_only_the_user_names_classes(mine: Path, command: Run, tmp_path: Path) -> None:
    arguments = [*TINY, "model=mynet", "training=standard", f"output_dir={tmp_path}/out"]
    assert command("train.py", "--config-dir", str(mine), *arguments).status == 0
    table = [*TINY, "models=[mynet]", "trainings=[standard]", f"output_dir={tmp_path}/out"]
    refused = command("scripts/accuracy_table.py", *table)
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "mynet" in refused.err
    (config,) = (tmp_path / "out").rglob("config.yaml")
    config.write_text(config.read_text().replace("hidden: 128", "hidden: {_target_: os.getpid}"))
    outcome = command("scripts/accuracy_table.py", "--config-dir", str(mine), *table)
    assert "dataset.network.network.hidden is {'_target_': 'os.getpid'} there and 128 here" in outcome.err


def test_networks_of_ones_own_start_from_the_seed(mine: Path, command: Run, tmp_path: Path) -> None:
    for place in ("a", "b"):
        torch.rand(7)  # whatever torch's own generator has done before
        arguments = [*TINY, "model=mynet", "training=standard", f"output_dir={tmp_path}/{place}"]
        assert command("train.py", "--config-dir", str(mine), *arguments).status == 0
    first, second = (path.read_bytes() for path in sorted(tmp_path.rglob("last.safetensors")))
    assert first == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("nn.ReLU()", "nn.BatchNorm1d(hidden)"), "does not take images of shape (1, 8, 8) one at a time"),
        (("(hidden, 10))", "(hidden, 10), nn.Softmax(1))"), "returns probabilities; expected logits"),
        (("(hidden, 10))", "(hidden, 10), nn.Sigmoid())"), "stay between 0 and 1 whatever the images"),
        (("(hidden, 10))", "(hidden, 9))"), "the data have 10 classes, expected (8, 10)"),
        (("nn.Linear(64", "nn.Linear(49"), "does not take images of shape (1, 8, 8)"),
    ],
)
def test_a_wrong_network_is_found_before_training(
    mine: Path, command: Run, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    (mine / "mine.py").write_text((mine / "mine.py").read_text().replace(*change))
    arguments = ["--config-dir", str(mine), *TINY, "model=mynet", f"output_dir={tmp_path}/out"]
    batch = ["recipe.batch_size=1"] if "one at a time" in message else []
    outcome = command("train.py", *arguments, *batch)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not (tmp_path / "out").exists()


def test_ones_own_mnist_is_not_compared_with_the_papers(command: Run, tmp_path: Path) -> None:
    x, y = shapes(60, 0)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    common = ["dataset=own", "dataset.name=mnist", f"dataset.data.path={tmp_path}/own.npz", "dataset.classes=3"]
    common += ["dataset.channels=1", *TINY, "recipe.epochs=null", "recipe.batch_size=20", f"output_dir={tmp_path}/out"]
    assert command("train.py", *common, "training=standard").status == 0
    table = ["models=[simple]", "trainings=[standard]", "evaluation.attacks=[natural]"]
    outcome = command("scripts/accuracy_table.py", *common, *table)
    assert outcome.status == 0 and "Natural" in outcome.out
    assert "paper" not in outcome.out.lower()


def test_square_in_l2_is_refused_before_linf_is_measured(command: Run, tmp_path: Path) -> None:
    """On images of 12 pixels the authors' code fails."""
    x = np.random.default_rng(0).integers(0, 256, (60, 12, 12, 1), np.uint8)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=np.arange(60) % 3, x_test=x, y_test=np.arange(60) % 3)
    common = ["dataset=own", "dataset.name=small", f"dataset.data.path={tmp_path}/own.npz", "dataset.classes=3"]
    common += ["dataset.channels=1", *TINY, "recipe.epochs=null", "recipe.batch_size=20", f"output_dir={tmp_path}/out"]
    assert command("train.py", *common, "training=standard").status == 0
    settings = ["report.epsilon.model=simple", "report.epsilon.trainings=[standard]", "report.epsilon.queries=3"]
    outcome = command("scripts/epsilon_curves.py", *common, *settings)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "fails on images of 12x12 pixels" in outcome.err
    assert not list((tmp_path / "out").rglob("results/*"))


@pytest.mark.parametrize(
    ("returned", "named"),
    [
        ("(loss(logits, y).mean(), logits)", "expected losses of shape"),
        ("loss(logits, y)", "expected losses of shape"),
        ("(loss(logits.detach(), y).requires_grad_(), logits)", "the weights"),
        ("1 / 0", "ZeroDivisionError"),
    ],
    ids=["mean loss", "losses alone", "losses without the weights", "a method that fails"],
)
def test_a_wrong_method_is_found_before_anything_is_written(
    mine: Path, command: Run, tmp_path: Path, returned: str, named: str
) -> None:
    code = (mine / "mine.py").read_text()
    (mine / "mine.py").write_text(re.sub(r"    return natural .*", f"    return {returned}", code))
    outcome = command("train.py", "--config-dir", str(mine), *TINY, "training=mixed", f"output_dir={tmp_path}/out")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "training.objective" in outcome.err and named in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_import_never_replaces_a_run_unasked(mine: Path, command: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).state_dict(), tmp_path / "w.pt"
    )
    arguments = ["--config-dir", str(mine), "model=mynet", f"weights={tmp_path}/w.pt", f"output_dir={tmp_path}/out"]
    assert command("scripts/import_network.py", *arguments).status == 0
    again = command("scripts/import_network.py", *arguments)
    assert (again.status, again.err.count("\n")) == (2, 1)
    assert "holds a run already; overwrite=true replaces it" in again.err
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    unclear = command("scripts/import_network.py", *arguments, "overwrite=no")
    assert unclear.err == "error: overwrite=no; choose true or false\n"
    assert {path: path.read_bytes() for path in before} == before
    assert command("scripts/import_network.py", *arguments, "overwrite=true").status == 0
    (weights,) = (tmp_path / "out").rglob("last.safetensors")
    first = weights.read_bytes()
    model = mine / "model" / "mynet.yaml"
    model.write_text(model.read_text().replace("std: [0.5]", "std: [0.25]"))
    assert command("scripts/import_network.py", *arguments, "overwrite=true").status == 0
    assert weights.read_bytes() != first  # by which results are known: they are of another network now
    missing = command("scripts/import_network.py", "model=simple", f"output_dir={tmp_path}/out")
    assert missing.err == "error: weights is not set; add weights=...\n"


def test_what_was_trained_against_another_threat_is_not_measured(mine: Path, command: Run, tmp_path: Path) -> None:
    """A data set's file that changes under a run's name would put its new eps over the old network's numbers."""
    for group in ("dataset", "recipe/paper", "report"):
        (mine / group).mkdir(parents=True, exist_ok=True)
        (mine / group / "weak.yaml").write_text("defaults: [digits]\n")
    file, text = mine / "dataset" / "weak.yaml", "defaults: [digits]\neps: {linf: EPS}\n"
    common = ["--config-dir", str(mine), *TINY, "dataset=weak", f"output_dir={tmp_path}/out"]
    file.write_text(text.replace("EPS", "1/16"))
    trained = command("train.py", *common, "training=standard")
    assert trained.status == 0, trained.err
    file.write_text(text.replace("EPS", "2/16"))
    outcome = command("scripts/accuracy_table.py", *common, "models=[simple]", "trainings=[standard]")
    assert (outcome.status, outcome.err.count("\n")) == (2, 1)
    assert "is of another threat (threat.eps is 1/16 there and 2/16 here)" in outcome.err

from __future__ import annotations

import copy
import random
import signal
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import saddlepoint.training.trainer
from saddlepoint.attacks import PGD
from saddlepoint.data import Batches, CropFlip, Data, Split
from saddlepoint.errors import InputError, Stopped
from saddlepoint.files import read_csv, read_json, sha256
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.models import CNN, ResNet
from saddlepoint.runtime import Runtime, generator, has_fast_bfloat16
from saddlepoint.threat import Threat
from saddlepoint.tracking import Tracker
from saddlepoint.training import Monitor, Recipe, Trainer
from saddlepoint.training.checkpoint import RunDirectory, read_weights
from saddlepoint.training.objectives import Adversarial, Objective, Standard
from saddlepoint.training.schedules import Constant, OneCycle
from saddlepoint.training.trainer import parameter_groups

THREAT = Threat("linf", 0.1)
ADVERSARIAL = Adversarial(PGD(THREAT, steps=2), warmup=0.3)
ADAM = partial(torch.optim.Adam, lr=0.01)
MOMENTUM = partial(torch.optim.SGD, lr=0.01, momentum=0.9, nesterov=True)

RECIPE = {field.name for field in fields(Recipe)}

Make = Callable[..., Trainer]


@pytest.fixture
def make(data: Data, directory: RunDirectory, runtime: Runtime) -> Make:
    """A trainer of 20 steps on the tiny data, anew with each call."""

    def make(path: Path | None = None, **changes: Any) -> Trainer:
        settings: dict[str, Any] = {
            "model": CNN(1, image_size=4, classes=2, generator=torch.Generator().manual_seed(0)),
            "objective": ADVERSARIAL,
            "data": data,
            "runtime": runtime,
            "directory": RunDirectory(path) if path else directory,
            "tracker": Tracker(),
            "monitor": Monitor(PGD(THREAT, steps=2), examples=20),
            "metadata": {"dataset": "tiny"},
            "seed": 3,
            "batch_size": 8,
            "optimizer": ADAM,
            "schedule": OneCycle(0.01, 0.3),
            "steps": 20,
            "evaluations": 4,
        }
        settings |= changes
        recipe = {name: settings.pop(name) for name in RECIPE if name in settings}
        return Trainer(**settings, recipe=Recipe(**recipe))

    return make


class InterruptionError(Exception):
    pass


class Watched:
    """An objective that notes its calls, and does `at` at a given step, counted from 1."""

    def __init__(self, objective: Objective, step: int = 0, at: Callable[[Tensor], Tensor] | None = None) -> None:
        self.objective, self.step, self.at = objective, step, at
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.progress: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objective, name)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator, progress: float
    ) -> tuple[Tensor, Tensor]:
        assert model.training
        losses, logits = self.objective(model, x, y, generator, progress)
        self.losses.append(losses.mean().item())
        self.accuracies.append((logits.argmax(1) == y).float().mean().item())
        self.progress.append(progress)
        if self.at is not None and len(self.losses) == self.step:
            losses = self.at(losses)
        return losses, logits


def interrupt(losses: Tensor) -> Tensor:
    raise InterruptionError


def left_by(trainer: Trainer) -> dict[str, Any]:
    """All that a run leaves but its summary, which holds times: files, weights, rows, generators."""
    directory = trainer.directory
    checkpoints = ["last", "best", *(["averaged"] if trainer.averaged is not None else [])]
    files = [*(f"{checkpoint}.safetensors" for checkpoint in checkpoints), "history.csv", "training.json"]
    assert sorted(path.name for path in directory.path.iterdir()) == sorted(files)
    left: dict[str, Any] = {"history": directory.history.read_bytes(), "rows": trainer.rows, "best": trainer.best}
    for checkpoint in checkpoints:
        model = copy.deepcopy(trainer.model)
        metadata = read_weights(directory.weights(checkpoint), model)
        left[checkpoint] = metadata, {name: tensor.tolist() for name, tensor in model.state_dict().items()}
    left["in memory"] = {name: tensor.tolist() for name, tensor in trainer.model.state_dict().items()}
    left["generators"] = {name: each.get_state().tolist() for name, each in trainer.generators.items()}
    return left


def small_resnet() -> ResNet:
    return ResNet(1, units=1, channels=1, classes=2, generator=torch.Generator().manual_seed(0))


class Convolutional(nn.Module):
    """Takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.norm(self.conv(x))).amax((2, 3)))


class Dropping(nn.Module):
    """Drops without a layer that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(x.flatten(1), 0.3, self.training))


def drawing(model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float) -> tuple[Tensor, Tensor]:
    """It draws from everybody's generators, as mixup's own code does."""
    logits = model(x * (0.5 + random.random() / 2) + np.random.beta(1, 1) * torch.rand(1))
    return F.cross_entropy(logits, y, reduction="none"), logits


class Remembering:
    """It trains more on what was hard before."""

    def __init__(self) -> None:
        self.mean = torch.ones(())

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, generator: Any, progress: float
    ) -> tuple[Tensor, Tensor]:
        losses, logits = Standard()(model, x, y, generator, progress)
        self.mean = 0.9 * self.mean + 0.1 * losses.detach().mean()
        return losses / self.mean, logits

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.mean = state["mean"]


VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "adam": lambda: {"optimizer": ADAM},
    "momentum": lambda: {"optimizer": MOMENTUM, "weight_decay": 0.01, "reduction": "sum"},
    "augmentation": lambda: {"augmentation": CropFlip(1)},
    "batch statistics": lambda: {
        "model": small_resnet(),
        "objective": Adversarial(PGD(THREAT, steps=1, model_mode="train")),
    },
    "dropout": lambda: {"model": Dropping()},
    "bfloat16": lambda: {"precision": "bfloat16"},
    "growing": lambda: {"model": Convolutional(), "grow": {2: 0.6, 3: 0.7}, "augmentation": CropFlip(1)},
    "averaged": lambda: {"model": small_resnet(), "averaging": 0.8},
    "drawing": lambda: {"objective": drawing},
    "remembering": lambda: {"objective": Remembering()},
}


def interrupted(make: Make, step: int) -> Trainer:
    trainer = make(objective=Watched(ADVERSARIAL, step, interrupt))
    with pytest.raises(InterruptionError):
        trainer.fit()
    return trainer


def test_the_best_weights_of_before_an_interruption_are_kept(make: Make, tmp_path: Path) -> None:
    first = interrupted(make, 14)
    assert not first.directory.weights("best").exists()  # until the end the state has them
    second = make(objective=Standard(), schedule=Constant(0.0))  # never better again
    second.fit()
    whole = make(tmp_path / "whole")
    whole.fit()
    best = [each for each in whole.rows if each["step"] < 14]
    assert second.directory.read_summary()["best_step"] == max(best, key=lambda row: row["held_out_robust"])["step"]
    assert second.directory.weights("best").read_bytes() == first.best_file != b""


def test_a_state_altered_on_the_disk_costs_time_and_nothing_else(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = make(tmp_path / "whole")
    whole.fit()
    directory = interrupted(make, 14).directory
    content = directory.state.read_bytes()
    directory.state.write_bytes(content[:-2000] + bytes(1000) + content[-1000:])
    second = make()
    second.fit()
    assert "state.pt is damaged; using the state before" in caplog.text
    assert left_by(second) == left_by(whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("window"),
        lambda state: state.update(processes=[{"buffers": [], "order": torch.zeros(3)}]),
        lambda state: state["networks"][0].popitem(),
        lambda state: state.update(rows=None, best_file=None),
        lambda state: state.update(made="here"),
    ],
)
def test_a_state_of_something_else_is_refused(make: Make, change: Callable[[dict[str, Any]], None]) -> None:
    directory = interrupted(make, 14).directory
    state = directory.read_state()
    assert state is not None
    change(state)
    directory.write_state(state)
    with pytest.raises(InputError, match=r"state\.pt is no state of this run; overwrite=true"):
        make().fit()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_writes_the_state(make: Make, tmp_path: Path, signum: signal.Signals) -> None:
    whole = make(tmp_path / "whole")
    whole.fit()

    def stop(losses: Tensor) -> Tensor:
        for _ in range(2):  # a second one changes nothing
            signal.raise_signal(signum)
        return losses

    before = signal.getsignal(signum)
    trainer = make(objective=Watched(ADVERSARIAL, 13, stop))
    with pytest.raises(Stopped) as stopped:
        trainer.fit()
    assert stopped.value.signum == signum
    assert signal.getsignal(signum) == before
    state = trainer.directory.read_state()
    assert state is not None and state["step"] == 13
    second = make()
    second.fit()
    assert left_by(second) == left_by(whole)


@pytest.mark.parametrize("seconds_between_states", [120, -1], ids=["between rows", "anywhere"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_is_the_same_run_bit_for_bit(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, seconds_between_states: int
) -> None:
    if variant == "bfloat16" and not has_fast_bfloat16(torch.device("cpu")):
        pytest.skip("this CPU has no bfloat16 arithmetic")
    monkeypatch.setattr(saddlepoint.training.trainer, "SECONDS_BETWEEN_STATES", seconds_between_states)
    whole = make(tmp_path / "whole", **VARIANTS[variant]())
    whole.fit()
    assert (whole.dtype == torch.bfloat16) == (variant == "bfloat16")

    settings = VARIANTS[variant]()
    first = make(**settings | {"objective": Watched(settings.get("objective", ADVERSARIAL), 14, interrupt)})
    with pytest.raises(InterruptionError):
        first.fit()
    state = first.directory.read_state()
    assert state is not None
    assert state["step"] == (10 if seconds_between_states > 0 else 13)
    assert not first.directory.finished

    second = make(**VARIANTS[variant]())
    second.fit()
    assert left_by(second) == left_by(whole)


def test_a_run_interrupted_before_its_first_state_starts_again(make: Make, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    whole.fit()
    with pytest.raises(InterruptionError):
        make(objective=Watched(ADVERSARIAL, 3, interrupt)).fit()
    second = make()
    second.fit()
    assert left_by(second) == left_by(whole)


def test_a_run_killed_just_before_the_end_only_finishes(make: Make) -> None:
    class Late(RunDirectory):
        def finish(self, summary: dict[str, Any]) -> None:
            raise InterruptionError

    trainer = make()
    trainer.directory = Late(trainer.directory.path)
    with pytest.raises(InterruptionError):
        trainer.fit()
    watched = Watched(ADVERSARIAL)
    summary = make(objective=watched).fit()
    assert watched.losses == []
    assert summary["train_loss"] == trainer.rows[-1]["train_loss"]


def test_the_same_seed_is_the_same_run_and_another_seed_another(make: Make, tmp_path: Path) -> None:
    runs = [make(tmp_path / str(number), seed=seed) for number, seed in enumerate((3, 3, 4))]
    for run in runs:
        run.fit()
    assert left_by(runs[0]) == left_by(runs[1])
    assert left_by(runs[0])["last"] != left_by(runs[2])["last"]


def test_standard_training_learns_a_separable_problem(make: Make, data: Data) -> None:
    trainer = make(objective=Standard(), steps=100, schedule=Constant(0.01))
    summary = trainer.fit()
    assert summary["train_loss"] < 0.05
    assert trainer.rows[-1]["held_out_natural"] == 1
    assert evaluate(trainer.model, data.test, None).accuracy == 1


def test_adversarial_training_makes_robust(make: Make, data: Data, tmp_path: Path) -> None:
    attack = PGD(Threat("linf", 0.3), steps=5)
    objectives = (Standard(), Adversarial(attack))
    trainers = [
        make(tmp_path / type(each).__name__, objective=each, steps=150, schedule=Constant(0.01)) for each in objectives
    ]
    for trainer in trainers:
        trainer.fit()
    standard, adversarial = (evaluate(trainer.model, data.test, attack).loss for trainer in trainers)
    assert adversarial < 0.8 * standard


def test_history_holds_the_means_since_the_last_row(make: Make) -> None:
    watched = Watched(ADVERSARIAL)
    trainer = make(objective=watched, steps=18)  # three rows of 5 steps and one of 3
    trainer.fit()
    assert [row["step"] for row in trainer.rows] == [5, 10, 15, 18]
    for row, chunk in zip(trainer.rows, (slice(0, 5), slice(5, 10), slice(10, 15), slice(15, 18)), strict=True):
        for name, values in (("loss", watched.losses), ("accuracy", watched.accuracies)):
            part = values[chunk]
            assert row[f"train_{name}"] == pytest.approx(sum(part) / len(part), rel=1e-6)
        assert row["epoch"] == round(row["step"] / 7, 3)
        assert row["learning_rate"] == OneCycle(0.01, 0.3)((row["step"] - 1) / 18)
    assert watched.progress == [step / 18 for step in range(18)]
    written = read_csv(trainer.directory.history)
    assert [{key: float(value) for key, value in row.items()} for row in written] == trainer.rows


def test_history_measures_the_held_out_images(make: Make, data: Data) -> None:
    monitor = Monitor(PGD(Threat("linf", 0.4), steps=3), examples=13)
    unseen = Data(data.train, data.validation, Split(data.test.pixels, 1 - data.test.labels, 16))
    trainer = make(objective=Standard(), data=unseen, monitor=monitor, schedule=Constant(0.003))
    trainer.fit()
    held_out = data.validation.take(13)
    assert trainer.rows[-1]["held_out_natural"] == evaluate(trainer.model, held_out, None).accuracy
    assert trainer.rows[-1]["held_out_robust"] == evaluate(trainer.model, held_out, monitor.attack, seed=3).accuracy
    robust = evaluate(trainer.model, held_out, monitor.attack, seed=3)
    assert trainer.rows[-1]["held_out_robust_loss"] == pytest.approx(robust.loss)
    assert trainer.rows[-1]["held_out_natural_loss"] == evaluate(trainer.model, held_out, None).loss < robust.loss
    assert trainer.rows[-1]["held_out_robust"] < trainer.rows[-1]["held_out_natural"]


def test_images_grow_before_the_attack_and_are_measured_as_they_are_trained(make: Make, data: Data) -> None:
    seen: list[Tensor] = []

    class Seeing(Standard):
        def __call__(self, model: nn.Module, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
            seen.append(x)
            return super().__call__(model, x, *rest)

    trainer = make(model=Convolutional(), objective=Seeing(), grow={2: 0.5, 3: "3/4"})
    trainer.fit()
    assert [x.shape[2] for x in seen] == [2] * 10 + [3] * 5 + [4] * 5
    assert all(x.amin() >= 0 and x.amax() <= 1 for x in seen)
    # Halving with antialiasing weighs the four nearest pixels by (1, 3, 3, 1) / 8, and at the edge (3, 3, 1) / 7.
    batches = Batches(data.train, 8, generator(3, "order"))
    edge = torch.tensor([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    torch.testing.assert_close(seen[0], edge @ batches.next()[0] @ edge.T)
    assert [row["size"] for row in trainer.rows] == [2, 2, 3, 4]
    accuracy = evaluate(trainer.model, data.validation, None).accuracy
    assert trainer.rows[-1]["held_out_natural"] == accuracy


def test_the_best_checkpoint_is_of_whole_images(make: Make) -> None:
    accuracies = iter([0.9, 0.8, 0.2, 0.3, 0.1])

    class Given(Monitor):
        def measure(self, *_: Any) -> dict[str, float]:
            return {"held_out_natural": 0.0, "held_out_robust": next(accuracies)}

    monitor = Given(PGD(THREAT, steps=2), examples=20)
    trainer = make(model=Convolutional(), grow={2: 0.4}, steps=25, evaluations=5, monitor=monitor)
    assert trainer.fit()["best_step"] == 20
    assert read_weights(trainer.directory.weights("best"), Convolutional())["step"] == "20"


def test_the_mean_of_the_weights_follows_them_exponentially(make: Make) -> None:
    seen: list[Tensor] = []

    class Noting(Standard):
        def __call__(self, model: nn.Module, *rest: Any) -> tuple[Tensor, Tensor]:
            seen.append(torch.cat([model.fc.bias.detach(), model.norm.running_mean]).clone())
            return super().__call__(model, *rest)

    trainer = make(model=small_resnet(), objective=Noting(), averaging=0.5)
    summary = trainer.fit()
    seen.append(torch.cat([trainer.model.fc.bias.detach(), trainer.model.norm.running_mean]))
    mean = seen[0]
    for step, now in enumerate(seen[1:], 1):
        decay = min(0.5, step / (step + 9))
        mean = decay * mean + (1 - decay) * now
    written = small_resnet()
    read_weights(trainer.directory.weights("averaged"), written)
    torch.testing.assert_close(torch.cat([written.fc.bias.detach(), written.norm.running_mean]), mean)
    assert int(written.norm.num_batches_tracked) == 20
    assert summary["averaged_sha256"] == sha256(trainer.directory.weights("averaged"))
    measured = trainer.monitor.measure(written, trainer.data.validation, 3, trainer.processes)
    assert trainer.rows[-1]["averaged_held_out_robust"] == measured["held_out_robust"]


def test_the_model_trains_in_train_mode(make: Make) -> None:
    model = small_resnet().eval()
    before = model.norm.running_mean.clone()
    make(model=model, objective=Watched(Standard()), steps=4).fit()  # the objective looks at the mode
    assert not torch.equal(model.norm.running_mean, before)


@pytest.mark.parametrize("select", ["natural", "robust"])
def test_the_best_checkpoint_is_the_first_of_the_highest(make: Make, select: str) -> None:
    weights: dict[int, dict[str, Tensor]] = {}

    class Copying(Tracker):
        def log(self, step: int, metrics: Any) -> None:
            weights[step] = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}

    def learn_then_unlearn(model: nn.Module, x: Tensor, y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return Standard()(model, x, y if rest[-1] < 0.7 else 1 - y, *rest)

    # With so large an eps the robust accuracy never is above 0: the first row is the best.
    monitor = Monitor(PGD(Threat("linf", 1), steps=10), examples=20, select=select)
    trainer = make(
        objective=learn_then_unlearn,
        monitor=monitor,
        tracker=Copying(),
        schedule=Constant(0.005),
        steps=80,
        evaluations=20,
    )
    summary = trainer.fit()
    scores = [row[f"held_out_{select}"] for row in trainer.rows]
    best = trainer.rows[scores.index(max(scores))]["step"]
    assert scores.count(max(scores)) > 1
    if select == "natural":
        assert 4 < best < 80 and scores[-1] < max(scores)
    else:
        assert best == 4
    assert summary["best_step"] == best
    for checkpoint, step in (("best", best), ("last", 80)):
        model = copy.deepcopy(trainer.model)
        metadata = read_weights(trainer.directory.weights(checkpoint), model)
        assert metadata == {"dataset": "tiny", "checkpoint": checkpoint, "step": str(step)}
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, weights[step][name]), name


@pytest.mark.parametrize("select", ["natural", "robust"])
def test_robustness_that_is_lost_is_said_once(make: Make, caplog: pytest.LogCaptureFixture, select: str) -> None:
    robust = [0.1, 0.04, 0.5, 0.9, 0.2, 0.15]  # the first fall is one of few images

    class Scripted(Monitor):
        def measure(self, *_: Any) -> dict[str, float]:
            return {"held_out_natural": 0.9, "held_out_robust": robust[len(trainer.rows)]}

    trainer = make(monitor=Scripted(PGD(THREAT, steps=2), examples=20, select=select), steps=60, evaluations=6)
    trainer.fit()
    said = [message.split(":")[0] for message in caplog.messages if "fell" in message]
    assert said == (["held-out robust accuracy fell from 90.0% to 20.0%"] if select == "robust" else [])
    for trained, expected in ((0.3, 0), (0.5, 1)):  # a training that diverges loses its own accuracy too
        caplog.clear()
        trainer.rows[-1]["held_out_robust"] = 0.9
        trainer._warn_of_a_fall(0.2, trained)
        assert sum("fell" in message for message in caplog.messages) == (expected if select == "robust" else 0)


def test_only_weights_with_more_than_one_dimension_decay(batch_norm_network: nn.Sequential) -> None:
    decayed, others = parameter_groups(batch_norm_network.parameters(), 0.1)
    convolution, norm, _, _, linear = batch_norm_network
    assert [id(each) for each in decayed["params"]] == [id(convolution.weight), id(linear.weight)]
    assert {id(each) for each in others["params"]} == {
        id(each) for each in (convolution.bias, norm.weight, norm.bias, linear.bias)
    }
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


def test_weight_decay_shrinks_weights_and_leaves_biases(make: Make) -> None:
    def flat(model: nn.Module, x: Tensor, y: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
        logits = model(x)
        return 0 * logits.sum(1), logits

    trainer = make(
        objective=flat, optimizer=partial(torch.optim.SGD, lr=1), schedule=Constant(0.5), weight_decay=0.2, steps=3
    )
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.fit()
    for name, tensor in trainer.model.state_dict().items():
        expected = before[name] * (0.9**3 if name.endswith("weight") else 1)
        torch.testing.assert_close(tensor, expected, msg=name)


def test_the_sum_is_the_mean_times_the_batch_size(make: Make, tmp_path: Path) -> None:
    sgd = partial(torch.optim.SGD, lr=1)
    summed = make(tmp_path / "sum", optimizer=sgd, schedule=Constant(0.01), reduction="sum")
    mean = make(tmp_path / "mean", optimizer=sgd, schedule=Constant(0.08), reduction="mean")
    assert summed.fit()["train_loss"] == pytest.approx(mean.fit()["train_loss"], rel=1e-4)
    for name, tensor in mean.model.state_dict().items():
        torch.testing.assert_close(summed.model.state_dict()[name], tensor, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seconds_between_states", [120, -1])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_state_before(
    make: Make, monkeypatch: pytest.MonkeyPatch, seconds_between_states: int, value: float
) -> None:
    monkeypatch.setattr(saddlepoint.training.trainer, "SECONDS_BETWEEN_STATES", seconds_between_states)
    trainer = make(objective=Watched(ADVERSARIAL, 7, lambda losses: losses * value))
    with pytest.raises(InputError, match=r"loss or weights are not finite at step 7;.*recipe\.schedule\.peak"):
        trainer.fit()
    state = trainer.directory.read_state()
    assert state is not None
    assert state["step"] == (5 if seconds_between_states > 0 else 6)
    assert all(tensor.isfinite().all() for tensor in state["networks"][0].values())
    assert [row["step"] for row in state["rows"]] == [5]
    assert not trainer.directory.finished
    assert not trainer.directory.weights("last").exists()
    assert make().fit()["steps"] == 20  # goes on from there


def test_the_summary_says_what_was_done(make: Make) -> None:
    finished: list[Any] = []

    class Finished(Tracker):
        def finish(self, summary: Any) -> None:
            finished.append(summary)

    trainer = make(tracker=Finished())
    summary = trainer.fit()
    assert finished == [summary]
    assert read_json(trainer.directory.summary) == summary
    assert summary["dataset"] == "tiny"
    assert (summary["steps"], summary["batch_size"], summary["precision"]) == (20, 8, "float32")
    assert summary["train_loss"] == trainer.rows[-1]["train_loss"]
    assert summary["images_per_second"] == pytest.approx(20 * 8 / trainer.seconds, abs=0.06)
    assert 50 < summary["peak_memory_mib"] < 100_000
    assert summary["device"].startswith("CPU, 1 threads")
    assert sorted(path.name for path in trainer.directory.path.iterdir()) == [
        "best.safetensors",
        "history.csv",
        "last.safetensors",
        "training.json",
    ]


def test_the_tracker_gets_every_row(make: Make) -> None:
    logged: list[tuple[int, dict[str, float]]] = []

    class Logging(Tracker):
        def log(self, step: int, metrics: Any) -> None:
            logged.append((step, dict(metrics)))

    trainer = make(tracker=Logging())
    trainer.fit()
    assert [step for step, _ in logged] == [5, 10, 15, 20]
    assert all(metrics.pop("images_per_second") > 0 for _, metrics in logged)
    assert [metrics for _, metrics in logged] == trainer.rows


@pytest.mark.parametrize(("epochs", "steps"), [(2, 14), (1.5, 10), (0.1, 1)])
def test_epochs_are_so_many_batches(make: Make, epochs: float, steps: int) -> None:
    assert make(steps=None, epochs=epochs).steps == steps  # 60 images make 7 batches of 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 2}, r"recipe\.steps=20 and recipe\.epochs=2; give one of them"),
        ({"steps": None}, r"recipe\.steps=None and recipe\.epochs=None; give one of them"),
        ({"steps": 0}, r"recipe\.steps=0; expected a whole number"),
        ({"steps": None, "epochs": 0.01}, r"recipe\.steps=0; expected a whole number"),
        ({"evaluations": 0}, r"recipe\.evaluations=0"),
        ({"reduction": "max"}, r"recipe\.reduction=max; choose mean or sum"),
        ({"batch_size": 61}, r"recipe\.batch_size=61"),
        ({"averaging": 1}, r"recipe\.averaging=1; expected at least 0 and below 1"),
        ({"averaging": "often"}, r"recipe\.averaging=often"),
        ({"grow": {3: 0.5, 2: 0.7}}, r"recipe\.grow=.*increase"),
        ({"grow": {2: 0.7, 3: 0.5}}, r"recipe\.grow=.*increase"),
        ({"grow": {2: 1}}, r"recipe\.grow=.*below 1"),
        ({"grow": {0: 0.5}}, r"recipe\.grow"),
        ({"grow": 2}, r"recipe\.grow=2"),
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(
    make: Make, directory: RunDirectory, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(**settings)
    assert not directory.path.exists()


def test_layers_under_two_names_are_averaged_once_a_step(make: Make) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(16, 2)
            self.again = self.body

        def forward(self, x: Tensor) -> Tensor:
            return self.again(x.flatten(1))

    trainer = make(model=Twice(), objective=Standard(), averaging=0.9)
    before = trainer.averaged.body.weight.clone()
    with torch.no_grad():
        trainer.model.body.weight.add_(1)
    trainer.step = 100
    trainer._average()
    torch.testing.assert_close(trainer.averaged.body.weight, before + 0.1)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_a_network_that_cannot_be_copied_has_no_mean(make: Make) -> None:
    model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(16, 2)))  # its weight is computed
    with pytest.raises(InputError, match=r"recipe\.averaging cannot copy the network"):
        make(model=model, objective=Standard(), averaging=0.9)


def test_the_optimizers_own_weight_decay_is_refused(make: Make) -> None:
    with pytest.raises(InputError, match=r"write recipe\.weight_decay="):
        make(optimizer=partial(torch.optim.SGD, lr=0.1, weight_decay=0.1))


class OfMatrices(torch.optim.SGD):
    """As Muon, it takes no biases."""

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for each in group["params"]:
                if each.ndim != 2:
                    raise ValueError("matrices only")


def test_an_optimizer_is_tried_on_weights_of_every_shape(make: Make, directory: RunDirectory) -> None:
    with pytest.raises(InputError, match=r"recipe\.optimizer: ValueError: matrices only"):
        make(optimizer=partial(OfMatrices, lr=0.1))
    assert not directory.path.exists()


class Waits(TorchDispatchMode):
    """How often a number is read from the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        self.count += operation is torch.ops.aten._local_scalar_dense.default
        return operation(*arguments, **(named or {}))


def test_a_step_does_not_wait_for_the_device(make: Make) -> None:
    trainer = make(optimizer=MOMENTUM)  # Adam reads its count of steps, which stays on the CPU
    trainer._step()
    with Waits() as waits:
        trainer._step()
    assert waits.count == 0


def test_the_mean_is_measured_itself(make: Make) -> None:
    trainer = make(model=small_resnet(), objective=Standard(), averaging=0.9)
    trainer.fit()
    mean, row = small_resnet(), trainer.rows[-1]
    read_weights(trainer.directory.weights("averaged"), mean)
    measured = trainer.monitor.measure(mean, trainer.data.validation, 3, trainer.processes)
    assert {name: row[f"averaged_{name}"] for name in measured} == measured
    assert row["averaged_held_out_robust_loss"] != row["held_out_robust_loss"]


def test_weights_that_are_not_finite_are_noticed_while_the_loss_still_is(make: Make) -> None:
    """The gradient of a root at 0 is infinite."""
    trainer = make(objective=Watched(ADVERSARIAL, 5, lambda losses: losses + (losses - losses.detach()).sqrt()))
    with pytest.raises(InputError, match="loss or weights are not finite at step 5;"):
        trainer.fit()
    assert trainer.directory.read_state() is None and trainer.rows == []


def changed_state(make: Make, **changes: Any) -> None:
    directory = interrupted(make, 14).directory
    state = directory.read_state()
    assert state is not None
    directory.write_state(state | changes)


def test_the_time_before_an_interruption_counts(make: Make) -> None:
    changed_state(make, seconds=1000.0)
    summary = make().fit()
    assert 1000 <= summary["seconds"] < 1100
    assert summary["images_per_second"] == pytest.approx(160 / summary["seconds"], rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"made": {"device": "cuda", "precision": "float32"}},
            "begun with runtime.device=cuda, runtime.precision=float32",
        ),
        (
            {"made": {"device": "cpu", "precision": "bfloat16"}},
            "begun with runtime.device=cpu, runtime.precision=bfloat16",
        ),
        ({"processes": [{}, {}]}, "is of 2 processes and resumes with as many, not 1"),
    ],
)
def test_a_run_resumes_only_as_it_began(make: Make, changes: dict[str, Any], message: str) -> None:
    changed_state(make, **changes)
    with pytest.raises(InputError, match=message):
        make().fit()


def test_changed_code_is_said_where_a_training_goes_on(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    changed_state(make, code="before")
    make(metadata={"dataset": "tiny", "code": "now"}).fit()
    assert "your code has changed since the training began" in caplog.text


def test_processes_draw_the_same_batches_and_noise_of_their_own(make: Make) -> None:
    drawn = []
    for rank in (0, 1):
        runtime = Runtime("cpu")
        runtime.processes.count, runtime.processes.rank = 2, rank
        drawn.append(
            {name: torch.rand(3, generator=each).tolist() for name, each in make(runtime=runtime).generators.items()}
        )
    alike = {name for name in drawn[0] if drawn[0][name] == drawn[1][name]}
    assert alike == {"order", "augment"}

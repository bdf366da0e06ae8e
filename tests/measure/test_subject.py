from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Data
from saddlepoint.files import digest, sha256
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.measure.autoattack import AutoAttack
from saddlepoint.measure.result import Accuracy, Key, Result, Share, interval
from saddlepoint.measure.store import Unfinished, unpack
from saddlepoint.measure.subject import Subject
from saddlepoint.models import CNN
from saddlepoint.runtime import Runtime
from saddlepoint.threat import Threat
from saddlepoint.training.checkpoint import RunDirectory, write_weights

RUN = {"dataset": "tiny", "model": "simple", "training": "pgd", "recipe": "paper", "seed": "0"}
ATTACK = PGD(Threat("linf", "3/16"), steps=3)

Make = Callable[[], Subject]


@pytest.fixture
def loads() -> list[nn.Module]:
    """The networks that were loaded."""
    return []


@pytest.fixture
def make(directory: RunDirectory, network: CNN, runtime: Runtime, loads: list[nn.Module]) -> Make:
    """A subject as a script makes it, anew with each call."""
    write_weights(directory.weights("last"), network, {})
    directory.finish({**RUN, "train_loss": 0.25})

    def load() -> nn.Module:
        loads.append(network)
        return network

    return lambda: Subject(directory, "last", load, runtime, "python scripts/x.py")


def accuracy(subject: Subject, data: Data, attack: PGD | None = ATTACK, **changes: Any) -> Result[Accuracy]:
    return subject.accuracy("pgd", attack, data.test, 20, **{"batch_size": 8, "seed": 0} | changes)


def test_an_accuracy_holds_all_that_a_table_needs(make: Make, data: Data, network: CNN) -> None:
    subject = make()
    result = accuracy(subject, data)
    outcome = evaluate(network, data.test, ATTACK, batch_size=8)
    assert result.found.accuracy == outcome.accuracy
    assert result.found.loss == outcome.loss
    assert result.found.interval == list(interval(int(outcome.correct.sum()), 20))
    assert unpack(result.found.correct, 20).tolist() == outcome.correct.tolist()
    assert dataclasses.asdict(result.run) == RUN
    assert (result.train_loss, result.command) == (0.25, "python scripts/x.py")
    assert result.provenance["torch"] == torch.__version__
    assert result.key.plain() == {
        "measurement": "pgd",
        "checkpoint": "last",
        "checkpoint_sha256": sha256(subject.directory.weights("last")),
        "attack": ATTACK.describe(),
        "examples": 20,
        "of": 20,
        "batch_size": 8,
        "seed": 0,
    }
    name = f"last-pgd-{digest(result.key.plain())}.json"
    written = json.loads((subject.directory.path / "results" / name).read_text())
    assert written.pop("sha256") == digest(written, 64)
    assert list(written) == [
        *("key", "accuracy", "interval", "correct", "loss", "no_gradient"),
        *("seconds", "run", "train_loss", "command", "provenance"),
    ]
    assert Result.read(written, Accuracy, f"simple-pgd/seed0/results/{name}") == result
    assert subject.label == "simple-pgd seed0"


class Interrupted(PGD):
    """Stops at its `last` call, as a killed process would."""

    calls, last = 0, 10**9

    def __call__(self, *arguments: Any) -> torch.Tensor:
        Interrupted.calls += 1
        if Interrupted.calls == Interrupted.last:
            raise KeyboardInterrupt
        return super().__call__(*arguments)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> PGD:
    monkeypatch.setattr(Unfinished, "interval", 0)
    monkeypatch.setattr(Interrupted, "calls", 0)
    monkeypatch.setattr(Interrupted, "last", 3)
    return Interrupted(ATTACK.threat, ATTACK.steps)


def test_an_interrupted_measurement_goes_on_with_the_batches_that_are_missing(
    make: Make, data: Data, network: CNN, interrupted: PGD, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(KeyboardInterrupt):
        accuracy(make(), data, interrupted)
    assert [message[:17] for message in caplog.messages[1:]] == ["1 of 3 batches, 0", "2 of 3 batches, 0"]
    results = make().directory.path / "results"
    assert [path.suffixes for path in results.iterdir()] == [[".unfinished-0", ".json"]]
    result = accuracy(make(), data, interrupted)
    assert caplog.messages[-1] == "resuming after 2 of 3 batches"
    assert Interrupted.calls == 3 + 1  # of three batches two were done
    outcome = evaluate(network, data.test, ATTACK, batch_size=8)
    assert unpack(result.found.correct, 20).tolist() == outcome.correct.tolist()
    assert result.found.loss == outcome.loss
    assert [path.suffixes for path in results.iterdir()] == [[".json"]]


def test_what_was_done_of_another_measurement_is_not_taken(make: Make, data: Data, interrupted: PGD) -> None:
    with pytest.raises(KeyboardInterrupt):
        accuracy(make(), data, interrupted)
    assert accuracy(make(), data, interrupted, seed=1).key.seed == 1
    assert Interrupted.calls == 3 + 3


def test_what_was_done_and_damaged_is_done_again(make: Make, data: Data, interrupted: PGD) -> None:
    with pytest.raises(KeyboardInterrupt):
        accuracy(make(), data, interrupted)
    (kept,) = (make().directory.path / "results").iterdir()
    kept.write_text(kept.read_text()[:50])
    accuracy(make(), data, interrupted)
    assert Interrupted.calls == 3 + 3
    assert not kept.exists()


def test_the_time_of_an_interrupted_measurement_counts(make: Make, data: Data, interrupted: PGD) -> None:
    with pytest.raises(KeyboardInterrupt):
        accuracy(make(), data, interrupted)
    (kept,) = (make().directory.path / "results").iterdir()
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "seconds": 1000.0}))
    result = accuracy(make(), data, interrupted)
    assert 1000 <= result.seconds < 1100


def test_a_short_measurement_leaves_no_file_on_its_way(make: Make, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interrupted, "calls", 0)
    monkeypatch.setattr(Interrupted, "last", 3)
    with pytest.raises(KeyboardInterrupt):
        accuracy(make(), data, Interrupted(ATTACK.threat, ATTACK.steps))
    assert not (make().directory.path / "results").exists()


def test_what_is_measured_already_loads_no_network(make: Make, data: Data, loads: list[nn.Module]) -> None:
    first = accuracy(make(), data)
    assert accuracy(make(), data) == first
    assert len(loads) == 1


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"batch_size": 4}, {"attack": None}, {"attack": PGD(Threat("linf", 0.1), steps=3)}]
)
def test_another_measurement_has_a_file_of_its_own(
    make: Make, data: Data, loads: list[nn.Module], changes: dict[str, Any]
) -> None:
    first = accuracy(make(), data)
    assert accuracy(make(), data, **changes).key != first.key
    assert accuracy(make(), data) == first
    assert len(loads) == 2
    assert len(list(make().directory.results.iterdir())) == 2


def test_other_weights_are_measured_again(make: Make, data: Data, network: CNN, loads: list[nn.Module]) -> None:
    accuracy(make(), data)
    with torch.no_grad():
        network.fc2.bias[0] += 100  # always class 0
    write_weights(make().directory.weights("last"), network, {})
    assert accuracy(make(), data).found.accuracy == 0.5
    assert len(loads) == 2


def test_arrays_come_back_with_their_result_and_are_measured_once(make: Make) -> None:
    calls: list[int] = []

    def compute() -> tuple[Share, dict[str, np.ndarray]]:
        calls.append(1)
        return Share(2.0), {"losses": np.arange(6.0).reshape(2, 3)}

    key = Key("maxima", starts=3)
    for _ in range(2):
        result, arrays = make().measure_arrays(key, compute, Share)
        assert result.found.share == 2
        assert result.arrays == Path(result.file).with_suffix(".npz").name
        assert arrays["losses"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(calls) == 1
    (kept,) = make().directory.results.glob("*.npz")
    kept.unlink()
    _, arrays = make().measure_arrays(key, compute, Share)
    assert arrays["losses"].shape == (2, 3)
    assert len(calls) == 2


def test_arrays_never_belong_to_another_result(make: Make) -> None:
    def measure(starts: int) -> int:
        def compute() -> tuple[Share, dict[str, np.ndarray]]:
            # A result that JSON cannot hold stands for an end between the two files.
            return Share(0.5 if starts == 3 else cast(float, object())), {"losses": np.zeros(starts)}

        return len(make().measure_arrays(Key("maxima", starts=starts), compute, Share)[1]["losses"])

    assert measure(3) == 3
    with pytest.raises(TypeError):
        measure(4)
    assert measure(3) == 3


def test_a_black_box_attack_is_made_on_its_source_and_made_again_where_that_changes(
    make: Make, directory: RunDirectory, data: Data, network: CNN, runtime: Runtime
) -> None:
    other = CNN(1, image_size=4, classes=2, generator=torch.Generator().manual_seed(1))
    place = RunDirectory(directory.path.with_name("seed1"))
    place.finish({**RUN, "seed": "1", "train_loss": 0.25})

    def measured(code: str | None = None) -> Any:
        write_weights(place.weights("best"), other, {})
        source = Subject(place, "best", lambda: other, runtime, "c", code=code)
        result = accuracy(make(), data, source=source)
        outcome = evaluate(network, data.test, ATTACK, source=other, batch_size=8)
        assert unpack(result.found.correct, 20).tolist() == outcome.correct.tolist()
        assert result.found.loss == outcome.loss
        known = {"checkpoint": "best", "checkpoint_sha256": sha256(place.weights("best"))}
        assert result.key.source == known | ({"code": code} if code else {})
        assert result.key.measurement == "pgd-from-simple-pgd-seed1"
        return result

    first = measured()
    assert first.found.loss != accuracy(make(), data).found.loss  # not the white box
    assert measured("of another file").file != first.file
    with torch.no_grad():
        other.fc2.weight.neg_()
    assert measured().found.loss != first.found.loss


def test_what_an_attack_does_besides_in_a_lower_precision_is_in_the_key(make: Make, data: Data) -> None:
    """As AutoAttack's second attack."""

    class Twice(PGD):
        in_lower_precision: ClassVar[dict[str, str]] = {"then": "float32"}

    attack = Twice(ATTACK.threat, 3)
    found = [accuracy(make(), data, attack, precision=each).key.description for each in ("float32", "bfloat16")]
    assert [each.get("then") for each in found] == [None, "float32"]
    assert "then" not in accuracy(make(), data, precision="bfloat16").key.description
    assert AutoAttack.in_lower_precision == Twice.in_lower_precision


def test_examples_are_made_in_the_precision_of_the_key(make: Make, data: Data) -> None:
    seen: list[bool] = []

    class Noting(PGD):
        def __call__(self, *arguments: Any) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().__call__(*arguments)

    for precision in ("float32", "bfloat16"):
        accuracy(make(), data, Noting(ATTACK.threat, 3), precision=precision)
    assert seen == [False] * 3 + [True] * 3

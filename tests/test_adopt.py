from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from saddlepoint.adopt import check, check_range, load_weights, read_state_dict
from saddlepoint.data import Data
from saddlepoint.errors import InputError
from saddlepoint.models import CNN, Normalized

STATE = {"weight": torch.ones(2, 16), "bias": torch.zeros(2)}


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 3},
        {"model_state_dict": STATE, "optimizer": {}},
        {"model": {f"module.{name}": value for name, value in STATE.items()}},
        {"net": {f"_orig_mod.{name}": value for name, value in STATE.items()}, "acc": 93.1},
        {f"_orig_mod.module.{name}": value for name, value in STATE.items()},
        {f"module._orig_mod.{name}": value for name, value in STATE.items()},
    ],
)
def test_the_usual_forms_of_a_state_dict_are_read(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    found = read_state_dict(tmp_path / "w.pt")
    assert list(found) == ["weight", "bias"]
    assert torch.equal(found["weight"], STATE["weight"])


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "w.safetensors")["weight"], STATE["weight"])


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("ran"),)  # type: ignore[return-value]


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Harmful()}, "w.pt")
    Path("w.pkl").write_bytes(pickle.dumps(Harmful(), 2))
    torch.save(linear(), "model.pt")  # a whole module needs its class
    for name in ("w.pt", "w.pkl", "model.pt"):
        with pytest.raises(InputError, match=rf"{name} is damaged or holds more than tensors; save it with"):
            read_state_dict(Path(name))
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pt", b"junk", "is damaged or holds more than tensors"),
        ("w.safetensors", b"junk", "is damaged or no safetensors file"),
        ("absent.pt", None, "no checkpoint at"),
        ("absent.safetensors", None, "no checkpoint at"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_state_dict(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2)])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"is no state dict but a (list|dict of epoch|Tensor); expected names"):
        read_state_dict(tmp_path / "w.pt")


def test_weights_go_into_the_network_and_into_its_frame(tmp_path: Path) -> None:
    source = linear()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    x = torch.rand(3, 1, 4, 4)
    for model in (linear(), Normalized(linear())):
        load_weights(model, tmp_path / "w.pt")
        assert torch.equal(model(x), source(x))
    with pytest.raises(InputError, match=r"w\.pt holds another network: .*conv1"):
        load_weights(CNN(1, 4, classes=2), tmp_path / "w.pt")


class Function(nn.Module):
    """A network from a function of the logits; it has one parameter so that gradients flow."""

    def __init__(self, change: object) -> None:
        super().__init__()
        self.inner, self.change = linear(), change

    def forward(self, x: Tensor) -> object:
        return self.change(self.inner(x), self)  # type: ignore[operator]


class LeftInTrainMode(nn.Sequential):
    def train(self, mode: bool = True) -> LeftInTrainMode:
        return super().train(True)


def batch_norm() -> nn.Module:
    return LeftInTrainMode(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 2))


def batch_norm_of_vectors() -> nn.Module:
    return LeftInTrainMode(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))


class Changed(nn.Module):
    """The images after a function."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


def of_several(x: Tensor) -> Tensor:
    """As people check their input: with an assert that says nothing."""
    if len(x) < 2:
        raise AssertionError
    return x


WRONG = [
    (lambda: Function(lambda z, _: F.softmax(z, 1)), "returns probabilities; expected logits: leave out its softmax"),
    (lambda: Function(lambda z, _: F.dropout(z, 0.5, training=True)), "answers differently each time in eval mode"),
    (lambda: Function(lambda z, _: (z, z)), "returns a tuple; expected logits"),
    (lambda: Function(lambda z, _: z[:, :1]), r"returns \(4, 1\) for 4 images; the data have 2 classes"),
    (lambda: Function(lambda z, _: z.detach()), "gives no gradient of its images"),
    (lambda: nn.Sequential(Changed(torch.Tensor.detach), linear()), "gives no gradient of its images"),
    (lambda: nn.Sequential(Changed(torch.round), linear()), "do not round or quantise"),
    (batch_norm_of_vectors, "takes no image by itself .*; is it left in train mode"),
    (lambda: Function(lambda z, _: z.squeeze()), r"returns \(2,\) for one image; expected \(1, 2\)"),
    (lambda: nn.Sequential(Changed(of_several), linear()), r"takes no image by itself \(AssertionError\)"),
    (lambda: Function(lambda z, _: z / 0), "numbers that are not finite"),
    (lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), r"does not take images of shape \(1, 4, 4\)"),
    (batch_norm, "depends on the other images of the batch; is it left in train mode"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_attacks_cannot_use_is_said_in_one_line(make: type[nn.Module], message: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        with pytest.raises(InputError, match=message) as error:
            check(model, torch.rand(4, 1, 4, 4), 2)
    assert "\n" not in str(error.value)


def test_a_sound_network_passes_and_is_left_as_it_was(batch_norm_network: nn.Sequential) -> None:
    batch_norm_network.train()
    before = {name: tensor.clone() for name, tensor in batch_norm_network.state_dict().items()}
    check(batch_norm_network, torch.rand(4, 1, 4, 4), 3)
    check(Function(lambda z, _: F.log_softmax(z, 1)), torch.rand(4, 1, 4, 4), 2)  # as good as logits
    assert batch_norm_network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in batch_norm_network.state_dict().items())


class Expects(nn.Module):
    """Sees which side is brighter, in images that reach `low` and `high`; others are all of class 0."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        right = x[..., 2:].mean((1, 2, 3)) - x[..., :2].mean((1, 2, 3))
        right = right if x.amin() <= self.low and x.amax() >= self.high else -torch.ones_like(right)
        return torch.stack([-right, right], 1)


@pytest.mark.parametrize(
    ("model", "frame", "named"),
    [
        (Expects(0, 200), {"scale": 255.0}, "scale: 255"),
        (Expects(-0.9, 0.9), {"mean": [0.5], "std": [0.5]}, r"mean: \[0.5\], std: \[0.5\]"),
        (Expects(-1.2, 1.2), {"mean": [0.5], "std": [0.3]}, r"normalised images \(such as mean: \[0.51"),
    ],
)
def test_the_range_that_a_network_expects_is_found(
    data: Data, model: nn.Module, frame: dict[str, Any], named: str
) -> None:
    x, y = data.test.images(slice(None)), data.test.labels
    assert check_range(Expects(0, 1), x, y) == "the network classifies 100.0% of 20 images in [0, 1]"
    check_range(Normalized(model, **frame), x, y)
    message = rf"classifies 50\.0% of 20 images in \[0, 1\], and 100\.0% as .*{named}.*saddlepoint.models.Normalized"
    with pytest.raises(InputError, match=message):
        check_range(model, x, y)


def test_a_range_that_does_a_little_better_is_mentioned(data: Data) -> None:
    """Not refused: a network may well do better on images of more contrast than those it was made for."""
    x, y = data.test.images(slice(None)), data.test.labels

    class Hesitant(Expects):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            if x.amax() < 200:
                logits[0] = -logits[0]
            return logits

    found = check_range(Hesitant(0, 0), x, y)
    assert "classifies 95.0% of 20 images in [0, 1], and 100.0% as images in [0, 255] (scale: 255); if that" in found

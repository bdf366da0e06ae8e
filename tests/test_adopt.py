from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from saddlepoint.adopt import check, check_range, load_weights, read_state_dict
from saddlepoint.data import Data
from saddlepoint.errors import InputError
from saddlepoint.models import CNN, Normalized
from saddlepoint.training.checkpoint import in_eight_bits

STATE = {"weight": torch.ones(2, 16), "bias": torch.zeros(2)}


def linear() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


def named(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


OTHER = {name: tensor + 1 for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (STATE, None),
        ({"state_dict": STATE, "epoch": 3}, None),
        ({"model_state_dict": STATE, "optimizer": {"state": {0: {"step": torch.tensor(3)}}}}, "optimizer"),
        ({"model": named("module.")}, None),
        ({"net": named("_orig_mod."), "acc": 93.1}, None),
        (named("_orig_mod.module."), None),
        (named("module._orig_mod."), None),
        (named("net."), None),
        (named("model."), None),
        (named("anything.at.all."), None),
        ({"ema": named("module.")}, None),
        ({"params": STATE}, None),
        ({"state_dict": {"model": STATE, "ema": OTHER}}, "state_dict.ema"),
        ({"params_ema": OTHER, "params": STATE}, "params_ema"),
        ({"n_averaged": torch.tensor(7)} | named("module."), "n_averaged"),
        (named("net.") | named("net_ema.module.", OTHER), "net_ema"),
        ({"weight": STATE["weight"], "bias": STATE["bias"], "epoch": 3}, None),
        ([3, STATE], None),
        ({**STATE, "total_ops": torch.zeros(1), "total_params": torch.zeros(1)}, "total_ops, total_params"),
        (
            {
                "model": named("module.model.")
                | named("module.attacker.model.")
                | {"module.normalizer.new_mean": torch.zeros(1), "module.attacker.normalize.new_std": torch.ones(1)},
                "epoch": 150,
            },
            "model.attacker, model.normalizer",
        ),
        (named("student.") | {"teacher.weight": torch.ones(5, 16), "teacher.bias": torch.ones(5)}, "teacher"),
    ],
)
def test_the_usual_forms_of_a_checkpoint_are_read(
    tmp_path: Path, content: object, left: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    torch.save(content, tmp_path / "w.pt")
    found = read_state_dict(tmp_path / "w.pt", nn.Linear(16, 2))
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    assert [message.rpartition(", not ")[2] for message in caplog.messages] == ([] if left is None else [left])


def test_wrappers_inside_a_name_are_dropped_unless_the_network_has_them(tmp_path: Path) -> None:
    class Own(nn.Module):
        """As DataParallel would have it, but a part of the network."""

        def __init__(self) -> None:
            super().__init__()
            self.module, self.weight = nn.Linear(16, 2), nn.Parameter(torch.zeros(3))

    parallel = nn.Sequential(nn.Sequential(nn.Linear(16, 2)), nn.Linear(2, 2))
    for name, network in {"plain": parallel, "own": Own()}.items():
        state = {key: torch.full_like(value, 3) for key, value in network.state_dict().items()}
        inside = {key.replace("0.0.", "0.module.0."): value for key, value in state.items()}
        torch.save({f"module.{key}": value for key, value in inside.items()}, tmp_path / f"{name}.pt")
        load_weights(network, tmp_path / f"{name}.pt")
        assert all((parameter == 3).all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (named("one.") | named("two.", OTHER), "holds several networks that fit: one, two; save the one"),
        (STATE | {"deeper.weight": torch.ones(2, 2)}, "holds another network: .*deeper.weight"),
        (named("net.") | {"net.deeper.weight": torch.ones(2, 2)}, "holds another network: .*deeper.weight"),
        ({"net": {"weight": STATE["weight"]}}, "holds another network: .*bias"),
        ({"net": {"weight": torch.ones(3, 16), "bias": torch.ones(3)}}, "holds another network: .*size mismatch"),
    ],
)
def test_what_does_not_fit_exactly_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    network = nn.Linear(16, 2)
    with pytest.raises(InputError, match=message) as error:
        load_weights(network, tmp_path / "w.pt")
    assert "\n" not in str(error.value)


class Tied(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(16, 16)
        self.again = self.body

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.again(self.body(x.flatten(1)))
        return found


def test_a_layer_under_two_names_is_read_under_one_or_both(tmp_path: Path) -> None:
    source, x = Tied(), torch.rand(3, 1, 4, 4)
    save_model(source, str(tmp_path / "w.safetensors"))  # under one
    torch.save(source.state_dict(), tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        network = Tied()
        load_weights(network, tmp_path / name)
        assert torch.equal(network(x), source(x))
    changed = {key: value + key.startswith("again") for key, value in source.state_dict().items()}
    torch.save(changed, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"body\.weight and again\.weight are one layer here, and differ"):
        load_weights(Tied(), tmp_path / "w.pt")


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert torch.equal(read_state_dict(tmp_path / "w.safetensors", nn.Linear(16, 2))["weight"], STATE["weight"])


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
            read_state_dict(Path(name), linear())
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
        read_state_dict(tmp_path / name, linear())
    assert name in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.ones(2)])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InputError, match=r"is no state dict but a (list|dict of epoch|Tensor); expected names"):
        read_state_dict(tmp_path / "w.pt", linear())


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


def first_alone(z: Tensor, _: nn.Module) -> Tensor:
    return torch.cat([z[:1], 0 * z[1:] + z[1:].detach()])


def in_place(x: Tensor) -> Tensor:
    x -= 0.5
    return x


def black_and_nan(x: Tensor) -> Tensor:
    """The gradient of the root is 0 / 0 where all of its sum is black."""
    return x / (x.square().sum(1, keepdim=True).sqrt() + 0.1)


def reentrant(x: Tensor) -> Tensor:
    found: Tensor = torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=True)
    return found


def standardised(x: Tensor) -> Tensor:
    """Each image by itself; one that is all alike has no spread."""
    return (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)


def of_several(x: Tensor) -> Tensor:
    """As people check their input: with an assert that says nothing."""
    if len(x) < 2:
        raise AssertionError
    return x


WRONG = [
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
    (lambda: nn.Sequential(Changed(in_place), linear()), "changes the images that it is given; write x = x - mean"),
    (
        lambda: nn.Sequential(Changed(reentrant), linear()),
        "attacks cannot take the network's gradient: RuntimeError: When",
    ),
    (lambda: nn.Sequential(Changed(torch.logit), linear()), "not finite"),
]

SUSPECTED = [
    (lambda: Function(lambda z, _: F.softmax(z, 1)), "returns probabilities; expected logits: leave out its softmax"),
    (lambda: Function(lambda z, _: 100 * F.softmax(z, 1)), "returns probabilities; expected logits"),
    (lambda: Function(lambda z, _: torch.sigmoid(z)), "stay between 0 and 1 whatever the images; .* its sigmoid"),
    (lambda: Function(lambda z, _: 100 * torch.sigmoid(z)), "stay between 0 and 100 whatever the images"),
    (lambda: Function(lambda z, _: torch.tanh(z)), "stay between -1 and 1 whatever the images; .* tanh"),
    (lambda: Function(lambda z, _: 2 * F.softmax(z, 1) - 1), "stay between -1 and 1 whatever the images"),
    (lambda: Function(lambda z, _: F.softsign(5 * z)), "stay between -1 and 1 whatever the images"),
    (lambda: Function(first_alone), "no gradient of 3 of 4 images, so that attacks do not move them; what saturates"),
    (lambda: nn.Sequential(Changed(black_and_nan), linear()), "not finite for an all black image"),
    (lambda: nn.Sequential(Changed(lambda x: 1 - (1 - x).sqrt()), linear()), "not finite for an all white image"),
    (lambda: nn.Sequential(Changed(standardised), linear()), "not finite for an all black image"),
]


@pytest.mark.filterwarnings("error")  # a warning would be another line
@pytest.mark.parametrize(("make", "message"), WRONG)
def test_what_attacks_cannot_use_is_said_in_one_line(make: type[nn.Module], message: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        with pytest.raises(InputError, match=message) as error:
            check(model, torch.rand(4, 1, 4, 4), 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("make", "message"), SUSPECTED)
def test_what_is_suspected_can_be_overruled(make: Callable[[], nn.Module], message: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = make(), torch.rand(4, 1, 4, 4)
        with pytest.raises(InputError, match=message) as error:
            check(model, x, 2)
        assert "\n" not in str(error.value)
        check(model, x, 2, trust=True)


def test_a_soft_cap_of_logits_is_taken() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        check(Function(lambda z, _: 30 * torch.tanh(z / 30)), torch.rand(4, 1, 4, 4), 2)


def test_black_pixels_of_real_images_are_more_than_a_suspicion() -> None:
    x = torch.rand(4, 1, 4, 4)
    x[1:, :, :2] = 0
    model = nn.Sequential(Changed(black_and_nan), linear())
    with pytest.raises(InputError, match="gradient is not finite for 3 of 4 images; look for a root or a division"):
        check(model, x, 2, trust=True)


class AuxiliaryHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def forward(self, x: Tensor) -> Any:
        z = self.inner(x)
        return (z, z) if self.training else z


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (AuxiliaryHead, "in train mode the network returns a tuple; expected logits"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)), "in train mode the "
         r"network does not take images of shape \(1, 4, 4\) one at a time: ValueError: Expected more than 1 value"),
    ],
)  # fmt: skip
def test_train_mode_is_looked_at_where_training_follows(make: Callable[[], nn.Module], message: str) -> None:
    x = torch.rand(2, 1, 4, 4)
    check(make(), x, 2)
    with pytest.raises(InputError, match=message):
        check(make(), x, 2, training_batch=1)


def test_looking_draws_nothing_and_moves_nothing() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2))
    x, before = torch.rand(4, 1, 4, 4), torch.get_rng_state()
    check(model, x, 2, training_batch=50)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model[0].running_mean, torch.zeros(1))
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("seed", range(20))
def test_fresh_networks_are_not_suspected(seed: int) -> None:
    """Of two classes, both logits are often positive and small at first."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 1, 8, 8, generator=generator)
    check(CNN(1, image_size=8, classes=2, generator=generator), x, 2, training_batch=50)
    blank = torch.zeros_like(x)
    blank[1] = x[1]
    check(CNN(1, image_size=8, classes=2, generator=generator), blank, 2)


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


def test_a_network_may_refuse_the_ranges_it_does_not_expect(data: Data) -> None:
    class Strict(Expects):
        def forward(self, x: Tensor) -> Tensor:
            if not (x.amin() >= 0 and x.amax() <= 1):
                raise ValueError
            return super().forward(x)

    x, y = data.test.images(slice(None)), data.test.labels
    assert check_range(Strict(0, 1), x, y) == "the network classifies 100.0% of 20 images in [0, 1]"
    with pytest.raises(InputError, match=r"does not take images in \[0, 1\]: ValueError"):
        check_range(Strict(0, 1), 2 * x, y)


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


def test_constants_that_a_file_lacks_stay_as_they_are_built(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    class Own(nn.Linear):
        def __init__(self) -> None:
            super().__init__(16, 2)
            self.register_buffer("mu", torch.full((1,), 0.5))

    network = Own()
    torch.save(STATE, tmp_path / "w.pt")
    load_weights(network, tmp_path / "w.pt")
    assert (network.mu.item(), network.weight.sum().item()) == (0.5, 32)
    assert caplog.messages[-1].endswith("has no mu: kept as the network is built")
    norm = nn.Sequential(nn.BatchNorm2d(3))
    torch.save({"0.weight": torch.ones(3), "0.bias": torch.ones(3)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="running_mean"):
        load_weights(norm, tmp_path / "w.pt")


def test_our_own_eight_bits_are_widened(tmp_path: Path) -> None:
    state = {"weight": torch.linspace(-1, 1, 32).reshape(2, 16), "bias": torch.ones(2)}
    save_file(in_eight_bits(state), tmp_path / "w.safetensors")
    found = read_state_dict(tmp_path / "w.safetensors", nn.Linear(16, 2))
    assert (found["weight"] - state["weight"]).abs().max() <= 1 / 254


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64])
def test_weights_that_are_no_plain_numbers_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    torch.save({name: each.to(kind) for name, each in STATE.items()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match=f"weight as {kind}; expected floating-point"):
        read_state_dict(tmp_path / "w.pt", nn.Linear(16, 2))


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; name the file in it"):
        read_state_dict(tmp_path, nn.Linear(16, 2))

from __future__ import annotations

import importlib.metadata

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Data, Split
from saddlepoint.errors import InputError
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.measure.autoattack import AutoAttack
from saddlepoint.threat import Threat

pytest.importorskip("pyautoattack")
from pyautoattack.square import SquareAttack


class Bands(nn.Module):
    """Ten classes by the mean pixel: class c from c / 10 to (c + 1) / 10, with a margin that eps can cross or not."""

    def forward(self, x: Tensor) -> Tensor:
        return -30 * (x.flatten(1).mean(1, keepdim=True) - (torch.arange(10) + 0.5) / 10).abs()


@pytest.fixture
def bands() -> Split:
    """Means 0.15 and 0.45 are in the middle of their bands, 0.28 and 0.52 are near an edge."""
    pixels = torch.tensor([15, 28, 45, 52], dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    return Split(pixels.contiguous(), torch.tensor([1, 2, 4, 5]), 100)


@pytest.mark.parametrize("only", [None, "square"])
def test_it_breaks_what_can_be_broken(bands: Split, only: str | None) -> None:
    threat = Threat("linf", 0.04)
    outcome = evaluate(Bands(), bands, AutoAttack(threat, only, queries=300))
    assert outcome.correct.tolist() == [True, False, True, False]
    assert outcome.correct.tolist() == evaluate(Bands(), bands, PGD(threat, 20, restarts=3)).correct.tolist()


def test_it_works_with_few_classes(bands: Split) -> None:
    """Targeted APGD's loss needs four."""

    class Three(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Bands()(x)[:, 1:7:2] + Bands()(x)[:, 2:8:2]

    labels = Three()(bands.images(slice(None))).argmax(1)
    outcome = evaluate(Three(), Split(bands.pixels, labels, 100), AutoAttack(Threat("linf", 0.5), queries=20))
    assert outcome.accuracy < 1


def test_torchs_own_generator_and_the_model_are_left_alone(bands: Split) -> None:
    before, model = torch.get_rng_state(), Bands().train()
    first, again = (evaluate(model, bands, AutoAttack(Threat("l2", 0.2), "square", 20)).loss for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_the_weights_get_no_gradient(bands: Split) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[1].bias.requires_grad_(False)
    outcome = evaluate(model, bands, AutoAttack(Threat("linf", 0.3), "fab-t"))
    assert not outcome.correct.any()
    assert [parameter.grad for parameter in model.parameters()] == [None, None]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False]


@pytest.mark.parametrize("only", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_it_works_on_a_network_in_bfloat16(bands: Split, only: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    x = bands.images(slice(None))
    with torch.no_grad():
        y = model(x).argmax(1)
    with torch.autocast("cpu", torch.bfloat16):
        x_adv = AutoAttack(Threat("linf", 0.3), only, 100)(model, x, y, torch.Generator().manual_seed(0))
        assert not (model(x_adv).argmax(1) == y).any()
    assert x_adv.dtype == torch.float32


@pytest.mark.parametrize("fooled", [0, 1, 2])
def test_what_only_a_lower_precision_breaks_is_attacked_in_float32(bands: Split, fooled: int) -> None:
    """From the beginning, or once the attack has moved it."""

    class Fooled(Bands):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            if not torch.is_autocast_enabled("cpu"):
                return logits
            moved = (100 * x % 1).flatten(1).sum(1, keepdim=True) > 1e-3
            return torch.where([torch.tensor(False), torch.tensor(True), moved][fooled], -logits, logits)

    attack = AutoAttack(Threat("linf", 0.04), "apgd-ce")
    outcome = evaluate(Fooled(), bands, attack, precision=torch.bfloat16)
    assert outcome.correct.tolist() == [True, False, True, False]


def test_it_describes_itself(data: Data) -> None:
    described = AutoAttack(Threat("linf", "8/255"), "square", 1000).describe()
    assert described == {
        "norm": "linf",
        "eps": "8/255",
        "autoattack": "square",
        "queries": 1000,
        "version": importlib.metadata.version("pyautoattack"),
    }


SIZES = [
    (4, 4),
    (7, 9),
    (8, 8),
    (12, 12),
    (12, 1),
    (13, 13),
    (14, 14),
    (15, 15),
    (17, 20),
    (18, 18),
    (24, 24),
    (25, 24),
]


@pytest.mark.parametrize("size", [*SIZES, (28, 28), (28, 20), (32, 32), (33, 30)])
def test_square_in_l2_is_refused_exactly_where_it_fails(size: tuple[int, int]) -> None:
    """Against the authors' code itself, which raises something for these sizes."""
    x, y = torch.full((2, 1, *size), 0.15), torch.tensor([1, 1])
    attack = AutoAttack(Threat("l2", 0.01), "square", 3)
    theirs = SquareAttack(Bands(), norm="L2", n_queries=3, eps=0.01, device="cpu")
    try:
        theirs.perturb(x, y)
    except (ZeroDivisionError, RuntimeError):
        with pytest.raises(
            InputError, match=rf"fails on images of {size[0]}x{size[1]} pixels; .* height of \d+"
        ) as error:
            attack(Bands(), x, y, torch.Generator())
        height = int(str(error.value).split()[-1])
        assert size[0] < height <= size[0] + 5
        attack.check((1, height, size[1]))
    else:
        attack.check(x.shape)


def test_only_square_in_l2_is_refused_for_a_size() -> None:
    for threat, only in ((Threat("linf", 0.1), None), (Threat("linf", 0.1), "square"), (Threat("l2", 0.1), "apgd-t")):
        AutoAttack(threat, only).check((1, 12, 12))
    with pytest.raises(InputError, match="fails on images of 12x12"):
        AutoAttack(Threat("l2", 0.1)).check((1, 12, 12))


def test_unknown_parts_and_too_few_classes_are_refused(bands: Split) -> None:
    with pytest.raises(InputError, match=r"AutoAttack has no sqare; choose .*\(did you mean square\?\)"):
        AutoAttack(Threat("linf", 0.1), "sqare")
    with pytest.raises(InputError, match="queries=0; expected a whole number of at least 1"):
        AutoAttack(Threat("linf", 0.1), "square", 0)
    two = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    for only in ("apgd-dlr", "apgd-t"):
        with pytest.raises(InputError, match=f"{only} needs [34] classes, and the network has 2"):
            evaluate(two, bands, AutoAttack(Threat("linf", 0.1), only))


def test_missing_says_how_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("saddlepoint.measure.autoattack.version", absent)
    with pytest.raises(InputError, match=r"pip install -e \.\[autoattack\]"):
        AutoAttack(Threat("linf", 0.1))


def test_it_is_as_strong_as_it_describes_itself(bands, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyautoattack

    made, whole = [], pyautoattack.AutoAttack
    monkeypatch.setattr(pyautoattack, "AutoAttack", lambda *a, **k: made.append(whole(*a, **k)) or made[-1])
    evaluate(Bands(), bands.take(1), AutoAttack(Threat("linf", 0.04), "square", queries=7))
    (theirs,) = made
    assert (theirs.square.n_queries, theirs.square.eps) == (7, 0.04)
    assert theirs.apgd_targeted.n_target_classes == theirs.fab.n_target_classes == 9

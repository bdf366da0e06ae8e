from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from saddlepoint.attacks import PGD, Targeted
from saddlepoint.data import Data, Split
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.threat import Threat

SLOPE = 8.0


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above a half: its robust accuracy is known for every eps."""

    def forward(self, x: Tensor) -> Tensor:
        excess = SLOPE * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-excess, excess], 1)


@pytest.fixture
def split() -> Split:
    """Brightness 0.1, 0.3, 0.46, 0.54, 0.7, 0.9; the third image is mislabelled."""
    pixels = torch.tensor([10, 30, 46, 54, 70, 90], dtype=torch.uint8).reshape(6, 1, 1, 1).expand(6, 1, 2, 2)
    return Split(pixels.contiguous(), torch.tensor([0, 0, 1, 1, 1, 1]), 100)


def test_natural_accuracy_and_loss_by_hand(split: Split) -> None:
    outcome = evaluate(Brightness(), split, None)
    assert outcome.correct.tolist() == [True, True, False, True, True, True]
    assert outcome.accuracy == 5 / 6
    margins = [2 * SLOPE * margin for margin in (0.4, 0.2, -0.04, 0.04, 0.2, 0.4)]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 6
    assert outcome.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("eps", "standing"), [(0, [1, 1, 0, 1, 1, 1]), (0.1, [1, 1, 0, 0, 1, 1]), (0.3, [1, 0, 0, 0, 0, 1])]
)
def test_robust_accuracy_is_the_known_one(split: Split, eps: float, standing: list[int]) -> None:
    outcome = evaluate(Brightness(), split, PGD(Threat("linf", eps), steps=5))
    assert outcome.correct.tolist() == [bool(each) for each in standing]
    assert outcome.accuracy == sum(standing) / 6


def test_the_loss_is_that_of_the_attacked_images(split: Split) -> None:
    outcome = evaluate(Brightness(), split, PGD(Threat("linf", 0.05), steps=5))
    margins = [2 * SLOPE * (margin - 0.05) for margin in (0.4, 0.2, -0.04, 0.04, 0.2, 0.4)]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 6
    assert outcome.loss == pytest.approx(expected, rel=1e-4)


class Affine(nn.Module):
    """Notes the precision of its products."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = self.layer(x.flatten(1))
        self.seen.append(logits.dtype)
        return logits


def test_examples_are_made_in_the_precision_and_classified_in_float32(split: Split) -> None:
    model, attack = Affine(), PGD(Threat("linf", 0.1), steps=3)
    outcome = evaluate(model, split, attack, precision=torch.bfloat16)
    assert model.seen == 4 * [torch.bfloat16] + [torch.float32]  # 3 steps, whether there is a gradient, the judgement
    assert outcome.correct.shape == (6,)


def test_no_eps_is_natural(split: Split) -> None:
    natural, attacked = (evaluate(Brightness(), split, attack) for attack in (None, PGD(Threat("l2", 0), steps=2)))
    assert natural.correct.tolist() == attacked.correct.tolist()
    assert natural.loss == attacked.loss


class Hidden(Brightness):
    """No gradient where the mean pixel is below 0.4."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp_min(0.4))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_the_share_of_images_without_a_gradient_is_kept(split: Split, size: int) -> None:
    attack = PGD(Threat("linf", 0.05), steps=1, step_size="eps", random_start=False)
    targeted = Targeted(PGD(Threat("linf", 0.05), steps=2, random_start=False, targeted=True))
    for each in (attack, targeted):
        assert evaluate(Hidden(), split, each, batch_size=size).blind == pytest.approx(2 / 6)
        assert evaluate(Brightness(), split, each, batch_size=size).blind == 0
        assert evaluate(Brightness(), split, each, batch_size=size, source=Hidden()).blind == pytest.approx(2 / 6)
    assert evaluate(Hidden(), split, None, batch_size=size).blind is None


def test_the_gradient_is_looked_at_where_the_attack_starts(split: Split) -> None:
    """Of the starts around 0.46, 0.34 to 0.58, a quarter is below 0.4."""
    dark = Split(split.pixels[2:3, :, :1, :1].repeat(200, 1, 1, 1), torch.zeros(200, dtype=torch.int64), 100)
    share = evaluate(Hidden(), dark, PGD(Threat("linf", 0.12), steps=1)).blind
    assert share == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize("size", [1, 4, 7, 100])
def test_the_outcome_does_not_depend_on_the_batch_size(batch_norm_network: nn.Module, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 1, 4, 4), generator=generator, dtype=torch.uint8)
    split = Split(pixels, batch_norm_network(pixels / 255).argmax(1), 255)
    attack = PGD(Threat("linf", 0.1), steps=3, random_start=False)
    whole = evaluate(batch_norm_network, split, attack, batch_size=30)
    parts = evaluate(batch_norm_network, split, attack, batch_size=size)
    assert 0 < whole.accuracy < 1
    assert parts.correct.tolist() == whole.correct.tolist()
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)


def test_the_outcome_does_not_depend_on_the_order(batch_norm_network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 1, 4, 4), generator=generator, dtype=torch.uint8)
    labels = batch_norm_network(pixels / 255).argmax(1)
    order = torch.randperm(30, generator=generator)
    attack = PGD(Threat("linf", 0.1), steps=3, random_start=False)
    straight = evaluate(batch_norm_network, Split(pixels, labels, 255), attack, batch_size=7)
    shuffled = evaluate(batch_norm_network, Split(pixels[order], labels[order], 255), attack, batch_size=7)
    assert 0 < straight.accuracy < 1
    assert shuffled.correct.tolist() == straight.correct[order.numpy()].tolist()


def test_noise_follows_the_seed_and_differs_between_batches(split: Split) -> None:
    seen: list[Tensor] = []

    class Noting(PGD):
        def craft(self, model: nn.Module, x: Tensor, *rest: object) -> Tensor:
            seen.append(self.start(x, rest[1]) - x)  # type: ignore[arg-type]
            return x

    same = Split(split.pixels[2:3].repeat(4, 1, 1, 1), torch.ones(4, dtype=torch.int64), 100)
    for seed in (0, 0, 1):
        evaluate(Brightness(), same, Noting(Threat("linf", 0.1), steps=1), batch_size=2, seed=seed)
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[4])


@pytest.mark.parametrize("offset", [0.2, -1.0, torch.nan, torch.inf])
def test_an_attack_that_cheats_is_not_counted(split: Split, offset: float) -> None:
    class Cheat(PGD):
        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
            x_adv = x.clone()
            x_adv[-1, 0, 1, 1] += offset  # one pixel of one image
            return x_adv

    with pytest.raises(RuntimeError, match="outside its threat model; nothing was counted"):
        evaluate(Brightness(), split, Cheat(Threat("linf", 0.1), steps=1))


def test_the_model_is_classified_in_eval_mode_and_left_in_its_own(batch_norm_network: nn.Module) -> None:
    pixels = torch.randint(0, 256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(pixels, torch.zeros(6, dtype=torch.int64), 255)
    batch_norm_network.eval()
    expected = evaluate(batch_norm_network, split, None)
    batch_norm_network.train()
    before = {name: tensor.clone() for name, tensor in batch_norm_network.state_dict().items()}
    outcome = evaluate(batch_norm_network, split, PGD(Threat("linf", 0), steps=1))
    assert outcome.loss == expected.loss
    assert batch_norm_network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in batch_norm_network.state_dict().items())


def test_transfer_to_itself_is_white_box(split: Split) -> None:
    attack = PGD(Threat("linf", 0.1), steps=5)
    white = evaluate(Brightness(), split, attack)
    transferred = evaluate(Brightness(), split, attack, source=Brightness())
    assert white.correct.tolist() == transferred.correct.tolist()
    assert white.loss == transferred.loss


class Reversed(Brightness):
    """Its gradient points the other way: its adversarial examples help the original."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flip(1)


def test_the_source_makes_the_examples_and_the_model_is_shown_them(split: Split) -> None:
    attack = PGD(Threat("linf", 0.1), steps=5, random_start=False)
    outcome = evaluate(Brightness(), split, attack, source=Reversed())
    assert outcome.correct.all()  # the mislabelled image included: it was moved to its label


def test_an_image_without_finite_logits_is_misclassified(data: Data, caplog: pytest.LogCaptureFixture) -> None:
    """NaN is the largest number to argmax: class 0 would be right."""

    class Whole(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 10 * torch.stack([x[..., :2].mean((1, 2, 3)), x[..., 2:].mean((1, 2, 3))], 1)

    class Partly(Whole):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(torch.arange(len(x))[:, None] < 5, torch.nan, super().forward(x))

    others = Split(data.test.pixels[5:], data.test.labels[5:], data.test.pixel_max)
    outcome = evaluate(Partly(), data.test, None)
    assert outcome.correct.tolist() == [False] * 5 + [True] * 15
    assert outcome.loss == pytest.approx(evaluate(Whole(), others, None).loss)
    assert "not finite for 5 of 20 images" in caplog.text


def test_a_class_that_can_never_be_is_said(split: Split, caplog: pytest.LogCaptureFixture) -> None:
    class Masked(Brightness):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super().forward(x), torch.full((len(x), 1), -torch.inf)], 1)

    outcome = evaluate(Masked(), split, None)
    assert outcome.accuracy == 0 and math.isnan(outcome.loss)
    assert "not finite for 6 of 6 images" in caplog.text

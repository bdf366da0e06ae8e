"""What is seen of a training: the trainer's tests say what it is used for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlepoint.attacks import PGD
from saddlepoint.data import Split
from saddlepoint.errors import InputError
from saddlepoint.threat import Threat
from saddlepoint.training import Monitor

ATTACK = PGD(Threat("linf", 0.25), steps=3)


def test_pictures_are_image_perturbation_and_adversarial_image_side_by_side() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    pixels = torch.randint(64, 192, (5, 1, 4, 4), dtype=torch.uint8)
    held_out = Split(pixels, torch.tensor([0, 1, 0, 1, 0]), 255)
    strips, captions = Monitor(ATTACK, 5).pictures(model, held_out, seed=0, count=3)
    assert strips.shape == (3, 4, 12, 1)
    natural, magnified, adversarial = (torch.from_numpy(strips[:, :, at : at + 4, 0]) for at in (0, 4, 8))
    torch.testing.assert_close(natural, pixels[:3, 0] / 255)
    torch.testing.assert_close(magnified, 0.5 + (adversarial - natural) / 0.5)  # eps is black or white
    assert (adversarial - natural).abs().max() <= 0.25 + 1e-6 and (adversarial != natural).any()
    for row, (label, caption) in enumerate(zip((0, 1, 0), captions, strict=True)):
        before, after = (model(image[row][None, None]).argmax().item() for image in (natural, adversarial))
        assert caption == f"true {label}, natural {before}, adversarial {after}"


@pytest.mark.parametrize(("channels", "shown"), [(2, 1), (3, 3), (5, 1)])
def test_images_of_any_channels_are_shown(channels: int, shown: int) -> None:
    """Only 1, 3 and 4 channels make a picture."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 2))
    held_out = Split(torch.full((5, channels, 4, 4), 128, dtype=torch.uint8), torch.tensor([0, 1, 0, 1, 0]), 255)
    assert Monitor(ATTACK, 5).pictures(model, held_out, seed=0)[0].shape == (5, 4, 12, shown)


def test_an_unknown_selection_is_refused() -> None:
    with pytest.raises(InputError, match=r"training\.select=accuracy; choose robust or natural"):
        Monitor(ATTACK, 10, select="accuracy")

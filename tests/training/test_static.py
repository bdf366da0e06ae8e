from __future__ import annotations

from typing import Any

import pytest
import torch

from saddlepoint.attacks import PGD
from saddlepoint.data import Data
from saddlepoint.errors import InputError
from saddlepoint.losses import Divergence
from saddlepoint.models import CNN
from saddlepoint.threat import Threat
from saddlepoint.training.static import replaced


def test_every_image_is_replaced_by_its_adversarial_example(data: Data, network: CNN) -> None:
    attack = PGD(Threat("linf", "2/16"), steps=3, random_start=False)
    made = replaced(data.train, network, attack, torch.Generator().manual_seed(0), batch_size=7)
    x, x_adv = data.train.images(slice(None)), made.images(slice(None))
    torch.testing.assert_close(x_adv, attack.craft(network, x, data.train.labels))
    assert attack.threat.contains(x_adv, x).all()
    assert torch.equal(made.labels, data.train.labels)
    chosen = torch.tensor([5, 2])
    assert torch.equal(made.images(chosen), x_adv[chosen])
    assert torch.equal(made.images(chosen), made.images(chosen))  # once and for all


def test_the_source_is_attacked_as_it_is_whatever_the_training_does(
    data: Data, batch_norm_network: torch.nn.Module
) -> None:
    """Batch normalisation's statistics are its own, and those of no batch."""
    before = {name: each.clone() for name, each in batch_norm_network.state_dict().items()}
    made = {
        mode: replaced(
            data.train,
            batch_norm_network,
            PGD(Threat("linf", 0.1), 3, model_mode=mode),
            torch.Generator().manual_seed(0),
        ).pixels
        for mode in ("eval", "track")
    }
    assert torch.equal(made["eval"], made["track"])
    assert all(torch.equal(each, before[name]) for name, each in batch_norm_network.state_dict().items())


@pytest.mark.parametrize("attack", [{"targeted": True}, {"loss": Divergence()}])
def test_an_attack_that_does_not_raise_the_loss_of_labels_is_refused(
    data: Data, network: CNN, attack: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=r"attack(\.targeted)?="):
        replaced(data.train, network, PGD(Threat("linf", "2/16"), 3, **attack), torch.Generator())

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from saddlepoint.build import build
from saddlepoint.errors import InputError
from saddlepoint.threat import Threat


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


def test_an_error_of_the_arguments_comes_out_as_itself() -> None:
    inner = {"_target_": "saddlepoint.threat.Threat", "norm": "linf", "eps": -1}
    for config in (inner, {"_target_": "saddlepoint.attacks.PGD", "threat": inner, "steps": 1}):
        with pytest.raises(InputError, match=r"^threat\.eps=-1 is negative"):
            build(OmegaConf.create(config))


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"_target_": "saddlepoint.threat.Treat"}, ["part._target_=saddlepoint.threat.Treat: ", "mean Threat?"]),
        (
            {"_target_": "saddlepoint.threat.Threat", "norms": "linf", "eps": 1},
            ["part.norms: ", "mean norm?", "~part.norms"],
        ),
        ({"_target_": "saddlepoint.threat.Threat", "norm": "linf"}, ["part.eps is not set", "+part.eps="]),
        ({"_target_": "builtins.complex", "real": "x"}, ["part: ", "ValueError"]),  # raised by the call itself
    ],
    ids=["unknown class", "unknown argument", "missing argument", "failing call"],
)
def test_a_wrong_call_names_the_setting_that_the_user_has(part: dict[str, Any], named: list[str]) -> None:
    """Not the place that refers to it."""
    config = OmegaConf.create({"part": part, "whole": {"_target_": "builtins.dict", "a": [{"b": "${part}"}]}})
    with pytest.raises(InputError) as error:
        build(config.whole)
    assert str(error.value).startswith(named[0]) and "\n" not in str(error.value)
    assert all(each in str(error.value) for each in named)


def test_what_says_nothing_of_its_arguments_is_called() -> None:
    """As a builtin."""
    config = {"_target_": "builtins.dict", "a": {"_target_": "builtins.dict", "_partial_": True, "b": 3}}
    assert build(OmegaConf.create(config))["a"](c=4) == {"b": 3, "c": 4}


def test_settings_named_by_numbers_are_built() -> None:
    described = OmegaConf.create({"_target_": "builtins.dict", "grow": {16: 0.5, 24: 0.75}})
    assert build(described) == {"grow": {16: 0.5, 24: 0.75}}

from __future__ import annotations

import pytest

from saddlepoint.overrides import for_any_script, name_of, of_a_training, placeholder, top


@pytest.mark.parametrize("prefix", ["", "+", "++", "~"])
def test_names_are_read_from_what_is_typed(prefix: str) -> None:
    for override in (f"{prefix}threat.eps=0.2", f"{prefix}threat.eps"):
        assert (name_of(override), top(override)) == ("threat.eps", "threat")
    assert name_of(f"{prefix}dataset.data.path='a=b.c'") == "dataset.data.path"


def test_what_a_script_may_lack_is_added() -> None:
    given = ["monitor.batch_size=5", "training.select=natural", "++model.capacity=3", "~trainer.grow", "threat.eps=0.2"]
    assert [of_a_training(each) for each in given] == [True, True, True, True, False]
    taken = ["++monitor.batch_size=5", "++training.select=natural", *given[2:]]
    assert list(map(for_any_script, given)) == taken
    assert for_any_script("model=wide") == "model=wide"  # the choice of a file
    assert placeholder("~trainer.grow") == "++trainer.grow=0"

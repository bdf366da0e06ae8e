"""The committed results, as their keys and results read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import ROOT
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.files import digest, read_json
from saddlepoint.measure.result import Accuracy, Between, Curve, Found, Key, Learned, Maxima, Result, Share, interval
from saddlepoint.measure.store import measured

KINDS: dict[str, Callable[..., Found]] = {
    "directions": Found,
    "epsilon-(linf|l2)-(pgd|square)": Curve,
    "gradient_angles": Found,
    "layers": Learned,
    r"maxima-\d+": Maxima.read,
    "samples-(linf|l2)": Found,
    "segments": Between,
    "trajectories": Found,
    "zero_gradients": Share,
}
FILES = sorted((ROOT / "outputs" / "reference").glob("*/*/seed*/results/*.json"))


def kind(measurement: str) -> Callable[..., Found]:
    return next((found for name, found in KINDS.items() if re.fullmatch(name, measurement)), Accuracy)


@pytest.mark.parametrize("folder", sorted({path.parents[2] for path in FILES}), ids=lambda folder: folder.name)
def test_committed_results_are_found_by_their_keys_and_read_whole(folder: Path) -> None:
    for path in sorted(folder.glob("seed*/results/*.json")):
        written = read_json(path)
        key = Key.read(written["key"])
        assert key.plain() == written["key"]
        assert path.name == f"{key.checkpoint}-{key.measurement}-{digest(key.plain())}.json"
        stored = measured(path, key.plain(), pytest.fail)  # the seal holds, and nothing is measured
        result = Result.read(stored, kind(key.measurement), str(path))
        assert (result.key, result.file) == (key, str(path))
        assert result.run.model in folder.name and result.run.training in folder.name
        assert result.arrays is None or path.with_suffix(".npz").exists()


def test_there_are_committed_results_of_every_kind() -> None:
    found = {read_json(path)["key"]["measurement"] for path in FILES}
    for name in (*KINDS, "natural", "pgd", "fgsm-from-.*"):
        assert any(re.fullmatch(name, each) for each in found), name


def test_no_attack_is_null_in_the_file_and_what_a_key_lacks_is_not_there() -> None:
    natural = Key("natural", "last", "0" * 64, attack={}, examples=5)
    assert natural.plain() == {
        "measurement": "natural",
        "checkpoint": "last",
        "checkpoint_sha256": "0" * 64,
        "attack": None,
        "examples": 5,
    }
    assert Key.read(natural.plain()) == natural
    assert natural.description == Key("epsilon", attack="pgd").description == {}
    assert [Key("pgd", examples=5, of=of).part for of in (5, 10)] == [None, 5]


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (8930, 10000, 0.8868, 0.8989),
    ],
)
def test_intervals_are_wilsons(correct: int, count: int, low: float, high: float) -> None:
    assert interval(correct, count) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 20000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_an_interval_is_inside_0_and_1_and_around_the_share(shares: tuple[int, int]) -> None:
    low, high = interval(*shares)
    share = shares[0] / shares[1]
    assert 0 <= low <= share + 1e-12 and share - 1e-12 <= high <= 1
    assert high > low


def test_no_examples_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no examples"):
        interval(0, 0)

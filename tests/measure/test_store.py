from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.errors import InputError
from saddlepoint.measure.store import measured, pack, unpack


@given(st.lists(st.booleans(), max_size=50))
def test_outcomes_come_back_from_their_digits(outcomes: list[bool]) -> None:
    digits = pack(np.array(outcomes, bool))
    assert len(digits) == 2 * -(-len(outcomes) // 8)
    assert unpack(digits, len(outcomes)).tolist() == outcomes


def test_digits_by_hand() -> None:
    assert pack(np.array([1, 1, 1, 1, 0, 0, 0, 0, 1], bool)) == "f080"


def test_a_measurement_is_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, Any]:
        calls.append(1)
        return {"accuracy": len(calls) / 10}

    path = tmp_path / "results" / "x.json"
    key = {"steps": 20, "attack": {"eps": "8/255"}, "shape": (1, 2)}
    expected = {"key": {"steps": 20, "attack": {"eps": "8/255"}, "shape": [1, 2]}, "accuracy": 0.1}
    assert [measured(path, key, measure) for _ in range(3)] == [expected] * 3
    assert json.loads(path.read_text())["accuracy"] == 0.1


@pytest.mark.parametrize("edit", [{"accuracy": 0.9}, {"key": {"steps": 40}}, {"sha256": "0" * 64}, {"more": 1}])
def test_a_result_edited_by_hand_is_noticed(tmp_path: Path, edit: dict[str, Any]) -> None:
    path = tmp_path / "x.json"
    measured(path, {"steps": 20}, lambda: {"accuracy": 0.1})
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    with pytest.raises(InputError, match=f"{path} was changed after it was measured; delete it"):
        measured(path, {"steps": 20}, lambda: {"accuracy": 0.2})


def test_a_result_copied_to_another_keys_place_is_noticed(tmp_path: Path) -> None:
    measured(tmp_path / "x.json", {"steps": 20}, lambda: {"accuracy": 0.1})
    (tmp_path / "y.json").write_bytes((tmp_path / "x.json").read_bytes())
    with pytest.raises(InputError, match="was changed after it was measured"):
        measured(tmp_path / "y.json", {"steps": 40}, lambda: {"accuracy": 0.2})


def test_a_damaged_result_is_named_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"key": ')
    with pytest.raises(InputError, match=f"{path} is not valid JSON; delete it"):
        measured(path, {}, lambda: {"accuracy": 1})
    assert path.read_text() == '{"key": '

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saddlepoint.errors import InputError
from saddlepoint.results import (
    digest,
    interval,
    measured,
    pack,
    read_arrays,
    read_csv,
    read_json,
    sha256,
    unpack,
    write_arrays,
    write_atomically,
    write_csv,
    write_json,
)


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


def test_equal_numbers_have_one_digest_however_they_are_written() -> None:
    written = [{"eps": "4/16", "steps": 7}, {"steps": 7.0, "eps": 0.25}, {"eps": "2.5e-1", "steps": "7"}]
    assert len({digest(each) for each in written}) == 1
    others = [
        {"eps": "4/15", "steps": 7},
        {"eps": "0.25", "steps": True},
        {"eps": None, "steps": 7},
        {"eps": "quarter"},
    ]
    assert len({digest(each) for each in [*written, *others]}) == 5
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()[:6]


def test_a_damaged_result_is_named_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"key": ')
    with pytest.raises(InputError, match=f"{path} is not valid JSON; delete it"):
        measured(path, {}, lambda: {"accuracy": 1})
    assert path.read_text() == '{"key": '


def test_a_write_leaves_the_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.bin"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"accuracy": 0.5})
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError, match=f"cannot write {path} .No space left on device.; .*output_dir"):
        write_json(path, {"accuracy": 0.6})
    assert read_json(path) == {"accuracy": 0.5}


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(InputError):
        write_json(tmp_path / "x.json", {"accuracy": 0.6})
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"cannot write {tmp_path / 'file' / 'x.json'} .*output_dir"):
        write_json(tmp_path / "file" / "x.json", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not valid JSON; delete it"),
        (b"", "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[1, 2]", "does not hold a result"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} {message}"):
        read_json(path)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot read {tmp_path / 'x.json'} .No such file"):
        read_json(tmp_path / "x.json")


def test_rows_come_back_from_csv(tmp_path: Path) -> None:
    rows = [{"name": 'a, "b"\nc', "value": 0.1}, {"name": "±", "value": None}]
    write_csv(tmp_path / "x.csv", rows)
    assert read_csv(tmp_path / "x.csv") == [{"name": 'a, "b"\nc', "value": "0.1"}, {"name": "±", "value": ""}]


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"losses": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros(0)}
    write_arrays(tmp_path / "x.npz", arrays)
    read = read_arrays(tmp_path / "x.npz")
    assert set(read) == set(arrays)
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype
        assert np.array_equal(read[name], values)


def test_arrays_of_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", bad=np.array([{}], object))
    with pytest.raises(InputError, match="is damaged"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage"])
def test_damaged_arrays_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(InputError, match=f"{tmp_path / 'x.npz'}"):
        read_arrays(tmp_path / "x.npz")


def test_sha256_is_the_known_one(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_rows_of_a_csv_may_lack_what_later_ones_have(tmp_path: Path) -> None:
    """A training that goes on under a version that measures more."""
    write_csv(tmp_path / "t.csv", [{"step": 1}, {"step": 2, "loss": 0.5}])
    assert read_csv(tmp_path / "t.csv") == [{"step": "1", "loss": ""}, {"step": "2", "loss": "0.5"}]

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from saddlepoint.errors import InputError
from saddlepoint.files import (
    digest,
    read_arrays,
    read_csv,
    read_json,
    sha256,
    write_arrays,
    write_atomically,
    write_csv,
    write_json,
)


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
    assert digest({"eps": ["1/2", 1]}) == digest({"eps": [0.5, "1"]}) != digest({"eps": [0.5, 2]})
    assert digest({}) == hashlib.sha256(b"{}").hexdigest()[:6]


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


def test_two_processes_that_write_one_file_both_leave_it_whole(tmp_path: Path) -> None:
    """A reader sees one content or the other."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom saddlepoint.files import write_atomically\n"
        "for _ in range(40): write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * 50_000)\n"
    )
    path = tmp_path / "x"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "ab"]
    seen = set()
    while any(each.poll() is None for each in writers):
        if path.exists():
            seen.add(path.read_bytes())
        time.sleep(0.001)
    assert [each.returncode for each in writers] == [0, 0]
    assert seen <= {b"a" * 50_000, b"b" * 50_000}
    assert [each.name for each in tmp_path.iterdir()] == ["x"]

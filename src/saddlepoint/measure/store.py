"""Results on disk: one JSON for each key, arrays in an .npz with the same name. No torch here.

A result holds what was measured and everything it depends on, its key. A measurement is repeated only when its key has
changed. result.py says what a result has in it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from saddlepoint.errors import InputError
from saddlepoint.files import canonical, digest, read_json, write_json


def measured(
    path: Path, key: Mapping[str, object], measure: Callable[[], Mapping[str, object]], write: bool = True
) -> dict[str, Any]:
    """The result at `path`, else measure it and, unless told otherwise, write it there.

    Raises InputError if the file there was changed since it was written, or answers another key.
    """
    if path.exists():
        result = read_json(path)
        seal = result.pop("sha256", None)
        if canonical(result.get("key")) != canonical(key) or seal != digest(result, 64):
            raise InputError(f"{path} was changed after it was measured; delete it to have it measured again")
        return result
    result = json.loads(json.dumps({"key": key, **measure()}))  # as it will be read back
    if write:
        write_json(path, {**result, "sha256": digest(result, 64)})
    return dict(result)


class Unfinished:
    """The parts of a measurement that are done, kept until its result is written: a killed one resumes from them.

    Each process of a measurement keeps what it did in a file of its own, and knows what all of them did.

    Args:
        path: of the result.
        key: of the result; parts of another measurement are ignored.
    """

    interval = 60  # seconds between two writes, so that short measurements make no file

    def __init__(self, path: Path, key: Mapping[str, object], rank: int = 0) -> None:
        self.path, self.key = path, json.loads(json.dumps(key))
        self.own = path.with_name(f"{path.stem}.unfinished-{rank}.json")
        self.begun = self.saved = time.monotonic()
        self.earlier = 0.0  # seconds

    def _files(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.stem}.unfinished-*.json"))

    def read(self) -> dict[str, Any]:
        """All parts that any process kept, by name. A damaged file costs its parts, and nothing else."""
        found = []
        for file in self._files():
            with contextlib.suppress(InputError):
                found.append(read_json(file))
        found = [each for each in found if each.get("key") == self.key]
        self.earlier = max((each["seconds"] for each in found), default=0.0)
        return {name: part for each in found for name, part in each["parts"].items()}

    def keep(self, parts: Mapping[str, object]) -> bool:
        """Write them, if the last time is long enough ago. Returns whether it was."""
        now = time.monotonic()
        if now - self.saved < self.interval:
            return False
        write_json(self.own, {"key": self.key, "seconds": self.earlier + now - self.begun, "parts": parts})
        self.saved = now
        return True

    def clear(self) -> None:
        for file in self._files():
            file.unlink(missing_ok=True)


def pack(outcomes: np.ndarray) -> str:
    """Booleans (n,) as hexadecimal digits, eight to a byte."""
    return np.packbits(outcomes.astype(bool)).tobytes().hex()


def unpack(digits: str, count: int) -> np.ndarray:
    """The booleans (count,) that `pack` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8), count=count).astype(bool)

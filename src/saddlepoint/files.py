"""Files that are whole or absent, and digests of plain data. No torch here."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from saddlepoint.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """The whole content or nothing: to a new file, flushed to the disk, and renamed. Of two writers the last counts."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _held(part) as file:
            try:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    part.unlink()
                raise
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}); correct that, or choose another place with output_dir=..."
        ) from None


@contextlib.contextmanager
def _held(path: Path) -> Iterator[BinaryIO]:
    """The file, empty, for this process alone."""
    while True:
        with path.open("ab") as file:
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            try:
                renamed = not os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                renamed = True
            if not renamed:  # by whoever held it before
                file.truncate(0)
                yield file
                return


def write_json(path: Path, value: Mapping[str, object]) -> None:
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode())


def write_csv(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Rows whose keys become the header; one that lacks a key is empty there."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    write_atomically(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Raises InputError if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise InputError(f"{path} is damaged; delete it to have it measured again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError if the file is missing or is not JSON."""
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path} is not valid JSON; delete it to have it made again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold a result; delete it to have it made again")
    return value


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sha256(path: Path) -> str:
    """Raises InputError if there is no such file."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}); train it again with overwrite=true") from None


def as_number(value: object) -> float | None:
    """The finite number that a plain value or a text such as "8/255" is; None if it is none. Booleans are none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(Fraction(value)) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def canonical(value: object) -> object:
    """Plain data with every number, written 0.25, 2.5e-1 or 4/16, as the same float."""
    if isinstance(value, Mapping):
        return {str(key): canonical(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(each) for each in value]
    number = as_number(value)
    if number is None and isinstance(value, float):
        return str(value)  # a NaN would not equal itself
    return value if number is None else number


def digest(value: Mapping[str, object], digits: int = 6) -> str:
    """The first hexadecimal digits of the SHA-256 of plain data, the same however numbers are written."""
    text = json.dumps(canonical(value), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]

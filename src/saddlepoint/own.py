"""Code of your own: neither this package's nor installed. What is made with it depends on its files."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from saddlepoint.errors import InputError, one_line
from saddlepoint.files import digest, sha256

PACKAGE = Path(__file__).resolve().parent
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()
MODULES_OWN = frozenset(vars(torch.nn.Module()))  # attributes that every module has


def code(*used: object) -> str | None:
    """A digest of your files that define these classes, functions and objects, and of those that they import.

    None if you wrote none of it.
    """
    files: set[str] = set()  # their digests
    seen: set[int] = set()
    left = list(used)
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        module = each if isinstance(each, ModuleType) else sys.modules.get(str(getattr(each, "__module__", None)))
        file = _file(module)
        if module is not None and file is not None:
            files.add(_as_first_seen(file))
            left += [*vars(module).values(), *_imported(module, file)]
        elif isinstance(each, functools.partial):
            left += [each.func, *each.args, *each.keywords.values()]
        elif type(each).__module__.startswith("saddlepoint."):  # an attack, say, whose loss may be yours
            left += getattr(each, "__dict__", {}).values()
    return digest({"files": sorted(files)}, 16) if files else None


def _imported(module: ModuleType, file: Path) -> list[ModuleType]:
    """What its import statements name: a number or a text does not say where it was imported from."""
    names = _named(file, module.__package__ or "") if file.suffix == ".py" else ()
    return [sys.modules[name] for name in names if name in sys.modules]


@lru_cache(None)
def _named(file: Path, package: str) -> frozenset[str]:
    """The modules that import statements outside functions name; read once, as `_as_first_seen` is."""
    names: set[str] = set()
    left: list[ast.AST] = []
    with suppress(SyntaxError, ValueError, OSError):  # it was edited meanwhile
        left = [ast.parse(file.read_bytes())]
    while left:
        node = left.pop()
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # `from . import x`, tried in a module that is in no package
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                names |= {base, *(f"{base}.{each.name}" for each in node.names)}
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            left += ast.iter_child_nodes(node)
    return frozenset(names)


def settings(made: object) -> dict[str, object]:
    """The attributes of an object of yours as plain values; of tensors and arrays, a digest of their content."""
    return {name: _plain(value, 0) for name, value in sorted(getattr(made, "__dict__", {}).items())}


def _plain(value: object, depth: int) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, functools.partial):
        return [_plain(each, depth + 1) for each in (value.func, value.args, value.keywords)]
    named = value if hasattr(value, "__qualname__") else type(value)
    kind = f"{named.__module__}.{named.__qualname__}"
    if named is value or isinstance(value, torch.Generator) or depth > 5:
        return kind
    if isinstance(value, torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(value).detach().cpu().contiguous()
        content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        return [kind, str(tensor.dtype), list(tensor.shape), hashlib.sha256(content).hexdigest()]
    attributes = dict(getattr(value, "__dict__", {}))
    if isinstance(value, torch.nn.Module):
        attributes = {name: each for name, each in attributes.items() if name not in MODULES_OWN}
        attributes |= {**dict(value.named_children()), "state": value.state_dict()}
    elif not attributes and " at 0x" not in repr(value):
        return [kind, repr(value)]
    return [kind, {name: _plain(each, depth + 1) for name, each in sorted(attributes.items())}]


def _file(module: ModuleType | None) -> Path | None:
    """Of a module of yours."""
    name = getattr(module, "__file__", None)
    if name is None:
        return None
    path = Path(name).resolve()
    installed = {"site-packages", "dist-packages"} & {*path.parts} or path.is_relative_to(STANDARD)
    return None if installed or path.is_relative_to(PACKAGE) or not path.is_file() else path


@lru_cache(None)
def _as_first_seen(file: Path) -> str:
    """As it was when it was imported, or soon after: what is edited meanwhile counts for the next command."""
    return sha256(file)


@contextmanager
def reported(message: str) -> Iterator[None]:
    """Whatever your code raises, as one line: `message` with the reason in the place of {}.

    An InputError passes as it is, and so does a GPU that is full, which is no mistake in the code.
    """
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (it may raise anything)
        kind, reason = type(error).__name__, one_line(error)
        raise InputError(message.replace("{}", f"{kind}: {reason}" if reason else kind)) from None

"""The run directory: what a training leaves on disk, and how it resumes.

config.yaml        what defines the run (written by the entry point)
history.csv        one row for each evaluation on the held-out images
state.pt           everything needed to resume, bit for bit, after its checksum; removed when the run has finished
previous.pt        the state before it, for when state.pt was damaged
last.safetensors   the weights after the last step
best.safetensors   the weights that did best on the held-out images, written at the end; until then in the state
averaged.safetensors  their exponential mean, where the recipe keeps one
training.json      the summary; its presence means finished
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from saddlepoint.errors import InputError
from saddlepoint.files import read_json, write_atomically, write_json

log = logging.getLogger(__name__)

# What a run keeps of its weights; the mean only where its recipe averages them.
CHECKPOINTS = ("last", "best", "averaged")

# Of YAML: many times as fast in C, where PyYAML has it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# In a file of weights in 8 bits: the name of a tensor's scale, after the tensor's own.
SCALE = ".scale"

# What a state begins with, followed by the SHA-256 of the rest.
SEAL = b"saddlepoint state, sha256 "


class RunDirectory:
    """Paths and atomic reads and writes of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.history = self.path / "history.csv"
        self.state = self.path / "state.pt"
        self.previous = self.path / "previous.pt"
        self.summary = self.path / "training.json"
        self.results = self.path / "results"

    def weights(self, checkpoint: str) -> Path:
        """`checkpoint` is one of CHECKPOINTS."""
        return self.path / f"{checkpoint}.safetensors"

    @property
    def finished(self) -> bool:
        return self.summary.exists()

    def open(self, name: str) -> TextIO:
        """A file of the directory, made with it if need be, to add to. Raises InputError if that cannot be."""
        # Path.exists raises an error for a name that is too long.
        missing = [each for each in (self.path, *self.path.parents) if not os.path.exists(each)]  # noqa: PTH110
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return (self.path / name).open("a+")
        except OSError as error:
            for each in missing:
                with contextlib.suppress(OSError):
                    each.rmdir()
            raise InputError(f"cannot write to {self.path} ({error.strerror}); choose output_dir=...") from None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Train here alone. A process that dies, however it dies, lets go. Raises InputError if another holds it."""
        with self.open(".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read() or "unknown"
                raise InputError(
                    f"{self.path} is held by process {holder}, which trains there; wait or stop it"
                ) from None
            with contextlib.suppress(OSError):  # on a full disk it is held all the same
                file.truncate(0)
                os.write(file.fileno(), str(os.getpid()).encode())
            yield

    def write_state(self, state: dict[str, Any]) -> None:
        """The state before it stays until this one is on the disk and reads back right."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        new, content = self.path / "new.pt", buffer.getvalue()
        write_atomically(new, SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        try:
            _unsealed(new)
        except ValueError:
            raise InputError(f"{new} does not read back as it was written; check the disk") from None
        if self.state.exists():
            self.state.replace(self.previous)
        new.replace(self.state)

    def read_state(self) -> dict[str, Any] | None:
        """The state to resume from, the one before it if that is damaged; None if there is none.

        Raises InputError if there are some and none can be read.
        """
        damaged = []
        for path in (self.state, self.previous):
            if not path.exists():
                continue
            try:
                state: dict[str, Any] = torch.load(io.BytesIO(_unsealed(path)), map_location="cpu", weights_only=True)
            except Exception:  # noqa: BLE001 (damaged bytes raise nearly anything)
                damaged.append(str(path))
                continue
            if path == self.previous:
                log.warning("%s is %s; using the state before", self.state, "damaged" if damaged else "missing")
                self.state.unlink(missing_ok=True)  # or the next state would push the good one out for it
            return state
        if damaged:
            raise InputError(
                f"{' and '.join(damaged)} {'are' if len(damaged) > 1 else 'is'} damaged; "
                "overwrite=true trains from the start, or restore it from a copy"
            )
        return None

    def discard_states(self) -> None:
        for path in (self.state, self.previous):
            path.unlink(missing_ok=True)

    def finish(self, summary: dict[str, Any]) -> None:
        write_json(self.summary, summary)
        self.discard_states()

    def read_config(self) -> dict[str, Any]:
        """Raises InputError if it is missing or defines no run."""
        try:
            config: dict[str, Any] = yaml.load(self.config.read_text(), LOADER)
            for part in ("dataset", "model"):
                str(config[part]["name"])
            dict(config["dataset"]["network"])
        except (OSError, yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, ValueError):
            raise InputError(
                f"{self.config} is no run's config; restore it, or train again with overwrite=true"
            ) from None
        return config

    def read_summary(self) -> dict[str, Any]:
        return read_json(self.summary)


def _unsealed(path: Path) -> bytes:
    """What torch wrote of a state. Raises ValueError if it is not what the checksum was made of."""
    seal, _, rest = path.read_bytes().partition(b"\n")
    if seal != SEAL + hashlib.sha256(rest).hexdigest().encode():
        raise ValueError("checksum")
    return rest


def write_weights(path: Path, model: nn.Module, metadata: dict[str, str]) -> None:
    write_atomically(path, weights_file(model, metadata))


def weights_file(model: nn.Module, metadata: dict[str, str]) -> bytes:
    """The content of a file of weights: the state dict as safetensors, contiguous and on the CPU."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    # Cloned, because safetensors refuses one tensor under two names, as tied layers have it.
    # One entry, because safetensors writes several in a different order each time.
    return save(tensors, {"saddlepoint": json.dumps(metadata)})


def in_eight_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels and matrices as int8 and a float32 scale for each output; everything else as it is.

    A quarter of the bytes. A weight moves by at most half its scale, which is the output's largest weight / 127.
    """
    made = {}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            scale = tensor.flatten(1).abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
            made[name] = (tensor / _along(scale, tensor)).round().to(torch.int8)
            made[name + SCALE] = scale
        else:
            made[name] = tensor
    return made


def widened(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `in_eight_bits` made, as float32; other tensors as they are."""
    scales = {name + SCALE for name, each in tensors.items() if each.dtype == torch.int8 and name + SCALE in tensors}
    return {
        name: each * _along(tensors[name + SCALE], each) if name + SCALE in scales else each
        for name, each in tensors.items()
        if name not in scales
    }


def _along(scale: Tensor, tensor: Tensor) -> Tensor:
    """The scale of each output (n,), to multiply a tensor (n, ...) by."""
    return scale.view(-1, *[1] * (tensor.ndim - 1))


def read_weights(path: Path, model: nn.Module) -> dict[str, str]:
    """Load into `model` and return the metadata.

    Raises InputError if the file is missing, damaged or of another network. Names and shapes are compared
    before any tensor is read; files in a reduced precision, `in_eight_bits` too, are widened to the model's types.
    """
    if not path.exists():
        raise InputError(f"no checkpoint at {path}; train it first, or see what there is with ls {path.parent}")
    try:
        with safe_open(path, framework="pt") as file:
            wanted, slices = model.state_dict(), {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no dict)
            found = {name: list(each.get_shape()) for name, each in slices.items()}
            in_bytes = [
                name
                for name in wanted
                if name in slices and slices[name].get_dtype() == "I8" and wanted[name].is_floating_point()
            ]
            expected = {name: list(tensor.shape) for name, tensor in wanted.items()}
            expected |= {name + SCALE: expected[name][:1] for name in in_bytes}
            if found != expected:
                name = next(each for each in [*expected, *found] if found.get(each) != expected.get(each))
                there, here = found.get(name, "absent"), expected.get(name, "absent")
                raise InputError(
                    f"{path} holds another network: {name} is {there} in the file and {here} in the configured model"
                )
            tensors = widened({name: file.get_tensor(name) for name in found})
            metadata = json.loads((file.metadata() or {}).get("saddlepoint", "{}"))
            if not isinstance(metadata, dict):
                raise ValueError("its metadata are none of ours")
    except (SafetensorError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged or no safetensors file ({str(error).splitlines()[0]})") from None
    model.load_state_dict(tensors)
    return metadata

"""Where and how things run: device, precision, processes, seeds, provenance.

The only file that imports torch.distributed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from saddlepoint.errors import InputError, whole

T = TypeVar("T")

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STOPS = (signal.SIGINT, signal.SIGTERM)
CODE = ("src", "scripts", "configs", "train.py")  # what results depend on


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for each purpose ("init", "order", "augment", "attack", ...), all from one seed."""
    # Python's seeding from a string is a hash of it, the same on every platform and version.
    return torch.Generator(device).manual_seed(random.Random(f"{seed}/{purpose}").getrandbits(63))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The generators that everybody draws from seeded, then as before."""
    before = states_everywhere()
    try:
        seed_everywhere(seed)
        yield
    finally:
        restore_everywhere(before)


def seed_everywhere(seed: int) -> None:
    """Seed the generators that everybody draws from: torch's on the CPU, numpy's and Python's."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def states_everywhere() -> dict[str, Any]:
    """Their states, as plain values and tensors."""
    numpys: Any = np.random.get_state()
    kind, keys, *rest = numpys
    return {"torch": torch.get_rng_state(), "numpy": [kind, keys.tolist(), *rest], "python": random.getstate()}


def restore_everywhere(states: Mapping[str, Any]) -> None:
    """Set them as `states_everywhere` found them."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(tuple(states["numpy"]))
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is in the hardware, and so faster than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported() and "avx512_bf16" in cpu_flags()


def cpu_flags() -> set[str]:
    """The processor's instruction sets, where the operating system tells."""
    return {flag for line in _cpuinfo("flags") + _cpuinfo("Features") for flag in line.split()}


def processor() -> str:
    """The processor's name, as far as the operating system tells."""
    return next(iter(_cpuinfo("model name")), platform.machine())


def _cpuinfo(entry: str) -> list[str]:
    """This entry of every core."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":")[1].strip() for line in lines if line.startswith(entry)]


@contextmanager
def noted_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM that come meanwhile only join the list."""
    noted: list[int] = []
    handlers = {each: signal.signal(each, lambda number, _: noted.append(number)) for each in STOPS}
    try:
        yield noted
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensor, as torch itself does on GPUs.

    glibc hands large blocks back to the system at once, and every step of an attack pays for fresh, zeroed pages:
    a third of the time of a wide MNIST network at batch 1,000.
    """
    trim_threshold, mmap_max = -1, -4  # mallopt's names for them, from <malloc.h>
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # another C library has other habits
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


class Processes:
    """The processes that torchrun started, or this one alone. All of them run the same code on their share of the work.

    Args:
        backend: "nccl" on GPUs, "gloo" on CPUs.
    """

    def __init__(self, backend: str) -> None:
        try:
            self.count, self.rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
            if self.count > 1 and not distributed.is_initialized():
                distributed.init_process_group(backend)
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"WORLD_SIZE is set, but not as torchrun does ({reason}); unset it, or use torchrun"
            ) from None
        # What the processes agree on is in main memory, so that no GPU is waited for; and they may wait long for each
        # other, as an evaluation's batches take longer on one than on another.
        patience = timedelta(hours=12)
        self.on_cpu: Any = distributed.new_group(backend="gloo", timeout=patience) if self.count > 1 else None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, x: Tensor) -> Tensor:
        """This process's part of a batch."""
        return x.tensor_split(self.count)[self.rank]

    def add(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def agree(self, signals: list[int]) -> int:
        """The signal to stop at, the same in every process if any of them has one; 0 for none."""
        signum = torch.tensor(max(signals, default=0))
        if self.count > 1:
            distributed.all_reduce(signum, distributed.ReduceOp.MAX, self.on_cpu)
        return int(signum)

    def gather(self, value: T) -> list[T]:
        """Every process's value, in order of rank, in every process. Also a meeting point."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value, group=self.on_cpu)
        return values


def part() -> None:
    """The processes part in peace: left to the interpreter's end, some abort (pytorch issue 190489).

    For success only: where one has failed, the others may be waiting for it, and parting would wait too.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@dataclass
class Runtime:
    """The device and how to use it.

    Args:
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        precision: of the training's forward passes: "auto" (what the recipe asks for, where the hardware has
            it), "float32" or "bfloat16". For measurements see evaluation.precision.
        threads: CPU threads; None leaves the choice to torch.
        deterministic: prefer operations whose result does not change from run to run.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.precision not in ("auto", *PRECISIONS):
            raise InputError(f"runtime.precision={self.precision}; choose auto, {' or '.join(PRECISIONS)}")
        if self.device == "auto":
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.torch_device = torch.device(self.device)
            if self.torch_device.type not in ("cpu", "cuda"):
                raise RuntimeError
        except RuntimeError:
            raise InputError(f"runtime.device={self.device} is no device; choose auto, cpu or cuda") from None
        if self.torch_device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"runtime.device={self.device}, but no GPU is visible here; use runtime.device=cpu or auto"
            )
        if self.torch_device.type == "cuda":
            gpus = torch.cuda.device_count()
            if self.torch_device.index is None:  # one GPU for each process that torchrun starts here
                local = int(os.environ.get("LOCAL_RANK", 0))
                if local >= gpus:
                    raise InputError(f"process {local + 1} of this machine has no GPU of its own; start at most {gpus}")
                self.torch_device = torch.device("cuda", local)
            elif self.torch_device.index >= gpus:
                raise InputError(f"runtime.device={self.device} is not there; the last GPU is cuda:{gpus - 1}")
            torch.cuda.set_device(self.torch_device)
            # float32 means float32: convolutions would otherwise round to 10 bits of mantissa (TF32).
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            # Batches keep their shape, so the fastest convolutions are looked for once.
            torch.backends.cudnn.benchmark = True
        else:
            keep_freed_memory()
        if self.threads is not None:
            whole(self.threads, "runtime.threads")
            torch.set_num_threads(self.threads)
        if self.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs for it
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.backends.cudnn.benchmark = False
        self.processes = Processes("nccl" if self.torch_device.type == "cuda" else "gloo")

    def training_dtype(self, recipe_precision: str) -> torch.dtype:
        """What the training's forward passes run in. Raises InputError if bfloat16 is demanded and slow here."""
        if self.precision == "bfloat16" and not has_fast_bfloat16(self.torch_device):
            raise InputError(
                f"runtime.precision=bfloat16, but this {self.torch_device.type} has no bfloat16 arithmetic"
            )
        if recipe_precision not in PRECISIONS:
            raise InputError(f"recipe.precision={recipe_precision}; choose {' or '.join(PRECISIONS)}")
        wanted = recipe_precision if self.precision == "auto" else self.precision
        if wanted == "bfloat16" and has_fast_bfloat16(self.torch_device):
            return torch.bfloat16
        return torch.float32

    def seed_dropout(self, seed: int) -> torch.Generator:
        """The generator that dropout layers draw from, which is the device's own, freshly seeded.

        It also seeds torch's CPU generator, numpy's and Python's, which code of your own may draw from.
        """
        device = self.torch_device
        own = torch.cuda.default_generators[device.index] if device.type == "cuda" else torch.default_generator
        drawn = generator(seed, f"dropout/{self.processes.rank}").initial_seed()
        seed_everywhere(drawn)
        return own.manual_seed(drawn)

    def autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Forward passes inside run in `dtype`; weights, images and steps stay float32."""
        return torch.autocast(self.torch_device.type, dtype=dtype, enabled=dtype != torch.float32)

    def peak_memory(self) -> int:
        """The most memory this process has held so far, in MiB: the GPU's, or main memory on a CPU."""
        if self.torch_device.type == "cuda":
            return torch.cuda.max_memory_reserved(self.torch_device) // 2**20
        status = Path("/proc/self/status")
        own = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
        if own:  # Linux, where ru_maxrss begins with what the parent process held
            return int(own[1]) // 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10

    def describe(self) -> str:
        """The device in words."""
        if self.torch_device.type == "cuda":
            return torch.cuda.get_device_name(self.torch_device)
        return f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def visible_gpus() -> list[str]:
    """The GPUs this process may use, each as CUDA_VISIBLE_DEVICES would name it alone."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named is not None else [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in names[: torch.cuda.device_count()]]


def provenance(runtime: Runtime) -> dict[str, str]:
    """Code version, library versions and device, as kept in every result."""
    return {
        "saddlepoint": version("saddlepoint"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": runtime.describe(),
    }


def _commit() -> str:
    """The git commit of this code, with "+" where it was edited since; "unknown" outside a checkout."""
    here = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

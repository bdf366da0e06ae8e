from __future__ import annotations

import platform
import random
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch

import saddlepoint.runtime
from saddlepoint.errors import InputError
from saddlepoint.runtime import Runtime, generator, has_fast_bfloat16, provenance, seeded

CPU = torch.device("cpu")


def draw(seed: int, purpose: str) -> list[float]:
    return torch.rand(3, generator=generator(seed, purpose)).tolist()


def test_generators_are_the_same_everywhere() -> None:
    assert draw(0, "init") == pytest.approx([0.5701, 0.6943, 0.4322], abs=1e-4)


def test_every_purpose_and_seed_has_a_generator_of_its_own() -> None:
    draws = {tuple(draw(seed, purpose)) for seed in (0, 1, 2) for purpose in ("init", "order", "augment", "attack")}
    assert len(draws) == 12
    assert draw(1, "order") == draw(1, "order")


def test_generators_leave_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    draw(0, "attack")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"runtime\.device=cuda, but no GPU is visible here; use runtime\.device=cpu"):
        Runtime("cuda")
    with pytest.raises(InputError, match=r"runtime\.device=cuda:1"):
        Runtime("cuda:1")
    assert Runtime("auto").torch_device == CPU


def test_a_gpu_beyond_the_last_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"runtime\.device=cuda:2 is not there; the last GPU is cuda:1"):
        Runtime("cuda:2")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 3 of this machine has no GPU of its own; start at most 2"):
        Runtime("cuda")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": "gpu"}, r"runtime\.device=gpu is no device; choose auto, cpu or cuda"),
        ({"precision": "float16"}, r"runtime\.precision=float16; choose auto, float32 or bfloat16"),
        ({"device": "cpu", "threads": 0}, r"runtime\.threads=0; expected a whole number of at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, str | int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Runtime(**settings)  # type: ignore[arg-type]


def test_threads_are_set_and_told() -> None:
    runtime = Runtime("cpu", threads=2)
    assert torch.get_num_threads() == 2
    assert runtime.describe() == f"CPU, 2 threads ({platform.machine()})"
    Runtime("cpu")
    assert torch.get_num_threads() == 2


def test_determinism_is_asked_of_torch() -> None:
    Runtime("cpu", deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    Runtime("cpu", deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("own", "recipe", "fast", "expected"),
    [
        ("auto", "float32", True, torch.float32),
        ("auto", "bfloat16", True, torch.bfloat16),
        ("auto", "bfloat16", False, torch.float32),
        ("float32", "bfloat16", True, torch.float32),
        ("bfloat16", "float32", True, torch.bfloat16),
    ],
)
def test_the_precision_is_the_recipes_where_the_hardware_has_it(
    monkeypatch: pytest.MonkeyPatch, own: str, recipe: str, fast: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(saddlepoint.runtime, "has_fast_bfloat16", lambda device: fast)
    assert Runtime("cpu", own).training_dtype(recipe) == expected


def test_bfloat16_demanded_of_slow_hardware_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saddlepoint.runtime, "has_fast_bfloat16", lambda device: False)
    with pytest.raises(InputError, match="this cpu has no bfloat16 arithmetic"):
        Runtime("cpu", "bfloat16").training_dtype("float32")


def test_bfloat16_is_fast_only_where_the_processor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saddlepoint.runtime, "cpu_flags", lambda: {"avx512f", "avx2"})
    assert not has_fast_bfloat16(CPU)
    assert not has_fast_bfloat16(torch.device("meta"))


def test_autocast_lowers_forward_passes_only_when_asked() -> None:
    runtime, x = Runtime("cpu"), torch.rand(2, 2)
    with runtime.autocast(torch.float32):
        assert (x @ x).dtype == torch.float32
    with runtime.autocast(torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16


def test_provenance_names_versions_and_device() -> None:
    told = provenance(Runtime("cpu"))
    assert told["torch"] == torch.__version__
    assert told["saddlepoint"] == version("saddlepoint")
    assert told["python"] == platform.python_version()
    assert told["device"] == Runtime("cpu").describe()
    commit = told["commit"].removesuffix("+")
    assert commit == "unknown" or (len(commit) == 12 and int(commit, 16) >= 0)


def test_whatever_is_drawn_is_seeded_and_goes_on_as_before() -> None:
    def drawn() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    with seeded(0):
        undisturbed = [drawn(), drawn()]
    inside = []
    with seeded(0):
        around = [drawn()]
        for seed in (2**62 + 1, 2**62 + 1, 5):
            with seeded(seed):
                inside.append(drawn())
        around.append(drawn())
    assert around == undisturbed
    assert inside[0] == inside[1] and not set(inside[0]) & set(inside[2])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries manage memory in other ways")
def test_freed_memory_is_kept_for_the_next_tensor() -> None:
    """Counted in a process of its own: the pages that 64 MiB need anew, before and after."""
    code = (
        "import resource, torch\n"
        "from saddlepoint.runtime import Runtime\n"
        "def fresh():\n"
        "    for _ in range(20): torch.ones(2**24)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(2**24)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "before = fresh()\n"
        "Runtime('cpu')\n"
        "print(before, fresh())\n"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, outcome.stdout.split())
    assert before > 2 * after


def test_peak_memory_is_this_programs_own() -> None:
    """Not the parent's, which Linux counts in ru_maxrss of the programs it starts: make reproduce starts trainings."""
    held = torch.ones(800, 2**20, dtype=torch.uint8)
    assert Runtime(device="cpu").peak_memory() > 800
    command = "from saddlepoint.runtime import Runtime; print(Runtime(device='cpu').peak_memory())"
    started = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert 50 < int(started.stdout) < 800
    assert len(held) == 800  # while it ran

"""make's set-up of .venv: which Python it takes, and what an interruption leaves. Python and pip are fakes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import ROOT

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("make", "bash", "flock"))), reason="needs make, bash and flock"
)

TOOLS = ("make", "sh", "bash", "dirname", "flock", "rm", "mv", "cp", "mkdir", "touch", "awk", "grep", "tail", "sleep")
# A Python of version VERSION. `-m pip` writes a line for each call, then does what the file pip.does says.
PYTHON = """#!/bin/sh
case "$*" in
    *sys.version_info*) echo VERSION ;;
    *ensurepip*) exit HAS_VENV ;;
    "-m venv .venv") mkdir -p .venv/bin .venv/lib; [ "$0" -ef .venv/bin/python ] || cp "$0" .venv/bin/python ;;
    "-m pip "*) echo VERSION >> pip.calls; . ./pip.does ;;
esac
"""
INSTALL = "echo 'Installing collected packages: torch'; echo whole > .venv/lib/torch"
KILLED_IN_THE_MIDDLE = "echo 'Installing collected packages: torch'; echo half > .venv/lib/torch; exec sleep 60"
NO_NETWORK = "echo 'ERROR: No matching distribution found for torch' >&2; exit 1"
NO_SPACE = (
    "echo 'Installing collected packages: torch'; echo 'ERROR: [Errno 28] No space left on device: x' >&2; exit 1"
)


class Checkout:
    """A copy of the Makefile, where only fake Pythons are on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.venv = folder, folder / "bin", folder / ".venv"
        self.bin.mkdir()
        (folder / "scripts/dev").mkdir(parents=True)
        for name in ("Makefile", "requirements.txt", "pyproject.toml", "scripts/dev/set_up.sh"):
            shutil.copy2(ROOT / name, folder / name)
        for tool in TOOLS:
            path = shutil.which(tool)
            assert path
            (self.bin / tool).symlink_to(path)
        self.free(100)
        self.pip(INSTALL)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def python(self, name: str, version: str, venv: bool = True) -> None:
        self.program(name, PYTHON.replace("VERSION", version).replace("HAS_VENV", "0" if venv else "1"))

    def free(self, gigabytes: float) -> None:
        self.program("df", f"#!/bin/sh\necho header\necho disk 0 0 {round(gigabytes * 1e9 / 1024)} 0% /\n")

    def pip(self, does: str) -> None:
        (self.folder / "pip.does").write_text(does)

    @property
    def pip_calls(self) -> list[str]:
        """The version of the Python of each call of pip."""
        calls = self.folder / "pip.calls"
        return calls.read_text().split() if calls.exists() else []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["make", ".venv/ready", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin), "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def make(self, *arguments: str) -> tuple[int, str]:
        """Status and what stood on standard error, without make's own line."""
        process = self.start(*arguments)
        _, err = process.communicate(timeout=30)
        return process.returncode, "".join(line for line in err.splitlines(True) if not line.startswith("make"))

    def refused(self, *arguments: str) -> str:
        status, err = self.make(*arguments)
        assert status == 2
        assert err.startswith("error: ") and err.count("\n") == 1
        assert not (self.venv / "ready").exists()
        return err

    def ready(self, *arguments: str) -> None:
        assert self.make(*arguments) == (0, "")
        assert (self.venv / "ready").exists() and (self.venv / "lib/torch").read_text() == "whole\n"
        calls = self.pip_calls
        assert self.make() == (0, "") and self.pip_calls == calls  # nothing is left to do


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": "3.11"}, "3.11"),
        ({"python3": "3.14", "python3.12": "3.12"}, "3.12"),
        ({"python3": "3.10", "python3.11": "3.11", "python3.13": "3.13"}, "3.13"),
        ({"python3.13": "3.13 without venv", "python3.12": "3.12"}, "3.12"),
        ({"python3.13": "broken", "python3.11": "3.11"}, "3.11"),  # as pyenv's shims are
    ],
)
def test_the_first_python_that_fits_is_taken(checkout: Checkout, pythons: dict[str, str], taken: str) -> None:
    for name, version in pythons.items():
        if version == "broken":
            checkout.program(name, "#!/bin/sh\necho not installed >&2\nexit 127\n")
        else:
            checkout.python(name, version.split()[0], venv=" without" not in version)
    checkout.ready()
    assert checkout.pip_calls == [taken]


@pytest.mark.parametrize("pythons", [{}, {"python3": "3.10"}, {"python3": "3.14", "python3.14": "3.14"}])
def test_without_a_fit_python_nothing_is_made(checkout: Checkout, pythons: dict[str, str]) -> None:
    for name, version in pythons.items():
        checkout.python(name, version)
    assert pythons.get("python3", "python3.13") in checkout.refused()
    assert not checkout.venv.exists()


def test_a_python_without_venv_is_refused(checkout: Checkout) -> None:
    checkout.python("python3", "3.12", venv=False)
    assert "python3.12-venv" in checkout.refused()


def test_the_python_that_is_named_is_the_only_one_tried(checkout: Checkout) -> None:
    checkout.python("python3.13", "3.13")
    checkout.python("other", "3.14")
    assert "3.14" in checkout.refused("PYTHON=other")
    assert "nowhere" in checkout.refused("PYTHON=nowhere")
    checkout.python("other", "3.11")
    checkout.ready("PYTHON=other")
    assert checkout.pip_calls == ["3.11"]


def test_a_full_disk_is_seen_before(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    checkout.free(6.5)
    assert "6.5 GB" in checkout.refused()
    assert not checkout.venv.exists()
    checkout.free(7.5)
    checkout.ready()


@pytest.mark.parametrize(("failure", "named"), [(NO_NETWORK, "PyPI"), (NO_SPACE, "/tmp"), ("exit 1", ".venv/pip.log")])
def test_a_failure_of_pip_is_one_line_and_the_next_call_succeeds(checkout: Checkout, failure: str, named: str) -> None:
    checkout.python("python3", "3.12")
    checkout.pip(failure)
    assert named in checkout.refused()
    assert named in checkout.refused()
    if "ERROR" in failure:
        assert "ERROR" in (checkout.venv / "pip.log").read_text()
    checkout.pip(INSTALL)
    checkout.ready()


def test_a_failed_update_keeps_the_packages_and_is_repeated(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    checkout.ready()
    requirements = checkout.folder / "requirements.txt"
    os.utime(requirements, (time.time() + 1, time.time() + 1))
    checkout.pip(NO_NETWORK)
    checkout.refused()
    assert (checkout.venv / "lib/torch").exists()
    os.utime(requirements, (time.time() - 1, time.time() - 1))
    checkout.pip("[ -e .venv/lib/torch ]")  # an update of what is there, not a new set-up
    checkout.ready()


def test_a_set_up_that_was_killed_starts_over(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    checkout.pip(KILLED_IN_THE_MIDDLE)
    process = checkout.start()
    wait_until((checkout.venv / "lib/torch").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (checkout.venv / "ready").exists()
    checkout.pip("[ ! -e .venv/lib/torch ] || exit 1; " + INSTALL)
    checkout.ready()


def test_a_pip_that_outlives_make_is_waited_for(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    checkout.pip("echo $$ > pip.pid; " + KILLED_IN_THE_MIDDLE)
    process = checkout.start()
    wait_until((checkout.venv / "lib/torch").exists)
    pip = int((checkout.folder / "pip.pid").read_text())
    try:
        checkout.refused()  # while make runs
        process.kill()
        process.wait()
        checkout.refused()  # while pip does
        assert (checkout.venv / "lib/torch").read_text() == "half\n"
    finally:
        os.kill(pip, signal.SIGKILL)
        process.communicate()
    checkout.pip(INSTALL)
    wait_until(lambda: checkout.make()[0] == 0)
    checkout.ready()


def test_a_deletion_that_was_killed_leaves_nothing_ready(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    (checkout.venv / "lib").mkdir(parents=True)  # as after rm -rf .venv, interrupted: no bin
    (checkout.venv / "lib/torch").write_text("half\n")
    checkout.pip("[ ! -e .venv/lib/torch ] || exit 1; " + INSTALL)
    checkout.ready()


def test_a_venv_of_the_users_own_is_used_where_its_python_fits(checkout: Checkout) -> None:
    checkout.python("python3", "3.12")
    (checkout.venv / "lib").mkdir(parents=True)
    (checkout.venv / "bin").mkdir()
    mine = checkout.venv / "lib/mine"
    mine.touch()
    for version, fits in (("3.14", False), ("3.13", True)):
        checkout.python("model", version)
        shutil.copy2(checkout.bin / "model", checkout.venv / "bin/python")
        if fits:
            checkout.ready()
        else:
            assert version in checkout.refused()
        assert mine.exists()
    assert checkout.pip_calls == ["3.13"]

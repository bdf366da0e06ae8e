from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import runpy
import sys
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from saddlepoint.errors import InputError
from saddlepoint.files import sha256
from saddlepoint.models import CNN
from saddlepoint.training.checkpoint import SEAL, RunDirectory, in_eight_bits, read_weights, write_weights

CPU = torch.device("cpu")


def other_weights() -> CNN:
    return CNN(1, image_size=4, classes=2, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def path(directory: RunDirectory, network: CNN) -> Path:
    write_weights(directory.weights("last"), network, {"dataset": "tiny", "step": "7"})
    return directory.weights("last")


def test_weights_and_metadata_come_back(path: Path, network: CNN) -> None:
    loaded = other_weights()
    assert read_weights(path, loaded) == {"dataset": "tiny", "step": "7"}
    for name, tensor in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_same_weights_and_metadata_make_the_same_bytes(path: Path, network: CNN) -> None:
    metadata = {name: name for name in ("dataset", "model", "training", "recipe", "seed", "commit", "checkpoint")}
    contents = set()
    for _ in range(8):
        write_weights(path, network, metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_buffers_come_back_too(path: Path, batch_norm_network: nn.Sequential) -> None:
    write_weights(path, batch_norm_network, {})
    fresh = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    read_weights(path, fresh)
    assert torch.equal(fresh[1].running_mean, batch_norm_network[1].running_mean)
    assert fresh[1].num_batches_tracked == 1


def test_a_layer_under_two_names_comes_back_under_both(path: Path) -> None:
    """Which safetensors by itself refuses to write."""

    def tied() -> nn.Sequential:
        layer = nn.Linear(16, 16)
        return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)

    model, again, x = tied(), tied(), torch.rand(3, 1, 4, 4)
    write_weights(path, model, {})
    read_weights(path, again)
    assert again[1] is again[3]
    assert torch.equal(again(x), model(x))


def test_a_missing_checkpoint_is_named(tmp_path: Path, network: CNN) -> None:
    with pytest.raises(InputError, match=f"no checkpoint at {tmp_path / 'last.safetensors'}"):
        read_weights(tmp_path / "last.safetensors", network)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100, b"x" * 10000])
def test_garbage_is_refused(path: Path, network: CNN, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path} is damaged or no safetensors file"):
        read_weights(path, network)


@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_a_truncated_checkpoint_is_refused(path: Path, part: float) -> None:
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    loaded = other_weights()
    with pytest.raises(InputError, match="is damaged"):
        read_weights(path, loaded)
    assert torch.equal(loaded.fc2.weight, other_weights().fc2.weight)


@pytest.mark.parametrize(
    ("model", "difference"),
    [
        (CNN(2, image_size=4, classes=2), r"conv1\.weight is \[2, 1, 5, 5\] in the file and \[4, 1, 5, 5\]"),
        (nn.Linear(3, 2), r"weight is absent in the file and \[2, 3\] in the configured model"),
        (nn.Flatten(), r"conv1\.bias is \[2\] in the file and absent in the configured model"),
    ],
)
def test_weights_of_another_network_are_refused(path: Path, model: nn.Module, difference: str) -> None:
    with pytest.raises(InputError, match=f"holds another network: {difference}"):
        read_weights(path, model)


@pytest.fixture
def eight_bits(path: Path) -> dict[str, torch.Tensor]:
    """What the file holds once it is in eight bits."""
    tensors = in_eight_bits(safetensors.torch.load(path.read_bytes()))
    path.write_bytes(safetensors.torch.save(tensors))
    return tensors


def test_eight_bits_move_a_weight_by_at_most_half_its_outputs_scale(
    path: Path, network: CNN, eight_bits: dict[str, torch.Tensor]
) -> None:
    loaded = other_weights()
    read_weights(path, loaded)
    for name, tensor in network.state_dict().items():
        moved = (loaded.state_dict()[name] - tensor).flatten(1 if tensor.ndim > 1 else 0).abs()
        if tensor.ndim > 1:
            assert eight_bits[name].dtype == torch.int8
            largest = tensor.flatten(1).abs().amax(1, keepdim=True)
            assert (moved <= 1.001 * largest / 254).all(), name
            assert moved.any(), name
        else:
            assert not moved.any(), name


def test_the_script_makes_a_run_smaller_and_says_so(
    path: Path, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.weights("best").write_bytes(path.read_bytes())
    directory.finish({"best_sha256": "x", "last_sha256": "x", "averaged_sha256": "x", "steps": 7})  # one is deleted
    before = path.stat().st_size
    monkeypatch.setattr(sys, "argv", ["eight_bits.py", str(directory.path)])
    for _ in range(2):  # again it changes nothing
        runpy.run_path("scripts/dev/eight_bits.py", run_name="__main__")
        written = {"last_sha256": sha256(path), "best_sha256": sha256(directory.weights("best"))}
        assert directory.read_summary() == {"steps": 7, "bits": 8, **written}
        for checkpoint in ("last", "best"):
            smaller = directory.weights(checkpoint)
            assert smaller.stat().st_size < before
            assert read_weights(smaller, other_weights()) == {"dataset": "tiny", "step": "7"}


def test_an_output_without_weights_survives_eight_bits() -> None:
    made = in_eight_bits({"weight": torch.tensor([[0.0, 0.0], [127.0, -64.0]])})
    assert made["weight"].tolist() == [[0, 0], [127, -64]]
    assert made["weight.scale"][1] == 1


def test_eight_bits_of_another_network_are_refused(path: Path, eight_bits: dict[str, torch.Tensor]) -> None:
    with pytest.raises(InputError, match=r"conv1\.weight is \[2, 1, 5, 5\] in the file and \[4, 1, 5, 5\]"):
        read_weights(path, CNN(2, image_size=4, classes=2))
    del eight_bits["fc2.weight.scale"]
    path.write_bytes(safetensors.torch.save(eight_bits))
    with pytest.raises(InputError, match=r"fc2\.weight\.scale is absent in the file and \[2\] in the configured"):
        read_weights(path, other_weights())


def test_files_in_half_precision_are_widened(path: Path, network: CNN) -> None:
    half = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    path.write_bytes(safetensors.torch.save(half))
    loaded = other_weights()
    assert read_weights(path, loaded) == {}
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, half[name].float()), name


def test_a_state_comes_back(directory: RunDirectory) -> None:
    state = {"step": 3, "rows": [{"loss": 0.5}], "window": torch.arange(4.0), "best": -1.0}
    directory.write_state(state)
    read = directory.read_state()
    assert read is not None
    assert torch.equal(read.pop("window"), state.pop("window"))
    assert read == state
    assert [path.name for path in directory.path.iterdir()] == ["state.pt"]


def test_a_state_without_a_checksum_is_damaged(directory: RunDirectory) -> None:
    directory.path.mkdir(parents=True)
    torch.save({"step": 3}, directory.state)
    with pytest.raises(InputError, match=r"state\.pt is damaged; overwrite=true trains from the start"):
        directory.read_state()


def damaged_copies(content: bytes) -> list[bytes]:
    """One bit flipped, in every hundredth byte and all over the header, and cuts anywhere."""
    places = [*range(100), *range(100, len(content), 101)]
    flipped = [content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :] for place in places]
    return [*flipped, *(content[:length] for length in range(0, len(content), 503))]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_every_damage_is_noticed_and_the_state_before_used(
    directory: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3):
        directory.write_state({"step": step, "model": torch.rand(500)})
    assert sorted(path.name for path in directory.path.iterdir()) == ["previous.pt", "state.pt"]
    whole = directory.state.read_bytes()
    for content in damaged_copies(whole):
        directory.state.write_bytes(content)
        caplog.clear()
        state = directory.read_state()
        assert state is not None and state["step"] == 2
        assert f"{directory.state} is damaged; using the state before" in caplog.text
    directory.state.write_bytes(whole)
    state = directory.read_state()
    assert state is not None and state["step"] == 3


def test_the_state_before_serves_where_the_newer_is_missing(
    directory: RunDirectory, caplog: pytest.LogCaptureFixture
) -> None:
    """As a kill between the two renames leaves it."""
    for step in (1, 2):
        directory.write_state({"step": step})
    directory.state.unlink()
    assert directory.read_state() == {"step": 1}
    assert "is missing; using the state before" in caplog.text


def test_both_states_damaged_is_an_error(directory: RunDirectory) -> None:
    for step in (1, 2):
        directory.write_state({"step": step})
    for path in (directory.state, directory.previous):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{directory.state} and {directory.previous} are damaged; overwrite=true"):
        directory.read_state()


def test_a_disk_that_alters_what_it_is_given_is_noticed(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write_state({"step": 1})
    fsync = os.fsync

    def lose_the_end(descriptor: int) -> None:
        fsync(descriptor)
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1)

    monkeypatch.setattr(os, "fsync", lose_the_end)
    with pytest.raises(InputError, match="does not read back as it was written; check the disk"):
        directory.write_state({"step": 2})
    assert directory.read_state() == {"step": 1}


def test_no_state_is_none(directory: RunDirectory) -> None:
    assert directory.read_state() is None


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04garbage", b"PK\x03\x04" + b"x" * 100])
def test_a_state_of_garbage_is_refused(directory: RunDirectory, content: bytes) -> None:
    directory.path.mkdir(parents=True)
    directory.state.write_bytes(content)
    with pytest.raises(InputError, match=f"{directory.state} is damaged; overwrite=true"):
        directory.read_state()


@pytest.mark.parametrize("part", [0.001, 0.5, 0.999])
def test_a_truncated_state_is_refused(directory: RunDirectory, part: float) -> None:
    directory.write_state({"model": torch.rand(1000)})
    directory.state.write_bytes(directory.state.read_bytes()[: int(part * directory.state.stat().st_size)])
    with pytest.raises(InputError, match="is damaged"):
        directory.read_state()


@pytest.mark.parametrize("content", ["a flipped byte", b"\x80\x02h\x05.", b"just some text\n" * 9])
def test_a_state_with_any_other_damage_is_refused(directory: RunDirectory, content: bytes | str) -> None:
    directory.write_state({"step": 3})
    whole = directory.state.read_bytes()
    directory.state.write_bytes(content if isinstance(content, bytes) else whole.replace(b"step", b"\xffste"))
    assert directory.state.read_bytes() != whole
    with pytest.raises(InputError, match="is damaged"):
        directory.read_state()


def sealed(content: bytes) -> bytes:
    """As a stranger would, who wants it to be read."""
    return SEAL + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


class Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_payload_in_a_state_is_refused_and_not_run(directory: RunDirectory, tmp_path: Path, zipped: bool) -> None:
    payload = Payload(f"touch {tmp_path / 'ran'}")
    directory.path.mkdir(parents=True)
    content = io.BytesIO(pickle.dumps({"model": payload}))
    if zipped:
        torch.save({"model": payload}, content)
    directory.state.write_bytes(sealed(content.getvalue()))
    with pytest.raises(InputError, match="is damaged"):
        directory.read_state()
    assert not (tmp_path / "ran").exists()
    content.seek(0)
    torch.load(content, weights_only=False) if zipped else pickle.load(content)
    assert (tmp_path / "ran").exists()  # the payload would have worked


def header_of_a_giant() -> bytes:
    """A safetensors file whose header promises 10^12 numbers, in few bytes."""
    header = {"conv1.weight": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)


@pytest.mark.parametrize("content", [header_of_a_giant(), (10**12).to_bytes(8, "little") + b"{}"])
def test_weights_that_claim_to_be_giants_are_refused(path: Path, network: CNN, content: bytes) -> None:
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        read_weights(path, network)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_state_that_claims_to_be_a_giant_is_refused(directory: RunDirectory) -> None:
    directory.path.mkdir(parents=True)
    content = io.BytesIO()
    torch.save({"model": torch.zeros(10, dtype=torch.uint8)}, content)
    giant = io.BytesIO()
    with zipfile.ZipFile(content) as small, zipfile.ZipFile(giant, "w") as large:
        for name in small.namelist():
            data = small.read(name)
            # In the pickle: K\n is the number 10, \x8a\x05 ... one of five bytes, 10^11.
            large.writestr(name, data.replace(b"K\n", b"\x8a\x05" + (10**11).to_bytes(5, "little")))
    directory.state.write_bytes(sealed(giant.getvalue()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="is damaged"):
        directory.read_state()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_finishing_writes_the_summary_and_removes_the_state(directory: RunDirectory) -> None:
    for step in (1, 2):
        directory.write_state({"step": step})
    assert not directory.finished
    directory.finish({"steps": 20, "train_loss": 0.25})
    assert directory.finished
    assert [path.name for path in directory.path.iterdir()] == ["training.json"]
    assert directory.read_summary() == {"steps": 20, "train_loss": 0.25}


def test_a_damaged_summary_is_refused(directory: RunDirectory) -> None:
    directory.finish({"steps": 20})
    directory.summary.write_text(directory.summary.read_text()[:5])
    with pytest.raises(InputError, match=f"{directory.summary} is not valid JSON"):
        directory.read_summary()


def test_a_directory_is_held_by_one_training_alone(directory: RunDirectory) -> None:
    with directory.hold():
        message = f"{directory.path} is held by process {os.getpid()}"
        with pytest.raises(InputError, match=message), RunDirectory(directory.path).hold():
            raise AssertionError("held twice")
    with directory.hold():  # free again, and again after an error
        pass
    with pytest.raises(KeyError), directory.hold():
        raise KeyError
    with directory.hold():
        pass


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=f"cannot write to {tmp_path / 'file' / 'run'}"),
        RunDirectory(tmp_path / "file" / "run").hold(),
    ):
        raise AssertionError("held in a file")

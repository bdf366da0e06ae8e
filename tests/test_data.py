from __future__ import annotations

import hashlib
import pickle
import shutil
import zipfile
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import CIFAR10

import saddlepoint.data
from saddlepoint.data import Batches, CropFlip, Data, Split, fingerprint, load, load_own
from saddlepoint.errors import InputError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", "nowhere", 197)


def test_digits_has_the_documented_sizes(digits: Data) -> None:
    assert [len(split) for split in (digits.train, digits.validation, digits.test)] == [1100, 197, 500]
    assert digits.train.pixels.shape == (1100, 1, 8, 8)
    assert (digits.train.pixels.dtype, digits.train.labels.dtype) == (torch.uint8, torch.int64)


def test_digits_splits_are_all_of_it_once(digits: Data) -> None:
    rows = [
        torch.cat([split.pixels.flatten(1).long(), split.labels[:, None]], 1)
        for split in (digits.train, digits.validation, digits.test)
    ]
    bunch = load_digits()
    expected = np.concatenate([bunch.data.astype(int), bunch.target[:, None]], 1)
    assert sorted(torch.cat(rows).tolist()) == sorted(expected.tolist())


def test_digits_splits_are_the_same_everywhere(digits: Data) -> None:
    assert digits.test.labels[:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    assert digits.test.labels.bincount().min() > 30  # shuffled: every class is there


def test_digits_images_are_sixteenths(digits: Data) -> None:
    x = digits.train.images(slice(0, 5))
    assert x.dtype == torch.float32
    assert torch.equal(16 * x, digits.train.pixels[:5].float())
    assert digits.train.images(slice(None)).max() == 1


def test_a_split_is_taken_and_batched_in_order(data: Data) -> None:
    split = data.test.take(5)
    assert len(split) == 5
    assert len(data.test.take(None)) == len(data.test)
    starts, images, labels = zip(*split.batches(2), strict=True)
    assert starts == (0, 2, 4)
    assert [len(x) for x in images] == [2, 2, 1]
    assert torch.equal(torch.cat(images), data.test.pixels[:5] / 16)
    assert torch.equal(torch.cat(labels), data.test.labels[:5])


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown dataset 'imagenet'; choose digits, mnist, cifar10"):
        load("imagenet", tmp_path, 10)


@pytest.mark.parametrize("held_out", [0, -1, 1297])
def test_holding_out_nothing_or_everything_is_refused(held_out: int) -> None:
    with pytest.raises(InputError, match=r"dataset\.data\.held_out=.*expected between 1 and 1296"):
        load("digits", "nowhere", held_out)


def idx(values: np.ndarray) -> bytes:
    """MNIST's file format: magic number, big-endian sizes, bytes."""
    return bytes([0, 0, 8, values.ndim]) + np.asarray(values.shape, ">i4").tobytes() + values.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Four images to train on and two to test on, in MNIST's format, taken for the published files."""
    random = np.random.default_rng(0)
    arrays = {}
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 4), ("t10k", 2)):
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, count, np.uint8)
    for name, values in arrays.items():
        (folder / name).write_bytes(idx(values))
        monkeypatch.setitem(saddlepoint.data.MNIST_MD5, name, hashlib.md5(idx(values)).hexdigest())
    return arrays


def test_mnist_is_read_and_its_first_images_held_out(tmp_path: Path, tiny_mnist: dict[str, np.ndarray]) -> None:
    data = load("mnist", tmp_path, 1)
    images, labels = tiny_mnist["train-images-idx3-ubyte"], tiny_mnist["train-labels-idx1-ubyte"]
    assert np.array_equal(data.validation.pixels.numpy(), images[:1, None])
    assert np.array_equal(data.train.pixels.numpy(), images[1:, None])
    assert data.train.labels.tolist() == labels[1:].tolist()
    assert np.array_equal(data.test.pixels.numpy(), tiny_mnist["t10k-images-idx3-ubyte"][:, None])
    assert data.test.labels.tolist() == tiny_mnist["t10k-labels-idx1-ubyte"].tolist()
    torch.testing.assert_close(data.test.images(slice(0, 1)), data.test.pixels[:1] / 255)


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_mnist_file_is_named(tmp_path: Path, tiny_mnist: dict[str, np.ndarray], name: str) -> None:
    path = tmp_path / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path} is not the published file") as error:
        load("mnist", tmp_path, 1)
    assert "delete it" in str(error.value)


def test_mnist_files_of_somebody_else_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in saddlepoint.data.MNIST_MD5:
        (folder / name).write_bytes(idx(np.zeros((4, 28, 28), np.uint8)))
    with pytest.raises(InputError, match="train-images-idx3-ubyte is not the published file"):
        load("mnist", tmp_path, 1)


@pytest.fixture
def tiny_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Two training files of two images and a test file of one, taken for the published files."""
    random = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    arrays, sums = {}, {}
    for name, count in (("data_batch_1", 2), ("data_batch_2", 2), ("test_batch", 1)):
        arrays[name] = random.integers(0, 256, (count, 3072), np.uint8)
        (folder / name).write_bytes(pickle.dumps({"data": arrays[name], "labels": [count, 3, 4][:count]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": ["x"] * 10}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in ("data_batch_1", "data_batch_2")])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    return arrays


def test_cifar10_is_read_in_channel_order(tmp_path: Path, tiny_cifar10: dict[str, np.ndarray]) -> None:
    data = load("cifar10", tmp_path, 1)
    rows = np.concatenate([tiny_cifar10["data_batch_1"], tiny_cifar10["data_batch_2"]])
    pixels = rows.reshape(4, 3, 32, 32)  # the files hold the red plane, then the green, then the blue
    assert np.array_equal(data.validation.pixels.numpy(), pixels[:1])
    assert np.array_equal(data.train.pixels.numpy(), pixels[1:])
    assert data.train.labels.tolist() == [3, 2, 3]
    assert np.array_equal(data.test.pixels.numpy(), tiny_cifar10["test_batch"].reshape(1, 3, 32, 32))


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_damaged_cifar10_file_is_named(tmp_path: Path, tiny_cifar10: dict[str, np.ndarray], name: str) -> None:
    path = tmp_path / CIFAR10.base_folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{path} is not the published file"):
        load("cifar10", tmp_path, 1)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_without_network_the_message_names_the_data_set_that_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def no_network(*arguments: object, **options: object) -> None:
        raise URLError("Name or service not known")

    module = torchvision.datasets.mnist if name == "mnist" else torchvision.datasets.cifar
    monkeypatch.setattr(module, "download_and_extract_archive", no_network)
    with pytest.raises(InputError, match=f"^{name} is not under {tmp_path}.*dataset=digits") as error:
        load(name, tmp_path, 1)
    assert "\n" not in str(error.value)


def slow_crop_flip(x: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Image by image, with the same draws."""
    count, _, height, width = x.shape
    rows = torch.randint(2 * padding + 1, (count, 1), generator=generator).flatten().tolist()
    columns = torch.randint(2 * padding + 1, (count, 1), generator=generator).flatten().tolist()
    flipped = (torch.rand(count, 1, generator=generator) < 0.5).flatten().tolist() if flip else [False] * count
    images = []
    for image, row, column, mirror in zip(x.numpy(), rows, columns, flipped, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
        crop = padded[:, row : row + height, column : column + width]
        images.append(crop[:, :, ::-1] if mirror else crop)
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize(("padding", "flip"), [(2, True), (1, False), (0, True), (0, False)])
def test_crop_and_flip_is_the_slow_one(padding: int, flip: bool) -> None:
    x = torch.rand(40, 3, 6, 5, generator=seeded(0))
    augmented = CropFlip(padding, flip)(x, seeded(7))
    assert torch.equal(augmented, slow_crop_flip(x, padding, flip, seeded(7)))
    assert torch.equal(augmented, CropFlip(padding, flip)(x, seeded(7)))
    assert torch.equal(augmented, x) == (padding == 0 and not flip)
    assert torch.equal(augmented, CropFlip(padding, flip)(x, seeded(8))) == (padding == 0 and not flip)


def test_the_papers_augmentation_is_two_pixels_a_side_and_half_of_the_images_flipped() -> None:
    image = torch.arange(1.0, 37).reshape(1, 1, 6, 6)
    augmented = CropFlip()(image.expand(4000, 1, 6, 6), seeded(0))
    shown = {tuple(each.flatten().tolist()) for each in augmented}
    assert len(shown) == 2 * 5 * 5
    inner = augmented[:, 0, 2:4, 2:4]
    mirrored = (inner[:, 0, 0] > inner[:, 0, 1]).float().mean().item()
    assert mirrored == pytest.approx(0.5, abs=0.03)


def numbered(count: int) -> Split:
    """Every image shows its label."""
    labels = torch.arange(count)
    return Split(labels.to(torch.uint8).reshape(-1, 1, 1, 1).expand(count, 1, 2, 2).contiguous(), labels, 100)


def test_every_epoch_is_a_new_permutation_without_its_last_short_batch() -> None:
    batches = Batches(numbered(10), 3, seeded(0))
    assert batches.per_epoch == 3
    epochs = [torch.cat([batches.next()[1] for _ in range(3)]).tolist() for _ in range(20)]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert {label for epoch in epochs for label in epoch} == set(range(10))


def test_an_epoch_of_full_batches_leaves_nothing_out() -> None:
    batches = Batches(numbered(9), 3, seeded(0))
    for _ in range(5):
        assert sorted(torch.cat([batches.next()[1] for _ in range(3)]).tolist()) == list(range(9))


def test_images_and_labels_belong_together() -> None:
    x, y = Batches(numbered(10), 4, seeded(0)).next()
    assert x.shape == (4, 1, 2, 2)
    torch.testing.assert_close(100 * x[:, 0, 1, 1], y.float())


def test_the_order_follows_the_generator() -> None:
    first, again, other = (Batches(numbered(50), 50, seeded(seed)).next()[1].tolist() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("taken", [0, 1, 3, 4])
def test_the_stream_goes_on_exactly(taken: int) -> None:
    def stream() -> Batches:
        return Batches(numbered(10), 3, seeded(0), CropFlip(1), seeded(1))

    batches = stream()
    for _ in range(taken):
        batches.next()
    assert batches.augment is not None
    state = batches.state_dict(), batches.order.get_state(), batches.augment.get_state()

    resumed = stream()
    assert resumed.augment is not None
    resumed.load_state_dict(state[0])
    resumed.order.set_state(state[1])
    resumed.augment.set_state(state[2])
    for _ in range(7):
        for here, there in zip(batches.next(), resumed.next(), strict=True):
            assert torch.equal(here, there)


@pytest.mark.parametrize(
    ("augmentation", "named"),
    [
        (lambda x: x, "TypeError"),  # no generator
        (lambda x, generator: x[0], r"\(1, 4, 4\)"),
        (lambda x, generator: 2 * x - 1, r"not in \[0, 1\]"),
        (lambda x, generator: None, "NoneType"),
    ],
    ids=["without a generator", "one image", "normalised", "nothing"],
)
def test_an_augmentation_has_to_make_images_of_images(augmentation: Any, named: str) -> None:
    split = Split(torch.randint(256, (6, 1, 4, 4), dtype=torch.uint8), torch.arange(6), 255)
    with pytest.raises(InputError, match=f"dataset.augmentation .*{named}"):
        Batches(split, 2, torch.Generator(), augmentation, torch.Generator())


@pytest.mark.parametrize("size", [0, -1, 11])
def test_impossible_batch_sizes_are_refused(size: int) -> None:
    with pytest.raises(InputError, match=r"recipe\.batch_size=.*expected between 1 and the 10 training images"):
        Batches(numbered(10), size, seeded(0))


def own_arrays(count: int = 20) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (count, 4, 6, 3), np.uint8), np.arange(count) % 3
    x[:, 0, 0, 0] = np.arange(count)  # an image says which it is
    return {"x_train": x, "y_train": y, "x_test": x[:6, ...], "y_test": y[:6].astype(np.uint8)}


def test_an_npz_of_ones_own(tmp_path: Path) -> None:
    arrays = own_arrays()
    np.savez(tmp_path / "own.npz", **arrays)
    data = load_own(tmp_path / "own.npz", 0.1, 3)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [18, 2, 6]
    assert (data.classes, data.train.pixel_max) == (3, 255)
    for split in (data.train, data.validation, data.test):
        index = split.pixels[:, 0, 0, 0].tolist()
        assert index != sorted(index) or len(index) < 3  # shuffled, but with its label
        assert np.array_equal(split.pixels.permute(0, 2, 3, 1).numpy(), arrays["x_train"][index])
        assert split.labels.tolist() == arrays["y_train"][index].tolist()
    again = load_own(tmp_path / "own.npz", 0.1, 3)
    assert torch.equal(again.train.pixels, data.train.pixels)


def test_grey_images_of_ones_own_get_a_channel(tmp_path: Path) -> None:
    arrays = own_arrays()
    arrays |= {name: arrays[name][..., 0] for name in ("x_train", "x_test")}
    np.savez(tmp_path / "own.npz", **arrays)
    assert load_own(tmp_path / "own.npz", 0.1, 3).train.pixels.shape == (18, 1, 4, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x_train": None}, "has no x_train and y_train; expected x_train, y_train, x_test and y_test"),
        ({"y_test": None}, "has no x_test and y_test"),
        ({"y_train": np.arange(20) - 1}, "labels from -1 to 18; expected 0 to 2, so number them from 0"),
        ({"y_train": np.arange(20) % 4}, r"y_train has labels from 0 to 3; expected 0 to 2, or dataset\.classes=4"),
        ({"y_train": np.arange(20) % 2}, r"y_train has labels from 0 to 1; expected 0 to 2, or dataset\.classes=2"),
        ({"y_train": 2 * (np.arange(20) % 2)}, "y_train has no label 1; expected images of all 3 classes"),
        ({"x_test": np.ones((6, 4, 6, 3), np.uint8)}, "x_test has no pixel above 1; expected 0 to 255"),
        ({"x_train": np.full((20, 4, 6, 4), 9, np.uint8)}, r"not 3 channels; dataset\.channels=4"),
        ({"x_train": np.full((20, 3, 4, 6), 9, np.uint8)}, r"not 3 channels; expected \(n, h, w, c\)"),
        ({"y_test": np.zeros(5, int)}, r"y_test is int64 \(5,\); expected integers \(6,\)"),
        ({"y_test": np.zeros(6)}, r"y_test is float64 \(6,\); expected integers \(6,\)"),
        ({"x_train": np.zeros((20, 4, 6))}, r"x_train is float64 \(20, 4, 6\); expected uint8"),
        ({"x_train": np.zeros((20, 24), np.uint8)}, r"x_train is uint8 \(20, 24\); expected uint8 \(n, h, w\)"),
        ({"x_test": np.full((6, 4, 4, 3), 9, np.uint8)}, r"images are \(3, 4, 6\) in train and \(3, 4, 4\) in test"),
        ({"y_train": np.array([{}] * 20)}, "is damaged or no .npz of plain arrays"),
        ({"x_train": np.full((20, 3, 4, 6), 9, np.uint8)}, r"x\.transpose\(0, 2, 3, 1\)"),
        ({"x_train": np.zeros((20, 4, 6, 3))}, r", which \(255 \* x\)\.round\(\)\.astype\('uint8'\) makes of it"),
        ({"x_train": np.full((20, 4, 6, 3), 255)}, r", which x\.round\(\)\.astype\('uint8'\) makes of it"),
        ({"x_train": np.full((20, 4, 6, 3), np.nan)}, "; it has values that are not finite"),
        ({"x_train": np.full((20, 4, 6, 3), -0.5)}, "; it has values from -0.5 to -0.5"),
        ({"x_test": np.zeros((0, 4, 6, 3), np.uint8)}, r"x_test is uint8 \(0, 4, 6, 3\): no images"),
        ({"y_test": np.eye(3, dtype=int)[[0, 1, 2, 0, 1, 2]]}, r"expected integers \(6,\), which y\.argmax\(1\)"),
        ({"y_test": np.arange(6) % 3 / 1}, r"expected integers \(6,\), which y\.astype\(int\)"),
        ({"y_test": np.full(6, np.nan)}, r"expected integers \(6,\)$"),
        ({"y_test": np.array(list("abcabc"))}, r", which np\.unique\(y, return_inverse=True\)\[1\]"),
    ],
)
def test_a_wrong_npz_is_named(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: array for name, array in (own_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(InputError, match=message) as error:
        load_own(tmp_path / "own.npz", 0.1, 3, 3)
    assert "own.npz" in str(error.value)


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_labels_in_a_column_are_taken(tmp_path: Path, kind: type) -> None:
    """As Keras has CIFAR10's."""
    arrays = own_arrays()
    np.savez(tmp_path / "flat.npz", **arrays)
    arrays |= {name: arrays[name][:, None].astype(kind) for name in ("y_train", "y_test")}
    np.savez(tmp_path / "column.npz", **arrays)
    flat, column = (load_own(tmp_path / f"{name}.npz", 0.1, 3) for name in ("flat", "column"))
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(flat, split).labels, getattr(column, split).labels)


def test_channels_first_is_refused_where_nothing_says_how_many(tmp_path: Path) -> None:
    arrays = own_arrays()
    arrays |= {name: arrays[name].transpose(0, 3, 1, 2) for name in ("x_train", "x_test")}
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(InputError, match=r"is \(20, 3, 4, 6\), which is not 3 channels; .*x\.transpose\(0, 2, 3, 1\)"):
        load_own(tmp_path / "own.npz", 0.1, 3)


@pytest.mark.parametrize("written", ["array", "text"])
def test_files_of_another_kind_are_no_npz(tmp_path: Path, written: str) -> None:
    file = tmp_path / "own.npz"
    if written == "array":
        np.save(file.with_suffix(".npy"), np.zeros(3))
        file.with_suffix(".npy").rename(file)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name in ("x_train", "y_train"):
                archive.writestr(name, "text")
    with pytest.raises(InputError, match=r"own\.npz is damaged or no \.npz of plain arrays; write it with np\.savez"):
        load_own(file, 0.1, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0.99, 3), r"held_out=0\.99 of 20 training images leaves none to train on"),
        (("half", 3), r"held_out=half; expected a share between 0 and 1"),
        ((0.1, 1), r"dataset\.classes=1; expected a whole number of at least 2"),
    ],
)
def test_impossible_settings_of_ones_own_data_are_refused(
    tmp_path: Path, settings: tuple[Any, Any], message: str
) -> None:
    np.savez(tmp_path / "own.npz", **own_arrays())
    with pytest.raises(InputError, match=message):
        load_own(tmp_path / "own.npz", *settings)


def test_the_home_folder_can_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_mnist: dict[str, np.ndarray]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "own.npz", **own_arrays())
    assert len(load_own("~/own.npz", 0.1, 3).test) == 6
    assert fingerprint("~/own.npz") == fingerprint(tmp_path / "own.npz")
    assert len(load("mnist", "~", 1).test) == 2
    with pytest.raises(InputError, match="~nobody-of-this-name/x: there is no such user"):
        load_own("~nobody-of-this-name/x", 0.1, 3)


def test_data_of_ones_own_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(InputError, match=r"junk\.npz is damaged"):
        load_own(tmp_path / "junk.npz", 0.1, 3)
    with pytest.raises(InputError, match=r"no data at .*absent"):
        load_own(tmp_path / "absent", 0.1, 3)
    with pytest.raises(InputError, match=r"held_out=1\.5; expected a share between 0 and 1"):
        load_own(tmp_path, 1.5, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of cats and dogs to train on, two to test on."""
    for part, count in (("train", 6), ("test", 1)):
        for label, name in enumerate(("cats", "dogs")):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((4, 4, 3), 100 * label + index, np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{index}.png")
    return tmp_path


def test_a_folder_of_images(folder: Path) -> None:
    data = load_own(folder, 0.25, 2)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [9, 3, 2]
    assert data.train.pixels.shape == (9, 3, 4, 4)
    assert torch.equal(data.train.labels, data.train.pixels[:, 0, 0, 0] // 100)
    assert sorted(data.test.labels.tolist()) == [0, 1]


def test_grey_files_stay_grey(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert load_own(folder, 0.25, 2).train.pixels.shape == (9, 1, 4, 4)


def test_hidden_folders_are_no_classes(folder: Path) -> None:
    before = load_own(folder, 0.25, 2)
    for part in ("train", "test"):
        (folder / part / ".ipynb_checkpoints").mkdir()
    after = load_own(folder, 0.25, 2)
    assert torch.equal(after.train.labels, before.train.labels) and torch.equal(after.test.labels, before.test.labels)


def test_a_wrong_folder_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"train has 2 class folders; expected 5, or dataset\.classes=2"):
        load_own(folder, 0.25, 5)
    broken = folder / "train" / "dogs" / "3.png"
    whole = broken.read_bytes()
    for content in (b"", whole[:48], b"not an image"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=f"{broken} is broken or no image; repair or remove it"):
            load_own(folder, 0.25, 2)
    Image.new("RGB", (5, 4)).save(broken)
    with pytest.raises(InputError, match=rf"{broken} is \(4, 5, 3\), the images before it \(4, 4, 3\)"):
        load_own(folder, 0.25, 2)
    for file in (folder / "test").rglob("*.png"):
        file.unlink()
    broken.write_bytes(whole)
    with pytest.raises(InputError, match="test has no images"):
        load_own(folder, 0.25, 2)


def test_deep_pixels_are_refused_not_cut_off(folder: Path) -> None:
    deep = folder / "train" / "cats" / "2.png"
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(deep)
    with pytest.raises(InputError, match=rf"{deep} has more than 8 bits a pixel \(I;16\)"):
        load_own(folder, 0.25, 2)


def test_class_folders_have_to_agree(folder: Path) -> None:
    """Labels are positions: another name in one part would be another class."""
    (folder / "test" / "dogs").rename(folder / "test" / "zebras")
    with pytest.raises(InputError, match=r"train and test have different class folders \(dogs, zebras\)"):
        load_own(folder, 0.25, 2)
    with pytest.raises(InputError, match="no data at"):
        load_own(folder / "absent", 0.25, 2)
    (folder / "empty" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match=r"empty/train has no class folders; expected .*train/<class>/"):
        load_own(folder / "empty", 0.25, 2)


def test_the_fingerprint_follows_links(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    linked = tmp_path_factory.mktemp("linked")
    for part in ("train", "test"):
        (linked / part).symlink_to(folder / part)
    before = fingerprint(linked)
    assert before == fingerprint(folder)
    Image.new("RGB", (4, 4), (9, 9, 9)).save(folder / "test" / "dogs" / "0.png")
    assert fingerprint(linked) == fingerprint(folder) != before
    assert torch.equal(load_own(linked, 0.25, 2).test.pixels, load_own(folder, 0.25, 2).test.pixels)


def test_where_data_lie_is_no_part_of_their_fingerprint(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(folder, elsewhere / "copy")
    (elsewhere / "link").symlink_to(folder)
    assert len({fingerprint(each) for each in (folder, elsewhere / "copy", elsewhere / "link")}) == 1
    for name in ("a.npz", "b.npz"):
        np.savez(elsewhere / name, **own_arrays())
    assert fingerprint(elsewhere / "a.npz") == fingerprint(elsewhere / "b.npz")


def test_the_fingerprint_of_what_cannot_be_read_is_an_error(folder: Path) -> None:
    loop = folder / "train" / "cats" / "all"
    loop.symlink_to(folder / "train")
    with pytest.raises(InputError, match=f"{loop} is a link to a folder that holds it; remove it"):
        fingerprint(folder)
    loop.unlink()
    for target in ("absent", "all"):  # a file that is gone, and a link to itself
        loop.symlink_to(target)
        with pytest.raises(InputError, match=rf"no data at {loop} \("):
            fingerprint(folder)
        loop.unlink()


def test_dark_images_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As scikit-learn's digits, whose pixels are 0 to 16."""
    arrays = own_arrays()
    load_and_save = partial(np.savez, tmp_path / "own.npz")
    load_and_save(**arrays | {name: arrays[name] + 64 for name in ("x_train", "x_test")})
    load_own(tmp_path / "own.npz", 0.1, 3)
    assert not caplog.messages
    load_and_save(**arrays | {"x_train": np.minimum(arrays["x_train"] + 2, 16).astype(np.uint8)})
    load_own(tmp_path / "own.npz", 0.1, 3)
    assert "x_train has no pixel above" in caplog.text


def test_an_empty_class_is_named(folder: Path) -> None:
    for file in (folder / "train" / "dogs").iterdir():
        file.unlink()
    with pytest.raises(InputError, match="dogs has no images"):
        load_own(folder, 0.2, 2)


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_grey_files_of_all_kinds_are_grey(folder: Path, mode: str) -> None:
    for file in folder.rglob("*.png"):
        Image.open(file).convert(mode).save(file)
    assert load_own(folder, 0.2, 2, 1).train.pixels.shape[1] == 1


def test_transparent_images_are_refused(folder: Path) -> None:
    file = next(folder.rglob("train/*/*.png"))
    Image.open(file).convert("RGBA").save(file)
    load_own(folder, 0.2, 2)
    with Image.open(file) as image:
        image.putalpha(254)
        image.save(file)
    with pytest.raises(InputError, match="is transparent in places"):
        load_own(folder, 0.2, 2)


def test_labels_of_other_integers_are_taken() -> None:
    assert Split(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1], dtype=torch.uint8), 1).labels.dtype == torch.int64
    with pytest.raises(InputError, match=r"labels are torch\.float32"):
        Split(torch.zeros(2, 1, 4, 4), torch.tensor([0.0, 1.0]), 1)

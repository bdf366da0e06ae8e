"""The data sets, as tensors on the device: a batch is selected by indexing, without worker processes."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from saddlepoint import own
from saddlepoint.errors import InputError, whole

log = logging.getLogger(__name__)

Arrays = tuple[np.ndarray, np.ndarray]

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


@dataclass(frozen=True)
class Split:
    """Images as numbers 0..`pixel_max`, (n, c, h, w), bytes or float32, and labels, (n,) int64."""

    pixels: Tensor
    labels: Tensor
    pixel_max: int

    def __post_init__(self) -> None:
        if self.labels.is_floating_point():
            raise InputError(f"labels are {self.labels.dtype}; expected integers, (n,)")
        object.__setattr__(self, "labels", self.labels.long())

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, index: Tensor | slice) -> Tensor:
        """The chosen images as float32 in [0, 1]."""
        return self.pixels[index].float() / self.pixel_max

    def take(self, count: int | None) -> Split:
        """The first `count` examples; all for None. Raises InputError for less than one."""
        if count is not None:
            whole(count, "examples")
        return Split(self.pixels[:count], self.labels[:count], self.pixel_max)

    def to(self, device: torch.device) -> Split:
        return Split(self.pixels.to(device), self.labels.to(device), self.pixel_max)

    def resized(self, height: int | None) -> Split:
        """The same images at another height, as `resized` makes them; None leaves them as they are."""
        return self if height is None else Split(resized(self.images(slice(None)), height), self.labels, 1)

    def batches(self, size: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(index of the first example, images, labels) in order."""
        for start in range(0, len(self), size):
            chosen = slice(start, start + size)
            yield start, self.images(chosen), self.labels[chosen]


@dataclass(frozen=True)
class Data:
    """One data set. `validation` is the part of the training set held out for choosing the best checkpoint."""

    train: Split
    validation: Split
    test: Split

    @cached_property
    def classes(self) -> int:
        """One more than the largest label. Counted once: it waits for the device."""
        return 1 + int(max(split.labels.max() for split in (self.train, self.validation, self.test)))

    def to(self, device: torch.device) -> Data:
        return Data(self.train.to(device), self.validation.to(device), self.test.to(device))


def load(name: str, root: str | Path, held_out: int) -> Data:
    """`name` is digits, mnist or cifar10; the first `held_out` training images are set aside.

    mnist and cifar10 are read where they lie under `root` (~ is the home folder) in torchvision's layout, else
    downloaded. Raises InputError if they cannot be had, or are not byte for byte the published files.
    """
    loaders = {"digits": _digits, "mnist": _mnist, "cifar10": _cifar10}
    if name not in loaders:
        raise InputError(f"unknown dataset {name!r}; choose {', '.join(loaders)}")
    return _split(*loaders[name](expanded(root)), held_out)


def load_own(path: str | Path, held_out: float, classes: int, channels: int | None = None) -> Data:
    """Your own data set, shuffled once and for all; a share `held_out` of its training images is set aside.

    An .npz with x_train, y_train, x_test, y_test (images uint8, (n, h, w) or (n, h, w, c); labels 0..classes-1, (n,)
    or (n, 1)), or a folder with train/<class>/<image> and test/<class>/<image>, the classes in alphabetical order, all
    images of one size. `channels`, where given, is what the images have to have. Raises InputError naming the file,
    array or label that is wrong.
    """
    path = expanded(path)
    if not path.exists():
        raise InputError(f"no data at {path}; give dataset.data.path= a folder of images or an .npz")
    if not isinstance(held_out, float | int) or not 0 < held_out < 1:
        raise InputError(f"dataset.data.held_out={held_out}; expected a share between 0 and 1")
    whole(classes, "dataset.classes", least=2)
    read = _read_folder if path.is_dir() else _read_npz
    parts = []
    for part in ("train", "test"):
        pixels, labels = read(path, part, classes)
        pixels = _channels_last(pixels, f"{path}: x_{part}", channels)
        labels = _numbered(labels, f"{path}: y_{part}", len(pixels))
        low, high, present = int(labels.min()), int(labels.max()), {*labels.tolist()}
        if low < 0 or high >= classes or (part == "train" and high < classes - 1):
            remedy = f"or dataset.classes={high + 1}" if low == 0 else "so number them from 0"
            raise InputError(f"{path}: y_{part} has labels from {low} to {high}; expected 0 to {classes - 1}, {remedy}")
        if part == "train" and (missing := {*range(classes)} - present):
            raise InputError(f"{path}: y_train has no label {min(missing)}; expected images of all {classes} classes")
        order = np.random.RandomState(0).permutation(len(labels))
        parts.append((pixels.transpose(0, 3, 1, 2)[order], labels[order]))
    train, test = parts
    if train[0].shape[1:] != test[0].shape[1:]:
        raise InputError(f"{path}: images are {train[0].shape[1:]} in train and {test[0].shape[1:]} in test")
    count = max(1, round(held_out * len(train[1])))
    if count >= len(train[1]):
        raise InputError(f"dataset.data.held_out={held_out} of {len(train[1])} training images leaves none to train on")
    return _split(train, test, 255, count)


def fingerprint(path: str | Path) -> str:
    """SHA-256 of your own data set: the file's, or of names and contents of a folder's files but hidden ones.

    The path is no part of it. Links are followed. Raises InputError for a file that cannot be read, and for a
    link to a folder that holds the link.
    """
    path, digest = expanded(path), hashlib.sha256()
    for file in sorted(_files(path)) if path.is_dir() else [path]:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"no data at {file} ({error.strerror}); see dataset.data.path") from None
        digest.update(os.fsencode(f"{file.relative_to(path).as_posix()}:{len(content)}:") + content)
    return digest.hexdigest()


def _files(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Every file under `folder` but hidden ones. `above` are the folders it is in, without links."""
    real = folder.resolve()
    if real in above:
        raise InputError(f"{folder} is a link to a folder that holds it; remove it from the data")
    try:
        entries = [each for each in folder.iterdir() if not each.name.startswith(".")]
    except OSError as error:
        raise InputError(f"no data at {folder} ({error.strerror}); see dataset.data.path") from None
    for entry in entries:
        if entry.is_dir():
            yield from _files(entry, (*above, real))
        else:
            yield entry


def expanded(path: str | Path) -> Path:
    """The path with ~ as the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no such user; write the whole path") from None


def _channels_last(pixels: np.ndarray, name: str, channels: int | None) -> np.ndarray:
    """Images (n, h, w) or (n, h, w, c) as (n, h, w, c). Raises InputError naming the array and what converts it."""
    found = f"{name} is {pixels.dtype} {pixels.shape}"
    if not pixels.size:
        raise InputError(f"{found}: no images; expected uint8 (n, h, w) or (n, h, w, c)")
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise InputError(f"{found}; expected uint8 (n, h, w) or (n, h, w, c){_as_bytes(pixels)}")
    if pixels.max() <= 1:
        raise InputError(f"{name} has no pixel above {pixels.max()}; expected 0 to 255, as 255 * x has them")
    if pixels.max() < 64:
        log.warning("%s has no pixel above %d; expected 0 to 255, which all count as 0 to 1", name, pixels.max())
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    first, last, usual = pixels.shape[1], pixels.shape[3], (1, 3, 4)
    wanted = channels or next((each for each in (last, first) if each in usual), last)
    if last == wanted:
        return pixels
    hint = f"dataset.channels={last}" if last in usual else "expected (n, h, w, c)"
    if first == wanted:
        hint = "expected (n, h, w, c), which x.transpose(0, 2, 3, 1) makes of it"
    raise InputError(f"{name} is {pixels.shape}, which is not {wanted} channels; {hint}")


def _as_bytes(pixels: np.ndarray) -> str:
    """For the end of a message: what makes uint8 of these pixels, or why nothing does."""
    if pixels.dtype == np.uint8 or pixels.dtype.kind not in "fiub":
        return ""
    low, high = pixels.min(), pixels.max()  # NaN if one of them is
    if not np.isfinite([low, high]).all():
        return "; it has values that are not finite"
    if low < 0 or high > 255:
        return f"; it has values from {low:g} to {high:g}"
    return f", which {'(255 * x)' if high <= 1 else 'x'}.round().astype('uint8') makes of it"


def _numbered(labels: np.ndarray, name: str, count: int) -> np.ndarray:
    """Labels (count,) or (count, 1), as Keras has CIFAR10's, as (count,).

    Raises InputError naming the array and what converts it.
    """
    if labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape == (count,) and labels.dtype.kind in "iu":
        return labels
    hint = ""
    if labels.ndim == 2 and len(labels) == count and labels.shape[1] > 1:
        hint = f", which y.argmax(1) makes of one column for each of {labels.shape[1]} classes"
    elif labels.shape == (count,) and labels.dtype.kind in "US":
        hint = ", which np.unique(y, return_inverse=True)[1] makes of names"
    elif labels.shape == (count,) and labels.dtype.kind in "fb" and all(float(each).is_integer() for each in labels):
        hint = ", which y.astype(int) makes of it"
    raise InputError(f"{name} is {labels.dtype} {labels.shape}; expected integers ({count},){hint}")


def _split(train: Arrays, test: Arrays, pixel_max: int, held_out: int) -> Data:
    """The first `held_out` training images set aside."""
    pixels, labels = train
    if not isinstance(held_out, int) or not 0 < held_out < len(labels):
        raise InputError(f"dataset.data.held_out={held_out}; expected between 1 and {len(labels) - 1}")

    def split(images: np.ndarray, classes: np.ndarray) -> Split:
        return Split(torch.from_numpy(images.copy()), torch.from_numpy(classes.astype(np.int64)), pixel_max)

    return Data(
        train=split(pixels[held_out:], labels[held_out:]),
        validation=split(pixels[:held_out], labels[:held_out]),
        test=split(*test),
    )


def _read_npz(path: Path, part: str, classes: int) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            pixels, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    except KeyError:
        raise InputError(f"{path} has no x_{part} and y_{part}; expected x_train, y_train, x_test and y_test") from None
    except (OSError, ValueError, EOFError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error):
        pixels = labels = None  # TypeError: an .npy; RuntimeError: an encrypted or unknown kind of zip
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, np.ndarray):
        raise InputError(f"{path} is damaged or no .npz of plain arrays; write it with np.savez from arrays of numbers")
    return pixels, labels


def _read_folder(path: Path, part: str, classes: int) -> Arrays:
    folders = sorted(folder for folder in (path / part).glob("[!.]*") if folder.is_dir())
    if not folders:
        raise InputError(f"{path / part} has no class folders; expected {path}/train/<class>/ and {path}/test/<class>/")
    others = {folder.name for folder in (path / "train").glob("[!.]*") if folder.is_dir()}
    if different := sorted(others ^ {folder.name for folder in folders}):
        raise InputError(f"{path}: train and test have different class folders ({', '.join(different)})")
    if len(folders) != classes:
        raise InputError(
            f"{path / part} has {len(folders)} class folders; expected {classes}, or dataset.classes={len(folders)}"
        )
    images: list[np.ndarray] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        for file in sorted(each for each in folder.iterdir() if not each.name.startswith(".")):
            try:
                with Image.open(file) as image:
                    if image.mode[0] in "IF":  # which a conversion would cut off at 255
                        raise InputError(f"{file} has more than 8 bits a pixel ({image.mode}); convert it to 8")
                    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                        raise InputError(f"{file} is transparent in places; put it on a background")
                    images.append(np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")))
            except (OSError, SyntaxError, Image.DecompressionBombError):
                raise InputError(f"{file} is broken or no image; repair or remove it") from None
            found, before = images[-1].shape, images[0].shape
            if found != before:
                raise InputError(f"{file} is {found}, the images before it {before}; make all one size, grey or colour")
            labels.append(label)
        if part == "train" and labels[-1:] != [label]:
            raise InputError(f"{folder} has no images")
    if not images:
        raise InputError(f"{path / part} has no images")
    return np.stack(images), np.array(labels)


def _digits(root: Path) -> tuple[Arrays, Arrays, int]:
    """1,797 handwritten digits, 8x8 with 17 grey levels, shuffled once and for all; 500 of them are the test set."""
    # From scikit-learn's file: to import the package takes a second and more, which every command would pay.
    package = find_spec("sklearn")
    assert package and package.origin  # it is one of our requirements
    table = np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", np.int64, delimiter=",")
    # RandomState's stream is frozen by numpy's policy: the same split everywhere, always.
    table = table[np.random.RandomState(0).permutation(len(table))]
    pixels, labels = table[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8), table[:, -1]
    return (pixels[500:], labels[500:]), (pixels[:500], labels[:500]), 16


def _mnist(root: Path) -> tuple[Arrays, Arrays, int]:
    from torchvision.datasets import MNIST

    def read(train: bool, download: bool) -> Arrays:
        part = MNIST(str(root), train=train, download=download)
        return part.data.numpy()[:, None], part.targets.numpy()

    _published("mnist", root / "MNIST" / "raw", MNIST_MD5, lambda: read(train=True, download=True))
    return read(True, False), read(False, False), 255


def _cifar10(root: Path) -> tuple[Arrays, Arrays, int]:
    from torchvision.datasets import CIFAR10

    files = dict([*CIFAR10.train_list, *CIFAR10.test_list, [CIFAR10.meta["filename"], CIFAR10.meta["md5"]]])
    _published("cifar10", root / CIFAR10.base_folder, files, lambda: CIFAR10(str(root), download=True))

    def read(train: bool) -> Arrays:
        part = CIFAR10(str(root), train=train)
        return part.data.transpose(0, 3, 1, 2), np.asarray(part.targets)

    return read(True), read(False), 255


def _published(name: str, folder: Path, files: Mapping[str, str], download: Callable[[], object]) -> None:
    """Download what is missing, and check the md5 of every file. Raises InputError, in one line, if either fails."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        if not all((folder / file).exists() for file in files):
            download()
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        for each in new:
            with suppress(OSError):  # something was downloaded into it, or it was not even made
                each.rmdir()
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{name} is not under {folder} and cannot be downloaded ({reason}); "
            f"put its files there, or use dataset=digits, which needs none"
        ) from None
    for file, expected in files.items():
        if hashlib.md5((folder / file).read_bytes()).hexdigest() != expected:
            raise InputError(
                f"{folder / file} is not the published file (wrong md5); delete it to have it downloaded again"
            )


def resized(x: Tensor, height: int) -> Tensor:
    """Images (n, c, h, w) in [0, 1], scaled down to (n, c, height, w * height / h): bilinear with antialiasing.

    Raises InputError if that is no smaller.
    """
    if height >= x.shape[2]:
        raise InputError(f"recipe.grow: size {height} is not below the images' height of {x.shape[2]} pixels")
    size = (height, max(1, round(x.shape[3] * height / x.shape[2])))
    return F.interpolate(x, size, mode="bilinear", antialias=True).clamp(0, 1)


class CropFlip:
    """Zero-pad, crop back at random and flip half of the images: the paper's CIFAR10 augmentation (2 pixels a side).

    Works on a batch (n, c, h, w) on its device, with the given generator.
    """

    def __init__(self, padding: int = 2, flip: bool = True) -> None:
        self.padding, self.flip = padding, flip

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = x.shape
        padded = F.pad(x, (self.padding,) * 4)

        def offsets(size: int) -> Tensor:
            start = torch.randint(2 * self.padding + 1, (count, 1), generator=generator, device=x.device)
            return start + torch.arange(size, device=x.device)

        rows, columns = offsets(height), offsets(width)
        if self.flip:
            flipped = torch.rand(count, 1, generator=generator, device=x.device) < 0.5
            columns = torch.where(flipped, columns.flip(1), columns)
        examples = torch.arange(count, device=x.device)[:, None, None]
        # Index (n, h, w) in front of the channels gives (n, h, w, c).
        return padded[examples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _try(augmentation: Any, x: Tensor, generator: torch.Generator) -> None:
    """Raises InputError unless it makes images of images (n, c, h, w) in [0, 1]; it may be somebody's own."""
    expected = f"expected images {tuple(x.shape)} in [0, 1] of images and a generator"
    with own.reported(f"dataset.augmentation fails ({{}}); {expected}"):
        made = augmentation(x.clone(), generator)
    if not isinstance(made, Tensor) or made.shape != x.shape or not ((made >= 0) & (made <= 1)).all():
        found = f"{tuple(made.shape)}, some not in [0, 1]" if isinstance(made, Tensor) else type(made).__name__
        raise InputError(f"dataset.augmentation makes {found}; {expected}")


class Batches:
    """Endless shuffled minibatches of a split; every epoch is a fresh permutation, a last short batch is dropped.

    `state_dict` and the generators' own states make the stream resumable at any batch.
    """

    def __init__(
        self,
        split: Split,
        size: int,
        order: torch.Generator,
        augmentation: CropFlip | None = None,
        augment: torch.Generator | None = None,
    ) -> None:
        if not 1 <= size <= len(split):
            raise InputError(f"recipe.batch_size={size}; expected between 1 and the {len(split)} training images")
        if augmentation is not None:
            _try(augmentation, split.images(slice(2)), torch.Generator(order.device).manual_seed(0))
        self.split, self.size, self.order = split, size, order
        self.augmentation, self.augment = augmentation, augment
        self.permutation = torch.empty(0, dtype=torch.int64)
        self.position = 0

    @property
    def per_epoch(self) -> int:
        return len(self.split) // self.size

    def next(self) -> tuple[Tensor, Tensor]:
        """Images in [0, 1], (size, c, h, w), and labels, (size,)."""
        if self.position + self.size > len(self.permutation):
            self.permutation = torch.randperm(len(self.split), generator=self.order, device=self.order.device)
            self.position = 0
        index = self.permutation[self.position : self.position + self.size]
        self.position += self.size
        x = self.split.images(index)
        if self.augmentation is not None:
            assert self.augment is not None
            x = self.augmentation(x, self.augment)
        return x, self.split.labels[index]

    def state_dict(self) -> dict[str, Any]:
        return {"permutation": self.permutation, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.permutation = state["permutation"].to(self.order.device)
        self.position = state["position"]

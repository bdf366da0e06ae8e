"""A measurement as it is kept: its key, what it found, and where both come from. No torch here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Described = Mapping[str, object]  # an attack as it describes itself: plain values


@dataclass(frozen=True)
class Key:
    """All that a measurement depends on. None: it has no such thing, and neither has its file.

    Args:
        checkpoint, checkpoint_sha256, data_sha256, code: left to the Subject; the last two are of data that are not
            published, and of the code of a network of one's own.
        attack: its description, empty for no attack (null in the file); of a Curve its name.
        settings: of a Curve, the attack's description at the last eps.
        of: how many test images there are, of which the first `examples` are measured.
        source: the checkpoint on which the examples are made, in a black-box attack.
    """

    measurement: str
    checkpoint: str = ""
    checkpoint_sha256: str = ""
    data_sha256: str | None = None
    code: str | None = None
    attack: Described | str | None = None
    attacks: Mapping[str, Described] | None = None
    norm: str | None = None
    eps: Sequence[str] | None = None
    settings: Described | None = None
    image: int | None = None
    examples: int | None = None
    of: int | None = None
    starts: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    copy_sha256: str | None = None
    source: Mapping[str, str] | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Key:
        return cls(**{name: {} if value is None else value for name, value in stored.items()})

    def plain(self) -> dict[str, object]:
        """As it stands in a file."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: None if value == {} else value for name, value in found.items() if value is not None}

    @property
    def description(self) -> Described:
        """The attack's; empty for none."""
        return self.attack if isinstance(self.attack, Mapping) else {}

    @property
    def part(self) -> int | None:
        """How many test images, if not all."""
        return None if self.examples == self.of else self.examples


@dataclass(frozen=True)
class RunName:
    """What names a run in its results."""

    dataset: str
    model: str
    training: str
    recipe: str
    seed: str


@dataclass(frozen=True)
class Found:
    """The numbers of a measurement; this one has only arrays."""


@dataclass(frozen=True)
class Accuracy(Found):
    """`interval`: 95%, low and high. `correct`: who is right, packed. `loss`: mean cross-entropy. See Outcome."""

    accuracy: float
    interval: Sequence[float]
    correct: str
    loss: float
    no_gradient: float | None = None


@dataclass(frozen=True)
class Curve(Found):
    """Accuracies against eps, with the 95% interval of each."""

    accuracies: Sequence[float]
    intervals: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Geometry:
    """Of pairs of maxima around one example, the text after Figure 2; distances are Euclidean, angles in degrees.

    `random_distance` is the same mean distance between random points of the threat, the text's yardstick.
    """

    distance_mean: float
    distance_sd: float
    random_distance: float
    angle_mean: float
    angle_sd: float


@dataclass(frozen=True)
class Maxima(Found):
    """Where PGD ends around one image."""

    loss_median: float
    geometry: Geometry

    @classmethod
    def read(cls, loss_median: float, geometry: Mapping[str, float]) -> Maxima:
        return cls(loss_median, Geometry(**geometry))


@dataclass(frozen=True)
class Between(Found):
    """Mean losses on the way between two maxima, and the cosine of their perturbations with the gradient."""

    ends: float
    middle: float
    random: float
    highest_at_an_end: float
    cosine: float
    negative_cosines: float


@dataclass(frozen=True)
class Learned(Found):
    """Of the first convolution how many filters, alive, and of one weight; the output layer's biases."""

    filters: int
    alive: int
    single_weight: int
    bias_low: float
    bias_high: float


@dataclass(frozen=True)
class Share(Found):
    """Of the images."""

    share: float


F = TypeVar("F", bound=Found, covariant=True)


@dataclass(frozen=True)
class Result(Generic[F]):
    """What a measurement found, of which run. `arrays` is the .npz of the same folder, if it has one."""

    key: Key
    found: F
    seconds: float
    run: RunName
    train_loss: float | None
    command: str
    provenance: Mapping[str, str]
    file: str
    arrays: str | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any], read: Callable[..., F], file: str) -> Result[F]:
        """From a file's content; `read` makes what was found of the fields that only this measurement has."""
        names = {each.name for each in dataclasses.fields(cls)}
        common = {name: value for name, value in stored.items() if name in names}
        found = read(**{name: value for name, value in stored.items() if name not in names})
        return cls(**common | {"key": Key.read(stored["key"]), "run": RunName(**stored["run"])}, found=found, file=file)


@dataclass(frozen=True)
class Check:
    """One sign of masked gradients: what was found, and whether it is as it must be where nothing is masked."""

    name: str
    expected: str
    numbers: Mapping[str, float]
    passed: bool


@dataclass(frozen=True)
class Diagnosis:
    """The checks of one network, and the files of what was measured for them."""

    checks: Sequence[Check]
    command: str
    files: Sequence[str]


def interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95% confidence interval for a proportion."""
    if count < 1:
        raise ValueError("no interval from no examples")
    z, share = 1.959964, correct / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)

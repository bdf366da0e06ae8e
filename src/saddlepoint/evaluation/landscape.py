"""The loss around an example, as PGD sees it: Figures 1 and 2 and what the text says of the maxima."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.runtime import generator


@torch.no_grad()
def loss_at(model: nn.Module, attack: PGD, x: Tensor, y: Tensor) -> Tensor:
    """The attack's objective at x, (n,)."""
    return attack.objective(model(x), y)


def trajectories(model: nn.Module, x: Tensor, y: Tensor, attack: PGD, starts: int, seed: int = 0) -> np.ndarray:
    """The loss of every iterate from `starts` random starts (Figure 1): (examples, starts, steps + 1)."""
    losses = []
    with undisturbed(model):
        for example in range(len(x)):
            repeated, label = _repeat(x, example, starts), _repeat(y, example, starts)
            x_adv = attack.start(repeated, generator(seed, f"trajectories/{example}", x.device))
            path = []
            for _ in range(attack.steps):
                x_adv, loss = attack.ascend(model, x_adv, repeated, label)
                path.append(loss)
            path.append(loss_at(model, attack, x_adv, label))
            losses.append(torch.stack(path, 1))
    return torch.stack(losses).cpu().numpy()


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
class Maxima:
    """`losses`: (examples, starts), the loss where PGD ended; `geometry`: one per example."""

    losses: np.ndarray
    geometry: list[Geometry]


def maxima(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: PGD,
    starts: int,
    *,
    kept: int = 100,
    batch_size: int = 500,
    seed: int = 0,
    progress: str | None = None,
) -> Maxima:
    """Run the attack from `starts` random starts on each example (Figure 2), a batch at a time.

    The first `kept` end points of each example serve the geometry; of the others only the loss stays.
    """
    losses = np.empty((len(x), starts), np.float32)
    geometry = []
    chunks = [(example, start) for example in range(len(x)) for start in range(0, starts, batch_size)]
    ends: list[Tensor] = []
    with undisturbed(model):
        for example, start in tqdm(chunks, progress, disable=None if progress else True, leave=False):
            count = min(batch_size, starts - start)
            repeated, label = _repeat(x, example, count), _repeat(y, example, count)
            x_adv = attack.craft(model, repeated, label, generator(seed, f"maxima/{example}/{start}", x.device))
            losses[example, start : start + count] = loss_at(model, attack, x_adv, label).cpu().numpy()
            if start < kept:
                ends.append(x_adv[: kept - start])
            if start + count == starts:
                points = torch.cat(ends)
                uniform = attack.threat.random_point(
                    _repeat(x, example, len(points)), generator(seed, f"uniform/{example}", x.device)
                )
                geometry.append(_geometry(points, uniform, x[example]))
                ends = []
    return Maxima(losses, geometry)


def _repeat(values: Tensor, example: int, count: int) -> Tensor:
    return values[example : example + 1].expand(count, *values.shape[1:]).contiguous()


def _geometry(points: Tensor, uniform: Tensor, x: Tensor) -> Geometry:
    """Over all pairs of the points (m, c, h, w) around x (c, h, w); NaN where there is no pair."""
    offsets = (points - x).flatten(1).double()
    distances = torch.pdist(offsets)
    directions = torch.nn.functional.normalize(offsets, dim=1)
    upper = torch.triu_indices(len(points), len(points), 1, device=points.device)
    cosines = (directions @ directions.T)[upper[0], upper[1]].clamp(-1, 1)
    angles = torch.rad2deg(torch.arccos(cosines))
    return Geometry(
        distance_mean=distances.mean().item(),
        distance_sd=distances.std(correction=0).item(),
        random_distance=torch.pdist((uniform - x).flatten(1).double()).mean().item(),
        angle_mean=angles.mean().item(),
        angle_sd=angles.std(correction=0).item(),
    )

"""The loss around an example, as PGD sees it: Figures 1 and 2 and what the text says of the maxima."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from saddlepoint.attacks import PGD, undisturbed
from saddlepoint.data import Split
from saddlepoint.measure.result import Between, Geometry
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
            repeated, label = x[[example] * starts], y[[example] * starts]
            x_adv = attack.start(repeated, generator(seed, f"trajectories/{example}", x.device))
            path = []
            for _ in range(attack.steps):
                x_adv, loss = attack.ascend(model, x_adv, repeated, label)
                path.append(loss)
            path.append(loss_at(model, attack, x_adv, label))
            losses.append(torch.stack(path, 1))
    return torch.stack(losses).cpu().numpy()


def maxima(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    example: int,
    attack: PGD,
    starts: int,
    *,
    kept: int = 100,
    batch_size: int = 500,
    seed: int = 0,
    progress: str | None = None,
) -> tuple[np.ndarray, Geometry]:
    """Run the attack from `starts` random starts on one example of x (Figure 2), a batch at a time.

    Returns: the losses where it ended, (starts,), and the geometry of the first `kept` end points; of the others only
    the loss stays.
    """
    losses = np.empty(starts, np.float32)
    ends: list[Tensor] = []
    with undisturbed(model):
        for start in tqdm(range(0, starts, batch_size), progress, disable=None if progress else True, leave=False):
            count = min(batch_size, starts - start)
            repeated, label = x[[example] * count], y[[example] * count]
            x_adv = attack.craft(model, repeated, label, generator(seed, f"maxima/{example}/{start}", x.device))
            losses[start : start + count] = loss_at(model, attack, x_adv, label).cpu().numpy()
            if start < kept:
                ends.append(x_adv[: kept - start])
    points = torch.cat(ends)
    source = generator(seed, f"uniform/{example}", x.device)
    return losses, _geometry(points, attack.threat.random_point(x[[example] * len(points)], source), x[example])


def along(model: nn.Module, attack: PGD, start: Tensor, end: Tensor, y: Tensor, points: int) -> np.ndarray:
    """The loss at `points` evenly spaced places from start to end, (n, points)."""
    with undisturbed(model):
        losses = [loss_at(model, attack, torch.lerp(start, end, share), y) for share in np.linspace(0, 1, points)]
    return torch.stack(losses, 1).cpu().numpy()


def input_gradient(model: nn.Module, attack: PGD, x: Tensor, y: Tensor) -> Tensor:
    """Of what the attack ascends, per example, as flat vectors (n, pixels)."""
    with undisturbed(model):
        return attack.gradient(model, x, y)[0].flatten(1)


def segments(
    model: nn.Module, x: Tensor, y: Tensor, attack: PGD, starts: int, points: int = 21, seed: int = 0
) -> tuple[Between, dict[str, np.ndarray]]:
    """What the text after Figure 2 says of two maxima and what is between them, around each example.

    Returns means, and arrays:
        losses: (examples, starts // 2, points), along the straight line between two maxima, in pairs.
        random: (examples, starts), the loss at random points of the threat.
        cosines: (examples, starts), between the perturbation that reaches a maximum and the gradient at the image.
    """
    found: dict[str, list[np.ndarray]] = {"losses": [], "random": [], "cosines": []}
    for example in range(len(x)):
        repeated, label = x[[example] * starts], y[[example] * starts]
        noise = generator(seed, f"segments/{example}", x.device)
        with undisturbed(model):
            found["random"].append(
                loss_at(model, attack, attack.threat.random_point(repeated, noise), label).numpy(force=True)
            )
        ends = attack.craft(model, repeated, label, noise)
        half = starts // 2
        found["losses"].append(along(model, attack, ends[:half], ends[half : 2 * half], label[:half], points))
        gradient = input_gradient(model, attack, x[example : example + 1], y[example : example + 1])
        towards = torch.cosine_similarity((ends - repeated).flatten(1), gradient, dim=1)
        found["cosines"].append(towards.numpy(force=True))
    arrays = {name: np.stack(each) for name, each in found.items()}
    losses, cosines = arrays["losses"], arrays["cosines"]
    highest = np.maximum(losses[..., 0], losses[..., -1])
    between = Between(
        ends=float(losses[..., [0, -1]].mean()),
        middle=float(losses[..., losses.shape[-1] // 2].mean()),
        random=float(arrays["random"].mean()),
        highest_at_an_end=float((losses.max(-1) <= highest * (1 + 1e-4)).mean()),
        cosine=float(cosines.mean()),
        negative_cosines=float((cosines < 0).mean()),
    )
    return between, arrays


def directions(
    model: nn.Module,
    copy: nn.Module,
    x: Tensor,
    y: Tensor,
    attacks: Mapping[str, PGD],
    starts: int,
    points: int = 41,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The loss from the image to its adversarial examples and those of an independent copy (ICLR Figure 7).

    Returns one array (examples, starts, points) for each "own <attack>" and "copy's <attack>".
    """
    found = {}
    for owner, source in {"own": model, "copy's": copy}.items():
        for name, attack in attacks.items():
            paths = []
            for example in range(len(x)):
                repeated, label = x[[example] * starts], y[[example] * starts]
                noise = generator(seed, f"directions/{name}/{example}", x.device)
                ends = attack.craft(source, repeated, label, noise)
                paths.append(along(model, attack, repeated, ends, label, points))
            found[f"{owner} {name}"] = np.stack(paths)
    return found


def gradient_angles(model: nn.Module, copy: nn.Module, split: Split, attack: PGD) -> dict[str, np.ndarray]:
    """Degrees between two networks' input gradients (ICLR Figure 8), (n,) each.

    `same`: on the same image; `other`: the copy's on the next image instead. NaN where a gradient is zero.
    """
    angles: dict[str, list[np.ndarray]] = {"same": [], "other": []}
    for _, x, y in split.batches(500):
        own, theirs = (input_gradient(each, attack, x, y).double() for each in (model, copy))
        for name, others in (("same", theirs), ("other", theirs.roll(-1, 0))):
            lengths = own.norm(dim=1) * others.norm(dim=1)
            cosines = (own * others).sum(1) / lengths  # 0 / 0 is NaN
            angles[name].append(torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).numpy(force=True))
    return {name: np.concatenate(arrays) for name, arrays in angles.items()}


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

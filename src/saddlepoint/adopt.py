"""Networks that were not made here: their weights are read as data, and what is wrong is found before an attack."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saddlepoint.attacks import undisturbed
from saddlepoint.data import Data
from saddlepoint.errors import InputError, one_line
from saddlepoint.losses import CrossEntropy, surrogate
from saddlepoint.models import Normalized
from saddlepoint.own import reported
from saddlepoint.training import Recipe
from saddlepoint.training.checkpoint import widened
from saddlepoint.training.objectives import Objective, tried

log = logging.getLogger(__name__)

# What stands before the names of a network's weights; of several that fit, the first is taken.
USUAL = ("state_dict", "model_state_dict", "model", "net", "network", "params", "ema")
# What DataParallel, torch.compile, FSDP and activation checkpointing put into names.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# No part of the network: of torch.optim.swa_utils.AveragedModel, and of thop, which puts its own into every layer.
COUNTERS = {"n_averaged", "total_ops", "total_params"}
STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}  # buffers that only training gives their values


def read_state_dict(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """The network's state dict in a .safetensors file, or in what torch.save wrote; nothing in it is executed.

    A state dict may stand inside dicts, and its names behind a prefix: the place is taken where most of the network's
    own names are, with their shapes. The log says what else the file holds. Raises InputError if the file cannot be
    read, holds no tensors, or holds several networks that fit.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the file in it, such as {path}/last.safetensors")
    try:
        is_safe = path.suffix == ".safetensors"
        found: Any = widened(load_file(path)) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error})") from None
    except Exception:  # noqa: BLE001 (damaged bytes raise nearly anything)
        raise InputError(
            f"{path} is damaged or holds more than tensors; save it with torch.save(model.state_dict(), path)"
        ) from None
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    # A network may call a part of its own so.
    dropped = WRAPPERS - {part for name in expected for part in name.split(".")}
    tensors: dict[str, Tensor] = {}
    for parts, tensor in _tensors(found):
        tensors.setdefault(".".join(part for part in parts if part not in dropped), tensor)
    if not tensors:
        kind = f"a dict of {', '.join(map(str, found))}" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise InputError(
            f"{path} is no state dict but {kind}; expected names and tensors, by themselves or under a name such as "
            "state_dict: torch.save(model.state_dict(), path) writes them"
        )
    prefix = _prefix(path, tensors, expected)
    ours = {
        name: name.removeprefix(prefix)
        for name in tensors
        if name.startswith(prefix)
        and (name.removeprefix(prefix) in expected or name.rpartition(".")[2] not in COUNTERS)
    }
    depth = max(1, prefix.count("."))
    others = list(dict.fromkeys(".".join(name.split(".")[:depth]) for name in tensors if name not in ours))
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        place = f"the weights under {prefix.rstrip('.')}" if prefix else "the weights"
        log.info("%s: took %s, not %s%s", path, place, ", ".join(others[:5]), more)
    state = {name: tensors[whole] for whole, name in ours.items()}
    for name, tensor in network.state_dict().items():
        if name in state and tensor.is_floating_point() and not state[name].is_floating_point():
            raise InputError(f"{path} has {name} as {state[name].dtype}; expected floating-point numbers")
    constants = {name: each for name, each in network.named_buffers() if name in expected and name not in state}
    constants = {name: each for name, each in constants.items() if name.rpartition(".")[2] not in STATISTICS}
    if state and constants:
        log.info("%s has no %s: kept as the network is built", path, ", ".join(constants))
    return _shared(path, network, {**state, **constants})


def _tensors(found: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[list[str], Tensor]]:
    """Every tensor in dicts and lists, with the parts of its name."""
    if isinstance(found, Tensor) and place:
        yield ".".join(place).split("."), found
    elif isinstance(found, dict | list | tuple) and len(place) < 5:
        for name, value in found.items() if isinstance(found, dict) else enumerate(found):
            yield from _tensors(value, (*place, str(name)))


def _prefix(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> str:
    """The one behind which most of the expected names are, with their shapes."""
    names: Counter[str] = Counter()
    fitting: Counter[str] = Counter()
    for name, tensor in tensors.items():
        parts = name.split(".")
        for start in range(len(parts)):
            rest = ".".join(parts[start:])
            if rest in expected:
                names[name.removesuffix(rest)] += 1
                fitting[name.removesuffix(rest)] += tensor.shape == expected[rest]

    def key(prefix: str) -> tuple[int, int, int]:
        parts = prefix.split(".")[:-1]
        strange = max((USUAL.index(part) if part in USUAL else len(USUAL) for part in parts), default=-1)
        return fitting[prefix], names[prefix], -strange

    def differ(one: str, other: str) -> bool:
        return any(
            not torch.equal(tensors[one + name], tensors[other + name])
            for name in expected
            if one + name in tensors and other + name in tensors
        )

    best = max(names, key=lambda prefix: (key(prefix), -len(prefix)), default="")
    rivals = [prefix for prefix in names if prefix != best and key(prefix) == key(best) and differ(prefix, best)]
    if rivals:
        found = ", ".join(prefix.rstrip(".") or "the file itself" for prefix in [best, *rivals])
        raise InputError(f"{path} holds several networks that fit: {found}; save the one that is meant by itself")
    return best


def _shared(path: Path, network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With all names of a layer that the network has under several; files may hold it once."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in network.state_dict().items():
        if tensor.numel():
            groups.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), []).append(name)
    for group in groups.values():
        given = [name for name in group if name in state]
        for name in given[1:]:
            if not torch.equal(state[name], state[given[0]]):
                raise InputError(f"{path} holds another network: {given[0]} and {name} are one layer here, and differ")
        state.update({name: state[given[0]] for name in group if given})
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Read a state dict into the network, or into the one inside Normalized. Names and shapes have to agree."""
    network = model.network if isinstance(model, Normalized) else model
    try:
        network.load_state_dict(read_state_dict(path, network))
    except RuntimeError as error:
        raise InputError(f"{path} holds another network: {one_line(error)[:300]}") from None


def check(model: nn.Module, x: Tensor, classes: int, *, training_batch: int | None = None, trust: bool = False) -> None:
    """Raises InputError if the model does not make logits, (n, classes), of each image in `x` by itself, or if attacks
    cannot follow the gradient of their loss.

    x: a few images (n, c, h, w) in [0, 1], at least two.
    training_batch: how many images a training will show it at a time; it is then looked at in train mode too.
    trust: take also what is only suspected: numbers that look like probabilities, gradients of zero for most images,
        and gradients that are not finite for a black or a white image.
    """
    with (
        torch.random.fork_rng([x.device] if x.device.type == "cuda" else []),
        warnings.catch_warnings(action="ignore"),  # the training gives them too, where it follows
        reported("the network cannot be looked at: {}"),
    ):
        with undisturbed(model):
            logits, gradient = _looked_at(model, x, classes)
            _by_itself(model, x, logits)
        if training_batch is not None:
            with undisturbed(model, "train"), reported("in train mode {}"):
                _looked_at(model, x[:training_batch], classes, "in train mode ")
        if not trust:
            try:
                with undisturbed(model):
                    _suspect(model, x, logits, gradient)
            except InputError as error:
                raise InputError(f"{error}; trust_network=true takes it as it is") from None


def rehearse(
    model: nn.Module, objective: Objective, recipe: Recipe, data: Data, training_batch: int, trust: bool = False
) -> None:
    """Raises InputError if a training would fail: the network on images of every size, or the objective on a few."""
    few = data.train.take(8)
    for size in (None, *(size for size, _ in recipe.stages)):
        try:
            x = few.resized(size).images(slice(None))
            check(model, x, data.classes, training_batch=training_batch, trust=trust)
        except InputError as error:
            if size is None:
                raise
            raise InputError(f"recipe.grow={recipe.grow}: {error}") from None
    shown = slice(min(2, recipe.batch_size))
    tried(objective, model, few.images(shown), few.labels[shown], data.classes)


def _looked_at(model: nn.Module, x: Tensor, classes: int, when: str = "") -> tuple[Tensor, Tensor]:
    """The logits and the gradient of what attacks ascend, if both are as they have to be."""
    given = x.clone()
    shape = f"of shape {tuple(x.shape[1:])}" if len(x) > 1 else f"of shape {tuple(x.shape[1:])} one at a time"
    with torch.no_grad(), reported(f"{when}the network does not take images {shape}: {{}}"):
        logits = model(given)
    if not isinstance(logits, Tensor):
        kind = type(logits).__name__
        raise InputError(f"{when}the network returns a {kind}; expected logits, a tensor (n, {classes})")
    if logits.shape != (len(x), classes):
        raise InputError(
            f"{when}the network returns {tuple(logits.shape)} for {len(x)} images; the data have {classes} classes, "
            f"expected ({len(x)}, {classes})"
        )
    if not torch.equal(given, x):
        raise InputError(
            f"{when}the network changes the images that it is given; write x = x - mean instead of x -= mean"
        )
    if not logits.isfinite().all():
        raise InputError(f"{when}the network returns numbers that are not finite")
    with reported(f"{when}attacks cannot take the network's gradient: {{}}"):
        gradient = _gradient(model, x, logits.argmax(1))
    if gradient is None or not gradient.any():
        raise InputError(
            f"{when}the network gives no gradient of its images, which every attack needs: remove its no_grad or "
            "detach, and do not round or quantise them"
        )
    bad = int((~gradient.isfinite().flatten(1).all(1)).sum())
    if bad:
        raise InputError(
            f"{when}the network's gradient is not finite for {bad} of {len(x)} images; look for a root or a division "
            "by zero, as of black pixels"
        )
    return logits, gradient


def _gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor | None:
    """Of what attacks ascend; None where the logits do not depend on the images."""
    with torch.enable_grad():
        images = x.clone().requires_grad_()
        ascended = surrogate(CrossEntropy())(model(images).float(), y).sum()
        if not ascended.requires_grad:
            return None
        gradient: Tensor | None = torch.autograd.grad(ascended, images, allow_unused=True)[0]
    return gradient


def _by_itself(model: nn.Module, x: Tensor, logits: Tensor) -> None:
    with torch.no_grad(), reported("the network takes no image by itself ({}); is it left in train mode?"):
        again, alone = model(x), model(x[:1])
    if alone.shape != logits[:1].shape:
        raise InputError(f"the network returns {tuple(alone.shape)} for one image; expected {tuple(logits[:1].shape)}")
    tolerance = 1e-2 * logits.abs().amax().clamp_min(1e-6)
    if (again - logits).abs().amax() > tolerance:
        raise InputError("the network answers differently each time in eval mode; is its dropout always on?")
    if (alone - logits[:1]).abs().amax() > tolerance:
        raise InputError("the network's answer depends on the other images of the batch; is it left in train mode?")


@torch.no_grad()
def _suspect(model: nn.Module, x: Tensor, logits: Tensor, gradient: Tensor) -> None:
    """Raises InputError for what is wrong in most networks, and might be meant in one."""
    noise = torch.randn((16, *x.shape[1:]), generator=torch.Generator().manual_seed(0)).to(x)
    try:
        far, farther = model(1e3 * noise), model(1e6 * noise)
    except Exception:  # noqa: BLE001 (they are no images, and it may say so)
        far = farther = logits
    found = torch.cat([logits, far, farther])
    if found.amin() >= 0:
        sums = found.sum(1)
        if (sums - sums.mean()).abs().amax() < 1e-3 * sums.mean():
            raise InputError("the network returns probabilities; expected logits: leave out its softmax")
    low, high = farther.aminmax()
    positive = found.amin() >= 0 and high < 1.01 * far.amax()
    # Far out, all are at one of two ends, as those of a tanh are. Wide apart they are a soft cap of logits.
    at_ends = high - low < 20 and (torch.minimum(farther - low, high - farther) < 0.01 * (high - low)).all()
    if far is not logits and (positive or at_ends):
        low = low.clamp_max(0)
        raise InputError(
            f"the network returns numbers that stay between {low:.3g} and {high:.3g} whatever the images; expected "
            "logits: leave out its sigmoid or tanh"
        )
    zero = int((gradient == 0).flatten(1).all(1).sum())
    if 2 * zero > len(x):
        raise InputError(
            f"the network gives no gradient of {zero} of {len(x)} images, so that attacks do not move them; what "
            "saturates in it?"
        )
    for name, pixel in (("black", 0.0), ("white", 1.0)):
        image = torch.full_like(x[:1], pixel)
        with reported(f"the network does not take an all {name} image: {{}}"):
            answer = model(image)
            own = _gradient(model, image, answer.argmax(1))
        if not answer.isfinite().all() or (own is not None and not own.isfinite().all()):
            raise InputError(
                f"the network's logits or their gradient are not finite for an all {name} image; look for a root or a "
                "division by zero"
            )


def check_range(model: nn.Module, x: Tensor, y: Tensor) -> str:
    """How well the model classifies images in [0, 1], in words, and which other range it does better on, if one.

    Raises InputError if it does much better there: the model expects that.

    x: images (n, c, h, w) in [0, 1] and their labels, (n,); a hundred or more, of all classes.
    """
    std, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    numbers = [[round(value, 4) for value in each.flatten().tolist()] for each in (mean, std)]
    ranges = {
        "images in [0, 1]": x,
        "images in [0, 255] (scale: 255)": 255 * x,
        "images in [-1, 1] (mean: [0.5], std: [0.5])": 2 * x - 1,
        f"normalised images (such as mean: {numbers[0]}, std: {numbers[1]})": (x - mean) / std,
    }
    accuracy = {}
    for name, each in ranges.items():
        with (
            contextlib.suppress(*([] if each is x else [InputError])),  # it may refuse what it was not made for
            reported("the network does not take images in [0, 1]: {}"),
            undisturbed(model),
            torch.no_grad(),
        ):
            accuracy[name] = (model(each).argmax(1) == y).float().mean().item()
    own = accuracy["images in [0, 1]"]
    best = max(accuracy, key=lambda name: accuracy[name])
    found = f"the network classifies {own:.1%} of {len(x)} images in [0, 1]"
    if accuracy[best] == own:
        return found
    found += f", and {accuracy[best]:.1%} as {best}"
    advice = "say what it expects in its config, with _target_: saddlepoint.models.Normalized around it"
    if accuracy[best] > own + 0.1:
        raise InputError(f"{found}: {advice}")
    return f"{found}; if that is what it was trained on, {advice}"

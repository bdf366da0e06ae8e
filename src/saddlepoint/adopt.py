"""Networks that were not made here: their weights are read as data, and what is wrong is found before an attack."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from saddlepoint.attacks import undisturbed
from saddlepoint.errors import InputError
from saddlepoint.models import Normalized

USUAL = ("state_dict", "model_state_dict", "model", "net")  # where a checkpoint has its state dict


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of what torch.save made of a state dict; nothing in it is executed.

    A dict with the state dict under one of the usual names is taken too, and what DataParallel ("module.") and
    torch.compile ("_orig_mod.") put before names is dropped.
    """
    try:
        is_safe = path.suffix == ".safetensors"
        found: Any = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"no checkpoint at {path}") from None
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or no safetensors file ({error})") from None
    except Exception:  # noqa: BLE001 (damaged bytes raise nearly anything)
        raise InputError(
            f"{path} is damaged or holds more than tensors; save it with torch.save(model.state_dict(), path)"
        ) from None
    if isinstance(found, dict):
        found = next((found[name] for name in USUAL if isinstance(found.get(name), dict)), found)
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        kind = f"a dict of {', '.join(map(str, found))}" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise InputError(
            f"{path} is no state dict but {kind}; expected names and tensors, by themselves or under "
            f"{', '.join(USUAL)}: torch.save(model.state_dict(), path) writes them"
        )
    return {re.sub(r"^((_orig_mod|module)\.)+", "", name): tensor for name, tensor in found.items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Read a state dict into the network, or into the one inside Normalized. Names and shapes have to agree."""
    network = model.network if isinstance(model, Normalized) else model
    try:
        network.load_state_dict(read_state_dict(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} holds another network: {reason[:300]}") from None


def check(model: nn.Module, x: Tensor, classes: int) -> None:
    """Raises InputError if the model does not make logits, (n, classes), of each image in `x` by itself.

    x: a few images (n, c, h, w) in [0, 1], at least two.
    """
    with undisturbed(model):
        images = x.clone().requires_grad_()
        try:
            logits = model(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 (it is not ours, and may check its input in any way)
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"the network does not take images of shape {tuple(x.shape[1:])}: {reason}") from None
        if not isinstance(logits, Tensor):
            raise InputError(f"the network returns a {type(logits).__name__}; expected logits, a tensor (n, {classes})")
        if logits.shape != (len(x), classes):
            raise InputError(
                f"the network returns {tuple(logits.shape)} for {len(x)} images; the data have {classes} classes, "
                f"expected ({len(x)}, {classes})"
            )
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.square().sum(), images, allow_unused=True)
        if gradient is None or not gradient.any():
            raise InputError(
                "the network gives no gradient of its images, which every attack needs: remove its no_grad or detach, "
                "and do not round or quantise them"
            )
        logits = logits.detach()
        try:
            with torch.no_grad():
                again, alone = model(x), model(x[:1])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"the network takes no image by itself ({reason}); is it left in train mode?") from None
    if alone.shape != (1, classes):
        raise InputError(f"the network returns {tuple(alone.shape)} for one image; expected (1, {classes})")
    if not logits.isfinite().all():
        raise InputError("the network returns numbers that are not finite")
    if logits.amin() >= 0 and (logits.sum(1) - 1).abs().amax() < 1e-3:
        raise InputError("the network returns probabilities; expected logits: leave out its softmax")
    tolerance = 1e-2 * logits.abs().amax().clamp_min(1e-6)
    if (again - logits).abs().amax() > tolerance:
        raise InputError("the network answers differently each time in eval mode; is its dropout always on?")
    if (alone - logits[:1]).abs().amax() > tolerance:
        raise InputError("the network's answer depends on the other images of the batch; is it left in train mode?")


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
    with undisturbed(model), torch.no_grad():
        accuracy = {name: (model(each).argmax(1) == y).float().mean().item() for name, each in ranges.items()}
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

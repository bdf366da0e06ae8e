"""The training loop, one for every training method: an objective's losses go down, everything else is bookkeeping."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from saddlepoint.data import Batches, Data
from saddlepoint.errors import InputError, Stopped
from saddlepoint.files import sha256, write_atomically, write_csv
from saddlepoint.runtime import (
    Runtime,
    duration,
    generator,
    noted_signals,
    restore_everywhere,
    states_everywhere,
)
from saddlepoint.tracking import Tracker
from saddlepoint.training.checkpoint import RunDirectory, weights_file
from saddlepoint.training.monitor import Monitor
from saddlepoint.training.objectives import Objective, checked
from saddlepoint.training.recipe import Recipe

log = logging.getLogger(__name__)

SECONDS_BETWEEN_STATES = 120  # the most that is lost with a killed process; of several, up to a row of history


class Trainer:
    """Minimise `objective` over the weights of `model`, as `recipe` says.

    With `recipe.averaging`, `averaged` is the exponential mean of the weights, which becomes a third checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        data: Data,
        recipe: Recipe,
        *,
        runtime: Runtime,
        directory: RunDirectory,
        tracker: Tracker,
        monitor: Monitor,
        metadata: dict[str, str],
        seed: int,
    ) -> None:
        device, self.processes = runtime.torch_device, runtime.processes
        if recipe.batch_size % self.processes.count:
            raise InputError(
                f"recipe.batch_size={recipe.batch_size} is for all processes; "
                f"{self.processes.count} cannot share it evenly"
            )
        self.model, self.objective, self.data, self.recipe = model, objective, data, recipe
        self.runtime, self.directory, self.tracker, self.monitor = runtime, directory, tracker, monitor
        self.metadata, self.seed = metadata, seed
        try:
            self.averaged = copy.deepcopy(model).requires_grad_(False) if recipe.averaging else None
        except RuntimeError as error:  # as of a weight that a hook computes
            raise InputError(f"recipe.averaging cannot copy the network ({str(error).splitlines()[0]})") from None
        self.dtype = runtime.training_dtype(recipe.precision)
        # Every process draws the same batches and takes its share of each; the attack's noise is its own.
        noise = "attack" if self.processes.first else f"attack/{self.processes.rank}"
        purposes = {"order": "order", "augment": "augment", "attack": noise}
        self.generators = {name: generator(seed, purpose, device) for name, purpose in purposes.items()}
        self.generators["dropout"] = runtime.seed_dropout(seed)
        self.batches = Batches(
            data.train, recipe.batch_size, self.generators["order"], recipe.augmentation, self.generators["augment"]
        )
        self.optimizer = recipe.optimizer_of(parameter_groups(model.parameters(), recipe.weight_decay))
        self.steps = recipe.number_of_steps(self.batches.per_epoch)
        self.interval = math.ceil(self.steps / recipe.evaluations)
        # Losses and accuracies of the steps since the last row of history: read then, all at once.
        self.window = torch.zeros(self.interval, 2, device=device)
        self.step, self.seconds = 0, 0.0
        self.rows: list[dict[str, Any]] = []
        self.best = -1.0
        self.best_file = b""  # of the weights that did best; the first process has it

    def fit(self) -> dict[str, Any]:
        """Train to the end, from the run directory's state if there is one. Returns the summary it also writes.

        At SIGINT or SIGTERM it finishes the step, writes the state and raises Stopped.
        """
        self._restore()
        if len(set(self.processes.gather(self.step))) > 1:
            raise InputError(f"the processes do not see the same state in {self.directory.path}; is it shared by all?")
        bar = tqdm(total=self.steps, initial=self.step, unit="step", disable=None, leave=False, smoothing=0.05)
        saved = resumed = time.monotonic()
        earlier, first = self.seconds, self.step
        with bar, noted_signals() as signals:
            while self.step < self.steps:
                self._step()
                bar.update()
                now = time.monotonic()
                self.seconds = earlier + now - resumed
                stop = self.processes.agree(signals)
                if self.step % self.interval == 0 or self.step == self.steps:
                    self._record()
                    left = (self.steps - self.step) * (time.monotonic() - resumed) / (self.step - first)
                    row = _in_words(self.rows[-1], self.steps)
                    log.info("%s  %.0f images/s, %s left", row, self.images_per_second, duration(left))
                elif not stop and (self.processes.count > 1 or now - saved < SECONDS_BETWEEN_STATES):
                    continue  # several processes save together, and their clocks differ
                self._save()
                saved = time.monotonic()
                if stop:
                    raise Stopped(stop)
        self.seconds = earlier + time.monotonic() - resumed
        return self._finish()

    def _step(self) -> None:
        """One minibatch: make the examples, descend. Nothing here waits for the device."""
        progress = self.step / self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.schedule(progress)
        x, y = map(self.processes.share, self.batches.next())
        x = self.recipe.resized(x, progress)
        self.model.train()
        with self.runtime.autocast(self.dtype):
            returned = self.objective(self.model, x, y, self.generators["attack"], progress)
        losses, logits = checked(returned, len(y), self.data.classes)
        self.optimizer.zero_grad(set_to_none=True)
        scale = 1 if self.recipe.reduction == "sum" else 1 / self.batches.size
        (scale * losses.sum()).backward()
        # The attack's passes are each process's own; only this gradient is shared.
        self.processes.add([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.step()
        row = self.window[self.step % self.interval]
        row[0] = losses.detach().mean()
        row[1] = (logits.detach().argmax(1) == y).float().mean()
        self.step += 1
        self._average()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the mean towards the weights and buffers; faster at the beginning, so that it forgets where it began."""
        if self.averaged is None:
            return
        decay = min(self.recipe.averaging, self.step / (self.step + 9))
        # Not state_dict(), which has tied layers several times.
        pairs = ([*network.parameters(), *network.buffers()] for network in (self.averaged, self.model))
        for mean, now in zip(*pairs, strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:  # a count
                mean.copy_(now)

    @property
    def networks(self) -> list[nn.Module]:
        """The one that is trained and, if one is kept, its mean."""
        return [self.model, *([self.averaged] if self.averaged is not None else [])]

    def _filled(self) -> int:
        """How many rows of the window belong to the steps since the last record."""
        return (self.step - 1) % self.interval + 1

    def _check_finite(self) -> None:
        bad = (~self.window[: self._filled(), 0].isfinite()).nonzero()[:1].flatten().tolist()
        first = sorted(index for found in self.processes.gather(bad) for index in found)
        if not all(parameter.isfinite().all() for parameter in self.model.parameters()):
            first = first or [self._filled() - 1]
        if first:
            step = self.step - self._filled() + first[0] + 1
            raise InputError(
                f"loss or weights are not finite at step {step}; {self.directory.path} keeps the state before. "
                "Lower the learning rate (recipe.schedule.peak) or use runtime.precision=float32"
            )

    def _share_buffers(self) -> None:
        """Batch normalisation's running statistics, which each process gathers from its own part, become their mean."""
        buffers = [buffer for each in self.networks for buffer in each.buffers() if buffer.is_floating_point()]
        if self.processes.count > 1 and buffers:
            self.processes.add(buffers)
            for buffer in buffers:
                buffer /= self.processes.count

    def _record(self) -> None:
        """A row of history: the window's means, and what the monitor measures on images as large as the last step's."""
        self._check_finite()
        self._share_buffers()
        means = self.processes.gather(self.window[: self._filled()].double().mean(0).tolist())
        loss, accuracy = (sum(values) / self.processes.count for values in zip(*means, strict=True))
        size = self.recipe.size((self.step - 1) / self.steps)
        held_out = self.data.validation.take(self.monitor.examples).resized(size)  # only what is measured
        row = {
            "step": self.step,
            "epoch": round(self.step / self.batches.per_epoch, 3),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "train_accuracy": accuracy,
            **self.monitor.measure(self.model, held_out, self.seed, self.processes),
        }
        if self.averaged is not None:
            measured = self.monitor.measure(self.averaged, held_out, self.seed, self.processes)
            row |= {f"averaged_{name}": value for name, value in measured.items()}
        if self.recipe.stages:
            row["size"] = held_out.pixels.shape[2]
            if self.rows and self.rows[-1]["size"] != row["size"]:
                self.best = -1.0  # accuracies on images of two sizes do not compare
        chosen = row[self.monitor.chosen]
        self._warn_of_a_fall(chosen, accuracy)
        self.rows.append(row)
        if chosen > self.best:
            self.best = chosen
            self.best_file = self._weights_file("best", self.model)
        self.tracker.log(self.step, {**row, "images_per_second": self.images_per_second})

    def _warn_of_a_fall(self, now: float, trained: float) -> None:
        """Each time held-out robust accuracy falls below half of its best, and is below half of the training's own."""
        before = self.rows[-1][self.monitor.chosen] if self.rows else now
        # Up to 20% may be chance, as of ten classes on few images.
        if self.monitor.select == "robust" and self.best > 0.2 and now < self.best / 2 <= before and trained > 2 * now:
            log.warning(
                "held-out robust accuracy fell from %.1f%% to %.1f%%: the network withstands little but the attack of "
                "its training (catastrophic overfitting). Train with a stronger one, such as training=pgd or more "
                "attack.steps; best.safetensors will hold the best weights on images of the last size",
                100 * self.best,
                100 * now,
            )

    @property
    def precision(self) -> str:
        """Of the forward passes: float32 or bfloat16."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def images_per_second(self) -> float:
        """Training images a second, held-out measurements included."""
        return self.step * self.batches.size / max(self.seconds, 1e-9)

    def _weights_file(self, checkpoint: str, network: nn.Module) -> bytes:
        """Its content; empty where another process writes."""
        metadata = {**self.metadata, "checkpoint": checkpoint, "step": str(self.step)}
        return weights_file(network, metadata) if self.processes.first else b""

    def _save(self) -> None:
        """Everything the rest of the run depends on. History first: a state never is ahead of it."""
        self._check_finite()
        # Until the next row each process has buffers of its own, and an attack in eval mode uses them.
        several = self.processes.count > 1
        buffers = [buffer.cpu() for each in self.networks for buffer in each.buffers()] if several else []
        own = {"buffers": buffers, "everywhere": states_everywhere(), "objective": self._remembered()}
        own |= {name: each.get_state() for name, each in self.generators.items()}
        processes = self.processes.gather(own)
        if not self.processes.first:
            return
        if self.rows:
            write_csv(self.directory.history, self.rows)
        self.directory.write_state(
            {
                "made": {"device": self.runtime.torch_device.type, "precision": self.precision},
                "code": self.metadata.get("code"),
                "networks": [each.state_dict() for each in self.networks],
                "optimizer": self.optimizer.state_dict(),
                "processes": processes,  # generators and buffers of every one
                "batches": self.batches.state_dict(),
                "window": self.window,
                "step": self.step,
                "seconds": self.seconds,
                "rows": self.rows,
                "best": self.best,
                "best_file": torch.tensor(np.frombuffer(self.best_file, np.uint8)),
            }
        )

    def _remembered(self) -> Any:
        """By an objective of your own; None for most, which remember nothing."""
        state_dict = getattr(self.objective, "state_dict", None)
        return state_dict() if state_dict else None

    def _restore(self) -> None:
        state = self.directory.read_state()
        if state is None:
            return
        try:
            self._load(state)
        except (InputError, torch.OutOfMemoryError):
            raise
        except (OSError, LookupError, TypeError, ValueError, RuntimeError, AttributeError):
            raise InputError(
                f"{self.directory.state} is no state of this run; overwrite=true trains from the start"
            ) from None
        log.info("resuming at step %d of %d", self.step, self.steps)

    def _load(self, state: dict[str, Any]) -> None:
        here = {"device": self.runtime.torch_device.type, "precision": self.precision}
        if state["made"] != here:
            there = ", ".join(f"runtime.{key}={value}" for key, value in state["made"].items())
            raise InputError(f"{self.directory.path} was begun with {there}; resume with the same, or overwrite=true")
        if len(state["processes"]) != self.processes.count:
            count = len(state["processes"])
            raise InputError(
                f"{self.directory.state} is of {count} processes and resumes with as many, not {self.processes.count}"
            )
        code = self.metadata.get("code")
        if state.get("code", code) != code:
            log.warning("your code has changed since the training began; overwrite=true begins it again")
        own = state["processes"][self.processes.rank]
        for network, kept in zip(self.networks, state["networks"], strict=True):
            network.load_state_dict(kept)
        buffers = [buffer for each in self.networks for buffer in each.buffers()]
        for buffer, values in zip(buffers, own["buffers"], strict=bool(own["buffers"])):
            buffer.copy_(values)
        self.optimizer.load_state_dict(state["optimizer"])
        if "everywhere" in own:  # which earlier versions did not keep
            restore_everywhere(own["everywhere"])
        for name, each in self.generators.items():
            each.set_state(own[name].cpu())
        if own.get("objective") is not None:
            self.objective.load_state_dict(own["objective"])  # type: ignore[attr-defined]
        self.batches.load_state_dict(state["batches"])
        self.window.copy_(state["window"])
        self.step, self.seconds, self.rows, self.best = (state[key] for key in ("step", "seconds", "rows", "best"))
        if self.processes.first:
            self.best_file = state["best_file"].numpy().tobytes()

    def _finish(self) -> dict[str, Any]:
        contents = {"best": self.best_file, "last": self._weights_file("last", self.model)}
        if self.averaged is not None:
            contents["averaged"] = self._weights_file("averaged", self.averaged)
        comparable = [row for row in self.rows if row.get("size") == self.rows[-1].get("size")]
        summary = {
            **self.metadata,
            "steps": self.steps,
            "batch_size": self.batches.size,
            "precision": self.precision,
            "device": self.runtime.describe(),
            "processes": self.processes.count,
            "seconds": round(self.seconds, 1),
            "images_per_second": float(f"{self.images_per_second:.5g}"),
            "peak_memory_mib": self.runtime.peak_memory(),
            "train_loss": self.rows[-1]["train_loss"],
            "best_step": max(comparable, key=lambda row: row[self.monitor.chosen])["step"],
        }
        if self.processes.first:
            for checkpoint, content in contents.items():
                write_atomically(self.directory.weights(checkpoint), content)
                summary[f"{checkpoint}_sha256"] = sha256(self.directory.weights(checkpoint))
            self.directory.finish(summary)
            self.tracker.table("held_out", self.rows)
            self.tracker.images(
                self.step, "examples", partial(self.monitor.pictures, self.model, self.data.validation, self.seed)
            )
            self.tracker.finish(summary)
        return summary


def parameter_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases and normalisation parameters, which have one dimension, do not."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in parameters:
        (decayed if parameter.ndim > 1 else others).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _in_words(row: dict[str, Any], steps: int) -> str:
    return (
        f"step {row['step']}/{steps}  loss {row['train_loss']:.3f}  "
        f"held-out natural {row['held_out_natural']:.1%} robust {row['held_out_robust']:.1%}"
    )

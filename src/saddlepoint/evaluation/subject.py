"""A checkpoint under measurement: loaded only if something has to be measured, and named in every result."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from saddlepoint.attacks import Attack
from saddlepoint.data import Split
from saddlepoint.errors import InputError
from saddlepoint.evaluation.robustness import evaluate
from saddlepoint.results import Result, Unfinished, digest, interval, measured, pack, read_arrays, sha256, write_arrays
from saddlepoint.runtime import PRECISIONS, Runtime, provenance
from saddlepoint.tracking import Tracker
from saddlepoint.training.checkpoint import RunDirectory

log = logging.getLogger(__name__)

RUN_KEYS = ("dataset", "model", "training", "recipe", "seed")  # what names a run in its results


class Subject:
    """One checkpoint of a run.

    Args:
        load: makes the network with the checkpoint's weights.
        checkpoint: one of CHECKPOINTS.
        command: makes its measurements.
        data: for the key of every measurement, what tells the data from others of their name.
    """

    def __init__(
        self,
        directory: RunDirectory,
        checkpoint: str,
        load: Callable[[], nn.Module],
        runtime: Runtime,
        command: str,
        data: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.checkpoint, self.runtime, self.command = directory, checkpoint, runtime, command
        self.data = data or {}
        self._load = load
        self.training = directory.read_summary()
        if not {*RUN_KEYS, "train_loss"} <= self.training.keys():
            raise InputError(f"{directory.summary} is no summary of a training; overwrite=true trains it again")

    @cached_property
    def model(self) -> nn.Module:
        return self._load()

    @cached_property
    def checkpoint_sha256(self) -> str:
        return sha256(self.directory.weights(self.checkpoint))

    def track(self, tracker: Tracker, results: list[Result]) -> None:
        """Show results in the run that made the checkpoint, where the tracker keeps runs."""
        tracker.start(self.directory.path, self.directory.read_config())
        rows = [
            {
                "checkpoint": self.checkpoint,
                "measurement": result["key"]["measurement"],
                "accuracy": result["accuracy"],
                "low": result["interval"][0],
                "high": result["interval"][1],
                "examples": result["key"]["examples"],
            }
            for result in results
        ]
        tracker.table("evaluation", rows)
        tracker.finish({f"{row['checkpoint']}/{row['measurement']}": row["accuracy"] for row in rows})

    @property
    def capacity(self) -> int | None:
        """The network's width in the units of its family; None where it is of none."""
        capacity: int | None = self.directory.read_config()["model"].get("capacity")
        return capacity

    @property
    def label(self) -> str:
        """For people: which network this is."""
        return f"{self.directory.path.parent.name} {self.directory.path.name}"

    def measure(self, name: str, key: Mapping[str, Any], compute: Callable[[], Result]) -> Result:
        """`compute`'s result with all it depends on, from the file of its key if there is one, and that file's name."""

        def timed() -> Result:
            log.info("measuring %s of %s", name, self.label)
            started = time.monotonic()
            result = compute()
            earlier = result.pop("earlier_seconds", 0)
            return {
                **result,
                "seconds": round(earlier + time.monotonic() - started, 2),
                "run": {key: self.training[key] for key in RUN_KEYS},
                "train_loss": self.training["train_loss"],
                "command": self.command,
                "provenance": provenance(self.runtime),
            }

        # A meeting point: every process looks for the result before the first one can write it.
        self.runtime.processes.gather(None)
        path = self._file(name, key)
        result = measured(path, self._key(name, key), timed, write=self.runtime.processes.first)
        return {**result, "file": str(path.relative_to(self.directory.path.parents[1]))}

    def _file(self, name: str, key: Mapping[str, Any]) -> Path:
        """<checkpoint>-<name>-<6 hex digits of the key>.json: another key is another file."""
        return self.directory.results / f"{self.checkpoint}-{name}-{digest(self._key(name, key))}.json"

    def _key(self, name: str, key: Mapping[str, Any]) -> dict[str, Any]:
        checkpoint = {"checkpoint": self.checkpoint, "checkpoint_sha256": self.checkpoint_sha256}
        return {"measurement": name, **checkpoint, **self.data, **key}

    def measure_arrays(
        self, name: str, key: Mapping[str, Any], compute: Callable[[], tuple[Result, dict[str, np.ndarray]]]
    ) -> tuple[Result, dict[str, np.ndarray]]:
        """As `measure`, for a measurement whose arrays are kept in an .npz beside the JSON."""
        path = self._file(name, key).with_suffix(".npz")
        if not path.exists():
            path.with_suffix(".json").unlink(missing_ok=True)

        def both() -> Result:
            result, arrays = compute()
            # The JSON vouches for the arrays: the old one goes before they change, the new one comes after.
            path.with_suffix(".json").unlink(missing_ok=True)
            write_arrays(path, arrays)
            return {**result, "arrays": path.name}

        return self.measure(name, key, both), read_arrays(path)

    def accuracy(
        self,
        name: str,
        attack: Attack | None,
        split: Split,
        total: int,
        *,
        batch_size: int,
        seed: int,
        precision: str = "float32",
        source: Subject | None = None,
    ) -> Result:
        """Accuracy on a test split of `total` images, or the part of it given, under one attack.

        With `source` the examples are made on that network instead (black box). `precision` is one of PRECISIONS.
        """

        def compute() -> Result:
            bar = f"{name}, {self.label}"
            outcome = evaluate(
                self.model,
                split,
                attack,
                source=source.model if source else None,
                batch_size=batch_size,
                seed=seed,
                precision=PRECISIONS[precision],
                processes=processes,
                progress=bar,
                unfinished=unfinished,
            )
            low, high = interval(int(outcome.correct.sum()), len(split))
            return {
                "accuracy": outcome.accuracy,
                "interval": [low, high],
                "correct": pack(outcome.correct),
                "loss": outcome.loss,
                "no_gradient": outcome.blind,
                "earlier_seconds": unfinished.earlier,
            }

        key: dict[str, Any] = {
            "attack": attack.describe() if attack else None,
            "examples": len(split),
            "of": total,
            "batch_size": batch_size,
            "seed": seed,
        }
        if attack and precision != "float32":
            key["attack"]["precision"] = precision
        if source:
            name = f"{name}-from-{source.directory.path.parent.name}-{source.directory.path.name}"
            key["source"] = {"checkpoint": source.checkpoint, "checkpoint_sha256": source.checkpoint_sha256}
        processes = self.runtime.processes
        unfinished = Unfinished(self._file(name, key), self._key(name, key), processes.rank)
        result = self.measure(name, key, compute)
        if processes.first:
            unfinished.clear()
        return result

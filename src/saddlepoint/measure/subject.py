"""A checkpoint under measurement: loaded only if something has to be measured, and named in every result."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from saddlepoint.attacks import Attack, described
from saddlepoint.data import Split
from saddlepoint.errors import InputError
from saddlepoint.files import digest, read_arrays, sha256, write_arrays
from saddlepoint.measure.accuracy import evaluate
from saddlepoint.measure.result import Accuracy, F, Found, Key, Result, RunName, interval
from saddlepoint.measure.store import Unfinished, measured, pack
from saddlepoint.runtime import PRECISIONS, Runtime, provenance
from saddlepoint.tracking import Tracker
from saddlepoint.training.checkpoint import RunDirectory

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


class Subject:
    """One checkpoint of a run.

    Args:
        load: makes the network with the checkpoint's weights.
        checkpoint: one of CHECKPOINTS.
        command: makes its measurements.
        data_sha256, code: for the key of every measurement, of what others may have under the same name: data and
            a network that somebody made.
    """

    def __init__(
        self,
        directory: RunDirectory,
        checkpoint: str,
        load: Callable[[], nn.Module],
        runtime: Runtime,
        command: str,
        data_sha256: str | None = None,
        code: str | None = None,
    ) -> None:
        self.directory, self.checkpoint, self.runtime, self.command = directory, checkpoint, runtime, command
        self.data_sha256, self.code = data_sha256, code
        self._load = load
        summary = directory.read_summary()
        try:
            self.run = RunName(**{each.name: summary[each.name] for each in dataclasses.fields(RunName)})
            self.train_loss: float | None = summary["train_loss"]
        except KeyError:
            raise InputError(
                f"{directory.summary} is no summary of a training; overwrite=true trains it again"
            ) from None

    @cached_property
    def model(self) -> nn.Module:
        return self._load()

    @cached_property
    def checkpoint_sha256(self) -> str:
        return sha256(self.directory.weights(self.checkpoint))

    def track(self, tracker: Tracker, results: Sequence[Result[Accuracy]]) -> None:
        """Show results in the run that made the checkpoint, where the tracker keeps runs."""
        tracker.start(self.directory.path, self.directory.read_config())
        rows = [
            {
                "checkpoint": self.checkpoint,
                "measurement": result.key.measurement,
                "accuracy": result.found.accuracy,
                "low": result.found.interval[0],
                "high": result.found.interval[1],
                "examples": result.key.examples,
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

    def measure(
        self,
        key: Key,
        compute: Callable[[], F],
        read: Callable[..., F],
        unfinished: Unfinished | None = None,
        arrays: str | None = None,
    ) -> Result[F]:
        """`compute`'s result with all it depends on, from the file of its key if there is one, and that file's name.

        `read` makes what was found of its fields in the file. `unfinished` has what an interrupted measurement did,
        `arrays` is the name of the .npz that `compute` writes.
        """

        def timed() -> dict[str, object]:
            log.info("measuring %s of %s", key.measurement, self.label)
            started = time.monotonic()
            found = dataclasses.asdict(compute())
            earlier = unfinished.earlier if unfinished else 0
            return {
                **found,
                **({"arrays": arrays} if arrays else {}),
                "seconds": round(earlier + time.monotonic() - started, 2),
                "run": dataclasses.asdict(self.run),
                "train_loss": self.train_loss,
                "command": self.command,
                "provenance": provenance(self.runtime),
            }

        processes = self.runtime.processes
        # A meeting point: every process looks for the result before the first one can write it.
        processes.gather(None)
        path = self._file(key)
        stored = measured(path, self._complete(key).plain(), timed, write=processes.first)
        if unfinished and processes.first:
            unfinished.clear()
        try:
            return Result.read(stored, read, str(path.relative_to(self.directory.path.parents[1])))
        except (KeyError, TypeError):
            raise InputError(f"{path} does not hold a result; delete it to have it measured again") from None

    def measure_arrays(
        self, key: Key, compute: Callable[[], tuple[F, Arrays]], read: Callable[..., F]
    ) -> tuple[Result[F], Arrays]:
        """As `measure`, for a measurement whose arrays are kept in an .npz next to the JSON."""
        path = self._file(key).with_suffix(".npz")
        if not path.exists():
            path.with_suffix(".json").unlink(missing_ok=True)

        def numbers() -> F:
            found, arrays = compute()
            # The JSON vouches for the arrays: the old one goes before they change, the new one comes after.
            path.with_suffix(".json").unlink(missing_ok=True)
            write_arrays(path, arrays)
            return found

        return self.measure(key, numbers, read, arrays=path.name), read_arrays(path)

    def arrays(self, key: Key, compute: Callable[[], Arrays]) -> Arrays:
        """As `measure_arrays`, for a measurement that finds nothing else."""
        return self.measure_arrays(key, lambda: (Found(), compute()), Found)[1]

    def _file(self, key: Key) -> Path:
        """<checkpoint>-<name>-<6 hex digits of the key>.json: another key is another file."""
        name = f"{self.checkpoint}-{key.measurement}-{digest(self._complete(key).plain())}.json"
        return self.directory.results / name

    def _complete(self, key: Key) -> Key:
        return dataclasses.replace(
            key,
            checkpoint=self.checkpoint,
            checkpoint_sha256=self.checkpoint_sha256,
            data_sha256=self.data_sha256,
            code=self.code,
        )

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
    ) -> Result[Accuracy]:
        """Accuracy on a test split of `total` images, or the part of it given, under one attack.

        With `source` the examples are made on that network instead (black box). `precision` is one of PRECISIONS.
        """

        def compute() -> Accuracy:
            outcome = evaluate(
                self.model,
                split,
                attack,
                source=source.model if source else None,
                batch_size=batch_size,
                seed=seed,
                precision=PRECISIONS[precision],
                processes=processes,
                progress=f"{key.measurement}, {self.label}",
                unfinished=unfinished,
            )
            shares = interval(int(outcome.correct.sum()), len(split))
            return Accuracy(outcome.accuracy, shares, pack(outcome.correct), outcome.loss, outcome.blind)

        description = described(attack) if attack else {}
        if attack and precision != "float32":
            description |= {"precision": precision, **getattr(attack, "in_lower_precision", {})}
        key = Key(name, attack=description, examples=len(split), of=total, batch_size=batch_size, seed=seed)
        if source:
            key = dataclasses.replace(
                key,
                measurement=f"{name}-from-{source.directory.path.parent.name}-{source.directory.path.name}",
                source={
                    "checkpoint": source.checkpoint,
                    "checkpoint_sha256": source.checkpoint_sha256,
                    **({"code": source.code} if source.code else {}),
                },
            )
        processes = self.runtime.processes
        unfinished = Unfinished(self._file(key), self._complete(key).plain(), processes.rank)
        return self.measure(key, compute, Accuracy, unfinished)

"""Where a run's numbers go while it runs. history.csv is always written; this adds Weights & Biases.

The only file that imports wandb. Whatever goes wrong there is said once and never stops the training.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from saddlepoint.errors import one_line
from saddlepoint.files import read_csv, write_atomically

log = logging.getLogger(__name__)

# Images (n, h, w, c) in [0, 1], and a caption for each.
Images = Callable[[], tuple[np.ndarray, list[str]]]

SESSION = 100  # more rows than a measurement writes

# Characters that W&B's server takes: of a name or a group, and of a tag.
NAME, TAG = 128, 64


def shortened(text: str, most: int) -> str:
    """At most `most` characters; a longer text ends in a digest of the whole instead, so that others differ."""
    if len(text) <= most:
        return text
    return f"{text[: most - 7]}-{hashlib.sha256(os.fsencode(text)).hexdigest()[:6]}"


class Tracker:
    """Tells nobody: history.csv holds the numbers. Others override what they show.

    `with tracker:` ends what was started as failed if an exception leaves the block.
    """

    def start(self, directory: Path, config: dict[str, Any], job: str = "train") -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def images(self, step: int, name: str, make: Images) -> None: ...

    def table(self, name: str, rows: list[dict[str, Any]]) -> None: ...

    def finish(self, summary: Mapping[str, Any]) -> None: ...

    def abandon(self) -> None:
        """End what was started and is not finished, as failed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abandon()


class Wandb(Tracker):
    """Weights & Biases: online when a key is configured, otherwise offline (see `wandb leet`, `wandb sync`).

    Args:
        project: W&B project.
        mode: "auto", "online", "offline" or "disabled". WANDB_MODE in the environment wins over "auto".
    """

    def __init__(self, project: str = "saddlepoint", mode: str = "auto") -> None:
        self.project, self.mode, self.run = project, mode, None
        self.step = self.row = 0  # of the training, and of W&B, whose own counts every row

    def start(self, directory: Path, config: dict[str, Any], job: str = "train") -> None:
        """Group, job type and tags make a dashboard fall into data set, model and training by itself.

        job="report" is for the figures of all runs of a data set. A run that is still open in this process, such as a
        sweep's job that failed, ends as failed first.
        """

        def begin() -> Any:
            import wandb

            if wandb.run is not None:  # which wandb.init would continue
                wandb.run.finish(exit_code=1)
            names = {key: str(config[key]["name"]) for key in ("dataset", "model", "training", "recipe")}
            run_of, suffix = directory.parent.name, f"-s{config['seed']}"
            if job == "report":
                run_of, suffix = directory.name, ""
            tags = names.values() if job == "train" else [names["dataset"], names["recipe"]]
            run = wandb.init(
                project=self.project,
                dir=directory,
                mode=self._decide(),
                id=self._id(directory),
                resume="allow",
                name=shortened(run_of, NAME - len(suffix)) + suffix,
                group=shortened(f"{names['dataset']}/{run_of}", NAME),
                job_type=job,
                tags=[shortened(tag, TAG) for tag in tags if tag],
                config=config,
                settings=wandb.Settings(silent=True, init_timeout=60),
            )
            run.define_metric("*", step_metric="step")
            history = directory / "history.csv"
            if history.exists():
                self.step = int(read_csv(history)[-1]["step"])
            # Offline, W&B counts from 0 again: rows go behind those of earlier sessions, and never over them.
            earlier = len(list((directory / "wandb").glob("*run-[0-9]*"))) - 1
            self.row = self.step + SESSION * earlier
            return run

        self.run = self._try(begin)

    @staticmethod
    def _id(directory: Path) -> str:
        """The directory's W&B run, made up once, so that a resumed training or a measurement continues it."""
        path = directory / "wandb.id"
        if not path.exists():
            write_atomically(path, secrets.token_hex(8).encode())
        return path.read_text()

    def _decide(self) -> Any:  # a str; wandb names the choices if it is another
        """Before wandb.init: falling back to offline after a failed online start would wait for its time-out."""
        if self.mode != "auto":
            return self.mode
        if mode := os.environ.get("WANDB_MODE"):
            return mode
        import wandb

        try:
            return "online" if wandb.login(prompt=False) else "offline"
        except Exception as error:  # noqa: BLE001 (a key, but the server does not answer or refuses it)
            log.warning("W&B offline: %s", error)
            return "offline"

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._with_run(lambda run: self._row(run, step, metrics))

    def images(self, step: int, name: str, make: Images) -> None:
        """`make` is called only here, where the images are wanted."""

        def send(run: Any) -> None:
            import wandb

            images, captions = make()
            pixels = (255 * images).round().astype(np.uint8)
            pixels = pixels.squeeze(3) if pixels.shape[3] == 1 else pixels
            shown = [wandb.Image(p, caption=c) for p, c in zip(pixels, captions, strict=True)]
            self._row(run, step, {name: shown})

        self._with_run(send)

    def table(self, name: str, rows: list[dict[str, Any]]) -> None:
        def send(run: Any) -> None:
            import wandb

            table = wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])
            self._row(run, self.step, {name: table})

        self._with_run(send)

    def finish(self, summary: Mapping[str, Any]) -> None:
        def end(run: Any) -> None:
            run.summary.update(dict(summary))
            run.finish()
            self.run = None

        self._with_run(end)

    def abandon(self) -> None:
        def end(run: Any) -> None:
            run.finish(exit_code=1)
            self.run = None

        self._with_run(end)

    def _row(self, run: Any, step: int, values: Mapping[str, Any]) -> None:
        self.step, self.row = step, max(step, self.row + 1)
        run.log({"step": step, **values}, step=self.row, commit=True)

    def _with_run(self, action: Callable[[Any], None]) -> None:
        if self.run is not None:
            self._try(lambda: action(self.run))

    def _try(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # noqa: BLE001 (whatever it is, the training continues)
            reason = f"{type(error).__name__}: {one_line(error)}"
            log.warning("W&B is off from here on (%s); history.csv stays complete", reason)
            self.run = None
            return None

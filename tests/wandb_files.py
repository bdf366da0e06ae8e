"""What a W&B run wrote: its .wandb file is a LevelDB log of protocol buffers."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER = 32768, 7  # bytes; a record's header is checksum, length and type, as is the file's own


def records(path: Path) -> Iterator[Any]:
    content, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # too little for a header: the rest of the block is padding
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + HEADER])
        if at + HEADER + length > len(content):  # still being written
            return
        whole += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


class Logged:
    """One offline run folder: its identity and everything it logged."""

    def __init__(self, folder: Path) -> None:
        (file,) = folder.glob("*.wandb")
        deadline = time.monotonic() + 20
        found: list[Any] = []
        while not any(record.HasField("exit") for record in found):  # W&B's own process writes it, and this last
            assert time.monotonic() < deadline, f"{file} is not complete"
            time.sleep(0.05)
            found = list(records(file))
        self.exit_code = next(record.exit.exit_code for record in found if record.HasField("exit"))
        self.run = next(record.run for record in found if record.HasField("run"))
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}
        self.history = [self._items(record.history.item) for record in found if record.HasField("history")]
        self.metrics = [record.metric for record in found if record.HasField("metric")]
        self.summary: dict[str, Any] = {}
        for record in found:
            if record.HasField("summary"):
                self.summary |= self._items(record.summary.update)

    @staticmethod
    def _items(items: Any) -> dict[str, Any]:
        return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

    def rows(self, *names: str) -> list[dict[str, Any]]:
        """The logged rows that have all these names."""
        return [row for row in self.history if set(names) <= set(row)]

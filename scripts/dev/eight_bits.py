"""Make finished runs a quarter as large: PYTHONPATH=src python scripts/dev/eight_bits.py FOLDER...

A run's weights are kept in 8 bits, with a scale for each output. What is measured afterwards is measured on exactly
what the files hold.
"""

from __future__ import annotations

import sys

from safetensors import safe_open
from safetensors.torch import save

from saddlepoint.files import sha256, write_atomically, write_json
from saddlepoint.training.checkpoint import CHECKPOINTS, RunDirectory, in_eight_bits

for folder in sys.argv[1:]:
    directory = RunDirectory(folder)
    summary = {**directory.read_summary(), "bits": 8}
    for checkpoint in CHECKPOINTS:
        path = directory.weights(checkpoint)
        if checkpoint != "last" and not path.exists():
            summary.pop(f"{checkpoint}_sha256", None)
            continue
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
        write_atomically(path, save(in_eight_bits(tensors), metadata))
        summary[f"{checkpoint}_sha256"] = sha256(path)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    write_json(directory.summary, summary)

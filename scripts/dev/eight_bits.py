"""Make finished runs a quarter as large: PYTHONPATH=src python scripts/dev/eight_bits.py FOLDER...

A run's last weights are kept in 8 bits, with a scale for each output, and the best ones are deleted. What is measured
afterwards is measured on exactly what the file holds.
"""

from __future__ import annotations

import sys

from safetensors import safe_open
from safetensors.torch import save

from saddlepoint.files import sha256, write_atomically, write_json
from saddlepoint.training.checkpoint import RunDirectory, in_eight_bits

for folder in sys.argv[1:]:
    directory = RunDirectory(folder)
    path, summary = directory.weights("last"), directory.read_summary()
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    write_atomically(path, save(in_eight_bits(tensors), metadata))
    summary.pop("best_sha256", None)
    write_json(directory.summary, {**summary, "bits": 8, "last_sha256": sha256(path)})
    directory.weights("best").unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

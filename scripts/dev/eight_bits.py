"""Make a finished run a quarter as large: PYTHONPATH=src python scripts/dev/eight_bits.py outputs/cifar10/wide-pgd-fast/seed0

Its last weights are kept in 8 bits, with a scale for each output; the best ones are deleted. What is measured afterwards is
measured on exactly what the file holds.
"""

from __future__ import annotations

import sys

from safetensors import safe_open
from safetensors.torch import save

from saddlepoint.results import sha256, write_atomically, write_json
from saddlepoint.training.checkpoint import RunDirectory, in_eight_bits

for folder in sys.argv[1:]:
    directory = RunDirectory(folder)
    path = directory.weights("last")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    write_atomically(path, save(in_eight_bits(tensors), metadata))
    summary = {**directory.read_summary(), "bits": 8, "last_sha256": sha256(path)}
    write_json(directory.summary, summary)
    directory.weights("best").unlink(missing_ok=True)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

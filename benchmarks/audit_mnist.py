"""Audits the untrained MNIST ODE-Net, our engine and torchdiffeq in one table.

    python benchmarks/audit_mnist.py [words for node-audit ...]

The images are random numbers of MNIST's shape: nothing is downloaded, and an untrained network does not care.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SAMPLES = 640
WORDS = ["dataset=npz", "dataset.normalize=false", "problem.batch_size=128", "beside=[torchdiffeq]"]


def main() -> None:
    """Writes the images, runs the command."""
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        inputs = random.standard_normal((SAMPLES, 1, 28, 28), dtype=np.float32)
        np.savez(path, inputs=inputs, targets=np.arange(SAMPLES) % 10)
        command = [sys.executable, "-m", "node_cli.cli.audit", *WORDS, f"dataset.path={path}", *sys.argv[1:]]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()

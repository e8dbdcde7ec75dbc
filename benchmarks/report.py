"""Seconds that `node-report` takes for many runs, the start of Python included.

    python benchmarks/report.py [--runs 1000] [--times 5]

The runs are copies of one of two epochs, each with a seed and an error of its own, in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUICK = ["model=mlp", "model.width=8", "trainer.epochs=2", "num_threads=1", "device=cpu", "logger=jsonl"]
COPIED = (".hydra", "summary.json", "metrics.jsonl", "run.log")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [sys.executable, "-m", "node_cli.cli.train", *QUICK, f"run_dir={folder / 'one'}"]
        subprocess.run(train, check=True, capture_output=True)
        for number in range(arguments.runs):
            copy_run(folder / "one", folder / "many" / str(number), number)
        command = [sys.executable, "-m", "node_cli.cli.report", str(folder / "many"), "--by", "seed"]
        seconds = [timed(command) for _ in range(arguments.times)]
    print(
        f"{arguments.runs} runs: {statistics.median(seconds):.2f} s (of {arguments.times}: {min(seconds):.2f} to ",
        end="",
    )
    print(f"{max(seconds):.2f})")


def copy_run(run: Path, copy: Path, number: int) -> None:
    copy.mkdir(parents=True)
    for name in COPIED:
        (shutil.copytree if (run / name).is_dir() else shutil.copy)(run / name, copy / name)
    summary = json.loads((copy / "summary.json").read_text(encoding="utf-8"))
    summary["config"]["seed"] = number % 50
    summary["metrics"]["test/error"] += 1e-5 * number
    (copy / "summary.json").write_text(json.dumps(summary), encoding="utf-8")


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

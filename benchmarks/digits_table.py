"""Trains every model on digits over the same five seeds and prints the table of docs/benchmarks.md.

    python benchmarks/digits_table.py [--seeds 0,1,2,3,4] [--models odenet,rknet,...] [overrides for node-train ...]

Each run is a process of its own, `node-train model=... seed=...`; seconds are those of the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MODELS = "odenet,rknet,resnet,resnet1,mlp,stem_only"


def main() -> None:
    """Runs all, prints one Markdown row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--models", default=MODELS)
    arguments, overrides = parser.parse_known_args()
    folder = Path("outputs") / "digits_table" / time.strftime("%Y-%m-%d-%H-%M-%S")
    print("| model | test error, % | parameters | NFE | seconds |\n|---|---|---|---|---|", flush=True)
    for model in arguments.models.split(","):
        runs = [train(model, seed, folder, overrides) for seed in arguments.seeds.split(",")]
        print(row(model, runs), flush=True)


def train(model: str, seed: str, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """One run; its summary, and how long the process took."""
    run_dir = folder / f"{model}-{seed}"
    arguments = [f"model={model}", f"seed={seed}", f"run_dir={run_dir}", *overrides]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "node_cli.cli.train", *arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    return {**summary, "process_seconds": seconds}


def row(model: str, runs: list[dict[str, Any]]) -> str:
    """Mean and std of the test error over seeds, the slowest run beside the median one."""
    errors = [100 * run["metrics"]["test/error"] for run in runs]
    std = statistics.stdev(errors) if len(errors) > 1 else 0.0
    seconds = [run["process_seconds"] for run in runs]
    nfe = statistics.mean(run["nfe"].get("nfe/forward", 0.0) for run in runs)
    return (
        f"| {model} | {statistics.mean(errors):.2f} ± {std:.2f} | {runs[0]['parameters']:,} | "
        f"{f'{nfe:.1f}' if nfe else '-'} | {statistics.median(seconds):.1f} (slowest {max(seconds):.1f}) |"
    )


if __name__ == "__main__":
    main()

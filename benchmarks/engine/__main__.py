"""Ours against torchdiffeq (and torchode, torchdyn, diffrax where installed), in turn, in one process, as ratios.

    python -m benchmarks.engine [--rounds 10] [--cases mnist,gpu,small,memory] [--save]

mnist   a training step of the MNIST ODE-Net; gpu: the same there
small   a training step of a problem where everything but the vector field is overhead
memory  peak memory against the number of steps

Prints a table for each case, medians with quartiles; with --save also writes benchmarks/results/engine.json, in which
other cases stay as they are, and docs/images/engine.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import memory, mnist, plot, small
from node_cli.files import write_whole

ROOT = Path(__file__).parents[2]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "engine.json", ROOT / "docs" / "images" / "engine.png"
CASES = {
    "mnist": (lambda rounds: mnist.run(rounds), mnist.markdown),
    "gpu": (lambda rounds: mnist.run(rounds, "cuda"), mnist.markdown),
    "small": (small.run, small.markdown),
    "memory": (lambda rounds: memory.run(), memory.markdown),
}


def main() -> None:
    """Runs the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    names = arguments.cases.split(",")
    unknown = sorted(set(names) - set(CASES))
    if unknown or arguments.rounds < 1:
        parser.error(f"--cases takes {','.join(CASES)}, got {','.join(unknown)}" if unknown else "--rounds: at least 1")
    results = {name: result for name in names if (result := _run(name, arguments.rounds)) is not None}
    if arguments.save:
        _save(results)


def _run(name: str, rounds: int) -> dict[str, Any] | None:
    sys.stdout.write(f"\n## {name}\n\n")
    if name == "gpu" and not torch.cuda.is_available():
        sys.stdout.write("no GPU here\n")
        return None
    measure, markdown = CASES[name]
    result = measure(rounds)
    about = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    sys.stdout.write(f"{markdown(result)}\n\n{about}\n")
    sys.stdout.flush()
    return result


def _save(results: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    older = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    together = older | results
    write_whole(RESULTS, (json.dumps(together, indent=2) + "\n").encode())
    write_whole(PICTURE, plot.draw(together))


if __name__ == "__main__":
    main()

"""Ours in all modes against torchdiffeq, and torchode and diffrax where installed, in turn, as ratios.

    python -m benchmarks.engine [case ...] [--rounds 15] [--only REGEX] [--no-processes] [--save]

spiral, lotka_volterra, ffjord   training steps of small problems, on one thread
cnf                              likelihood step of torchdiffeq's example, on one thread
mnist                            of the MNIST ODE-Net, on two threads
spiral_gpu, ..., mnist_gpu       the same on a GPU, where there is one
own_times, own_times_rk4         series with times of their own: one solve, or each alone
memory                           peak memory against the number of steps

Each case runs in a process of its own, and compilers start from an empty cache. `--only` takes the modes that a regular
expression finds (and the peers they are held against): `--only 'ours, direct|diffrax'`. Without `--no-processes` each
mode is also started alone, for its compile time, once more from the cache, and its peak memory: most of the time.
Prints a table for each case, medians with quartiles; with --save also writes benchmarks/results/engine.json, in which
other cases stay as they are, and docs/images/engine.png.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine import memory, plot
from benchmarks.engine.alone import environment
from benchmarks.engine.cases import CASES
from benchmarks.engine.peak import IS_MEASURED
from benchmarks.engine.run import markdown
from node_cli.files import write_whole

ROOT = Path(__file__).parents[2]
RESULTS, PICTURE = ROOT / "benchmarks" / "results" / "engine.json", ROOT / "docs" / "images" / "engine.png"
NEEDS = {name: torch.cuda.is_available() for name, case in CASES.items() if case.device == "cuda"}
NEEDS["memory"] = IS_MEASURED
NAMES = [name for name in (*CASES, "memory") if NEEDS.get(name, True)]


def main() -> None:
    """Runs the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", metavar="REGEX")
    parser.add_argument("--no-processes", action="store_true")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    names = arguments.cases or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no case here: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    for name in names:
        sys.stdout.write(f"\n## {name}\n\n")
        sys.stdout.flush()
        result = memory.run() if name == "memory" else _run(name, arguments)
        about = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
        shown = memory.markdown(result) if name == "memory" else markdown(result)
        sys.stdout.write(f"{shown}\n\n{about}\n")
        if arguments.save:
            _save(name, result)


def _run(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """In a process with the threads of the case: libraries read them when they start."""
    case = CASES[name]
    more = {"batch": case.batch, "only": arguments.only, "processes": not arguments.no_processes}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "result.json")
        options = {"rounds": arguments.rounds, "out": str(out), "more": more}
        command = [sys.executable, "-m", "benchmarks.engine.run", name, json.dumps(options)]
        subprocess.run(command, check=True, env=os.environ | environment(case.threads, Path(folder), case.device))
        result: dict[str, Any] = json.loads(out.read_text())
    return result


def _save(name: str, result: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    older = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    together = older | {name: result}
    write_whole(RESULTS, (json.dumps(together, indent=2) + "\n").encode())
    write_whole(PICTURE, plot.draw(together))


if __name__ == "__main__":
    main()

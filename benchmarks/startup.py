"""Seconds from the start of Python to `import torch`, to `odeint`, and to the first update of the default run.

    python benchmarks/startup.py [--rounds 7] [--save]

Each is a process of its own, in turn (A B C A B C), after one round that is not counted; prints medians, and how much
longer than `import torch` each takes. The run's first update is the first record of its `metrics.jsonl`, which has the
time. `--save` writes them to benchmarks/results/startup.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).with_name("results") / "startup.json"
SAY_TIME = "; import time; print(time.time())"
IMPORTS = {"import torch": "import torch", "odeint": "from node_cli.ode import odeint"}
RUN = "first update"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    rounds = [one_round() for _ in range(arguments.rounds + 1)][1:]
    medians = {name: statistics.median(each[name] for each in rounds) for name in (*IMPORTS, RUN)}
    beyond = {name: statistics.median(each[name] - each["import torch"] for each in rounds) for name in medians}
    for name, median in medians.items():
        print(f"{name:14} {median:.2f} s, {beyond[name]:+.2f} s beyond import torch")
    if arguments.save:
        date = datetime.date.today().isoformat()
        content = {"date": date, "rounds": arguments.rounds, "seconds": medians, "beyond import torch": beyond}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def one_round() -> dict[str, float]:
    seconds = {name: until_said(f"{code}{SAY_TIME}") for name, code in IMPORTS.items()}
    return {**seconds, RUN: until_first_update()}


def until_said(code: str) -> float:
    started = time.time()
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout) - started


def until_first_update() -> float:
    with tempfile.TemporaryDirectory() as name:
        run = Path(name, "run")
        command = [sys.executable, "-m", "node_cli.cli.train", "trainer.max_steps=1", f"run_dir={run}"]
        started = time.time()
        subprocess.run(command, check=True, capture_output=True)
        first, *_ = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return float(json.loads(first)["time"]) - started


if __name__ == "__main__":
    main()

"""A long training run: memory, size of its files and time of a step at each mark, and what saving and logging cost.

    python benchmarks/long_run.py [--mark STEPS] [--out FILE] [words for node-train ...]
    python benchmarks/long_run.py --mark 20 dataset=digits model=odenet trainer=default solver=dopri5   # a default run

Runs `node-train` in this process, on a small problem with 10,000 steps where nothing else is said, and prints a row at
each mark. Memory is what the process holds (Linux); its slope is fitted to the second half of the marks. A share is
the time inside the calls of one kind against that of all updates. Figures go to FILE as JSON too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from node_cli.cli import train
from node_cli.loggers.base import Loggers
from node_cli.runs.log import RunLog
from node_cli.training import trainer
from node_cli.training.checkpoint import Checkpoints
from node_cli.training.trainer import Trainer

SMALL = ["dataset=moons", "dataset.num_samples=50000", "model=odenet_mlp", "model.width=8", "solver=rk4"]
SMALL += ["trainer.epochs=null"]
FILES = {"metrics.jsonl": "metrics.jsonl", "events": "events.out.tfevents.*", "run.log": "run.log"}
KINDS = {  # what is timed: where it is found, its name, and what it counts as
    "scalars": (Loggers, "log_scalars"),
    "histograms": (Loggers, "log_histogram"),
    "pictures": (Loggers, "log_image"),
    "flush": (Loggers, "flush"),
    "checkpoints": (Checkpoints, "save"),
    "their content": (Trainer, "state_dict"),
    "run.log": (RunLog, "emit"),
    "peak memory": (trainer, "peak_memory_mb"),
}


class Meter:
    """Looks on while a run goes: marks every so many steps, the times of steps, the seconds spent on each kind."""

    def __init__(self, folder: Path, every: int) -> None:
        self.folder, self.every = folder, every
        self.marks: list[dict[str, float]] = []
        self.step_ms: dict[int, float] = {}
        self.seconds: Counter[str] = Counter()
        for kind, (owner, name) in KINDS.items():
            setattr(owner, name, self._timed(kind, getattr(owner, name)))
        Loggers.log_scalars = self._looked_at(Loggers.log_scalars)  # type: ignore[method-assign]

    def _timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **keys: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*arguments, **keys)
            finally:
                self.seconds[kind] += time.perf_counter() - started

        return timed

    def _looked_at(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def log_scalars(loggers: Loggers, step: int, values: Mapping[str, float]) -> None:
            call(loggers, step, values)
            if "time/step_ms" in values and "epoch" not in values:
                self.step_ms[step] = values["time/step_ms"]
                if step % self.every == 0:
                    self.marks.append(self._mark(step))

        return log_scalars

    def _mark(self, step: int) -> dict[str, float]:
        sizes = {name: sum(p.stat().st_size for p in self.folder.glob(glob)) for name, glob in FILES.items()}
        return {"step": step, "memory, MB": resident_mb(), **sizes}

    def times(self) -> list[float]:
        """The median time of a step up to each mark from the one before, in milliseconds."""
        ends = [int(mark["step"]) for mark in self.marks]
        return [
            statistics.median(ms for step, ms in self.step_ms.items() if end - self.every < step <= end) for end in ends
        ]


def main() -> None:
    """Runs, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mark", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments, words = parser.parse_known_args()
    folder = Path("outputs", "long_run", time.strftime("%Y-%m-%d-%H-%M-%S"))
    meter = Meter(folder, arguments.mark)
    sys.argv = ["node-train", *(words or [*SMALL, "trainer.max_steps=10000"]), f"run_dir={folder}"]
    train.main()
    figures = summed_up(meter)
    print("\n".join(report(meter, figures)))
    if arguments.out:
        arguments.out.write_text(json.dumps({"marks": meter.marks, **figures}, indent=2) + "\n", encoding="utf-8")


def summed_up(meter: Meter) -> dict[str, Any]:
    """What the run amounts to."""
    updates = json.loads((meter.folder / "summary.json").read_text(encoding="utf-8"))["seconds"]["training"]
    shares = {kind: meter.seconds[kind] / updates for kind in KINDS}
    late = meter.marks[len(meter.marks) // 2 :]
    slope = np.polyfit([mark["step"] / 1000 for mark in late], [mark["memory, MB"] for mark in late], 1)[0]
    times = meter.times()
    return {
        "memory, MB in 1,000 steps": float(slope),
        "step, first ms": times[0],
        "step, last ms": times[-1],
        "share": sum(shares.values()),
        "shares": shares,
    }


def report(meter: Meter, figures: Mapping[str, Any]) -> Sequence[str]:
    """A table of the marks and the sums."""
    lines = ["", f"| step | memory, MB | step, ms | {' | '.join(f'{name}, bytes a step' for name in FILES)} |"]
    lines.append("|---" * (3 + len(FILES)) + "|")
    for mark, ms in zip(meter.marks, meter.times(), strict=True):
        sizes = " | ".join(f"{mark[name] / mark['step']:.1f}" for name in FILES)
        lines.append(f"| {mark['step']:,.0f} | {mark['memory, MB']:.1f} | {ms:.2f} | {sizes} |")
    lines += ["", f"memory in the second half: {figures['memory, MB in 1,000 steps']:+.3f} MB in 1,000 steps"]
    lines.append(f"saving and logging: {figures['share']:.2%} of the updates")
    lines += [f"  {kind}: {share:.2%}" for kind, share in figures["shares"].items()]
    return lines


def resident_mb() -> float:
    """The memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()

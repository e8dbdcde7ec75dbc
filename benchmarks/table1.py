"""Table 1 of Chen et al. (2018), measured: every model over five seeds, beside the paper's numbers on MNIST.

    python benchmarks/table1.py [overrides for node-train, such as dataset=mnist or seed=0,1]

Trains by `node-train -m experiment='glob(table1_*)' seed=0,1,2,3,4`, reads by `node-report`, and goes on where the same
overrides were stopped before. Seconds are those of an epoch's updates, memory that of the whole process.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from node_cli.cli.overrides import parse, texts_of

GRID = {"experiment": "experiment=glob(table1_*)", "seed": "seed=0,1,2,3,4"}
COLUMNS = ["test/error", "parameters", "nfe/forward", "nfe/backward", "seconds.epoch", "memory.peak_mb"]
TITLES = ["model", "runs", "test error, %", "parameters", "NFE", "backward", "s an epoch", "peak MB"]
NOT_THERE = ("-", "-")
PAPER = {  # test error on MNIST in %, and parameters
    "mlp": ("1.60", "0.24 M"),
    "resnet": ("0.41", "0.60 M"),
    "resnet1": NOT_THERE,
    "rknet": ("0.47", "0.22 M"),
    "odenet_adjoint": ("0.42", "0.22 M"),
    "odenet_checkpoint": NOT_THERE,
    "stem_only": NOT_THERE,
}


def main() -> None:
    """Trains what is missing, prints the table and writes it into the sweep's folder."""
    typed = parse(sys.argv[1:])
    name = "_".join(["table1", *(re.sub(r"[^\w.]+", "_", each.text).strip("_") for each in typed)])
    folder = Path("outputs", "sweeps", name)
    given = {each.key for each in typed}
    status = train(folder, [*(text for key, text in GRID.items() if key not in given), *texts_of(typed)])
    table = "\n".join(markdown(read(folder)))
    (folder / "table1.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\n{folder / 'table1.md'}")
    sys.exit(status)


def train(folder: Path, overrides: list[str]) -> int:
    """Runs the jobs that have not finished, with a line about each; 1 if one failed."""
    sweep = f"sweep.resume={folder}" if (folder / "sweep.json").exists() else f"sweep.name={folder.name}"
    command = [sys.executable, "-u", "-m", "node_cli.cli.train", "-m", *overrides, sweep]
    started, num_before, last = time.monotonic(), 0, ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or []:
            last = line.strip() or last
            if job := re.match(r"job (\d+): ", line):
                number, num_before = int(job[1]), num_before + line.endswith("finished before\n")
                num_jobs = len(json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["jobs"])
                print(progress(number, num_jobs, number - num_before, time.monotonic() - started), last, flush=True)
    if process.returncode not in (0, 1) or not folder.is_dir():
        sys.exit(last)
    print(last, flush=True)
    return process.returncode


def progress(number: int, num_jobs: int, num_run: int, seconds: float) -> str:
    """`3 of 35 done, 1.2 min, 9.6 to go`: by the mean of the `num_run` jobs that have been run by now."""
    to_go = f", {seconds / 60 / num_run * (num_jobs - number):.1f} to go" if num_run > 0 else ""
    return f"{number} of {num_jobs} done, {seconds / 60:.1f} min{to_go}:"


def read(folder: Path) -> list[dict[str, str]]:
    """A row for each experiment, as `node-report` has them."""
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/summary.json")]
    has_solves = any(summary.get("nfe") for summary in summaries)
    columns = [name for name in COLUMNS if has_solves or not name.startswith("nfe/")]
    arguments = [str(folder), "--by", "experiment", "--show", *columns, "--format", "csv"]
    command = [sys.executable, "-m", "node_cli.cli.report", *arguments]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return list(csv.DictReader(report.stdout.splitlines()))


def markdown(rows: list[dict[str, str]]) -> Iterator[str]:
    """The lines of the table."""
    titles = [*TITLES, "paper: error, %", "paper: parameters"]
    yield f"| {' | '.join(titles)} |"
    yield "|---" + "|---:" * (len(titles) - 1) + "|"
    models = {row["experiment"].removeprefix("table1_"): row for row in rows}
    for model in sorted(models, key=[*PAPER, *models].index):
        row = models[model]
        values = [
            shown(row, "test/error", 2, 100),
            f"{float(row['parameters mean']):,.0f}",
            *(shown(row, name, 1) for name in COLUMNS[2:4]),
            shown(row, "seconds.epoch", 2),
            shown(row, "memory.peak_mb", 0),
        ]
        yield f"| {' | '.join([model, row['runs'], *values, *PAPER.get(model, NOT_THERE)])} |"


def shown(row: Mapping[str, str], column: str, places: int, factor: int = 1) -> str:
    """Mean and std over seeds; `-` where there is none."""
    if f"{column} mean" not in row:
        return "-"
    values = [row[f"{column} mean"], row[f"{column} std"]]
    return " ± ".join(f"{factor * float(value):.{places}f}" for value in values if value) or "-"


if __name__ == "__main__":
    main()

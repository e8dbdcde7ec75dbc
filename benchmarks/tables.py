"""What the scripts of the tables share: a sweep that stops and goes on, and the table of what it has trained."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from node_cli.cli.overrides import parse, texts_of

NOT_THERE = "-"
Row = Mapping[str, str]


class PaperTable(NamedTuple):
    """A table by one command.

    Attributes:
        name: of its sweep, before what is typed.
        grid: the overrides of the sweep by their keys, each of which may be typed instead.
        by: what makes a row.
        columns: what `node-report` is to show of it.
        lines: those of the table, given its rows.
    """

    name: str
    grid: Mapping[str, str]
    by: Sequence[str]
    columns: Sequence[str]
    lines: Callable[[Sequence[Row]], Iterable[str]]


def make(table: PaperTable, words: Sequence[str]) -> int:
    """Trains what is missing, prints the table and writes it into the sweep's folder; 1 if a job failed."""
    typed = parse(words)
    name = "_".join([table.name, *(re.sub(r"[^\w.]+", "_", each.text).strip("_") for each in typed)])
    folder = Path("outputs", "sweeps", name)
    given = {each.key for each in typed}
    status = train(folder, [*(text for key, text in table.grid.items() if key not in given), *texts_of(typed)])
    lines = "\n".join(table.lines(read(folder, table)))
    path = folder / f"{table.name}.md"
    path.write_text(lines + "\n", encoding="utf-8")
    print(f"\n{lines}\n\n{path}")
    return status


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


def read(folder: Path, table: PaperTable) -> list[Row]:
    """The rows as `node-report` has them."""
    summaries = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/summary.json")]
    has_solves = any(summary.get("nfe") for summary in summaries)
    columns = [name for name in table.columns if has_solves or not name.startswith("nfe/")]
    arguments = [str(folder), "--by", *table.by, "--show", *columns, "--format", "csv"]
    command = [sys.executable, "-m", "node_cli.cli.report", *arguments]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return list(csv.DictReader(report.stdout.splitlines()))


def shown(row: Row, column: str, places: int, factor: int = 1) -> str:
    """Mean and std over seeds; `-` where there is none."""
    if f"{column} mean" not in row:
        return NOT_THERE
    values = [row[f"{column} mean"], row[f"{column} std"]]
    return " ± ".join(f"{factor * float(value):.{places}f}" for value in values if value) or NOT_THERE


def count(row: Row, column: str) -> str:
    """A whole number, the same for all seeds."""
    return f"{float(row[f'{column} mean']):,.0f}"

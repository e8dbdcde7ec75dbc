"""Table 2 of Chen et al. (2018), measured: latent ODE and RNN on spirals over five seeds, beside the paper's numbers.

    python benchmarks/table2.py [overrides for node-train, such as seed=0,1 or trainer.epochs=40]

Trains by `node-train -m task=latent experiment='glob(table2_*)' dataset.drop=0.7,0.5,0.0 seed=0,1,2,3,4`, two runs at
a time, reads by `node-report`, and goes on where the same overrides were stopped before. Errors are from the curves
without noise, at the 100 times beyond the 100 of which 30, 50 or all are seen.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from table1 import NOT_THERE, shown, train

from node_cli.cli.overrides import parse, texts_of

GRID = {
    "task": "task=latent",
    "experiment": "experiment=glob(table2_*)",
    "dataset.drop": "dataset.drop=0.7,0.5,0.0",
    "seed": "seed=0,1,2,3,4",
    "num_threads": "num_threads=1",
    "hydra/launcher": "hydra/launcher=joblib",
    "hydra.launcher.n_jobs": "hydra.launcher.n_jobs=2",
}
ERRORS = ["test/extrapolation_true_rmse", "test/interpolation_true_rmse"]
COLUMNS = [*ERRORS, "test/coverage", "parameters", "seconds.training"]
TITLES = ["observed", "model", "runs", "extrapolation RMSE", "interpolation RMSE", "in 90 % bands, %", "parameters"]
TITLES += ["s of training", "paper: extrapolation RMSE"]
PAPER = {  # by observations of 100
    ("30", "latent_ode"): ".1642",
    ("50", "latent_ode"): ".1502",
    ("100", "latent_ode"): ".1346",
    ("30", "rnn"): ".3937",
    ("50", "rnn"): ".3202",
    ("100", "rnn"): ".1813",
}


def main() -> None:
    """Trains what is missing, prints the table and writes it into the sweep's folder."""
    typed = parse(sys.argv[1:])
    name = "_".join(["table2", *(re.sub(r"[^\w.]+", "_", each.text).strip("_") for each in typed)])
    folder = Path("outputs", "sweeps", name)
    given = {each.key for each in typed}
    status = train(folder, [*(text for key, text in GRID.items() if key not in given), *texts_of(typed)])
    table = "\n".join(markdown(read(folder)))
    (folder / "table2.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\n{folder / 'table2.md'}")
    sys.exit(status)


def read(folder: Path) -> list[dict[str, str]]:
    """A row for each experiment and share, as `node-report` has them."""
    arguments = [str(folder), "--by", "experiment", "dataset.drop", "--show", *COLUMNS, "--format", "csv"]
    command = [sys.executable, "-m", "node_cli.cli.report", *arguments]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return list(csv.DictReader(report.stdout.splitlines()))


def markdown(rows: list[dict[str, str]]) -> Iterator[str]:
    """The lines of the table."""
    yield f"| {' | '.join(TITLES)} |"
    yield "|---:|---" + "|---:" * (len(TITLES) - 2) + "|"
    for row in sorted(rows, key=lambda row: (-float(row["dataset.drop"]), row["experiment"])):
        observed = f"{100 * (1 - float(row['dataset.drop'])):.0f}"
        model = row["experiment"].removeprefix("table2_")
        values = [
            *(shown(row, name, 4) for name in ERRORS),
            shown(row, "test/coverage", 1, 100),
            f"{float(row['parameters mean']):,.0f}",
            shown(row, "seconds.training", 0),
        ]
        yield f"| {' | '.join([observed, model, row['runs'], *values, PAPER.get((observed, model), NOT_THERE[0])])} |"


if __name__ == "__main__":
    main()

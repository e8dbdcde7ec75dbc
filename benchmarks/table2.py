"""Table 2 of Chen et al. (2018), measured: latent ODE and RNN on spirals over five seeds, beside the paper's numbers.

    python benchmarks/table2.py [--models] [overrides for node-train, such as seed=0,1 or trainer.epochs=40]

Trains by `node-train -m task=latent experiment='glob(table2_*)' dataset.drop=0.7,0.5,0.0 seed=0,1,2,3,4`, two runs at
a time, reads by `node-report`, and goes on where the same overrides were stopped before. Errors are from the curves
without noise, at the 100 times beyond the 100 of which 30, 50 or all are seen.

`--models` makes another table, of models of about equal size with 50 of the 100 times seen: latent ODEs with each
encoder, and autoregressive models, trained on the times beyond of their own series, or not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tables import NOT_THERE, PaperTable, Row, count, make, shown

COMMON = {
    "task": "task=latent",
    "num_threads": "num_threads=1",
    "hydra/launcher": "hydra/launcher=joblib",
    "hydra.launcher.n_jobs": "hydra.launcher.n_jobs=2",
}
GRID = {
    **COMMON,
    "experiment": "experiment=glob(table2_*)",
    "dataset.drop": "dataset.drop=0.7,0.5,0.0",
    "seed": "seed=0,1,2,3,4",
}
OF_MODELS = {
    **COMMON,
    "dataset.drop": "dataset.drop=0.5",
    "dataset.train_beyond": "dataset.train_beyond=true,false",
    "experiment": "experiment=glob([table2_*,spirals_*])",
    "seed": "seed=0",
}
ERRORS = ["test/extrapolation_true_rmse", "test/interpolation_true_rmse"]
COLUMNS = [*ERRORS, "test/coverage", "test/nll", "parameters", "steps", "seconds.training"]
OF_ERRORS = ["extrapolation RMSE", "interpolation RMSE", "in 90 % bands, %"]
TITLES = ["observed", "model", "runs", *OF_ERRORS, "parameters", "s of training", "paper: extrapolation RMSE"]
TITLES_OF_MODELS = ["model", "trained beyond", "runs", *OF_ERRORS, "NLL", "parameters", "updates", "s of training"]
MODELS = {  # by experiment
    "table2_latent_ode": "latent ODE, encoder rnn",
    "spirals_latent_ode_rnn": "latent ODE, encoder ode_rnn",
    "spirals_latent_cde": "latent ODE, encoder cde",
    "table2_rnn": "gru, autoregressive",
    "spirals_ode_rnn": "ode_rnn, autoregressive",
}
PAPER = {  # by observations of 100
    ("30", "latent_ode"): ".1642",
    ("50", "latent_ode"): ".1502",
    ("100", "latent_ode"): ".1346",
    ("30", "rnn"): ".3937",
    ("50", "rnn"): ".3202",
    ("100", "rnn"): ".1813",
}


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of Table 2."""
    yield f"| {' | '.join(TITLES)} |"
    yield "|---:|---" + "|---:" * (len(TITLES) - 2) + "|"
    for row in sorted(rows, key=lambda row: (-float(row["dataset.drop"]), row["experiment"])):
        observed = f"{100 * (1 - float(row['dataset.drop'])):.0f}"
        model = row["experiment"].removeprefix("table2_")
        paper = PAPER.get((observed, model), NOT_THERE)
        values = [*errors(row), count(row, "parameters"), shown(row, "seconds.training", 0), paper]
        yield f"| {' | '.join([observed, model, row['runs'], *values])} |"


def of_models(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table of models."""
    yield f"| {' | '.join(TITLES_OF_MODELS)} |"
    yield "|---|---" + "|---:" * (len(TITLES_OF_MODELS) - 2) + "|"
    names = [*MODELS]
    for row in sorted(rows, key=lambda row: (row["dataset.train_beyond"] != "true", names.index(row["experiment"]))):
        trained = "yes" if row["dataset.train_beyond"] == "true" else "no"
        sizes = [count(row, "parameters"), count(row, "steps"), shown(row, "seconds.training", 0)]
        values = [*errors(row), shown(row, "test/nll", 3), *sizes]
        yield f"| {' | '.join([MODELS[row['experiment']], trained, row['runs'], *values])} |"


def errors(row: Row) -> list[str]:
    """Both errors, and how much of the test series the bands cover."""
    return [*(shown(row, name, 4) for name in ERRORS), shown(row, "test/coverage", 1, 100)]


TABLE = PaperTable("table2", GRID, ["experiment", "dataset.drop"], COLUMNS, markdown)
TABLE_OF_MODELS = PaperTable("table2_models", OF_MODELS, ["experiment", "dataset.train_beyond"], COLUMNS, of_models)

if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--models"]
    sys.exit(make(TABLE if len(words) == len(sys.argv) - 1 else TABLE_OF_MODELS, words))

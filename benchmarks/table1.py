"""Table 1 of Chen et al. (2018), measured: every model over five seeds, beside the paper's numbers on MNIST.

    python benchmarks/table1.py [overrides for node-train, such as dataset=mnist or seed=0,1]

Trains by `node-train -m experiment='glob(table1_*)' seed=0,1,2,3,4`, reads by `node-report`, and goes on where the same
overrides were stopped before. Seconds are those of an epoch's updates, memory that of the whole process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tables import NOT_THERE, PaperTable, Row, count, make, shown

GRID = {"experiment": "experiment=glob(table1_*)", "seed": "seed=0,1,2,3,4"}
COLUMNS = ["test/error", "parameters", "nfe/forward", "nfe/backward", "seconds.epoch", "memory.peak_mb"]
TITLES = ["model", "runs", "test error, %", "parameters", "NFE", "backward", "s an epoch", "peak MB"]
TITLES += ["paper: error, %", "paper: parameters"]
NONE = (NOT_THERE, NOT_THERE)
PAPER = {  # test error on MNIST in %, and parameters
    "mlp": ("1.60", "0.24 M"),
    "resnet": ("0.41", "0.60 M"),
    "resnet1": NONE,
    "rknet": ("0.47", "0.22 M"),
    "odenet_adjoint": ("0.42", "0.22 M"),
    "odenet_checkpoint": NONE,
    "stem_only": NONE,
}


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table."""
    yield f"| {' | '.join(TITLES)} |"
    yield "|---" + "|---:" * (len(TITLES) - 1) + "|"
    models = {row["experiment"].removeprefix("table1_"): row for row in rows}
    for model in sorted(models, key=[*PAPER, *models].index):
        row = models[model]
        values = [
            shown(row, "test/error", 2, 100),
            count(row, "parameters"),
            *(shown(row, name, 1) for name in COLUMNS[2:4]),
            shown(row, "seconds.epoch", 2),
            shown(row, "memory.peak_mb", 0),
        ]
        yield f"| {' | '.join([model, row['runs'], *values, *PAPER.get(model, NONE)])} |"


TABLE = PaperTable("table1", GRID, ["experiment"], COLUMNS, markdown)

if __name__ == "__main__":
    sys.exit(make(TABLE, sys.argv[1:]))

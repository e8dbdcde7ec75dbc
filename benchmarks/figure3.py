"""What figure 3 of Chen et al. (2018) shows, for our engine, in one figure: a error against tolerance, b evaluations
forward against backward, c evaluations over training, d memory against evaluations (instead of time). And the numbers.

    python benchmarks/figure3.py [--rtols 1e-1,1e-3,...] [--out FILE] [overrides for node-train ...]

Trains an ODE-Net on digits with the paper's gradients in outputs/figure3, unless that run exists, and solves it at
several tolerances. Memory is that of all tensors of a forward and a backward pass on 64 images, counted to the byte.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.base import make_cases
from node_cli.build import Problem, build_problem, build_solver
from node_cli.figures import file_of, label_panel, panels
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct
from node_cli.runs.folder import RunFolder
from node_cli.runs.report.reading import curves, read_runs
from node_cli.runs.trained_run import load_weights

RUN = Path("outputs", "figure3")
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "figure3.png"
BATCH_SIZE = 64  # of the passes that are counted
EVALUATED = 1000  # samples of the test split at most, solved at once
REFERENCE_RTOL = 1e-7  # of the float64 solve that stands for the ODE
GRADIENTS = {
    "direct": Direct(),
    "checkpoint": Checkpoint(max_checkpoints=None),
    "adjoint": Adjoint(rtol=None, atol=None, norm="full"),
}
Rows = Sequence[dict[str, Any]]


def main() -> None:
    """Trains, measures, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rtols", default="1e-1,1e-2,1e-3,1e-4,1e-5,1e-6")
    parser.add_argument("--out", type=Path, default=IMAGE)
    arguments, overrides = parser.parse_known_args()
    rtols = [float(rtol) for rtol in arguments.rtols.split(",")]
    train(overrides)
    config = RunFolder(RUN).read_config()
    problem = build_problem(config)
    load_weights(problem.model, problem.dataset.digest, {"run": str(RUN), "checkpoint": "best"})
    errors, passes, training = solve_errors(problem, config, rtols), counted(problem, config, rtols), evaluations()
    for title, rows in (("a", errors), ("b and d", passes), ("c, every fifth record", training[::5])):
        print(f"\n{title}\n" + "\n".join(markdown(rows)))
    draw(errors, passes, training, arguments.out)
    print(f"\n{arguments.out}")


def train(overrides: Sequence[str]) -> None:
    """Makes the run, unless it has finished already."""
    command = ["experiment=table1_odenet_adjoint", "logger=jsonl", f"run_dir={RUN}", "resume=auto", *overrides]
    if subprocess.run([sys.executable, "-m", "node_cli.cli.train", *command], check=False).returncode:
        sys.exit(1)


def solve_errors(problem: Problem, config: dict[str, Any], rtols: Sequence[float]) -> Rows:
    """At each tolerance, how far the solve moves the outputs of the network, and the error of its predictions."""
    model, solver = problem.model, build_solver(config)
    inputs, targets = (problem.dataset.splits["test"][name][:EVALUATED] for name in ("inputs", "targets"))
    reference = outputs(copy.deepcopy(model).double(), inputs.double(), solver, REFERENCE_RTOL)
    rows = []
    for rtol in rtols:
        found = outputs(model, inputs, solver, rtol)
        nfe = sum(block.stats.nfe for block in ode_blocks(model).values())
        off = (found - reference).norm() / reference.norm()
        error = 100 * (found.argmax(1) != targets).double().mean()
        rows.append({"rtol": rtol, "NFE": nfe, "off the ODE": off.item(), "test error, %": error.item()})
    return rows


def outputs(model: torch.nn.Module, inputs: Tensor, solver: Any, rtol: float) -> Tensor:
    """What the network makes of `inputs`, in float64; its blocks keep the solver."""
    for block in ode_blocks(model).values():
        block.solver = solver.with_tolerances(rtol, rtol)
    with torch.no_grad():
        return model.eval()(inputs).double()


def counted(problem: Problem, config: dict[str, Any], rtols: Sequence[float]) -> Rows:
    """Evaluations and memory of a pass, by every gradient at every tolerance."""
    batch = next(iter(problem.dataset.batches("test", BATCH_SIZE)))
    passes = BackwardPass(problem.model, problem.task, batch, config["precision"])
    cases, _ = make_cases({"": build_solver(config)}, GRADIENTS, rtols)
    costs = [(case, passes.cost_of(case)) for case in cases]
    return [
        {
            "gradient": case.gradient_name,
            "rtol": case.rtol,
            "forward": cost.nfe_forward,
            "backward": cost.nfe_backward,
            "MiB": (cost.peak_bytes or 0) / 2**20,
        }
        for case, cost in costs
    ]


def evaluations() -> Rows:
    """NFE as training went on."""
    lines = curves(read_runs([RUN])[0])
    return [
        {"step": line["step"], "forward": line["nfe/forward"], "backward": line["nfe/backward"]}
        for line in lines
        if "nfe/forward" in line
    ]


def markdown(rows: Rows) -> list[str]:
    """A table."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    lines += [[f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row.values()] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def draw(errors: Rows, passes: Rows, training: Rows, path: Path) -> None:
    """Four panels."""
    figure, (a, b, c, d) = panels(4, columns=2, size=(5.5, 3.8))
    draw_errors(a, errors)
    draw_passes(b, [row for row in passes if row["gradient"] != "direct"], "backward")
    b.axline((0, 0), slope=1, color="grey", linewidth=0.8, linestyle=":", label="as many")
    label_panel(b, "b  evaluations of a pass", "forward", "backward")
    for name, marker in (("forward", "o"), ("backward", "s")):
        xs, ys = ([row[key] for row in training] for key in ("step", name))
        c.plot(xs, ys, marker=marker, markersize=3, label=name)
    draw_passes(d, passes, "MiB")
    label_panel(c, "c  evaluations over training (adjoint)", "step", "NFE")
    label_panel(d, "d  memory of a pass", "forward evaluations", "MiB")
    for axes in (c, d):
        axes.set_ylim(0, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_of(figure))


def draw_errors(axes: Axes, errors: Rows) -> None:
    """Against the tolerance, the NFE at each point."""
    axes.margins(0.08)
    rtols = [row["rtol"] for row in errors]
    axes.loglog(rtols, [row["off the ODE"] for row in errors], "o-", color="C0")
    for row in errors:
        place = {"textcoords": "offset points", "xytext": (6, -11), "fontsize": 8}
        axes.annotate(f"{row['NFE']:.0f}", (row["rtol"], row["off the ODE"]), **place)
    axes.set(title="a  error of the solve (labels: NFE)", xlabel="rtol = atol")
    axes.set_ylabel("outputs, off the ODE's (relative)", color="C0")
    right = axes.twinx()
    right.plot(rtols, [row["test error, %"] for row in errors], "s--", color="C1", markersize=4)
    right.set_ylabel("test error, %", color="C1")
    right.set_ylim(0, 2 * max(row["test error, %"] for row in errors) + 1)


def draw_passes(axes: Axes, passes: Rows, column: str) -> None:
    """One column of a pass against its forward evaluations, a line for each gradient."""
    for index, name in enumerate(GRADIENTS):
        same = sorted((row["forward"], row[column]) for row in passes if row["gradient"] == name)
        if same:
            xs, ys = zip(*same, strict=True)
            axes.plot(xs, ys, "o-", label=name, color=f"C{index + 2}", markersize=4)


if __name__ == "__main__":
    main()

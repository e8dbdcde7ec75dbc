"""One evaluation of a trained run: its own solver and another, side by side."""

from __future__ import annotations

import sys
from typing import Any

from node_cli.advice import in_keys
from node_cli.audit.solver_comparison import SolverComparison, comparison_table
from node_cli.build import build_solver
from node_cli.loaded_run import Run
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.solution import SolveError
from node_cli.runs.outcome import RunFailedError
from node_cli.training.machine import set_num_threads


def run_evaluation(config: dict[str, Any]) -> None:
    """Prints metrics, NFE, agreement and reconstruction error under the run's solver and under `config["solver"]`.

    Raises:
        ConfigError: there is no such run, its checkpoint is damaged, or it has nothing to solve.
        RunFailedError: a solve failed.
    """
    set_num_threads(config["num_threads"])
    other = build_solver(config) if "solver" in config else None
    run = Run({key: value for key, value in config.items() if key != "solver"})
    if other is not None:
        run.require_solves()
    comparison = SolverComparison(
        run.model, run.task, run.dataset(), config["split"], run.batch_size, run.config["precision"]
    )
    try:
        comparison.evaluate(_name(run.config["solver"]) + ", its own" if ode_blocks(run.model) else "none")
        if other is not None:
            comparison.evaluate(_name(config["solver"]), other)
    except SolveError as error:
        raise RunFailedError(in_keys(error)) from error
    lines = [f"{run.path}, {config['split']} split", "", *comparison_table(comparison.results)]
    if other is not None:
        lines += ["", comparison.verdict()]
    lines += ["", *run.notes] if run.notes else []
    sys.stdout.write("\n".join(lines) + "\n")


def _name(solver: dict[str, Any]) -> str:
    """What tells one solver from another: its method, and its tolerances or steps."""
    name = solver.get("method", solver["_target_"].rpartition(".")[2])
    settings = {key: solver.get(key) for key in ("rtol", "atol", "num_steps", "step_size")}
    return " ".join([name, *(f"{key}={_shown(value)}" for key, value in settings.items() if value is not None)])


def _shown(value: Any) -> str:
    """A number, or a tolerance for each channel."""
    return f"[{','.join(map(_shown, value))}]" if isinstance(value, list) else f"{value:g}"

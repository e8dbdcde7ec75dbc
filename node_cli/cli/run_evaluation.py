"""One evaluation of a trained run: rebuild it from its folder, evaluate it, print the comparison."""

from __future__ import annotations

import sys
from typing import Any

from node_cli.advice import in_keys
from node_cli.audit.solver_comparison import SolverComparison, comparison_table
from node_cli.build import build_problem, build_solver, uses_solver
from node_cli.config import ConfigError
from node_cli.ode.solution import SolveError
from node_cli.runs.folder import RunFolder
from node_cli.runs.moved_data import data_moved
from node_cli.runs.outcome import RunFailedError
from node_cli.runs.trained_run import config_of_run, load_weights


def run_evaluation(config: dict[str, Any]) -> None:
    """Prints metrics, NFE, agreement and reconstruction error under the run's solver and under `config["solver"]`.

    Raises:
        ConfigError: there is no such run, its checkpoint is damaged, or it has nothing to solve.
        RunFailedError: a solve failed.
    """
    folder = RunFolder.of(config["run"])
    trained = config_of_run(config, is_moved="dataset" in config)
    moved = data_moved(trained, folder)
    other = build_solver(config) if "solver" in config else None
    problem = build_problem(trained)
    if other is not None and not uses_solver(problem.model):
        raise ConfigError(
            f"solver: {type(problem.model).__name__} of {folder.path} has no ODE block to solve: leave it out"
        )
    notes = [*moved, *load_weights(problem.model, problem.dataset.digest, config)]
    comparison = SolverComparison(
        problem.model,
        problem.task,
        problem.dataset,
        config["split"],
        trained["trainer"]["eval_batch_size"],
        trained["precision"],
    )
    try:
        comparison.evaluate(_name(trained["solver"]) + ", its own" if uses_solver(problem.model) else "none")
        if other is not None:
            comparison.evaluate(_name(config["solver"]), other)
    except SolveError as error:
        raise RunFailedError(in_keys(error)) from error
    lines = [f"{folder.path}, {config['split']} split", "", *comparison_table(comparison.results)]
    if other is not None:
        lines += ["", comparison.verdict()]
    lines += ["", *notes] if notes else []
    sys.stdout.write("\n".join(lines) + "\n")


def _name(solver: dict[str, Any]) -> str:
    """What tells one solver from another: its method, and its tolerances or steps."""
    name = solver.get("method", solver["_target_"].rpartition(".")[2])
    settings = {key: solver.get(key) for key in ("rtol", "atol", "num_steps", "step_size")}
    return " ".join([name, *(f"{key}={_shown(value)}" for key, value in settings.items() if value is not None)])


def _shown(value: Any) -> str:
    """A number, or a tolerance for each channel."""
    return f"[{','.join(map(_shown, value))}]" if isinstance(value, list) else f"{value:g}"

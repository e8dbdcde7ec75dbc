"""`node-eval`: evaluates a trained run again, with its own solver and with another, side by side."""

from __future__ import annotations

import sys
from typing import Any

from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.cli.overrides import Override, last_of, override, with_data_of_run
from node_cli.config import ConfigError, follows, is_path, leaves, resolved
from node_cli.runs.folder import RunFolder
from node_cli.runs.outcome import RunFailedError


def main() -> None:
    """The entry point."""
    launch("eval", run, expand=_meant)


def _meant(overrides: list[Override]) -> list[Override]:
    return with_solver_of_run(with_data_of_run(overrides))


def run(cfg: DictConfig) -> None:
    """Evaluates one run."""
    run_evaluation(resolved(cfg))


def with_solver_of_run(overrides: list[Override]) -> list[Override]:
    """`solver.KEY=VALUE` without `solver=NAME` changes that of the run's own solver; what followed the key follows it.

    Raises:
        ConfigError: there is no such run, or its solver was not recorded by name.
    """
    run, typed = last_of(overrides, "run"), {each.key for each in overrides}
    if "solver" in typed or not any(key.startswith("solver.") for key in typed):
        return overrides
    if run is None or not is_path(run.given):
        return overrides
    folder = RunFolder.of(run.given)
    name, recorded = folder.read_choices().get("solver"), folder.read_config().get("solver")
    if not (isinstance(name, str) and name.isidentifier() and isinstance(recorded, dict)) or "$" in str(recorded):
        raise ConfigError(f"the solver of {folder.path} was not recorded in plain words: choose one too, solver=NAME")
    own = {key: setting for key, setting in leaves({"solver": recorded}) if not key.startswith("solver._")}
    kept = {key: setting for key, setting in own.items() if key not in typed and not follows(key, own)}
    return [override("solver", name), *(override(key, setting) for key, setting in kept.items()), *overrides]


def run_evaluation(config: dict[str, Any]) -> None:
    """Prints metrics, NFE, agreement and reconstruction error under the run's solver and under `config["solver"]`.

    Raises:
        ConfigError: there is no such run, its checkpoint is damaged, or it has nothing to solve.
        RunFailedError: a solve failed.
    """
    from node_cli.advice import in_keys
    from node_cli.audit.solver_comparison import SolverComparison, comparison_table
    from node_cli.build import build_solver, uses_solver
    from node_cli.loaded_run import Run
    from node_cli.ode.solution import SolveError
    from node_cli.training.machine import set_num_threads

    set_num_threads(config["num_threads"])
    other = build_solver(config) if "solver" in config else None
    run = Run({key: value for key, value in config.items() if key != "solver"})
    if other is not None:
        run.require_solves()
    comparison = SolverComparison(
        run.model, run.task, run.dataset(), config["split"], run.batch_size, run.config["precision"]
    )
    try:
        comparison.evaluate(_name(run.config["solver"]) + ", its own" if uses_solver(run.model) else "none")
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


if __name__ == "__main__":
    main()

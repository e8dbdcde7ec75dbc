"""`node-eval`: evaluates a trained run again, with its own solver and with another, side by side."""

from __future__ import annotations

from node_cli.cli.app import launch
from node_cli.cli.compose import Composed
from node_cli.cli.overrides import Override, last_of, override, with_data_of_run
from node_cli.config import ConfigError, follows, is_path, leaves
from node_cli.runs.folder import RunFolder


def main() -> None:
    """The entry point."""
    launch("eval", run, expand=_meant)


def _meant(overrides: list[Override]) -> list[Override]:
    return with_solver_of_run(with_data_of_run(overrides))


def run(composed: Composed) -> None:
    """Evaluates one run; torch is imported only now that the command line has proved sound."""
    from node_cli.commands.evaluation import run_evaluation

    run_evaluation(composed.config)


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


if __name__ == "__main__":
    main()

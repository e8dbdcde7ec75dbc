"""`node-predict`: writes what a trained run predicts, for a split of its own data or for new data."""

from __future__ import annotations

from node_cli.cli.app import launch
from node_cli.cli.compose import Composed
from node_cli.cli.eval import with_solver_of_run
from node_cli.cli.overrides import Override, override, with_data_of_run
from node_cli.config import ConfigError

NEW_DATA = "dataset.path"
OF_SAMPLES = ("label", "seed")


def main() -> None:
    """The entry point."""
    launch("predict", run, expand=_meant)


def _meant(overrides: list[Override]) -> list[Override]:
    keys = [each.key for each in overrides]
    idle = [key for key in keys if key in OF_SAMPLES]
    if idle and "samples" not in keys:
        raise ConfigError(f"{', '.join(idle)} has no effect without samples=...: leave it out")
    if "split" in keys or NEW_DATA not in keys:
        return with_solver_of_run(with_data_of_run(overrides))
    others = [each.key for each in overrides if each.group == "dataset" and each.key != NEW_DATA]
    if others:
        raise ConfigError(
            f"{', '.join(others)} has no effect with new data ({NEW_DATA}=...), which are scaled as the run's own were"
        )
    return with_solver_of_run([override("dataset", "npz"), *overrides])


def run(composed: Composed) -> None:
    """Writes the predictions; torch is imported only now that the command line has proved sound."""
    from node_cli.commands.prediction import run_prediction

    run_prediction(composed.config)


if __name__ == "__main__":
    main()

"""`node-train`: trains a Neural ODE from a config of parts, or a grid of them with `-m`."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.cli.compose import choices_of_ours
from node_cli.cli.errors import RunFailedError
from node_cli.cli.resume import checkpoint_to_resume, with_overrides_of_run
from node_cli.cli.sweep import run_cell, sweeping, with_overrides_of_sweep
from node_cli.config import resolved
from node_cli.training.run_folder import Request, RunFolder


def main() -> None:
    """The entry point."""
    launch("train", run, expand=_meant, sweep=sweeping)


def _meant(overrides: list[str]) -> list[str]:
    return with_overrides_of_run(with_overrides_of_sweep(overrides))


def run(cfg: DictConfig) -> None:
    """Trains one config, or one cell of a sweep."""
    job = HydraConfig.get()
    request = Request(resolved(cfg), list(job.overrides.task), choices_of_ours(job.runtime.choices))
    if job.mode == RunMode.MULTIRUN:
        run_cell(request, Path(job.runtime.output_dir), train)
    else:
        train(request, RunFolder(Path(request.config["run_dir"])))


def train(request: Request, folder: RunFolder) -> None:
    """Trains in `folder`; torch is imported only now that the command line has proved sound."""
    try:
        if folder.path.exists():
            folder.lock()
        checkpoint = checkpoint_to_resume(request.config, folder)

        from node_cli.cli.run_training import run_training

        run_training(request, folder, checkpoint)
    except RunFailedError as error:
        folder.write_failure(request, str(error))
        raise
    finally:
        folder.unlock()


if __name__ == "__main__":
    main()

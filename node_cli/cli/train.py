"""`node-train`: trains what a config describes and leaves a run folder."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.cli.resume import checkpoint_to_resume, with_overrides_of_run
from node_cli.config import resolved
from node_cli.training.run_folder import RunFolder


def main() -> None:
    """The entry point."""
    launch("train", run, expand=with_overrides_of_run)


def run(cfg: DictConfig) -> None:
    """Trains one config; torch is imported only now that the command line has proved sound."""
    job = HydraConfig.get()
    config = resolved(cfg)
    if job.mode == RunMode.MULTIRUN:
        config["run_dir"] = job.runtime.output_dir
    folder = RunFolder(Path(config["run_dir"]))
    try:
        if folder.path.exists():
            folder.lock()
        checkpoint = checkpoint_to_resume(config, folder)

        from node_cli.cli.run_training import run_training

        run_training(config, list(job.overrides.task), folder, checkpoint)
    finally:
        folder.unlock()


if __name__ == "__main__":
    main()

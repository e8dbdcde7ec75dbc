"""`node-eval`: judges a trained run again, with its own solver and with another, side by side."""

from __future__ import annotations

from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.config import resolved


def main() -> None:
    """The entry point."""
    launch("eval", run)


def run(cfg: DictConfig) -> None:
    """Judges one run; torch is imported only now that the command line has proved sound."""
    from node_cli.cli.run_evaluation import run_evaluation

    run_evaluation(resolved(cfg))


if __name__ == "__main__":
    main()

"""`node-tune`: searches the config that does best on validation."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.cli.compose import CommandLine
from node_cli.config import ConfigError, resolved


def main() -> None:
    """The entry point."""
    launch("tune", run, sweep=_refuse)


def _refuse(line: CommandLine) -> NoReturn:
    raise ConfigError("a search runs many trials already: leave -m out, or search over the key (tune.space)")


def run(cfg: DictConfig) -> None:
    """Runs what is missing of a study, and sums it up."""
    if find_spec("optuna") is None:
        raise ConfigError("Optuna is not installed: pip install 'node-cli[tune]'")
    job = HydraConfig.get()
    words = [word for word in job.overrides.task if not word.lstrip("+~").startswith(("tune.", "tune="))]
    sources = job.runtime.config_sources
    extra = next((source.path for source in sources if source.provider == "command-line"), None)

    from node_cli.cli.run_tuning import tune

    tune(resolved(cfg)["tune"], CommandLine("train", words, extra))


if __name__ == "__main__":
    main()

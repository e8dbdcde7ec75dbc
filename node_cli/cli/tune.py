"""`node-tune`: searches the config that does best on validation."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from node_cli.cli.app import launch
from node_cli.cli.compose import CommandLine, hydra_ready, typed_packages
from node_cli.cli.overrides import key_of
from node_cli.cli.own_files import folder_of
from node_cli.cli.space_words import SPACE, with_space
from node_cli.config import ConfigError, resolved
from node_cli.training import launched

OF_SWEEP = ("sweep.", "hydra/launcher", "hydra.launcher")


def main() -> None:
    """The entry point."""
    launch("tune", run, _meant, _refuse, needs_output=False)


def _meant(overrides: list[str]) -> list[str]:
    """The overrides with those of the space; refuses what is of a sweep, or would start a trial in many processes."""
    if launched.is_one_of_several():
        raise ConfigError("a trial is one process: leave the launcher out, and set tune.workers=N to train N at once")
    of_sweep = [word for word in overrides if word.lstrip("+~").startswith(OF_SWEEP)]
    if of_sweep:
        raise ConfigError(f"{' '.join(of_sweep)}: that is of a sweep: a search has tune.name and tune.workers")
    return with_space(overrides)


def _refuse(line: CommandLine) -> NoReturn:
    raise ConfigError("a search runs many trials already: leave -m out, or search over the key (tune.space)")


def run(cfg: DictConfig) -> None:
    """Runs what is missing of a study, and sums it up."""
    if find_spec("optuna") is None:
        raise ConfigError("Optuna is not installed: pip install 'node-cli[tune]'")
    job = HydraConfig.get()
    words = [word for word in job.overrides.task if not word.lstrip("+~").startswith(("tune.", "tune="))]
    extra, packages = folder_of(job.runtime.config_sources), typed_packages(words)

    from node_cli.cli.run_tuning import tune

    asked = resolved(cfg)["tune"]
    if asked["storage"] is not None and "tune.storage" not in map(key_of, job.overrides.task):
        raise ConfigError("tune.storage must be set on the command line (tune.storage=...), not in a file")
    _check_left_out(asked["space"], CommandLine("tune", list(job.overrides.task), extra, packages))
    tune(asked, CommandLine("train", words, extra, packages))


def _check_left_out(space: dict[str, Any], line: CommandLine) -> None:
    """Refuses null for a key that the chosen files do not search."""
    if None not in space.values():
        return
    chosen = [word for word in line.overrides if not word.startswith(f"+{SPACE}=")]
    with hydra_ready(line):
        before = resolved(line.compose(chosen))["tune"]["space"]
    unknown = [key for key, node in space.items() if node is None and key not in before]
    if unknown:
        there = ", ".join(before)
        raise ConfigError("\n".join(f"{SPACE} has no {key} to leave out: there are {there}" for key in unknown))


if __name__ == "__main__":
    main()

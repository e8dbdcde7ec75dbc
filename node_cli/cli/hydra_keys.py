"""Hydra's own keys: which a command line may set, and that a file of the user's sets none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from node_cli.config import ConfigError, leaves

OWN_RUN_DIR = "hydra.run.dir is not used here: set run_dir=... instead"
OF_HYDRA = "of Hydra's own keys only hydra/launcher and those of hydra.launcher can be set"


def check_overrides(overrides: Sequence[Override]) -> None:
    """Refuses all but a launcher and its setup.

    Raises:
        ConfigError: another key of Hydra's is set.
    """
    if any(o.key_or_group in ("hydra.run.dir", "hydra.output_subdir") for o in overrides):
        raise ConfigError(OWN_RUN_DIR)
    for o in overrides:
        if o.key_or_group.startswith(("hydra.", "hydra/")):
            is_launcher = o.key_or_group == "hydra/launcher" or o.key_or_group.startswith("hydra.launcher.")
            if not is_launcher or "_target_" in str(o.input_line):
                raise ConfigError(f"{o.key_or_group} is not used here: {OF_HYDRA}")


def check_files(hydra: DictConfig, shipped: DictConfig, choosing: list[str], folder: str) -> None:
    """Refuses all of Hydra's that a file of `folder` sets: a launcher's setup is a command, too.

    `hydra` is what Hydra goes by with the files that the words in `choosing` choose, `shipped` what without them.

    Raises:
        ConfigError: they differ.
    """
    own, ours = _leaves(hydra), _leaves(shipped)
    ours["overrides.task"] = choosing
    for key in sorted(own.keys() | ours.keys()):
        if own.get(key) != ours.get(key):
            raise ConfigError(f"hydra.{key} is set in a file of {folder}: {OF_HYDRA}")


def _leaves(hydra: DictConfig) -> dict[str, Any]:
    """What Hydra goes by, but for what it writes down itself."""
    kept = [str(key) for key in hydra if key not in ("overrides", "runtime", "searchpath", "job")]
    own = {f"job.{key}": hydra.job[key] for key in ("chdir", "env_set", "env_copy", "config")}
    own["overrides.task"] = list(hydra.overrides.task)
    container = OmegaConf.to_container(OmegaConf.masked_copy(hydra, kept), resolve=False)
    assert isinstance(container, dict)
    return own | dict(leaves({str(key): value for key, value in container.items()}))

"""Composes what a command line asks for and refuses its mistakes, all at once, before Hydra runs anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

from node_cli.cli.help import groups_of
from node_cli.config import (
    ConfigError,
    Reference,
    config_dir,
    problems_of,
    resolved,
    unknown_key,
    untrusted_targets,
)

OWN_RUN_DIR = "hydra.run.dir is not used here: set run_dir=... instead"


@dataclass(frozen=True)
class CommandLine:
    """One run as typed: the primary config's name, the overrides, and a further folder of YAML files."""

    config_name: str
    overrides: list[str]
    extra_config_dir: str | None = None

    def compose(self, overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
        """What Hydra makes of `overrides` on top of the primary config."""
        searchpath = []
        if self.extra_config_dir is not None:
            searchpath = [f"hydra.searchpath=[file://{os.path.abspath(self.extra_config_dir)}]"]
        return compose(self.config_name, [*searchpath, *overrides], return_hydra_config=with_hydra)

    def cells(self) -> list[CommandLine]:
        """A sweep's runs, one command line each.

        Raises:
            ConfigError: a glob has no match.
        """
        overrides = _parse(self.overrides)
        cells = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
        if not cells:
            sweeps = [o for o in overrides if o.is_sweep_override()]
            empty = [str(o.input_line) for o in sweeps if not list(o.sweep_string_iterator())]
            raise ConfigError(f"{' '.join(empty)} has no match")
        return [CommandLine(self.config_name, cell, self.extra_config_dir) for cell in cells]


@contextmanager
def hydra_ready(line: CommandLine) -> Iterator[None]:
    """Within it, command lines can be composed."""
    if line.extra_config_dir is not None and not Path(line.extra_config_dir).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {line.extra_config_dir}")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        yield


def choices_of_ours(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML chosen for each group, without Hydra's own groups."""
    return {group: name for group, name in choices.items() if not group.startswith("hydra/")}


def check_keys(line: CommandLine) -> None:
    """Refuses keys that the chosen files do not have.

    Raises:
        ConfigError: a line for each.
    """
    _reference(line)


def checked_config(line: CommandLine) -> dict[str, Any]:
    """The resolved config of one run.

    Raises:
        ConfigError: a line for each unknown key; otherwise for each missing, mistyped or untrusted value.
    """
    reference = _reference(line)
    cfg = resolved(line.compose(line.overrides))
    named = any(o.key_or_group == "packages" for o in _parse(line.overrides))
    packages = cfg["packages"] if isinstance(cfg["packages"], list) else []
    problems = problems_of(cfg, reference) + untrusted_targets(cfg, packages if named else [])
    if packages and not named:
        problems.append(f"packages must be named on the command line (packages=[{','.join(packages)}]), not in a file")
    if problems:
        raise ConfigError("\n".join(problems))
    if packages and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return cfg


def _reference(line: CommandLine) -> Reference:
    """The chosen files as they stand, without what overrides or an experiment set."""
    groups = _groups(line.config_name)
    overrides = _parse(line.overrides)
    choosing = _choosing(line, overrides, groups)
    cfg = line.compose([str(o.input_line) for o in choosing], with_hydra=True)
    chosen = cfg.hydra.runtime.choices
    choices = {group: str(chosen[group]) for group in groups if chosen.get(group) is not None}
    if "experiment" in choices:
        cfg = line.compose([f"{group}={choice}" for group, choice in choices.items() if group != "experiment"])
    else:
        cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    reference = Reference({str(key): value for key, value in values.items()}, choices, groups)
    setting = [o.key_or_group for o in overrides if o not in choosing and not o.is_hydra_override()]
    unknown = [unknown_key(key, reference) for key in setting if not _has(reference.values, key)]
    if unknown:
        raise ConfigError("\n".join(unknown))
    return reference


def _choosing(line: CommandLine, overrides: list[Override], groups: set[str]) -> list[Override]:
    """The overrides that choose a file of a group."""
    if any(o.key_or_group in ("hydra.run.dir", "hydra.output_subdir") for o in overrides):
        raise ConfigError(OWN_RUN_DIR)
    choosing = [o for o in overrides if o.key_or_group in groups]
    for o in choosing:
        if o.type != OverrideType.CHANGE or not isinstance(o.value(), (str, list)):
            raise ConfigError(
                f"{o.input_line} is no choice: write {o.key_or_group}=NAME (node-{line.config_name} --help)"
            )
    return choosing


def _groups(config_name: str) -> set[str]:
    """The groups of one command: those in the defaults list of its primary config and of those that it builds on."""
    return set(groups_of(config_name, _defaults))


def _defaults(config_name: str) -> list[Any]:
    for source in GlobalHydra.instance().config_loader().get_sources():
        if source.is_config(config_name):
            primary = OmegaConf.to_container(source.load_config(config_name).config)
            assert isinstance(primary, dict)
            return list(primary["defaults"])
    raise ConfigError(f"--config-name {config_name}: there is no {config_name}.yaml")


def _parse(overrides: list[str]) -> list[Override]:
    return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader()).parse_overrides(overrides)


def _has(reference: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(reference, dict) or part not in reference:
            return False
        reference = reference[part]
    return True

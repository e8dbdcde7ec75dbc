"""Composes what a command line asks for and refuses its mistakes, all at once, before Hydra runs anything."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, RangeSweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from node_cli.cli.help import groups_in, groups_of
from node_cli.cli.hydra_keys import check_files, check_overrides
from node_cli.cli.own_files import searched
from node_cli.config import (
    ConfigError,
    Reference,
    config_dir,
    is_below,
    is_path,
    problems_of,
    resolved,
    shown,
    unknown_key,
)
from node_cli.references import problems_of_references
from node_cli.trust import untrusted_parts
from node_cli.yaml_file import MAX_DEPTH

SEVERAL = ("logger",)  # groups of which several files may be chosen
MAX_WORD, MAX_CELLS = 20_000, 10_000


@dataclass(frozen=True)
class CommandLine:
    """One run as typed: the primary config's name, the overrides, a further folder of YAML files, packages to trust.

    `packages` are those that the user has typed; overrides may have come from a folder, and name others.
    """

    config_name: str
    overrides: list[str]
    extra_config_dir: str | None = None
    packages: tuple[str, ...] = ()

    def compose(self, overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
        """What Hydra makes of `overrides` on top of the primary config."""
        searchpath = []
        if self.extra_config_dir is not None:
            searchpath = [searched(self.extra_config_dir)]
        with _stumbling_is_a_mistake("the chosen files cannot be put together"):
            return compose(self.config_name, [*searchpath, *overrides], return_hydra_config=with_hydra)

    def cells(self) -> list[CommandLine]:
        """A sweep's runs, one command line each.

        Raises:
            ConfigError: a glob has no match, or there are too many.
        """
        overrides = _parse(self.overrides)
        number = math.prod(_length(o.value()) for o in overrides)
        if number > MAX_CELLS:
            raise ConfigError(f"the values make {number} runs: at most {MAX_CELLS} at once")
        with _stumbling_is_a_mistake("cannot read the command line"):
            cells = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
        if not cells:
            sweeps = [o for o in overrides if o.is_sweep_override()]
            empty = [str(o.input_line) for o in sweeps if not list(o.sweep_string_iterator())]
            raise ConfigError(f"{' '.join(empty)} has no match")
        return [replace(self, overrides=cell) for cell in cells]


@contextmanager
def _stumbling_is_a_mistake(what: str) -> Iterator[None]:
    """Of Hydra's own errors each has its words; whatever else its readers run into, they were given."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ConfigError):
        raise
    except RecursionError as error:
        raise ConfigError(f"{what}: nested too deeply, or named within itself") from error
    except Exception as error:
        raise ConfigError(f"{what}: {shown(' '.join(str(error).split()))[1:-1]}") from error


def _length(value: Any) -> int:
    """How many runs the value of one override makes, without making a list of them."""
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, RangeSweep) and value.step and value.start is not None and value.stop is not None:
        return max(1, math.ceil((value.stop - value.start) / value.step))
    return 1


@contextmanager
def hydra_ready(line: CommandLine) -> Iterator[None]:
    """Within it, command lines can be composed."""
    if line.extra_config_dir is not None and not Path(line.extra_config_dir).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {line.extra_config_dir}")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        yield


def for_every_choice(config_name: str, overrides: list[str]) -> list[str]:
    """The words of a sweep as Hydra takes them: it puts the default choices together first, and their keys are others.

    A key of a group of which several choices are swept over is so added (`++`), where each run was checked to have it.
    """
    parser, groups = OverridesParser.create(), set(groups_in(config_name))
    parsed = [parser.parse_override(word) for word in overrides]
    swept = {o.key_or_group for o in parsed if o.key_or_group in groups and o.is_sweep_override()}
    return [
        f"++{word}"
        if o.type == OverrideType.CHANGE and "." in o.key_or_group and o.key_or_group.split(".")[0] in swept
        else word
        for word, o in zip(overrides, parsed, strict=True)
    ]


def choices_of_ours(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The YAML chosen for each group, without Hydra's own groups."""
    return {group: name for group, name in choices.items() if not group.startswith("hydra/")}


def check_keys(line: CommandLine) -> None:
    """Refuses keys that the chosen files do not have, and values that refer to what they must not.

    Raises:
        ConfigError: a line for each.
    """
    _reference(line)
    problems = problems_of_references(OmegaConf.to_container(line.compose(line.overrides), resolve=False))
    if problems:
        raise ConfigError("\n".join(problems))


def checked_config(line: CommandLine) -> dict[str, Any]:
    """The resolved config of one run.

    Raises:
        ConfigError: a line for each unknown key; otherwise for each missing, mistyped or untrusted value.
    """
    reference = _reference(line)
    cfg = resolved(line.compose(line.overrides))
    packages = [name for name in cfg["packages"] if isinstance(name, str)] if isinstance(cfg["packages"], list) else []
    problems = problems_of(cfg, reference) + untrusted_parts(cfg, line.packages)
    if not set(packages) <= set(line.packages):
        problems.append(f"packages must be named on the command line (packages=[{','.join(packages)}]), not in a file")
    if line.extra_config_dir is not None:
        problems += _outside(cfg, {o.key_or_group for o in _parse(line.overrides)})
    if problems:
        raise ConfigError("\n".join(problems))
    return cfg


def _outside(cfg: Mapping[str, Any], typed: set[str]) -> Iterator[str]:
    """A line for each place to write to that a file has chosen, and that is not for a stranger to choose."""
    places = {"run_dir": cfg.get("run_dir"), "dataset.data_dir": (cfg.get("dataset") or {}).get("data_dir")}
    for key, place in places.items():
        if is_path(place) and key not in typed and not is_below(str(place), os.getcwd()):
            yield f"{key}={place} is set in a file, and lies outside the working folder: set it on the command line"


def typed_packages(overrides: Sequence[str]) -> tuple[str, ...]:
    """The packages that the words of a user name, all of a sweep together."""
    lists: list[Any] = []
    for override in _parse([word for word in overrides if word.lstrip("+").startswith("packages=")]):
        value = override.value()
        lists += value.list if isinstance(value, ChoiceSweep) else [value]
    return tuple(name for value in lists if isinstance(value, list) for name in value if isinstance(name, str))


def _reference(line: CommandLine) -> Reference:
    """The chosen files as they stand, without what overrides or an experiment set."""
    groups = _groups(line.config_name)
    overrides = _parse(line.overrides)
    choosing = _choosing(line, overrides, groups)
    words = [str(o.input_line) for o in choosing]
    is_ours = line.extra_config_dir is None
    cfg = _shipped(line.config_name, tuple(words)) if is_ours else line.compose(words, with_hydra=True)
    if line.extra_config_dir is not None:
        of_hydra = [str(o.input_line) for o in overrides if o.is_hydra_override()]
        ours = compose(line.config_name, of_hydra, return_hydra_config=True)
        own = line.compose([*words, *of_hydra], with_hydra=True)
        check_files(own.hydra, ours.hydra, words, line.extra_config_dir)
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


@functools.lru_cache(maxsize=32)
def _shipped(config_name: str, choosing: tuple[str, ...]) -> DictConfig:
    """The chosen files of our own, which stay as they are: the cells of a sweep hardly ever choose others."""
    cfg = CommandLine(config_name, []).compose(list(choosing), with_hydra=True)
    OmegaConf.set_readonly(cfg, True)
    return cfg


def _choosing(line: CommandLine, overrides: list[Override], groups: set[str]) -> list[Override]:
    """The overrides that choose a file of a group."""
    check_overrides(overrides)
    choosing = [o for o in overrides if o.key_or_group in groups]
    for o in choosing:
        value = o.value()
        names = value if isinstance(value, list) and o.key_or_group in SEVERAL else [value]
        is_choice = o.type == OverrideType.CHANGE and all(isinstance(name, str) for name in names)
        if not is_choice or len(set(names)) < len(names):
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
    too_long = [word for word in overrides if len(word) > MAX_WORD]
    if too_long:
        raise ConfigError(f"{too_long[0][:30]}... has {len(too_long[0])} characters: at most {MAX_WORD}")
    if any(_depth(word) > MAX_DEPTH for word in overrides):
        raise ConfigError(f"cannot read the command line: brackets nested more than {MAX_DEPTH} deep")
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    with _stumbling_is_a_mistake("cannot read the command line"):
        return parser.parse_overrides(overrides)


def _depth(word: str) -> int:
    """How deep brackets of any kind are nested."""
    return max(accumulate((char in "[{(") - (char in ")}]") for char in word), default=0)


def _has(reference: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(reference, dict) or part not in reference:
            return False
        reference = reference[part]
    return True

"""Composes what a command line asks for and refuses its mistakes, all at once, before Hydra runs anything."""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import ChoiceSweep
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from node_cli.cli.overrides import Override, parse, stumbling_is_a_mistake, texts_of
from node_cli.cli.own_files import check_files, check_overrides, folder_of, searched
from node_cli.config import ConfigError, config_dir, is_path, known_of, resolved
from node_cli.files import is_below
from node_cli.references import problems_of_references
from node_cli.schema import Reference, problems_of, unknown_key
from node_cli.trust import untrusted_parts
from node_cli.yaml_file import read_yaml

MAX_JOBS = 10_000
Chosen = tuple[DictConfig, DictConfig]  # a config, and what Hydra knows of it


@dataclass(frozen=True)
class CommandLine:
    """One run as typed: the primary config's name, the overrides, a further folder of YAML files, packages to trust.

    `packages` are those that the user has typed; overrides may have come from a folder, and name others.
    """

    config_name: str
    overrides: Sequence[Override]
    extra_config_dir: str | None = None
    packages: Sequence[str] = ()

    def compose(self, *, with_hydra: bool = False) -> DictConfig:
        """What Hydra makes of the overrides on top of the primary config."""
        texts = texts_of(self.overrides)
        if self.extra_config_dir is not None:
            texts.insert(0, searched(self.extra_config_dir))
        with stumbling_is_a_mistake("the chosen files cannot be put together"):
            return compose(self.config_name, texts, return_hydra_config=with_hydra)

    def jobs(self) -> list[CommandLine]:
        """A sweep's runs, one command line each.

        Raises:
            ConfigError: a glob has no match, or there are too many.
        """
        with stumbling_is_a_mistake("cannot read the command line"):
            number = math.prod(each.num_jobs() for each in self.overrides)
            if number > MAX_JOBS:
                raise ConfigError(f"the values make {number} runs: at most {MAX_JOBS} at once")
            values = {each.element: (each.text, each.jobs()) for each in self.overrides}
        empty = [text for text, jobs in values.values() if not jobs]
        if empty:
            raise ConfigError(f"{' '.join(empty)} has no match")
        return [replace(self, overrides=job) for job in product(*(jobs for _, jobs in values.values()))]


@dataclass(frozen=True)
class Composed:
    """What a command is asked to do, alone or as a job of a sweep.

    Attributes:
        config: resolved.
        overrides: as they were typed, or as the sweep has drawn them; none of Hydra's own keys.
        choices: the YAML file chosen for each group, without Hydra's own groups.
        own_files: the folder of --config-dir.
        sweep_dir: where a job of a sweep is written, else None.
    """

    config: dict[str, Any]
    overrides: list[Override]
    choices: dict[str, Any]
    own_files: str | None
    sweep_dir: str | None

    @classmethod
    def of(cls, cfg: DictConfig, hydra: Any, overrides: Iterable[Override]) -> Composed:
        """A config without its `hydra`, that, which says how it came about, and the overrides."""
        return cls(
            resolved(cfg),
            [each for each in overrides if not each.is_of_hydra],
            {str(group): name for group, name in hydra.runtime.choices.items() if not str(group).startswith("hydra/")},
            folder_of(hydra.runtime.config_sources),
            hydra.runtime.output_dir if hydra.mode == RunMode.MULTIRUN else None,
        )


@contextmanager
def hydra_ready(line: CommandLine) -> Iterator[None]:
    """Within it, command lines can be composed."""
    if line.extra_config_dir is not None and not Path(line.extra_config_dir).is_dir():
        raise ConfigError(f"--config-dir must be a folder, got {line.extra_config_dir}")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        yield


def for_every_choice(config_name: str, overrides: Sequence[Override]) -> list[Override]:
    """The overrides of a sweep as Hydra takes them: it composes the default choices first, and their keys are others.

    A key of a group of which several choices are swept over is so added (`++`), where each run was checked to have it.
    """
    groups = groups_in(config_name)
    swept = {each.key for each in overrides if each.key in groups and each.is_sweep}
    return [
        each.forced() if not each.prefix and "." in each.key and each.group in swept else each for each in overrides
    ]


def with_known_keys(line: CommandLine) -> DictConfig:
    """The config of one run as it stands, to be looked at: its values may be missing or wrong.

    Raises:
        ConfigError: a line for each key that the chosen files do not have, and each forbidden reference.
    """
    chosen = _as_chosen(line)
    _reference(line, chosen)
    cfg, _ = _composed(line, chosen)
    problems = problems_of_references(OmegaConf.to_container(cfg, resolve=False))
    if problems:
        raise ConfigError("\n".join(problems))
    return cfg


def checked_config(line: CommandLine) -> dict[str, Any]:
    """The resolved config of one run. Raises as `checked` does."""
    return checked(line).config


def checked(line: CommandLine) -> Composed:
    """One run, composed once.

    Raises:
        ConfigError: a line for each unknown key; otherwise for each missing, mistyped or untrusted value.
    """
    chosen = _as_chosen(line)
    reference = _reference(line, chosen)
    composed = Composed.of(*_composed(line, chosen), line.overrides)
    cfg = composed.config
    packages = [name for name in cfg["packages"] if isinstance(name, str)] if isinstance(cfg["packages"], list) else []
    problems = problems_of(cfg, reference) + untrusted_parts(cfg, line.packages)
    if not set(packages) <= set(line.packages):
        problems.append(f"packages must be named on the command line (packages=[{','.join(packages)}]), not in a file")
    if line.extra_config_dir is not None:
        problems += _outside(cfg, {each.key for each in line.overrides})
    if problems:
        raise ConfigError("\n".join(problems))
    return composed


def composed_by(line: CommandLine) -> Composed:
    """One run, unchecked."""
    return Composed.of(*_composed(line, _as_chosen(line)), line.overrides)


def _composed(line: CommandLine, chosen: Chosen) -> Chosen:
    """A config, and what Hydra knows of it.

    Where an override sets a plain value in the chosen files, it is set as Hydra does it: that composes everything anew,
    a hundred times as slowly.
    """
    files, hydra = chosen
    groups = groups_in(line.config_name)
    setting = [each for each in line.overrides if each.key not in groups]
    if all(_is_plain(each) for each in setting):
        cfg = copy.deepcopy(files)
        OmegaConf.set_readonly(cfg, None)
        with suppress(OmegaConfBaseException):  # Hydra says what is wrong
            for each in setting:
                OmegaConf.update(cfg, each.key, each.value, merge=True)
            return cfg, hydra
    return _without_hydra(line.compose(with_hydra=True))


def _is_plain(each: Override) -> bool:
    return not (each.is_of_hydra or each.is_sweep) and each.element == each.key


def _without_hydra(cfg: DictConfig) -> Chosen:
    hydra = cfg.hydra
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, hydra


def _outside(cfg: Mapping[str, Any], typed: set[str]) -> Iterator[str]:
    """A line for each place to write to that a file has chosen, and that is not for a stranger to choose."""
    places = {"run_dir": cfg.get("run_dir"), "dataset.data_dir": (cfg.get("dataset") or {}).get("data_dir")}
    for key, place in places.items():
        if is_path(place) and key not in typed and not is_below(str(place), os.getcwd()):
            yield f"{key}={place} is set in a file, and lies outside the working folder: set it on the command line"


def typed_packages(overrides: Sequence[Override]) -> tuple[str, ...]:
    """The packages that a user names, all of a sweep together."""
    lists: list[Any] = []
    for each in overrides:
        if each.key == "packages" and each.prefix != "~":
            lists += each.value.list if isinstance(each.value, ChoiceSweep) else [each.value]
    return tuple(name for value in lists if isinstance(value, list) for name in value if isinstance(name, str))


def _reference(line: CommandLine, chosen: Chosen) -> Reference:
    """The chosen files as they stand, without what overrides or an experiment set."""
    groups = set(groups_in(line.config_name))
    cfg, hydra = chosen
    choices = {
        group: str(name) for group, name in hydra.runtime.choices.items() if group in groups and name is not None
    }
    if "experiment" in choices:
        others = parse(f"{group}={choice}" for group, choice in choices.items() if group != "experiment")
        cfg, _ = _files(replace(line, overrides=others))
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    folders = [Path(folder) for folder in (config_dir(), line.extra_config_dir) if folder is not None]
    reference = Reference({str(key): value for key, value in values.items()}, choices, groups, folders)
    setting = [each.key for each in line.overrides if each.key not in groups and not each.is_of_hydra]
    unknown = [unknown_key(key, reference) for key in setting if not _has(reference.values, key)]
    if unknown:
        raise ConfigError("\n".join(unknown))
    return reference


def _as_chosen(line: CommandLine) -> Chosen:
    """The chosen files with Hydra's own keys; of a further folder they are checked to set none of these."""
    choosing = _choosing(line, set(groups_in(line.config_name)))
    if line.extra_config_dir is None:
        return _files(replace(line, overrides=choosing))
    of_hydra = [each for each in line.overrides if each.is_of_hydra]
    own = _files(replace(line, overrides=[*choosing, *of_hydra]))
    _, ours = _files(replace(line, overrides=of_hydra, extra_config_dir=None))
    check_files(own[1], ours, texts_of(choosing), line.extra_config_dir)
    return own


def _files(line: CommandLine) -> Chosen:
    """What a command line chooses that sets nothing."""
    if line.extra_config_dir is None:
        return _shipped(line.config_name, tuple(texts_of(line.overrides)))
    return _without_hydra(line.compose(with_hydra=True))


@functools.lru_cache(maxsize=256)
def _shipped(config_name: str, choosing: tuple[str, ...]) -> Chosen:
    """The chosen files of our own, which stay as they are: the jobs of a sweep hardly ever choose others."""
    cfg, hydra = _without_hydra(CommandLine(config_name, parse(choosing)).compose(with_hydra=True))
    for each in (cfg, hydra):
        OmegaConf.set_readonly(each, True)
    return cfg, hydra


def _choosing(line: CommandLine, groups: set[str]) -> list[Override]:
    """The overrides that choose a file of a group."""
    check_overrides(line.overrides)
    choosing = [each for each in line.overrides if each.key in groups]
    for each in choosing:
        names = each.value if isinstance(each.value, list) and known_of(each.key).several else [each.value]
        is_choice = not each.prefix and names and all(isinstance(name, str) for name in names)
        if not is_choice or len(set(names)) < len(names):
            raise ConfigError(f"{each.text} is no choice: write {each.key}=NAME (node-{line.config_name} --help)")
    return choosing


@functools.cache
def groups_in(config_name: str) -> list[str]:
    """The groups in the defaults list of one of our primary configs, after those of the configs that it builds on."""
    path = Path(config_dir(), f"{config_name}.yaml")
    if not path.is_file():
        return []
    defaults = read_yaml(path)["defaults"]
    bases = [entry for entry in defaults if isinstance(entry, str) and entry != "_self_"]
    own = [group for entry in defaults if isinstance(entry, dict) for group in entry]
    inherited = [group for base in bases for group in groups_in(base)]
    return inherited + [group for group in own if not group.startswith("override ")]


def _has(reference: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(reference, dict) or part not in reference:
            return False
        reference = reference[part]
    return True

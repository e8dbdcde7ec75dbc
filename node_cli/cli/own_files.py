"""The further folder of YAML files (--config-dir), which may come from a stranger: each is checked when it is loaded.

Hydra would follow links, wait for pipes, unfold aliases and defaults of defaults for ever, and take settings of its own
from anywhere.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from node_cli.cli.overrides import Override, quoted
from node_cli.config import ConfigError, leaves
from node_cli.references import foreign_references
from node_cli.yaml_file import read_checked

MAX_FILES = 1_000  # that a chosen one may bring in through defaults of defaults, each as often as it is named
OWN_RUN_DIR = "hydra.run.dir is not used here: set run_dir=... instead"
OF_HYDRA = "of Hydra's own keys only hydra/launcher and those of hydra.launcher can be set"


class OwnFiles(ConfigSource):
    """The files of a folder, one that may have been written by a stranger."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._numbers: dict[str, int] = {}

    @staticmethod
    def scheme() -> str:
        """What an entry of Hydra's search path begins with to be read by this class."""
        return "checked"

    def available(self) -> bool:
        """Whether there is such a folder."""
        return self.is_group("")

    def is_group(self, config_path: str) -> bool:
        """Whether it has such a folder."""
        return os.path.isdir(os.path.join(self.path, config_path))

    def is_config(self, config_path: str) -> bool:
        """Whether it has such a file."""
        return os.path.isfile(os.path.join(self.path, self._normalize_file_name(config_path)))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """What lies in one of its folders."""
        names: list[str] = []
        for name in os.listdir(os.path.join(self.path, config_path)):
            self._list_add_result(names, os.path.join(config_path, name), name, results_filter)
        return sorted(set(names))

    def load_config(self, config_path: str) -> ConfigResult:
        """One file, if nothing is wrong with it.

        Raises:
            ConfigError: it is a link out of the folder, no text, too large, reads the environment, or brings too many.
        """
        loaded, _ = self._load(config_path)
        if self._number(config_path) > MAX_FILES:
            raise ConfigError(f"{self._file(config_path)}: its defaults bring in more than {MAX_FILES:,} files")
        return loaded

    def _load(self, config_path: str) -> tuple[ConfigResult, Sequence[Any]]:
        """A file as it stands, and its list of defaults."""
        path = self._file(config_path)
        if not self.is_config(config_path):
            raise ConfigLoadError(f"{path} does not exist")
        text = Text(read_checked(path, inside=Path(self.path)), path)
        config = OmegaConf.load(text)
        values = OmegaConf.to_container(config, resolve=False)
        defaults = values.get("defaults") if isinstance(values, dict) else None
        problems = foreign_references(values)
        if not problems and "${" in str(defaults):
            problems.append("defaults must name files, and refer to nothing")
        if problems:
            raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
        header = self._get_header_dict(text.getvalue())
        loaded = ConfigResult(self.provider, self.full_path(), config, header)
        return loaded, defaults if isinstance(defaults, list) else []

    def _file(self, config_path: str) -> Path:
        folder = Path(self.path)
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        return shown / self._normalize_file_name(config_path)

    def _number(self, config_path: str) -> int:
        """How many files it stands for, itself included; one that brings in itself is for Hydra to refuse."""
        if config_path not in self._numbers:
            self._numbers[config_path] = 1
            _, defaults = self._load(config_path)
            paths = [path for entry in defaults for path in _named(os.path.dirname(config_path), entry)]
            self._numbers[config_path] += sum(self._number(path) for path in paths if self.is_config(path))
        return self._numbers[config_path]


def _named(group: str, entry: Any) -> list[str]:
    """The files that one entry of a defaults list of a file of the group names."""
    if isinstance(entry, str):
        return [_below(group, entry)]
    items = entry.items() if isinstance(entry, dict) else ()
    return [
        f"{_below(group, str(key).split('@')[0].split(' ')[-1])}/{name}"
        for key, value in items
        for name in (value if isinstance(value, list) else [value])
    ]


def _below(group: str, name: str) -> str:
    name = name.split("@")[0]
    return name.lstrip("/") if name.startswith("/") or not group else f"{group}/{name}"


class Text(io.StringIO):
    """The text of a file; a parser says where it is broken by its `name`."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.name = str(path)


def searched(folder: str) -> str:
    """The text of an override that adds the folder to Hydra's search path."""
    Plugins.instance().register(OwnFiles)
    return f"hydra.searchpath=[{quoted(f'{OwnFiles.scheme()}://{os.path.abspath(folder)}')}]"


def folder_of(sources: Any) -> str | None:
    """The folder that a running job was given, of its `hydra.runtime.config_sources`."""
    return next((source.path for source in sources if source.schema == OwnFiles.scheme()), None)


def check_overrides(overrides: Sequence[Override]) -> None:
    """Refuses all but a launcher and its setup.

    Raises:
        ConfigError: another key of Hydra's is set.
    """
    if any(o.key in ("hydra.run.dir", "hydra.output_subdir") for o in overrides):
        raise ConfigError(OWN_RUN_DIR)
    for o in overrides:
        if o.is_of_hydra:
            is_launcher = o.key == "hydra/launcher" or o.key.startswith("hydra.launcher.")
            if not is_launcher or "_target_" in o.text:
                raise ConfigError(f"{o.key} is not used here: {OF_HYDRA}")


def check_files(hydra: DictConfig, shipped: DictConfig, choosing: list[str], folder: str) -> None:
    """Refuses all of Hydra's that a file of `folder` sets: a launcher's setup is a command, too.

    `hydra` is what Hydra goes by with the files that the overrides in `choosing` choose, `shipped` what without them.

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

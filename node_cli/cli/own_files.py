"""The further folder of YAML files (--config-dir), which may come from a stranger: each is looked at when loaded.

Hydra would follow links, wait for pipes, unfold aliases and defaults of defaults for ever, and take settings of its own
from anywhere.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from node_cli.cli.overrides import quoted
from node_cli.config import ConfigError
from node_cli.references import foreign_references
from node_cli.yaml_file import read_checked

MAX_FILES = 1_000  # that a chosen one may bring in through defaults of defaults, each as often as it is named


class OwnFiles(FileConfigSource):
    """The files of a folder, one that may have been written by a stranger."""

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._numbers: dict[str, int] = {}

    @staticmethod
    def scheme() -> str:
        """What an entry of Hydra's search path begins with to be read by this class."""
        return "checked"

    def load_config(self, config_path: str) -> ConfigResult:
        """One file, if nothing is wrong with it.

        Raises:
            ConfigError: it is a link out of the folder, no text, too large, reads the environment, or brings too many.
        """
        loaded, _ = self._load(config_path)
        if self._number(config_path) > MAX_FILES:
            raise ConfigError(f"{self._file(config_path)}: its defaults bring in more than {MAX_FILES:,} files")
        return loaded

    def _load(self, config_path: str) -> tuple[ConfigResult, list[Any]]:
        """A file as it stands, and its list of defaults."""
        path = self._file(config_path)
        read_checked(path, inside=Path(self.path))
        loaded = super().load_config(config_path)
        values = OmegaConf.to_container(loaded.config, resolve=False) if OmegaConf.is_config(loaded.config) else {}
        defaults = values.get("defaults") if isinstance(values, dict) else None
        problems = foreign_references(values)
        if not problems and "${" in str(defaults):
            problems.append("defaults must name files, and refer to nothing")
        if problems:
            raise ConfigError("\n".join(f"{path}: {problem}" for problem in problems))
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


def searched(folder: str) -> str:
    """The word of Hydra's command line that adds the folder."""
    return f"hydra.searchpath=[{quoted(f'{OwnFiles.scheme()}://{os.path.abspath(folder)}')}]"


def folder_of(sources: Any) -> str | None:
    """The folder that a running job was given, of its `hydra.runtime.config_sources`."""
    return next((source.path for source in sources if source.schema == OwnFiles.scheme()), None)


SourcesRegistry.instance().register(OwnFiles)

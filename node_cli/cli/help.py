"""The text of --help. Hydra would list its own groups first, and take twice as long."""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from node_cli.config import config_dir


def help_text(name: str, extra_config_dir: str | None) -> str:
    """The template in `<name>.yaml` with every group of its defaults list and the choices that there are."""
    primary = _load(name)
    folders = [Path(folder) for folder in (config_dir(), extra_config_dir) if folder is not None]
    lines = []
    for group in groups_in(name):
        choices = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        lines.append(f"{group}: {', '.join(sorted(choices))}")
    return string.Template(primary["hydra"]["help"]["template"]).substitute(APP_CONFIG_GROUPS="\n".join(lines))


def groups_of(name: str, defaults_of: Callable[[str], list[Any]]) -> list[str]:
    """The groups in the defaults list of a primary config, after those of the configs that it builds on."""
    defaults = defaults_of(name)
    bases = [entry for entry in defaults if isinstance(entry, str) and entry != "_self_"]
    own = [str(group) for entry in defaults if isinstance(entry, dict) for group in entry]
    inherited = [group for base in bases for group in groups_of(base, defaults_of)]
    return inherited + [group for group in own if not group.startswith("override ")]


def groups_in(name: str) -> list[str]:
    """The groups of one of our primary configs; none if there is no such config."""
    return groups_of(name, lambda base: _load(base)["defaults"]) if _path(name).is_file() else []


def _path(name: str) -> Path:
    return Path(config_dir()) / f"{name}.yaml"


def _load(name: str) -> dict[str, Any]:
    primary = OmegaConf.to_container(OmegaConf.load(_path(name)))
    assert isinstance(primary, dict)
    return {str(key): value for key, value in primary.items()}

"""The text of --help. Hydra would list its own groups first, and take twice as long."""

from __future__ import annotations

import string
from pathlib import Path

from omegaconf import OmegaConf

from node_cli.config import config_dir


def help_text(name: str, extra_config_dir: str | None) -> str:
    """The template in `<name>.yaml` with every group of its defaults list and the choices that there are."""
    primary = OmegaConf.to_container(OmegaConf.load(Path(config_dir()) / f"{name}.yaml"))
    assert isinstance(primary, dict)
    folders = [Path(folder) for folder in (config_dir(), extra_config_dir) if folder is not None]
    lines = []
    for group in groups_in(primary["defaults"]):
        choices = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        lines.append(f"{group}: {', '.join(sorted(choices))}")
    return string.Template(primary["hydra"]["help"]["template"]).substitute(APP_CONFIG_GROUPS="\n".join(lines))


def groups_in(defaults: list[object]) -> list[str]:
    """The groups of a defaults list, in order."""
    names = [str(name) for entry in defaults if isinstance(entry, dict) for name in entry]
    return [name for name in names if not name.startswith("override ")]

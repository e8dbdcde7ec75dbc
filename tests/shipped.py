"""Keys as the YAML files have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from node_cli.config import config_dir


def dataset_keys(name: str) -> dict[str, Any]:
    """Of `configs/dataset/<name>.yaml`, without what it calls."""
    keys = yaml.safe_load((Path(config_dir()) / "dataset" / f"{name}.yaml").read_text("utf-8"))
    return {key: value for key, value in keys.items() if key != "_target_"}

"""One run as a record: its status and every scalar that is known of it, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from node_cli.config import ConfigError
from node_cli.runs.outcome import DAMAGED
from node_cli.yaml_file import read_yaml

CONFIG, CHOICES = Path(".hydra", "config.yaml"), Path(".hydra", "choices.yaml")
LARGEST = 1 << 1023  # beyond it whole numbers have no float


@dataclass(frozen=True)
class Run:
    """One run folder; `reason`: why it failed, was pruned or cannot be read; `summary` is empty where there is none."""

    folder: Path
    status: str
    reason: str
    summary: Mapping[str, Any]

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """As the summary has it; else from YAML, which is slow to read."""
        return self.summary.get("config") or self._read_yaml(CONFIG)

    @property
    def objective(self) -> tuple[str, str] | None:
        """The metric that its validations were compared by, and whether "min" or "max"; None: an earlier version's."""
        known = self.summary.get("objective")
        return None if known is None else (known["metric"], known["goal"])

    @cached_property
    def compared(self) -> dict[str, Any]:
        """The choice of each group and every key of the config, `model` and `model.width`."""
        choices = self.summary.get("choices") or ({} if "config" in self.summary else self._read_yaml(CHOICES))
        return dict(leaves(self.config)) | _classes(self.config) | dict(leaves(choices))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The same, and every other scalar: `test/error`, `nfe/forward`, `seconds.training`, `status`."""
        parts = {key: value for key, value in self.summary.items() if key not in ("config", "choices")}
        tags = (parts.pop("metrics", None) or {}) | (parts.pop("nfe", None) or {})
        own = {"status": self.status, "folder": str(self.folder)}
        return self.compared | tags | dict(leaves(parts)) | own

    def _read_yaml(self, name: Path) -> dict[str, Any]:
        if self.status == DAMAGED:
            return {}
        try:
            content = read_yaml(self.folder / name, inside=self.folder)
        except ConfigError:
            return {}
        return content if isinstance(content, dict) else {}


def is_number(value: Any) -> bool:
    """Whether a mean can be taken of it."""
    return isinstance(value, float) or (type(value) is int and abs(value) < LARGEST)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`("solver.rtol", 0.001)` and the like."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _classes(config: Mapping[str, Any]) -> dict[str, str]:
    """Each group by its class, where the names of the choices were not recorded."""
    named = {str(group): node.get("_target_") for group, node in config.items() if isinstance(node, dict)}
    return {group: name.rpartition(".")[2] for group, name in named.items() if isinstance(name, str)}

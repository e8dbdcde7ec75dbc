"""What `node-audit` was asked to audit, as configs. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AuditedParts:
    """The solvers beside the main one and the gradients, by name, and the keys that were typed."""

    beside: dict[str, Any]
    gradients: dict[str, Any]
    typed: Sequence[str]

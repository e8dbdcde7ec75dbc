"""A command-line training tool for Neural ODEs; from Python: what own parts are made of."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

# Imported when they are first asked for: `import node_cli` alone needs no torch.
_HOMES = {
    "Batch": "node_cli.batch",
    "Dataset": "node_cli.datasets.dataset",
    "Loss": "node_cli.tasks.task",
    "OdeBlock": "node_cli.models.ode_block",
    "Task": "node_cli.tasks.task",
    "load_run": "node_cli.loaded_run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

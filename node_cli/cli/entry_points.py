"""The entry points. What they run is imported only here: Ctrl-C is one line from the first moment on."""

from __future__ import annotations

import sys
from importlib import import_module

INTERRUPTED = 130


def train() -> None:
    """`node-train`."""
    _run("train")


def evaluate() -> None:
    """`node-eval`."""
    _run("eval")


def predict() -> None:
    """`node-predict`."""
    _run("predict")


def audit() -> None:
    """`node-audit`."""
    _run("audit")


def report() -> None:
    """`node-report`."""
    _run("report")


def tune() -> None:
    """`node-tune`."""
    _run("tune")


def _run(name: str) -> None:
    try:
        import_module(f"node_cli.cli.{name}").main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write(f"node-{name}: interrupted\n")
        sys.exit(INTERRUPTED)

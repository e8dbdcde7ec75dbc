"""What a finished run amounts to: `summary.json`, and the table at the end."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from node_cli import __version__
from node_cli.files import finite
from node_cli.runs.folder import Request
from node_cli.tables import aligned, four_digits
from node_cli.training.evaluation import Evaluation
from node_cli.training.memory import peak_memory_mb
from node_cli.training.trainer import Trainer

NFE = ("nfe/forward", "nfe/backward", "nfe/val", "nfe/test")
DISTRIBUTIONS = ("torch", "torchdiffeq", "hydra-core", "omegaconf", "numpy")


def summarize(request: Request, trainer: Trainer, test: Evaluation, started: float) -> dict[str, Any]:
    """All that is worth keeping of a run, in plain containers; times in seconds, memory in MB (2^20 bytes).

    `training` are the seconds of all updates, `epoch` those of one epoch, without evaluations.
    """
    history = trainer.state.history
    best, last = history[trainer.state.best_epoch - 1], history[-1]
    validation = {tag: value for tag, value in best.items() if tag.startswith("val/")}
    return {
        "status": "finished",
        "metrics": validation | {f"test/{name}": value for name, value in test.metrics.items()},
        "objective": dict(zip(("metric", "goal"), trainer.task.objective, strict=True)),
        "details": finite(test.details),
        "nfe": {tag: value for tag, value in (last | test.values()).items() if tag in NFE},
        "failures": {"skipped": trainer.state.num_skipped, "fallbacks": trainer.state.num_fallbacks},
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "epochs": trainer.state.epoch,
        "best_epoch": trainer.state.best_epoch,
        "steps": trainer.state.step,
        "seconds": {
            "training": trainer.state.seconds,
            "epoch": trainer.state.seconds * trainer.steps_per_epoch / trainer.state.step,
            "last_session": time.time() - started,
        },
        "memory": {"peak_mb": peak_memory_mb(trainer.device)},
        "environment": {
            "device": str(trainer.device),
            "num_threads": torch.get_num_threads(),
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": versions(),
        "git_commit": git_commit(),
        "started": started,
        "finished": time.time(),
        "data": {"sha256": trainer.dataset.digest},
        "chosen": {key: value for key, (value, _) in trainer.task.chosen().items()},
        "choices": request.choices,
        "config": request.config,
    }


def final_table(summary: Mapping[str, Any], folder: Path, found: Mapping[str, str]) -> list[str]:
    """The lines shown at the end of a run, with what the task has `found`. Metrics are as in every file and curve."""
    metrics, nfe, seconds = summary["metrics"], summary["nfe"], summary["seconds"]
    rows = {}
    objective = f"test/{summary['objective']['metric']}"
    for tag in sorted(metrics, key=lambda tag: (tag != objective, not tag.startswith("test/"))):
        if not tag.endswith("/failed"):
            rows[tag.replace("/", " ")] = four_digits(metrics[tag])
        elif metrics[tag]:
            rows[tag.replace("/", " ")] = f"{metrics[tag]} samples"
    rows |= found
    rows["parameters"] = f"{summary['parameters']:,}"
    for name, count in summary["failures"].items():
        if count:
            rows[name] = f"{count} of {summary['steps']} batches"
    if "nfe/forward" in nfe:
        of_the_test = f"; {nfe['nfe/test']:.1f} test" if "nfe/test" in nfe else ""
        rows["NFE"] = f"{nfe['nfe/forward']:.1f} forward, {nfe['nfe/backward']:.1f} backward (last epoch){of_the_test}"
    rows["best epoch"] = f"{summary['best_epoch']} of {summary['epochs']}"
    rows["seconds"] = f"{seconds['last_session']:.1f} ({seconds['training']:.1f} in updates)"
    rows["memory"] = f"{summary['memory']['peak_mb']:.0f} MB at most"
    rows["run folder"] = str(folder)
    return ["", *(f"  {line}" for line in aligned(list(rows.items())))]


def versions() -> dict[str, str]:
    """The version of node-cli, and those of what the results depend on."""
    return {"node-cli": __version__} | {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}


def git_commit() -> str | None:
    """The commit that this package is run from, `-dirty` if its files differ; None outside a git checkout."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()

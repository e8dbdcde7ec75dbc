"""What the tests of studies share."""

from __future__ import annotations

import json
import time
from pathlib import Path

import yaml
from forked import Command

from node_cli.config import config_dir

QUICK = ["model=mlp", "model.width=8", "num_threads=1", "device=cpu", "logger=jsonl", "trainer.epochs=2"]
RATES = {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}, "trainer.batch_size": [128, 256]}
DEFAULTS = yaml.safe_load((Path(config_dir()) / "tune" / "default.yaml").read_text()) | {"objectives": ["val/error"]}


def summary(study, number):
    """What a trial left behind."""
    return json.loads((study / "trials" / str(number) / "summary.json").read_text())


def start(folder, *words):
    """`node-tune` in a process of its own, whose workers end with it."""
    return Command(folder, "node-tune", *words)


def wait_for(path, process):
    """Until the process has made it."""
    deadline = time.monotonic() + 600
    while not path.exists():
        assert process.poll() is None, process.said()
        assert time.monotonic() < deadline
        time.sleep(0.01)

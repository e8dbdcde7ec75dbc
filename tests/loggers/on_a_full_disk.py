"""A run's records on a disk that fills up, is freed a little, then wholly or not at all: tests look at the copy.

python on_a_full_disk.py <a small disk> <folder for the copy> <steps> <freed or full>
"""

import json
import logging
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import torch

from node_cli.files import UnwrittenError, closed_at_the_end
from node_cli.loggers.base import Loggers
from node_cli.loggers.jsonl import JsonlLogger
from node_cli.loggers.tensorboard import TensorBoardLogger
from node_cli.runs.log import log_to

STEPS = int(sys.argv[3])
log = logging.getLogger("node_cli.steps")


def fill(ballast):
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def train(loggers, ballast, refusals):
    for step in range(STEPS):
        if step == STEPS // 4:
            fill(ballast)
        if step == STEPS // 2:  # room for some of what waits
            os.truncate(ballast, ballast.stat().st_size - 3 * 4096)
        if step == 3 * STEPS // 4 and ballast.parent.name == "freed":
            ballast.unlink()
        loggers.log_scalars(step, {"train/loss": 1 / (step + 1), "lr": 0.1})
        log.info("step %d", step)
        if step % 10 == 9:
            loggers.log_histogram(step, "weights", torch.linspace(-1, 1, 100))
            for logger in loggers.loggers:
                try:
                    logger.flush()
                except UnwrittenError as error:
                    refusals.append([step, str(error)])


def main(disk, copy):
    run, refusals = disk / "run", []
    run.mkdir()
    try:
        with log_to(run / "run.log"):
            loggers = Loggers([TensorBoardLogger(run, None, flush_secs=600, run_name=None), JsonlLogger(run, None)])
            with closed_at_the_end(loggers.close):
                train(loggers, disk / "ballast", refusals)
    except UnwrittenError as error:
        refusals.append(["end", str(error)])
    shutil.copytree(run, copy)
    (copy / "refusals.json").write_text(json.dumps(refusals))


for name in ("freed", "full"):
    main(Path(sys.argv[1], name), Path(sys.argv[2], name))

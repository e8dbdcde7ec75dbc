import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from node_cli.loggers.base import Resume
from node_cli.loggers.jsonl import JsonlLogger

KILLED = """
import os, signal, sys
from pathlib import Path
from node_cli.loggers.base import Resume
from node_cli.loggers.jsonl import JsonlLogger
logger = JsonlLogger(Path(sys.argv[1]), None)
for step in range(5):
    logger.log_scalars(step, {"train/loss": 1.0})
os.kill(os.getpid(), signal.SIGKILL)
"""


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder):
    return [record["step"] for record in records(folder)]


def write(folder, resume_step, numbers):
    logger = JsonlLogger(folder, None if resume_step is None else Resume(resume_step, 0))
    for step in numbers:
        logger.log_scalars(step, {"train/loss": 1.0 / (step + 1)})
    logger.close()


def test_a_call_is_a_line(tmp_path):
    before = time.time()
    logger = JsonlLogger(tmp_path, None)
    logger.log_scalars(12, {"train/loss": 0.5, "nfe/forward": 32})
    record = records(tmp_path)[0]  # there before flush and close
    assert before <= record.pop("time") <= time.time()
    assert record == {"step": 12, "train/loss": 0.5, "nfe/forward": 32}
    logger.close()


def test_numbers_that_json_lacks_come_back_through_float(tmp_path):
    logger = JsonlLogger(tmp_path, None)
    logger.log_scalars(0, {"a": math.nan, "b": math.inf, "c": -math.inf})
    logger.close()
    record = records(tmp_path)[0]
    assert (record["a"], record["b"], record["c"]) == ("nan", "inf", "-inf")
    assert math.isnan(float(record["a"]))
    assert float(record["c"]) == -math.inf


def test_what_it_cannot_show_is_passed_by(tmp_path):
    logger = JsonlLogger(tmp_path, None)
    logger.log_histogram(0, "w", torch.ones(3))
    logger.log_image(0, "picture", np.zeros((2, 2, 3), dtype=np.uint8))
    logger.log_text("config", "seed: 0")
    logger.log_hparams({"seed": 0})
    logger.flush()
    logger.close()
    assert records(tmp_path) == []


def test_a_resumed_run_has_no_step_twice(tmp_path):
    write(tmp_path, None, range(8))
    write(tmp_path, 4, range(5, 10))
    assert steps(tmp_path) == list(range(10))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resumed_run_keeps_whole_lines_as_they_were(tmp_path):
    write(tmp_path, None, range(3))
    first = (tmp_path / "metrics.jsonl").read_text()
    write(tmp_path, 2, [])
    assert (tmp_path / "metrics.jsonl").read_text() == first


@pytest.mark.parametrize("torn", ['{"step": 3, "ti', '{"step": 3, "time": 1.0}', '{"step": 1', "\0\0\0"])
def test_a_last_line_cut_short_is_dropped(torn, tmp_path):
    write(tmp_path, None, range(3))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, 5, [6])
    assert steps(tmp_path) == [0, 1, 2, 6]


def test_lines_of_a_run_killed_before_its_first_checkpoint_are_dropped(tmp_path):
    write(tmp_path, None, range(3))
    write(tmp_path, None, [0])
    assert steps(tmp_path) == [0]


def test_a_resume_without_a_file_starts_one(tmp_path):
    write(tmp_path, 4, [5])
    assert steps(tmp_path) == [5]


def test_the_line_of_an_epoch_that_is_made_again_goes(tmp_path):
    logger = JsonlLogger(tmp_path, None)
    for values in ({"train/loss": 1.0}, {"val/loss": 2.0, "epoch": 1}):
        logger.log_scalars(3, values)
    logger.close()
    JsonlLogger(tmp_path, Resume(3, 1)).close()
    assert [record.get("epoch") for record in records(tmp_path)] == [None, 1]
    JsonlLogger(tmp_path, Resume(3, 0)).close()
    assert [record.get("epoch") for record in records(tmp_path)] == [None]


@pytest.mark.parametrize(("recorded", "there"), [(4, None), (5, "ends at step 4"), (0, None), (9, "ends at step 4")])
def test_a_file_that_ends_too_early_is_named(recorded, there, tmp_path, caplog):
    write(tmp_path, None, range(5))
    JsonlLogger(tmp_path, Resume(9, 0, recorded)).close()
    told = (
        f"metrics.jsonl {there}, and the checkpoint stands at step 9: what was recorded between them is missing in it"
    )
    assert caplog.messages == ([] if there is None else [f"{tmp_path}/{told}"])


@pytest.mark.parametrize("line", ["loss went up here", "[1, 2]", '{"time": 1.0}', '{"step": "x"}'])
def test_a_line_that_is_not_ours_is_named(line, tmp_path):
    write(tmp_path, None, [0])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    before = (tmp_path / "metrics.jsonl").read_text()
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: expected a JSON object with a step") as refusal:
        JsonlLogger(tmp_path, Resume(0, 0))
    assert repr(line) in str(refusal.value)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_every_line_outlives_a_killed_process(tmp_path):
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert steps(tmp_path) == [0, 1, 2, 3, 4]

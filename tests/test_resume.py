"""A real process that is killed, and what is continued, refused and left alone then."""

import hashlib
import json
import shutil
import signal
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
from forked import Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from node_cli.build import build_problem
from node_cli.commands import training
from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

OVERRIDES = [
    *("model.width=8", "solver=rk4", "solver.num_steps=1", "scheduler=constant", "num_threads=1"),
    *(
        "trainer.epochs=2",
        "trainer.save_every_steps=3",
        "trainer.log_every_steps=1",
        "trainer.histograms_every_epochs=1",
    ),
]
STEPS_PER_EPOCH = 20
CLOCKS = ("time", "time/step_ms", "memory/peak_mb")


def records(folder):
    """The lines of metrics.jsonl, less clocks."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{tag: value for tag, value in line.items() if tag not in CLOCKS} for line in lines]


def events(folder):
    """TensorBoard's scalars, less clocks, and the steps of its histograms."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    accumulator.Reload()
    found = accumulator.Tags()
    scalars = {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in found["scalars"]}
    histograms = {tag: [e.step for e in accumulator.Histograms(tag)] for tag in found["histograms"]}
    return {tag: value for tag, value in scalars.items() if tag not in CLOCKS}, histograms


def weights(folder):
    payload = read_checkpoint(folder / "checkpoints" / "last.pt")
    return {name: tensor.tolist() for name, tensor in {**payload["model"], **payload["best_weights"]}.items()}


def contents(folder):
    """Every file with the time of its last change and the digest of its content."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file()
    }


@dataclass(frozen=True)
class Killed:
    """A folder whose process was killed, and what a second process there said while the first one lived."""

    folder: Path
    second: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory, typed_in):
    """The folder of an uninterrupted run: with nothing to continue, resume=auto starts."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    typed_in(folder.parent, "node-train", *OVERRIDES, f"run_dir={folder}", "resume=auto")
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("runs") / "killed"
    process = Command(folder.parent, "node-train", *OVERRIDES, f"run_dir={folder}")
    metrics = folder / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 5:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    try:
        with redirect_stderr(StringIO()) as second, pytest.raises(SystemExit, match="2"):
            typed_in(folder.parent, "node-train", *OVERRIDES, f"run_dir={folder}", "resume=auto")
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    saved = read_checkpoint(folder / "checkpoints" / "last.pt")["state"]
    assert 0 < saved["batch"] < STEPS_PER_EPOCH
    return Killed(folder, second.getvalue())


@pytest.fixture
def train(typed):
    """`train("resume=...")` in this process."""
    return partial(typed, "node-train")


@pytest.fixture
def folder(killed, tmp_path):
    """A copy of the killed run's folder."""
    return Path(shutil.copytree(killed.folder, tmp_path / "run"))


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the finished run's folder."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def assert_refused(done, *messages):
    assert (done.status, done.out) == (2, "")
    assert said_by(done.err) == list(messages)


def said_by(err):
    return [line.removeprefix("node-train: ") for line in err.splitlines()]


def test_the_same_command_continues_a_killed_run_bit_for_bit(whole, folder, train):
    done = train(*OVERRIDES, f"run_dir={folder}", "resume=auto")
    assert (done.status, done.err) == (0, "")
    assert f"continuing from {folder}/checkpoints/last.pt at step " in done.out
    assert records(folder) == records(whole)
    assert weights(folder) == weights(whole)
    assert events(folder) == events(whole)
    steps = [line["step"] for line in records(folder) if "train/loss" in line]
    assert steps == list(range(1, 2 * STEPS_PER_EPOCH + 1))
    summaries = [json.loads((run / "summary.json").read_text()) for run in (folder, whole)]
    assert summaries[0]["metrics"] == summaries[1]["metrics"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        *("best.pt", "last.pt", "step-00000039.pt", "step-00000040.pt")
    ]


def test_a_checkpoint_file_is_continued_with_its_runs_settings(whole, finished, train):
    """What the folder holds from after that checkpoint is made again, not kept beside it."""
    done = train(f"resume={finished}/checkpoints/step-00000039.pt")
    assert (done.status, done.err) == (0, "")
    assert records(finished) == records(whole)
    assert weights(finished) == weights(whole)
    assert events(finished) == events(whole)


def test_a_run_folder_is_continued_for_more_epochs(whole, finished, train):
    done = train(f"resume={finished}", "trainer.epochs=3")
    assert (done.status, done.err) == (0, "")
    before_test = [line for line in records(whole) if line["step"] <= 2 * STEPS_PER_EPOCH]
    assert records(finished)[: len(before_test)] == before_test
    steps = [line["step"] for line in records(finished)]
    assert steps == sorted(steps)
    assert [line["step"] for line in records(finished) if "test/loss" in line] == [3 * STEPS_PER_EPOCH + 1]
    assert json.loads((finished / "summary.json").read_text())["epochs"] == 3


def test_a_finished_run_says_so_and_stays_as_it_is(finished, train):
    before = contents(finished)
    done = train(*OVERRIDES, f"run_dir={finished}", "resume=auto")
    assert (done.status, done.err) == (0, "")
    assert done.out == f"{finished} is finished already; for more, set trainer.epochs or trainer.max_steps\n"
    after = contents(finished)
    assert after.pop(finished / "run.log") != before.pop(finished / "run.log")
    assert after == before


def test_a_second_process_is_refused_while_the_first_one_runs(killed):
    message = f"another process is running in {killed.folder}: wait for it, or set another run_dir"
    assert said_by(killed.second) == [message]


def test_of_two_that_start_at_once_in_one_folder_one_is_refused(typed, tmp_path, monkeypatch):
    """The second one comes while the first one still reads its data, and would be at its end before."""
    words, second = ["model=mlp", "model.width=4", "trainer.epochs=1", "logger=jsonl", "run_dir=run"], []

    def slow(config, *, is_new):
        command = Command(tmp_path, "node-train", *words, "seed=2")
        second.append((*command.communicate(), command.returncode))
        return build_problem(config, is_new=is_new)

    monkeypatch.setattr(training, "build_problem", slow)
    first = typed("node-train", *words, "seed=1")
    assert (first.status, first.err) == (0, "")
    ((_, err, status),) = second
    assert status == 2
    assert said_by(err) == ["another process is running in run: wait for it, or set another run_dir"]
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["config"]["seed"] == 1


def test_a_folder_that_holds_a_run_is_refused_without_resume(folder, train):
    before = contents(folder)
    done = train(*OVERRIDES, f"run_dir={folder}")
    assert_refused(done, f"run_dir={folder} holds a run: add resume=auto to continue it, or set another run_dir")
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("model.width=16", "model.width: 8 -> 16"),
        ("dataset.split_seed=1", "dataset.split_seed: 0 -> 1"),
        ("solver.method=euler", "solver.method: rk4 -> euler"),
        ("seed=1", "seed: 0 -> 1"),
    ],
)
def test_other_settings_are_refused_with_the_difference(override, difference, folder, train):
    before = contents(folder)
    done = train(f"resume={folder}", override)
    assert_refused(done, f"{folder} was trained with other settings ({difference}): start a new run for them")
    assert contents(folder) == before


def test_all_differences_are_named_at_once(folder, train):
    done = train(*OVERRIDES, f"run_dir={folder}", "resume=auto", "model=resnet1", "model.width=8", "gradient=adjoint")
    assert done.status == 2
    (line,) = done.err.splitlines()
    for key in (
        "model._target_: node_cli.models.odenet.OdeNet -> node_cli.models.resnet.ResNet",
        "gradient._target_: ",
    ):
        assert key in line


def test_resume_from_nothing(tmp_path, folder, train):
    config = tmp_path / "nowhere" / ".hydra" / "config.yaml"
    assert_refused(train(f"resume={tmp_path}/nowhere"), f"no run at {tmp_path}/nowhere: {config} does not exist")
    assert not (tmp_path / "nowhere").exists()
    file = folder / "checkpoints" / "step-00000999.pt"
    assert_refused(train(f"resume={file}"), f"nothing to resume: {file} does not exist")

"""A grid of runs: what fails is written down, what is finished is not run again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Command

from node_cli.runs.folder import Request, RunFolder, name_of
from node_cli.runs.sweep import Sweep

pytestmark = pytest.mark.slow

QUICK = ["model=mlp", "model.width=8", "trainer.epochs=1", "num_threads=1", "device=cpu", "logger=jsonl"]
ODE = ["dataset=moons", "model=odenet_mlp", "model.width=4", "num_threads=1", "device=cpu", "logger=none"]
FOUR = ["-m", *QUICK, "seed=0,1", "optimizer.lr=1e-2,1e-1"]
GRID = Path("outputs/sweeps/grid")


def summary(job: Path) -> dict[str, object]:
    return json.loads((job / "summary.json").read_text())


def kill_when(there: Path, folder: Path, *words: str) -> None:
    """Runs the command and kills it as soon as the file is there."""
    process = Command(folder, "node-train", *words)
    while not there.exists() and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, typed_in: Callable[..., None]) -> Path:
    """The folder in which `FOUR` was run."""
    folder = tmp_path_factory.mktemp("finished")
    typed_in(folder, "node-train", *FOUR, "sweep.name=grid")
    return folder


@pytest.fixture
def four(finished: Path, tmp_path: Path) -> list[str]:
    """The words of a grid of four jobs, all of them finished in this folder."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return FOUR


@pytest.fixture
def eight(tmp_path: Path) -> list[str]:
    """A grid of eight jobs: number 2 diverges, number 5 has a solver that cannot do it."""
    folder = tmp_path / "mine" / "experiment"
    folder.mkdir(parents=True)
    planted = {2: "optimizer:\n  lr: 1.0e+30\n", 5: "solver:\n  max_nfe: 3\n"}
    for number in range(8):
        own = planted.get(number, f"optimizer:\n  lr: {0.01 + 0.001 * number}\n")
        (folder / f"job{number}.yaml").write_text(f"# @package _global_\n{own}")
    jobs = ",".join(f"job{number}" for number in range(8))
    return ["--config-dir", "mine", "-m", f"experiment={jobs}", *ODE, "trainer.max_steps=3"]


def test_a_key_that_every_choice_has_but_the_default_has_not(typed, tmp_path: Path):
    result = typed(
        "node-train", "-m", *ODE, "trainer.epochs=1", "solver=rk4,euler", "solver.num_steps=3", "sweep.name=s"
    )
    assert result.status == 0
    assert "2 runs: 2 finished" in result.out
    configs = [RunFolder(tmp_path / "outputs/sweeps/s" / number).read_config()["solver"] for number in "01"]
    assert [(config["method"], config["num_steps"]) for config in configs] == [("rk4", 3), ("euler", 3)]
    words = RunFolder(tmp_path / "outputs/sweeps/s/1").read_overrides()
    assert "solver.num_steps=3" in words
    result = typed("node-train", "-m", *ODE, "solver=rk4,dopri5", "solver.num_steps=3", "sweep.name=t")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert "unknown key solver.num_steps" in result.err
    again = typed("node-train", "resume=outputs/sweeps/s/1", "trainer.epochs=2")  # a job of a named sweep, alone
    assert (again.status, again.err) == (0, "")
    assert RunFolder(tmp_path / "outputs/sweeps/s/1").read_config()["trainer"]["epochs"] == 2


def test_a_job_whose_failure_cannot_be_written_down_is_told(typed, tmp_path: Path):
    (tmp_path / GRID / "0" / "run.log").mkdir(parents=True)
    jobs = [[*ODE, "trainer.max_steps=1", f"seed={seed}"] for seed in (1, 2)]
    record = {"jobs": jobs, "overrides": [*jobs[0][:-1], "seed=1,2"]}
    (tmp_path / GRID / "sweep.json").write_text(json.dumps(record))
    result = typed("node-train", "-m", *record["overrides"], f"sweep.resume={GRID}")
    assert result.status == 1
    assert ": nor could that be written down: " in result.err
    assert "Traceback" not in result.err
    assert "1 of 2 jobs did not finish (0)" in result.err


def test_of_eight_jobs_six_finish_and_two_are_listed_with_their_reasons(typed, eight, tmp_path: Path):
    """Killed in the middle, the sweep goes on, and no finished job runs again."""
    kill_when(tmp_path / GRID / "3" / "summary.json", tmp_path, *eight, "sweep.name=grid")
    before = {path: path.read_bytes() for path in GRID.glob("*/summary.json") if b'"finished"' in path.read_bytes()}
    assert 3 <= len(before) < 6
    result = typed("node-train", *eight, "sweep.resume=outputs/sweeps/grid")
    assert result.status == 1
    assert result.err.endswith(
        "node-train: 2 of 8 jobs did not finish (2, 5); to run them again: "
        "node-train -m --config-dir mine sweep.resume=outputs/sweeps/grid\n"
    )
    assert {path: path.read_bytes() for path in before} == before
    assert result.out.count(", finished before\n") == len(before)
    jobs = [summary(GRID / str(number)) for number in range(8)]
    assert [n for n, job in enumerate(jobs) if job["status"] == "failed"] == [2, 5]
    assert "the loss or its gradient is not finite" in jobs[2]["reason"] or "no longer finite" in jobs[2]["reason"]
    assert "after 3 evaluations" in jobs[5]["reason"]
    assert jobs[5]["choices"]["experiment"] == "job5"
    assert not any(group.startswith("hydra") for group in jobs[5]["choices"])
    assert f"FAILED {jobs[5]['reason']}" in (GRID / "5" / "run.log").read_text()
    assert "8 runs: 6 finished, 2 failed" in result.out
    for number in (2, 5):
        assert f"failed: outputs/sweeps/grid/{number}: {jobs[number]['reason']}" in result.out
    assert "best on validation: outputs/sweeps/grid/" in result.out


def test_a_job_that_cannot_be_built_is_written_down(typed):
    result = typed("node-train", "-m", *QUICK, "trainer.batch_size=0,64", "sweep.name=grid")
    assert result.status == 1
    assert summary(GRID / "0")["reason"] == "trainer.batch_size must be at least 1, got 0"
    assert (GRID / "0" / "run.log").read_text() == "FAILED trainer.batch_size must be at least 1, got 0\n"
    assert summary(GRID / "1")["status"] == "finished"


def test_the_same_command_runs_what_is_missing_or_failed_only(typed, four):
    finished = (GRID / "0" / "summary.json").read_bytes()
    for name in ("summary.json", "run.log"):
        (GRID / "1" / name).unlink()
    (GRID / "2" / "summary.json").write_text(json.dumps({"status": "failed", "reason": "planted"}))
    result = typed("node-train", *four, "sweep.resume=outputs/sweeps/grid")
    assert result.status == 0
    assert result.out.count(", finished before\n") == 2
    assert (GRID / "0" / "summary.json").read_bytes() == finished
    assert [summary(GRID / str(number))["status"] for number in range(4)] == ["finished"] * 4


def test_a_table_over_seeds_ends_a_sweep_even_if_nothing_was_left_to_do(typed, four):
    result = typed("node-train", "-m", "sweep.resume=outputs/sweeps/grid")
    assert result.status == 0
    assert result.out.count(", finished before\n") == 4
    rows = [line.split()[:2] for line in result.out.splitlines() if line.startswith(("0.01 ", "0.1 "))]
    assert rows == [["0.01", "2"], ["0.1", "2"]]


def test_a_sweep_killed_midway_goes_on_bit_for_bit(typed, tmp_path: Path):
    """The process is killed while its second job trains; the third was never begun."""
    words = ["-m", *QUICK[:2], "trainer.epochs=6", *QUICK[3:], "seed=0,1,2"]
    kill_when(tmp_path / GRID / "1" / "checkpoints" / "last.pt", tmp_path, *words, "sweep.name=grid")
    first = (GRID / "0" / "summary.json").read_bytes()
    assert not (GRID / "2").exists()
    assert typed("node-train", "-m", "sweep.resume=outputs/sweeps/grid").status == 0
    assert (GRID / "0" / "summary.json").read_bytes() == first
    assert typed("node-train", *words, "sweep.name=whole").status == 0
    for number in ("0", "1", "2"):
        assert summary(GRID / number)["metrics"] == summary(Path("outputs/sweeps/whole") / number)["metrics"]


MISTAKES = {
    "without -m": (["sweep.name=grid"], "sweep.name and sweep.resume are those of a sweep: add -m"),
    "no sweep": (
        ["-m", "sweep.resume=nowhere"],
        "sweep.resume: no sweep at nowhere: nowhere/sweep.json cannot be read",
    ),
}


@pytest.mark.parametrize(("words", "line"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_leave_nothing(typed, tmp_path: Path, words: list[str], line: str):
    result = typed("node-train", *words, *([] if "-m" in words else QUICK))
    assert (result.status, result.err) == (2, f"node-train: {line}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_that_is_there_is_not_begun_again(typed, four):
    before = sorted(GRID.rglob("*"))
    result = typed("node-train", *four, "sweep.name=grid")
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        "node-train: sweep.name: outputs/sweeps/grid exists: take another name, or sweep.resume=outputs/sweeps/grid\n"
    )
    result = typed("node-train", "-m", "seed=0,1,2", "sweep.resume=outputs/sweeps/grid")
    assert result.status == 2
    assert result.err.startswith(
        "node-train: sweep.resume: outputs/sweeps/grid was begun with other overrides: model=mlp "
    )
    (GRID / "sweep.json").write_text("{}")
    result = typed("node-train", "-m", "sweep.resume=outputs/sweeps/grid")
    assert (result.status, result.err) == (2, "node-train: sweep.resume: outputs/sweeps/grid/sweep.json is damaged\n")
    (GRID / "sweep.json").unlink()
    assert sorted(GRID.rglob("*")) == [path for path in before if path.name != "sweep.json"]


JOBS = {
    "seed=1": (["model=mlp", "seed=0"], ["model=mlp", "seed=1"]),
    "model=resnet,optimizer.lr=1e-3": (["model=mlp", "optimizer.lr=0.1"], ["model=resnet", "optimizer.lr=1e-3"]),
    "model.blocks=_1,2_": (["model.blocks=[1]"], ["+model.blocks=[1,2]"]),
    "dataset.path=_a_b_c_.npz_": (["dataset.path=x"], ["dataset.path='a/b c\u00e4.npz'"]),
    "seed=" + "1" * 115: (["seed=2"], ["seed=" + "1" * 200]),
    None: (["seed=1"], ["seed=1"]),
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_is_called_by_what_was_swept(name, tmp_path: Path):
    (tmp_path / "sweep.json").write_text(json.dumps({"overrides": [], "jobs": JOBS[name]}))
    assert name_of(Sweep.read(tmp_path).swept(JOBS[name][1])) == name


def test_sweeps_begun_at_once_have_folders_of_their_own(tmp_path: Path):
    commands = [Command(tmp_path, "node-train", "-m", *QUICK, "trainer.max_steps=1", "seed=0,1") for _ in range(2)]
    assert [command.wait() for command in commands] == [0, 0]
    sweeps = list((tmp_path / "outputs" / "sweeps").glob("*/*"))
    assert sorted(len(list(sweep.glob("*/summary.json"))) for sweep in sweeps) == [2, 2]


@pytest.mark.usefixtures("four")
def test_a_job_that_runs_elsewhere_is_left_alone(typed):
    (GRID / "1" / "summary.json").unlink()
    other = RunFolder(GRID / "1")
    other.lock()
    try:
        result = typed("node-train", "-m", "sweep.resume=outputs/sweeps/grid")
    finally:
        other.unlock()
    assert result.status == 1
    assert "another process is running in" in result.err
    assert not (GRID / "1" / "summary.json").exists()


def test_a_sweep_that_cannot_be_written_is_refused(typed, tmp_path: Path):
    (tmp_path / "outputs").write_text("")
    result = typed("node-train", "-m", *QUICK, "seed=0,1", "sweep.name=grid")
    assert (result.status, result.out) == (2, "")
    assert result.err == "node-train: outputs/sweeps cannot be made: Not a directory\n"


def test_only_a_logger_that_takes_a_name_and_has_none_gets_one():
    logger = {"tensorboard": {"run_name": None}, "mine": {"run_name": "mine"}, "jsonl": {"_target_": "x"}}
    assert Request({"seed": 0, "logger": logger}, [], {}).named(["seed=0"]).config == {
        "seed": 0,
        "logger": {"tensorboard": {"run_name": "seed=0"}, "mine": {"run_name": "mine"}, "jsonl": {"_target_": "x"}},
    }
    assert Request({"logger": {}}, [], {}).named(["seed=0"]).config == {"logger": {}}

"""Every mistake gets its line on stderr, exit status 2, and leaves nothing behind."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from node_cli.cli.errors import one_line_errors
from node_cli.files import UnwrittenError

# What is typed after node-train, and the whole line (or the start of a long one) that answers.
MISTAKES = {
    "misspelt key": (["model.widht=3"], "unknown key model.widht: did you mean model.width? model=odenet takes"),
    "misspelt top-level key": (["sed=1"], "unknown key sed: did you mean seed? there are seed, num_threads,"),
    "added key": (["+unknown=1"], "unknown key unknown: there are seed,"),
    "added key in a group": (["+model.layers=1"], "unknown key model.layers: model=odenet takes model.width,"),
    "forced key": (["++trainer.epoch=1"], "unknown key trainer.epoch: did you mean trainer.epochs? trainer=default"),
    "removed key": (["~trainer.epochs"], "trainer.epochs was removed, but it is needed: set it instead"),
    "unknown choice": (["solver=rk5"], "solver=rk5 does not exist: did you mean rk4? there are adaptive_heun, bosh3,"),
    "unknown model": (["model=vgg"], "model=vgg does not exist: there are cde, cnf, gru, gru_d, hamiltonian, hybrid,"),
    "unknown group": (["solvr=rk4"], "unknown key solvr: did you mean solver? there are seed,"),
    "option of another method": (
        ["solver=rk4", "solver.rtol=1e-3"],
        "unknown key solver.rtol: solver=adaptive_heun, bosh3, dopri5, dopri8, scipy, torchdiffeq, tsit5 have",
    ),
    "option without options": (
        ["gradient.rtol=1"],
        "unknown key gradient.rtol: gradient=adjoint has gradient.rtol; gradient=direct takes no options",
    ),
    "no choice": (["dataset=null"], "dataset=null is no choice: write dataset=NAME (node-train --help)"),
    "text for a whole number": (["trainer.epochs=ten"], "trainer.epochs must be a whole number, got 'ten' (text)"),
    "fraction for a whole number": (
        ["trainer.epochs=1.5"],
        "trainer.epochs must be a whole number, got 1.5 (a number)",
    ),
    "text for a number": (["optimizer.lr=big"], "optimizer.lr must be a number, got 'big' (text)"),
    "number for a switch": (["dataset.flip=2"], "dataset.flip must be true or false, got 2 (a whole number)"),
    "a group for a number": (["optimizer.lr={a:1}"], "unknown key optimizer.lr.a: optimizer=adamw takes"),
    "seed below 0": (["seed=-1"], "seed must be a whole number, 0 or more and below 2**64, got -1"),
    "no threads": (["num_threads=0"], "num_threads must be a whole number from 1 to 1024, or null, got 0"),
    "unknown device": (["device=gpu"], "device must be one of auto, cpu, cuda, mps, got 'gpu'"),
    "unknown precision": (["precision=half"], "precision must be one of float32, float64, bfloat16, got 'half'"),
    "reference to nothing": (
        ["model.width=${nope}"],
        "model.width cannot be resolved: Interpolation key 'nope' not found",
    ),
    "required key": (["dataset=npz"], "dataset.path is required: set dataset.path=..."),
    "not an override": (["seed"], "cannot read seed: write key=value"),
    "broken override": (["seed=["], "cannot read seed=[: 1 brackets open and 0 close in it"),
    "several values": (["seed=0,1"], "seed=0,1 names several values: add -m to run each, or [...] for one list"),
    "a glob of values": (["experiment=glob(table1_*)"], "experiment=glob(table1_*) names several values: add -m"),
    "foreign target": (
        ["model._target_=os.system"],
        "model._target_=os.system is not allowed: a model is what configs/model/ names, or comes from a package that",
    ),
    "text for a tolerance that follows": (["solver.atol=low"], "solver.atol must be a number, got 'low' (text)"),
    "a number without end": (["optimizer.lr=inf"], "optimizer.lr must be finite, got inf"),
    "a flag of what is shown": (["--resolve"], "--resolve goes with --cfg job alone: add it, or leave --resolve out"),
    "a part of what is shown": (
        ["--package", "model"],
        "--package goes with --cfg job alone: add it, or leave --package out",
    ),
    "a number beyond float32": (
        ["optimizer.lr=1e300"],
        "optimizer.lr must be at most 3.4e+38 (the range of float32), got 1e+300",
    ),
    "a number beyond float32 below 0": (
        ["solver.rtol=-1e39"],
        "solver.rtol must be at most 3.4e+38 (the range of float32), got -1e+39",
    ),
    "a number beyond float32 in a list": (
        ["optimizer.betas=[0.9,1e300]"],
        "optimizer.betas must be at most 3.4e+38 (the range of float32), got 1e+300",
    ),
    "no number": (["solver.rtol=nan"], "solver.rtol must be finite, got nan"),
    "a batch beyond 64 bits": (
        [f"trainer.batch_size={10**30}"],
        f"trainer.batch_size must be a whole number of 64 bits, got {10**30}",
    ),
    "a seed beyond 64 bits": (
        [f"seed={2**64}"],
        f"seed must be a whole number, 0 or more and below 2**64, got {2**64}",
    ),
    "thousands of digits": ([f"seed={'9' * 5000}"], "cannot read the command line: Exceeds the limit (4300"),
    "too many threads": (
        ["num_threads=100000"],
        "num_threads must be a whole number from 1 to 1024, or null, got 100000",
    ),
    "nested brackets": (["optimizer.betas=" + "[" * 99], "cannot read the command line: brackets nested more than 30"),
    "a long word": (
        [f"run_dir={'a' * 99999}"],
        "run_dir=aaaaaaaaaaaaaaaaaaaaaa... has 100007 characters: at most 20000",
    ),
    "a long name": ([f"run_dir={'a' * 300}"], "run_dir must be a folder, of printable names up to 255 bytes, got 'aaa"),
    "an empty name": (["run_dir="], "run_dir must be a folder, of printable names up to 255 bytes, got ''"),
    "a name of bytes": (["run_dir=\udcff"], "cannot read run_dir=\\udcff: quote the value"),
    "a name that moves the cursor": (
        ["run_dir='\33[2J'"],
        "run_dir must be a folder, of printable names up to 255 bytes, got '\\x1b[2J'",
    ),
    "a name within itself": (["run_dir=${run_dir}"], "run_dir refers to itself: got '${run_dir}'"),
    "millions of runs": (["-m", "seed=range(10000000)"], "the values make 10000000 runs: at most 10000 at once"),
    "a step of 0": (["seed=range(1,5,0)"], "cannot read the command line: range() arg 3 must not be zero"),
    "two models": (["model=[mlp,resnet]"], "model=[mlp,resnet] is no choice: write model=NAME (node-train --help)"),
    "no logger of a list": (["logger=[]"], "logger=[] is no choice: write logger=NAME"),
    "one logger twice": (["logger=[jsonl,jsonl]"], "logger=[jsonl,jsonl] is no choice: write logger=NAME"),
    "a list of loggers in a list": (["logger=[[jsonl]]"], "logger=[[jsonl]] is no choice: write logger=NAME"),
    "packages of no names": (["packages=[1]"], "packages must be a list of different names, such as [mylab], got [1]"),
    "no packages": (["packages=null"], "packages must be a list of different names, such as [mylab], got None"),
    "a sweep elsewhere": (
        ["-m", "seed=0,1", "sweep.name=../a"],
        "sweep.name must be a folder below outputs/sweeps, got",
    ),
    "a sweep without a name": (
        ["-m", "seed=0,1", "sweep.name="],
        "sweep.name must be a folder below outputs/sweeps, got",
    ),
    "a target in a list": (
        ["optimizer.betas=[[{_target_:os.mkdir,path:a}]]"],
        "optimizer.betas.0.0._target_=os.mkdir is not allowed: an optimizer is what configs/optimizer/ names, is",
    ),
    "a target by reference": (
        ["model._target_=${device}", "device=cpu"],
        "model._target_=cpu is not allowed: a model is what configs/model/ names, or comes from a package",
    ),
    "a launcher's target": (
        ["-m", "hydra.launcher._target_=os.mkdir", "seed=0,1"],
        "hydra.launcher._target_ is not used",
    ),
    "a callback": (
        ["+hydra.callbacks.a={_target_:os.mkdir,path:a}"],
        "hydra.callbacks.a is not used here: of Hydra's own",
    ),
    "hydra's logging": (["hydra/job_logging=default"], "hydra/job_logging is not used here: of Hydra's own keys only"),
    "hydra's working folder": (["hydra.job.chdir=true"], "hydra.job.chdir is not used here: of Hydra's own keys only"),
    "a file of pickles": (["--experimental-rerun", "a"], "--experimental-rerun is not used here: resume=... continues"),
    "a completion of nothing": (["-sc", "a"], "--shell-completion needs one of install=SHELL, uninstall=SHELL, query="),
    "hydra's run folder": (["hydra.run.dir=here"], "hydra.run.dir is not used here: set run_dir=... instead"),
    "no such folder of YAML": (["--config-dir", "nowhere"], "--config-dir must be a folder, got nowhere"),
    "resume from nothing": (["resume=nowhere"], "no run at nowhere: nowhere/.hydra/config.yaml does not exist"),
    "resume a sweep": (["-m", "resume=auto", "seed=0,1"], "resume continues one run: leave -m out"),
    "mistake in a sweep": (
        ["-m", "model=odenet,resnet", "model.t1=2"],
        "unknown key model.t1: model=odenet, ",
    ),
}

# These are found by the parts themselves, when they are built.
REFUSED_BY_PARTS = {
    "tolerance": (["solver.rtol=-1"], "solver.rtol must be 0 or more, got -1"),
    "null tolerance": (["solver.rtol=null"], "solver.rtol must be a number, got None"),
    "method": (
        ["solver.method=rk4"],
        "solver.method must be one of midpoint, heun, ralston, bosh3, dopri5, tsit5, dopri8, got rk4",
    ),
    "compile": (["solver.compile=all"], "solver.compile must be one of none, vector_field, step, solve, auto, got all"),
    "first step": (
        ["solver.first_step=often"],
        "solver.first_step must be a number or one of chosen, carried, got",
    ),
    "batching": (["solver.batching=each"], "solver.batching must be one of joint, per_sample, got each"),
    "on_failure": (
        ["solver.on_failure=maybe"],
        "solver.on_failure must be one of raise, skip_batch, fallback, got",
    ),
    "max_checkpoints": (
        ["gradient=checkpoint", "gradient.max_checkpoints=0"],
        "gradient.max_checkpoints must be at least 1, got 0",
    ),
    "checkpoint of scipy": (
        ["gradient=checkpoint", "solver=scipy"],
        "gradient=checkpoint runs steps again, and a solve by Scipy does not record any",
    ),
    "atol for other channels": (
        ["solver.atol=[1e-3,1e-3]"],
        "solver.atol must be a number, or one for each of the state's 64 channels, got 2",
    ),
    "atol for the adjoint": (
        ["gradient=adjoint", f"solver.atol=[{','.join(['1e-3'] * 64)}]"],
        "gradient.atol must be a number where solver.atol has one for each channel",
    ),
    "a list elsewhere": (["solver.rtol=[1e-3]"], "solver.rtol must be a number, got"),
    "two step sizes": (["solver=rk4", "solver.step_size=0.1"], "solver.num_steps and step_size exclude each other"),
    "tolerance of a fixed step": (
        ["solver=rk4", "gradient=adjoint", "gradient.rtol=1e-3"],
        "gradient.rtol has no effect on a solver of fixed step size",
    ),
    "direct through scipy": (["solver=scipy"], "gradient=direct cannot differentiate a solve by Scipy"),
    "adjoint norm": (["gradient=adjoint", "gradient.norm=half"], "gradient.norm must be one of full, semi, got half"),
    "width": (["model.width=0"], "model.width must be at least 1, got 0"),
    "times": (["model.t1=0"], "model.t1 must differ from t0, got t0=0.0 t1=0"),
    "images for points": (["model=odenet_mlp"], "model needs points (d,), the dataset has images of shape (1, 8, 8)"),
    "epochs": (["trainer.epochs=0"], "trainer.epochs must be at least 1, got 0"),
    "no end": (["trainer.epochs=null"], "trainer.epochs and max_steps are both null: set one of them"),
    "text where null is the default": (
        ["trainer.clip_norm=much"],
        "trainer.clip_norm must be a number or null, got 'much'",
    ),
    "three momenta": (["optimizer.betas=[0.1,0.2,0.3]"], "optimizer.betas must be a list of 2, got [0.1, 0.2, 0.3]"),
    "more padding than image": (
        ["dataset.crop_padding=9"],
        "dataset.crop_padding: got 9, must be at most 8, the images'",
    ),
    "more memory than there is": (
        ["dataset=moons", f"dataset.num_samples={10**14}"],
        "dataset needs more memory than there",
    ),
    "addresses of no kind": (
        ["dataset=mnist", "dataset.mirrors=[ftp]"],
        "dataset.mirrors: got 'ftp', must be addresses of",
    ),
    "split": (["dataset.test_fraction=1.5"], "dataset.test_fraction"),
    "learning rate": (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
    "milestones": (["scheduler=step", "scheduler.milestones=[2]"], "scheduler.milestones must rise and lie between 0"),
    "logger": (["logger.tensorboard.flush_secs=0"], "logger.tensorboard.flush_secs: got 0, must be at least 1"),
    "smoothing": (["task.label_smoothing=1"], "task.label_smoothing must be 0 or more and below 1, got 1"),
    "missing file": (["dataset=npz", "dataset.path=no.npz"], "dataset.path"),
    "missing device": (["device=cuda"], "device=cuda is not available: this machine has cpu"),
    "target that is not there": (
        ["model._target_=mylab.nope.Net", "packages=[mylab]"],
        "model._target_=mylab.nope.Net cannot be imported",
    ),
    "an optimizer that is not there": (
        ["optimizer._target_=torch.optim.Nope"],
        "optimizer._target_=torch.optim.Nope cannot be imported",
    ),
    "an optimizer that is none": (
        ["optimizer._target_=torch.optim.Any"],
        "optimizer._target_=torch.optim.Any cannot be imported",
    ),
    "target through a module": (
        ["task._target_=node_cli.training.checkpoint.os.system"],
        "task._target_=node_cli.training",
    ),
}


@pytest.mark.parametrize(
    ("words", "line"), {**MISTAKES, **REFUSED_BY_PARTS}.values(), ids=[*MISTAKES, *REFUSED_BY_PARTS]
)
def test_one_line_status_2_nothing_written(typed, tmp_path: Path, words: list[str], line: str):
    result = typed("node-train", *words)
    assert result.err.startswith(f"node-train: {line}")
    assert result.err.count("\n") == 1
    assert result.status == 2
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_all_mistakes_at_once(typed):
    result = typed("node-train", "trainer.epochs=ten", "device=gpu", "seed=-1")
    assert [line.split(" must")[0] for line in result.err.splitlines()] == [
        "node-train: trainer.epochs",
        "node-train: seed",
        "node-train: device",
    ]


def test_mistakes_in_an_own_yaml_are_named_with_file_and_line(typed, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("width: 3\n  broken: [1\n")
    result = typed("node-train", "--config-dir", str(tmp_path), "model=mine")
    assert result.err.startswith("node-train: broken YAML in model/mine.yaml, line 2: ")
    assert result.status == 2


def test_an_experiment_is_held_to_the_files_it_chooses(typed, tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "wrong.yaml").write_text("# @package _global_\nmodel:\n  widht: 3\n")
    result = typed("node-train", "--config-dir", str(tmp_path), "experiment=wrong")
    assert result.err.startswith("node-train: unknown key model.widht: did you mean model.width?")
    assert result.status == 2


def test_packages_are_named_on_the_command_line_only(typed, tmp_path: Path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "sly.yaml").write_text(
        "# @package _global_\npackages: [os]\nmodel:\n  _target_: os.system\n"
    )
    result = typed("node-train", "--config-dir", str(tmp_path), "experiment=sly")
    assert "model._target_=os.system is not allowed" in result.err
    assert "packages must be named on the command line (packages=[os]), not in a file" in result.err
    assert result.status == 2


def test_a_user_array_of_the_wrong_shape(typed, tmp_path: Path):
    np.savez(tmp_path / "mine.npz", inputs=np.zeros((4, 2), np.float32), targets=np.zeros((3,), np.int64))
    result = typed("node-train", "dataset=npz", "dataset.path=mine.npz", "model=mlp")
    assert result.err.startswith("node-train: dataset.")
    assert "mine.npz" in result.err
    assert result.status == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_a_folder_that_holds_other_things_is_no_run_folder(typed, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "metrics.jsonl").write_text("mine too")
    result = typed("node-train", "run_dir=.")
    assert result.err == "node-train: run_dir=. holds no run but thesis.tex: set a folder of its own\n"
    assert result.status == 2
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "thesis.tex": "mine",
        "metrics.jsonl": "mine too",
    }


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, one_line_errors("node-audit"):
        raise UnwrittenError("a/events: 9 bytes could not be written: No space left on device")
    line = "node-audit: a/events: 9 bytes could not be written: No space left on device\n"
    assert (ended.value.code, capsys.readouterr().err) == (1, line)


def test_our_own_bugs_keep_their_traceback(typed, monkeypatch: pytest.MonkeyPatch):
    from node_cli.training import trainer

    def broken(*_: object) -> float:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(trainer, "peak_memory_mb", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        typed("node-train", "model=mlp", "model.width=4", "trainer.max_steps=1", "logger=none")


EVAL_MISTAKES = {
    "no run named": ([], "run is required: set run=..."),
    "no such run": (["run=nowhere"], "no run at nowhere: nowhere/.hydra/config.yaml does not exist"),
    "no run for its solver": (["solver.rtol=1e-6"], "solver.rtol is set, but no solver: choose one, solver=NAME"),
    "no such run for its solver": (["run=x", "solver.rtol=1e-6"], "no run at x: x/.hydra/config.yaml does not exist"),
    "unknown split": (["run=x", "split=all"], "split must be one of train, val, test, got 'all'"),
    "unknown key": (
        ["run=x", "model=mlp"],
        "unknown key model: node-audit and node-train have model; there are run, checkpoint, split,",
    ),
}


@pytest.mark.parametrize(("words", "line"), EVAL_MISTAKES.values(), ids=EVAL_MISTAKES)
def test_mistakes_of_node_eval(typed, tmp_path: Path, words: list[str], line: str):
    result = typed("node-eval", *words)
    assert result.err.startswith(f"node-eval: {line}")
    assert result.err.count("\n") == 1
    assert result.status == 2
    assert list(tmp_path.iterdir()) == []


def test_hydra_says_nothing_of_its_own_of_a_part_that_cannot_be_imported(typed, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a command: those of pytest take what Hydra logs
    result = typed("node-train", "optimizer._target_=torch.optim.Nope", "model=mlp", "device=cpu")
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert result.err.startswith("node-train: optimizer._target_=torch.optim.Nope cannot be imported")

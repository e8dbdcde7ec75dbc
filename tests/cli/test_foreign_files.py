"""Folders that someone else has made: what lies in them is data. Nothing of it runs, and no way leads around that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

SMALL = ["model=mlp", "model.width=4", "trainer.max_steps=1", "num_threads=1", "device=cpu", "logger=jsonl"]
JOBLIB = "_target_: hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher\n"
JSONL = "a:\n  _target_: node_cli.loggers.jsonl.JsonlLogger\n  _partial_: true\n  folder: /\n"
DATA = "defaults: [{override /dataset: mnist}]\ndataset: {data_dir: /d}\n"
BOMB = {f"model/m{k}.yaml": f"defaults: [m{k + 1}@a, /model@b: m{k + 1}]\n" for k in range(30)}
PAYLOAD = "open('executed', 'w')\nclass Net: pass\n"
MLP = "_target_: node_cli.models.mlp.Mlp\n_partial_: true\n"
HYDRA = "of Hydra's own keys only hydra/launcher and those of hydra.launcher can be set"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, typed_in: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    typed_in(folder, "node-train", *SMALL, "run_dir=run")
    return folder / "run"


@pytest.fixture
def refused(typed, tmp_path: Path) -> Callable[..., str]:
    """The one line about a command; nothing ran, and nothing was written."""

    def check(program: str, *words: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = typed(program, *words)
        assert result.status == 2
        assert result.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return result.err.removeprefix(f"{program}: ").rstrip()

    return check


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def change(path: Path, edit: Callable[[object], None]) -> None:
    content = yaml.safe_load(path.read_text())
    edit(content)
    path.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.mark.parametrize("program", ["node-eval", "node-predict", "node-audit"])
def test_helpers_of_ours_are_no_parts_of_a_run(refused, trained, tmp_path, program):
    shutil.copytree(trained, tmp_path / "theirs")
    writer = {"_target_": "node_cli.files.write_whole", "path": "payload.py", "content": b"x"}
    change(tmp_path / "theirs/.hydra/config.yaml", lambda config: config.update(solver=writer))
    assert refused(program, "run=theirs").startswith(
        "solver._target_=node_cli.files.write_whole is not allowed: a solver"
    )


def test_packages_of_a_run_are_named_again(refused, typed, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "theirs")
    write(tmp_path / "theirs/payload.py", PAYLOAD)
    words = ["packages=[theirs]", "gradient._target_=theirs.payload.Net"]
    change(tmp_path / "theirs/.hydra/overrides.yaml", lambda overrides: overrides.extend(words))
    line = refused("node-train", "resume=theirs")
    command = "node-train 'packages=[theirs]' resume=theirs"
    assert line == f"resume: theirs was begun with packages: if you trust them, name them again: {command}"
    assert "trained with other settings (gradient._target_" in typed(*command.replace("'", "").split()).err
    assert "theirs.payload.Net is not allowed" in refused("node-train", "resume=theirs", "packages=[]")


def test_packages_and_launchers_of_a_sweep_are_named_again(refused, tmp_path):
    words = [*SMALL, "packages=[outputs]", "gradient._target_=outputs.sweeps.theirs.payload.Net"]
    record = {"overrides": words, "jobs": [words]}
    write(tmp_path / "outputs/sweeps/theirs/payload.py", PAYLOAD)
    write(tmp_path / "outputs/sweeps/theirs/sweep.json", json.dumps(record))
    line = refused("node-train", "-m", "sweep.resume=outputs/sweeps/theirs")
    command = "node-train -m 'packages=[outputs]' sweep.resume=outputs/sweeps/theirs"
    assert line.endswith(f"was begun with packages: if you trust them, name them again: {command}")
    for word in ("hydra/launcher=joblib", "+hydra.launcher.pre_dispatch=1", "sweep.name=x"):
        write(tmp_path / "outputs/sweeps/theirs/sweep.json", json.dumps({"overrides": [word], "jobs": [[word]]}))
        assert refused("node-train", "-m", "sweep.resume=outputs/sweeps/theirs").endswith("sweep.json is damaged")


@pytest.mark.parametrize("flag", [["--config-path"], ["-cp"], ["--config-name"], ["-cn"], ["--config-p"]])
def test_no_flag_puts_other_files_in_the_place_of_ours(refused, flag, tmp_path):
    shutil.copytree(Path(__file__).parents[2] / "configs", tmp_path / "mine")
    line = refused("node-train", *flag, str(tmp_path / "mine"), *SMALL)
    assert line.endswith("is not used here: --config-dir FOLDER adds a folder of YAML files")


@pytest.mark.parametrize(
    ("files", "words", "line"),
    {
        "a helper that writes": (
            {"dataset/mine.yaml": "_target_: node_cli.files.write_whole\npath: x\ncontent: !!binary ZQ==\n"},
            ["dataset=mine"],
            "dataset._target_=node_cli.files.write_whole is not allowed",
        ),
        "a logger's folder": (
            {"logger/mine.yaml": JSONL},
            ["logger=mine"],
            "logger.a.folder is not allowed: it is no key of node_cli.loggers.jsonl.JsonlLogger in configs/logger/",
        ),
        "a launcher": (
            {"hydra/launcher/mine.yaml": JOBLIB},
            ["-m", "hydra/launcher=mine", "seed=0,1"],
            "hydra/launcher=mine does not exist",
        ),
        "a launcher's settings": (
            {"experiment/mine.yaml": "# @package _global_\nhydra:\n  launcher:\n    pre_dispatch: print(1)\n"},
            ["-m", "experiment=mine", "hydra/launcher=joblib", "seed=0,1"],
            f"hydra.launcher.pre_dispatch is set in a file of mine: {HYDRA}",
        ),
        "a launcher by another group": (
            {"experiment/mine.yaml": "# @package _global_\ndefaults: [{override /hydra/launcher: joblib}]\n"},
            ["-m", "experiment=mine", "seed=0,1"],
            f"hydra.launcher._target_ is set in a file of mine: {HYDRA}",
        ),
        "words of a command line": (
            {"experiment/mine.yaml": "# @package _global_\nhydra:\n  overrides:\n    task: ['packages=[mine]']\n"},
            ["experiment=mine"],
            "hydra.overrides.task is set in a file of mine",
        ),
        "packages": (
            {"experiment/mine.yaml": "# @package _global_\npackages: [mine]\n"},
            ["experiment=mine"],
            "packages must be named on the command line (packages=[mine]), not in a file",
        ),
        "the environment": (
            {"model/mine.yaml": f"{MLP}width: ${{oc.env:HOME}}\n"},
            ["model=mine"],
            "mine/model/mine.yaml: width must refer to other keys (${key}) or to ${now:%Y} alone, got '${oc.env:HOME}'",
        ),
        "the environment in a choice": (
            {"experiment/mine.yaml": "# @package _global_\ndefaults: [{override /model: '${oc.env:HOME}'}]\n"},
            ["experiment=mine"],
            "mine/experiment/mine.yaml: defaults.0.override /model must refer",
        ),
        "a choice by reference": (
            {"experiment/mine.yaml": "# @package _global_\ndefaults: [{override /model: '${dataset}'}]\n"},
            ["experiment=mine"],
            "mine/experiment/mine.yaml: defaults must name files, and refer to nothing",
        ),
        "defaults of defaults": (
            BOMB | {"model/m30.yaml": MLP},
            ["model=m0"],
            "mine/model/m0.yaml: its defaults bring in more than 1,000 files",
        ),
        "a run elsewhere": (
            {"experiment/mine.yaml": "# @package _global_\nrun_dir: ../elsewhere\n"},
            ["experiment=mine"],
            "run_dir=../elsewhere is set in a file, and lies outside the working folder: set it on the command line",
        ),
        "data elsewhere": (
            {"experiment/mine.yaml": f"# @package _global_\n{DATA}"},
            ["experiment=mine"],
            "dataset.data_dir=/d is set in a file, and lies outside the working folder: set it on the command line",
        ),
    }.values(),
)
def test_a_folder_of_yaml_files(refused, tmp_path, files, words, line):
    for name, text in files.items():
        write(tmp_path / "mine" / name, text)
    assert refused("node-train", "--config-dir", "mine", *words).startswith(line)


def test_references_to_references_where_the_config_is_shown(refused, tmp_path):
    lines = [f"a{k}: ['${{model.a{k - 1}}}', '${{model.a{k - 1}}}']" for k in range(1, 40)]
    write(tmp_path / "mine/model/own.yaml", "\n".join([MLP, "a0: x", *lines]))
    line = refused("node-train", "--config-dir", "mine", "model=own", "--cfg", "job", "--resolve")
    assert "stands for more than 1,000,000 characters" in line


def test_links_and_pipes_in_a_folder_of_yaml_files(refused, tmp_path):
    write(tmp_path / "secret.yaml", MLP)
    (tmp_path / "mine/model").mkdir(parents=True)
    (tmp_path / "mine/model/linked.yaml").symlink_to("../../secret.yaml")
    (tmp_path / "mine/task").symlink_to("..")
    os.mkfifo(tmp_path / "mine/model/pipe.yaml")
    outside = "it is a link that leads out of"
    assert outside in refused("node-train", "--config-dir", "mine", "model=linked")
    assert outside in refused("node-train", "--config-dir", "mine", "task=secret")
    assert "model=pipe does not exist" in refused("node-train", "--config-dir", "mine", "model=pipe")


@pytest.mark.parametrize(
    ("put", "kind"),
    [
        (os.mkfifo, "a device, a pipe or a socket"),
        (Path.touch, "a file"),
        (lambda path: path.symlink_to("../elsewhere"), "a link"),
        (lambda path: path.symlink_to("."), "a link"),
        (lambda path: path.symlink_to("nowhere"), "a link"),
    ],
)
def test_jobs_of_a_sweep_have_folders_of_it(refused, tmp_path, put, kind):
    jobs = [[*SMALL, f"seed={seed}"] for seed in (0, 1)]
    write(tmp_path / "sweep/sweep.json", json.dumps({"overrides": [*SMALL, "seed=0,1"], "jobs": jobs}))
    (tmp_path / "elsewhere").mkdir()
    put(tmp_path / "sweep/1")
    line = refused("node-train", "-m", "sweep.resume=sweep")
    assert line == f"sweep.resume: sweep/1 must be the folder of a job, and is {kind}: remove it"


def test_a_search(refused, tmp_path):
    write(tmp_path / "mine/tune/where.yaml", "defaults: [default]\nstorage: sqlite:////elsewhere.db\n")
    write(tmp_path / "mine/tune/what.yaml", "defaults: [default]\nspace: {'packages=[mine] x': [1, 2]}\n")
    write(tmp_path / "mine/tune/code.yaml", "defaults: [default]\nspace: {model._target_: [os.system, os.mkdir]}\n")
    told = "tune.storage must be set on the command line (tune.storage=...), not in a file"
    assert refused("node-tune", "--config-dir", "mine", "tune=where") == told
    assert "packages=[mine] x: it is no config key" in refused("node-tune", "--config-dir", "mine", "tune=what")


@pytest.mark.parametrize(
    "address", ["postgresql://me:hun=hunter2@h/x", "'postgresql+none://me:a@hunter2@127.0.0.1:1/x'"]
)
def test_a_password_is_never_in_a_message(refused, address):
    assert "hunter2" not in refused("node-tune", "model=mlp", "tune.trials=1", f"tune.storage={address}")


def test_processes_that_a_command_starts_import_nothing_from_the_working_folder(tmp_path):
    """Whatever starts them: the variable that says so is inherited."""
    write(tmp_path / "tqdm.py", PAYLOAD)
    code = "import os, subprocess, sys; sys.argv[1:] = ['--help']; sys.path.remove('')\n"
    code += "from node_cli.cli.train import main; main()\n"
    code += "subprocess.run([sys.executable, '-m', 'node_cli.cli.train', '--version'], check=True)\n"
    code += "subprocess.run([sys.executable, '-c', 'import tqdm'], check=True)\n"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True)
    assert not (tmp_path / "executed").exists()

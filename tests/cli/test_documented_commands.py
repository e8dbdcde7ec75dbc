"""The commands that TYPED and the help texts show are typed, in the order in which they stand.

Each document has a folder of its own. A command is made small by SMALL, which changes sizes and nothing that it means;
what cannot be run here is in NOT_TYPED, with the reason, or in COMPOSED, and is then put together by `--cfg job`.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.runs.folder import Request, RunFolder

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TYPED = [ROOT / "docs" / name for name in ("engine.md", "reliability.md")]  # the others take half a minute each

NOT_TYPED = {  # how a command starts: why it is not typed here
    "make ": "the rules of the Makefile, which make the environment that this test runs in",
    "tensorboard ": "a server, which tests/loggers asks over HTTP",
    "python benchmarks/": "measurements of minutes; tests/test_torture.py and test_table1.py start theirs",
}
COMPOSED = {  # what stands in commands that are put together, and not run: why
    "dataset=mnist": "a download",
    "experiment=paper_mnist": "a download",
    "hydra/launcher=submitit_slurm": "a cluster",
    "hydra/launcher=joblib": "processes; tests/cli/test_launchers.py starts them",
    "torchrun ": "several machines; tests/cli/test_devices.py starts its processes",
    "postgresql+psycopg2://": "a server; tests/tuning/ share studies in SQLite",
    "mysql+pymysql://": "a server; tests/tuning/ share studies in SQLite",
}
STAND_INS = {  # what a reader puts his own in place of, or what would never end
    "outputs/2026-11-21/10-00-00-123456": "outputs/yours",
    "resume=<folder>": "resume=outputs/yours",
    "sqlite:////shared/studies.db": "sqlite:///studies.db",
    "gradient=direct,adjoint seed=0,1,2": "gradient=direct,adjoint seed=0",
    "solver.rtol=1e-2,1e-4,1e-6 seed=0,1,2": "solver.rtol=1e-2,1e-4,1e-6 seed=0",
    "experiment=best seed=0,1,2": "experiment=best seed=0,1",
    " --watch": "",
}
QUIET = "num_threads=1 device=cpu"
DIGITS = "dataset.val_fraction=0.02 dataset.test_fraction=0.02"
RUN = f"trainer.max_steps=2 trainer.batch_size=8 logger=jsonl {QUIET}"
TRIALS = f"tune.trials=2 tune.workers=1 trainer.max_steps=1 logger=jsonl {DIGITS} {QUIET}"
AUDIT = f"rtols=[1e-2,1e-3] problem.batch_size=2 problem.reference_rtol=1e-5 problem.num_times=2 logger=none {QUIET}"
SMALL = {  # the first pattern that a command matches: the sizes that are added to it
    r"--help|sweep\.resume=|node-report": "",
    r"node-train resume=": "trainer.max_steps=4",
    r"node-train .*dataset=moons": f"dataset.num_samples=100 {RUN}",
    r"node-train .*(experiment=best|model=linear)": f"{DIGITS} {RUN}",
    r"node-train": f"model.width=4 {DIGITS} {RUN}",
    r"node-tune .*tune=(odenet|error_and_nfe)": f"{TRIALS} tune.space.model.width=[4] "
    "tune.space.solver.rtol=[1e-2,1e-3] tune.space.gradient.rtol=null tune.space.gradient=[direct,adjoint]",
    r"node-tune .*model\.width|node-tune .*tune=mine": TRIALS,
    r"node-tune": f"model.width=4 {TRIALS}",
    r"node-audit .*problem=scalar": "rtols=[1e-3,1e-6] logger=none",
    r"node-audit .*problem=linear": "rtols=[1e-3,1e-6] problem.num_observations=2 "
    "problem.euler_steps=[1,2,4] logger=none",
    r"node-audit .*problem=resnet_euler": "rtols=[1e-2,1e-4] problem.channels=2 problem.batch_size=2 "
    "problem.euler_steps=[6,12,24] logger=none",
    r"node-audit .*run=": AUDIT,
    r"node-audit": f"{AUDIT} model.width=4",
    r"node-eval": QUIET,
}


@dataclass(frozen=True)
class Command:
    """One command line as a document has it."""

    text: str
    place: str

    @property
    def is_typed(self) -> bool:
        return not self.text.startswith(tuple(NOT_TYPED))

    def words(self) -> list[str]:
        """What is typed: made small, or put together only."""
        text = self.text[self.text.index("node-") :]
        for shown, own in STAND_INS.items():
            text = text.replace(shown, own)
        words = shlex.split(text)
        if any(part in self.text for part in COMPOSED):
            return composing(words)
        return words + next(added for pattern, added in SMALL.items() if re.search(pattern, text)).split()


def composing(words: list[str]) -> list[str]:
    """What puts the first cell of a command line together, and runs nothing."""
    cell = [re.sub(r"=(\w+)(,\w+)+$", r"=\1", word) for word in words if word != "-m"]
    return [*cell, "--cfg", "job"]


def without_code(block: re.Match[str]) -> str:
    """Empty lines for a block, but for what is typed in it."""
    return "\n".join(f"    {line[2:]}" if line.startswith("$ ") else "" for line in block[0].split("\n"))


def shown_in(path: Path) -> list[Command]:
    """The commands of a document, set off by four spaces, in backquotes or by a $, without what a # says of them."""
    text = re.sub(r"^```.*?^```", without_code, path.read_text("utf-8"), flags=re.M | re.S)
    start = "|".join(["node-\\w+", "torchrun ", "pip install .* && ", *NOT_TYPED])
    found = re.finditer(rf"^    ((?:{start})(?:\\\n|.)*)|`((?:{start}) ?[^`\n]* [^`\n]+)`", text, flags=re.M)
    return [
        Command(
            re.sub(r" *\\\n +", " ", re.sub(r"  *# .*", "", one[1] or one[2])).strip(),
            f"{path.name}:{text.count(chr(10), 0, one.start()) + 1}",
        )
        for one in found
    ]


def write_files_of(path: Path) -> None:
    """The files that a document names before a block, in backquotes: `mylab/nets.py`."""
    found = re.findall(r"^((?:[^\n]+\n)+)\n```\w+\n(.*?)^```", path.read_text("utf-8"), flags=re.M | re.S)
    for paragraph, content in found:
        for name in re.findall(r"`([\w/]+\.(?:py|yaml))`", paragraph)[-1:]:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(content)


def type_it(words: list[str]) -> str:
    """What went wrong, if anything did."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", list(sys.path))
        if words[0] == "node-tune":
            patch.setattr("node_cli.cli.run_tuning.run_workers", in_this_process)
            patch.setattr("node_cli.training.launched.end_with_parent", lambda: None)
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                import_module(f"node_cli.cli.{words[0].removeprefix('node-')}").main()
            except SystemExit as end:
                return "" if not end.code else f"status {end.code}: {printed.getvalue()[-600:]}"
    return ""


def in_this_process(work: Callable[[], None], count: int, restarts: int) -> None:
    """The work of a search's processes, without their start."""
    work()


@pytest.fixture(scope="module")
def _yours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the reader's own."""
    folder = tmp_path_factory.mktemp("reader") / "yours"
    assert type_it(shlex.split(f"node-train run_dir={folder} model.width=4 {DIGITS} {RUN}")) == ""
    return folder


@pytest.fixture
def _folder(_yours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a document is typed; the packages in it, which others have by the same name, are forgotten."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(_yours, "outputs/yours")
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


@pytest.mark.slow
@pytest.mark.usefixtures("_folder")
@pytest.mark.parametrize("path", TYPED, ids=[path.name for path in TYPED])
def test_the_commands_of_a_document_in_order(path: Path):
    write_files_of(path)
    failed = []
    for command in filter(lambda command: command.is_typed, shown_in(path)):
        if ended := type_it(command.words()):
            failed.append(f"{command.place}: {command.text}\n{ended}")
    assert not failed, "\n".join(failed)


def test_every_table_is_of_use():
    """No reason, stand-in or size that no command has any more, and no rule or script that is not there."""
    commands = [command.text for path in DOCUMENTS for command in shown_in(path)]
    texts = "\n".join(commands)
    assert len(commands) > 40
    assert [start for start in NOT_TYPED if not re.search(f"^{start}", texts, flags=re.M)] == []
    assert [part for part in (*COMPOSED, *STAND_INS) if part not in texts] == []
    assert [pattern for pattern in SMALL if not re.search(pattern, texts)] == []
    rules = re.findall(r"^make (\w+)", texts, flags=re.M)
    assert set(rules) <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.M))
    scripts = re.findall(r"^python (\S+)", texts, flags=re.M)
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def examples_of(command: str) -> list[str]:
    """The commands of a help text, without what stands beside them."""
    template = yaml.safe_load((ROOT / "configs" / f"{command}.yaml").read_text())["hydra"]["help"]["template"]
    lines = [line.strip() for line in template.splitlines() if line.startswith("  node-")]
    return [re.sub(r"   *[^ ].*", "", line) for line in lines]


@pytest.fixture
def _named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the examples of the help name: a run, a sweep, parts, a space and a study of one's own."""
    monkeypatch.chdir(tmp_path)
    line = CommandLine("train", ["model=mlp", "dataset=npz", "dataset.path=points.npz"])
    with hydra_ready(line):
        config = checked_config(line)
    run = Path("outputs/2026-11-21/10-00-00-123456")
    run.mkdir(parents=True)
    RunFolder(run).write_request(
        Request(config, line.overrides, {"dataset": "npz", "model": "mlp", "solver": "dopri5"})
    )
    files = {
        "outputs/sweeps/mine/sweep.json": '{"overrides": ["seed=0"], "cells": [["seed=0"]]}',
        "mine/model/mine.yaml": "defaults: [mlp]",
        "mine/tune/mine.yaml": "defaults: [default, _self_]",
        "outputs/studies/odenet/experiment/best.yaml": "# @package _global_\nmodel: {width: 8}",
    }
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)


@pytest.mark.usefixtures("_named")
@pytest.mark.parametrize("command", ["train", "eval", "audit", "tune"])
def test_the_examples_of_a_help_text_can_be_put_together(command: str):
    examples = examples_of(command)
    assert len(examples) >= 3
    composed = {text: type_it(composing(shlex.split(text))) for text in examples}
    assert {text: ended for text, ended in composed.items() if ended} == {}

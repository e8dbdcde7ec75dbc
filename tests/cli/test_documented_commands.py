"""Every command that a help text shows can be put together."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.training.run_folder import Request, RunFolder

ROOT = Path(__file__).parents[2]


def composing(words: list[str]) -> list[str]:
    """What puts the first cell of a command line together, and runs nothing."""
    cell = [re.sub(r"=(\w+)(,\w+)+$", r"=\1", word) for word in words if word != "-m"]
    return [*cell, "--cfg", "job"]


def type_it(words: list[str]) -> str:
    """What went wrong, if anything did."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", list(sys.path))
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                import_module(f"node_cli.cli.{words[0].removeprefix('node-')}").main()
            except SystemExit as end:
                return "" if not end.code else f"status {end.code}: {printed.getvalue()[-600:]}"
    return ""


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

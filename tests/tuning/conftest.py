"""Small studies on digits: `search` describes one, `typed` runs `node-tune` or `node-train` as if typed."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest
from small_studies import DEFAULTS, QUICK

from node_cli.cli.compose import CommandLine
from node_cli.cli.search import Search
from node_cli.cli.train import main as train
from node_cli.cli.tune import main as tune
from node_cli.tuning.search_space import parse
from node_cli.tuning.settings import read_settings


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def search(monkeypatch, tmp_path):
    """`search(space, trials=3)` in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def made(space, words=(), **tune):
        asked = {**DEFAULTS, "name": "small", "pruner": "none", **tune}
        parsed = parse(space)
        return Search(CommandLine("train", [*QUICK, *words]), read_settings(asked, parsed.endless), parsed)

    return made


@pytest.fixture
def typed(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*words):
        monkeypatch.setattr(sys, "argv", list(words))
        status = 0
        try:
            {"node-tune": tune, "node-train": train}[words[0]]()
        except SystemExit as end:
            status = int(end.code or 0)
        return Result(status, *capsys.readouterr())

    return run

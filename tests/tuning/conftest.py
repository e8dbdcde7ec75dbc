"""Small studies on digits: `search` describes one."""

from __future__ import annotations

import pytest
from hurried import no_sync, one_drawing
from small_studies import DEFAULTS, QUICK

from node_cli.cli.compose import CommandLine
from node_cli.cli.overrides import parse as overrides
from node_cli.cli.tune import Search
from node_cli.tuning.search_space import parse
from node_cli.tuning.settings import read_settings


@pytest.fixture
def search(monkeypatch, tmp_path):
    """`search(space, trials=3)` in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    no_sync(monkeypatch)
    one_drawing(monkeypatch)

    def made(space, words=(), **tune):
        asked = {**DEFAULTS, "name": "small", "pruner": "none", **tune}
        parsed = parse(space)
        return Search(CommandLine("train", overrides([*QUICK, *words])), read_settings(asked, parsed.endless), parsed)

    return made

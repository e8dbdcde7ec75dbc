"""Folders of a stranger's with targets, links, special files and references in random places: all of it stays data.

`python tests/cli/test_fuzzed_folders.py 500` tries as many as you like, with another seed each time.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from node_cli.config import config_dir

pytestmark = pytest.mark.slow

SMALL = ["model=mlp", "model.width=4", "trainer.max_steps=1", "num_threads=1", "device=cpu", "logger=jsonl"]
PLACES = ["run/.hydra/config.yaml", "run/.hydra/overrides.yaml", "run/.hydra/choices.yaml", "run/summary.json"]
PLACES += ["run/metrics.jsonl", "run/checkpoints/last.pt", "run/checkpoints/best.pt", "run/checkpoints", "run/.hydra"]
PLACES += ["sweep/sweep.json", "sweep/0", "mine/model/own.yaml", "mine/experiment/own.yaml", "mine/model"]
COMMANDS = [
    ["node-eval", "run=run"],
    ["node-predict", "run=run", "figures=false"],
    ["node-audit", "run=run", "run_dir=audit", "gradients=[direct]", "rtols=[1e-2]"],
    ["node-train", "resume=run"],
    ["node-train", "-m", "sweep.resume=sweep"],
    ["node-report", "."],
    ["node-train", "--config-dir", "mine", "model=own", "--cfg", "job", "--resolve"],
    ["node-train", "--config-dir", "mine", "model=own", "run_dir=new", *SMALL[2:]],
    ["node-train", "--config-dir", "mine", "experiment=own", "run_dir=new", *SMALL],
    ["node-train", "--config-dir", "mine", "-m", "experiment=own", "seed=0,1", *SMALL],
]
CALLS: list[Any] = [
    {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": ["../executed"]}},
    {"_target_": "node_cli.files.write_whole", "path": "../executed", "content": b"x"},
    {"_target_": "node_cli.training.checkpoint.os.mkdir", "path": "../executed"},
    {"_target_": "theirs.Net"},
    {"_target_": "torch.optim.adam.torch.load", "f": "run/checkpoints/last.pt", "_partial_": False},
    {"_target_": "node_cli.loggers.jsonl.JsonlLogger", "folder": "..", "resume_step": None},
    {"()": "os.mkdir", "path": "../executed"},
]
REFERENCES = ["${oc.env:SECRET}", "${oc.decode:'${oc.env:SECRET}'}", "${oc.${a}:SECRET}", "${a}${a}", "${seed}"]
REFERENCES += ["${oc.create:{_target_: theirs.Net}}", "\\${oc.env:SECRET}", "${now:%Y}", "../outside", "/etc/passwd"]
WORDS = ["packages=[theirs]", "++packages=[theirs]", "hydra/launcher=joblib", "model._target_=theirs.Net", "~model"]
WORDS += ["+hydra.callbacks.a={_target_:theirs.Net}", "--config-path=mine", "run_dir=../outside", "-m"]
WORDS += ["seed=${oc.env:SECRET}", "[theirs]"]
KEYS = ["_target_", "_args_", "_partial_", "_recursive_", "packages", "run_dir", "resume", "hydra", "defaults", "sweep"]
KEYS += ["width", "data_dir", "a", "launcher", "callbacks", "overrides", "searchpath", "storage", "path"]


def value(draw: random.Random, depth: int = 0) -> Any:
    kinds: list[Any] = [draw.random, lambda: draw.choice([*REFERENCES, *WORDS])]
    kinds.append(lambda: copy.deepcopy(draw.choice(CALLS)))
    if depth < 3:
        kinds += [
            lambda: {draw.choice(KEYS): value(draw, depth + 1) for _ in range(draw.randint(1, 3))},
            lambda: [value(draw, depth + 1) for _ in range(draw.randint(0, 3))],
        ]
    return draw.choice(kinds)()


def nodes(tree: Any) -> list[Any]:
    """Every container of it."""
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [tree, *(node for child in children for node in nodes(child))] if isinstance(tree, (dict, list)) else []


def change_content(draw: random.Random, path: Path) -> None:
    """A value somewhere in the file's YAML, or JSON, becomes another."""
    content = yaml.safe_load(path.read_text())
    for _ in range(draw.randint(1, 2)):
        node = draw.choice(nodes(content) or [{}])
        if isinstance(node, list):
            node.append(draw.choice([draw.choice(WORDS), value(draw)]))
        else:
            node[draw.choice([*node, *KEYS])] = value(draw)
    header = "# @package _global_\n" if "experiment" in path.parts else ""
    path.write_text(header + yaml.safe_dump(content))


def put_special(draw: random.Random, path: Path, outside: Path) -> None:
    """The file, or folder, becomes something else."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    kind = draw.choice(["pipe", "link", "folder link", "device", "large", "bomb", "folder", "bytes", "dangling"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("link", "folder link", "device", "dangling"):
        targets = {"link": outside / "file", "folder link": outside, "device": Path("/dev/zero")}
        path.symlink_to(targets.get(kind, outside / "new"))
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif kind == "bomb":
        path.write_text("a0: &a0 [x]\n" + "".join(f"a{k}: &a{k} [{f'*a{k - 1}, ' * 9}]\n" for k in range(1, 12)))
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(draw.randbytes(200))


def beside(folder: Path) -> dict[str, Any]:
    """What lies beside the working folder."""
    paths = [*folder.iterdir(), *folder.glob("outside/**/*")]
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def typed_quietly(words: list[str]) -> tuple[int, str]:
    told = io.StringIO()
    sys.argv = list(words)
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        try:
            import_module(f"node_cli.cli.{words[0].removeprefix('node-')}").main()
        except SystemExit as end:
            return int(end.code or 0), told.getvalue()
    return 0, told.getvalue()


def make(top: Path) -> None:
    """A run, a sweep and a folder of YAML files, and beside them what nobody may touch."""
    work = top / "work"
    for name in ("mine/model", "mine/experiment", "sweep/0", "../outside"):
        (work / name).mkdir(parents=True)
    (top / "outside" / "file").write_text("seed: 0\n")
    (work / "theirs.py").write_text(f"open({str(top / 'executed')!r}, 'w')\nclass Net: pass\n")
    shutil.copy(Path(config_dir(), "model/mlp.yaml"), work / "mine/model/own.yaml")
    (work / "mine/experiment/own.yaml").write_text("# @package _global_\nseed: 1\n")
    (work / "sweep/sweep.json").write_text(json.dumps({"overrides": SMALL, "cells": [SMALL]}))  # as it was called
    os.chdir(work)
    assert typed_quietly(["node-train", *SMALL, "run_dir=run"])[0] == 0


def try_folders(top: Path, count: int, seed: int) -> None:
    """Changes `count` copies of the folder, each in a place or two, and types a command that reads it."""
    os.environ["SECRET"] = "hunter2"
    make(top)
    shutil.move(top / "work", top / "whole")
    before = beside(top)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        shutil.copytree(top / "whole", top / "work", symlinks=True)
        os.chdir(top / "work")
        for place in draw.sample(PLACES, draw.randint(1, 2)):
            path = top / "work" / place
            is_text = path.suffix in (".yaml", ".json") and path.is_file() and not path.is_symlink()
            if os.path.lexists(path):
                if is_text and draw.random() < 0.7:
                    change_content(draw, path)
                else:
                    put_special(draw, path, top / "outside")
        words = draw.choice(COMMANDS)
        status, told = typed_quietly(words)
        os.chdir(top)
        shutil.rmtree(top / "work")
        assert "Traceback" not in told, (number, words, told)
        assert status in (0, 1, 2), (number, words, told)
        assert "hunter2" not in told, (number, words, told)
        assert beside(top) == before, (number, words, told)
        assert "theirs" not in sys.modules, (number, words, told)


def test_what_a_stranger_has_made_stays_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("SECRET", "")
    try_folders(tmp_path, 16, seed=1)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        seed = random.randrange(10**6)
        sys.stdout.write(f"seed {seed}\n")
        try_folders(Path(folder).resolve(), int(sys.argv[1]), seed)

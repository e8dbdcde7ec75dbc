"""What a config may have called: each part in its group, with the keys of its YAML, and named packages."""

import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from node_cli.trust import make_importable, shipped, untrusted_parts

MLP = {"_target_": "node_cli.models.mlp.Mlp", "_partial_": True, "width": 4}
SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "dampening": 0.0}
MNIST = {"_target_": "node_cli.datasets.mnist.mnist", "data_dir": "data"}
WRITER = {"_target_": "node_cli.files.write_whole", "path": "x", "content": "y"}
MINE = {"_target_": "mylab.nets.Net", "_args_": [1], "inner": MLP}


@pytest.mark.parametrize(
    ("config", "packages"),
    [
        ({"model": MLP, "optimizer": SGD, "dataset": MNIST, "seed": 0}, []),
        ({"model": MINE}, ["mylab"]),
        ({"model": MINE}, ["mylab.nets"]),
        ({"logger": {"a": {"_target_": "node_cli.loggers.jsonl.JsonlLogger", "_partial_": True}}}, []),
        ({"optimizer": {"_target_": "torch.optim.LBFGS", "_partial_": True, "lr": 1.0}}, []),
    ],
)
def test_what_is_shipped_or_named_is_called(config, packages):
    assert untrusted_parts(config, packages) == []


@pytest.mark.parametrize(
    ("config", "line"),
    {
        "a helper of ours": ({"solver": WRITER}, "solver._target_=node_cli.files.write_whole is not allowed"),
        "a part of another group": ({"model": MNIST}, "model._target_=node_cli.datasets.mnist.mnist is not allowed"),
        "the same below another": ({"model": {**MLP, "width": MNIST}}, "model.width._target_=node_cli.datasets.mnist"),
        "in a list of lists": ({"model": {**MLP, "width": [[WRITER]]}}, "model.width.0.0._target_=node_cli.files."),
        "where nothing is called": ({"sweep": {"name": MLP}}, "sweep.name._target_=node_cli.models.mlp.Mlp is not"),
        "through a module of ours": (
            {"task": {"_target_": "node_cli.tasks.classification.torch.load"}},
            "task._target_=node_cli.tasks.classification.torch.load is not allowed",
        ),
        "a name that begins like one": ({"model": {"_target_": "mylabs.Net"}}, "model._target_=mylabs.Net is not"),
        "no text": ({"model": {"_target_": ["os.system"]}}, "model._target_=['os.system'] is not allowed"),
        "optimizers' helpers": (
            {"optimizer": {"_target_": "torch.optim.lr_scheduler.LambdaLR", "_partial_": True}},
            "optimizer._target_=torch.optim.lr_scheduler.LambdaLR is not allowed",
        ),
        "an optimizer elsewhere": ({"model": SGD}, "model._target_=torch.optim.SGD is not allowed"),
        "what the command hands over": (
            {"logger": {"a": {"_target_": "node_cli.loggers.jsonl.JsonlLogger", "_partial_": True, "folder": "/home"}}},
            "logger.a.folder is not allowed: it is no key of node_cli.loggers.jsonl.JsonlLogger in configs/logger/",
        ),
        "positions": ({"model": {**MLP, "_args_": [[1]]}}, "model._args_ is not allowed: it is no key of"),
        "another way to instantiate": ({"model": {**MLP, "_recursive_": False}}, "model._recursive_ is not allowed"),
        "conversion": ({"model": {**MLP, "_convert_": "object"}}, "model._convert_ is not allowed"),
        "at once": ({"model": {**MLP, "_partial_": False}}, "model._partial_ must be true, as in configs/model/"),
        "later": ({"dataset": {**MNIST, "_partial_": True}}, "dataset._partial_ must be false, as in"),
        "a word for yes": ({"model": {**MLP, "_partial_": "false"}}, "model._partial_ must be true, as in"),
        "an optimizer's weights": ({"optimizer": {**SGD, "params": []}}, "optimizer.params is not allowed"),
        "an optimizer's positions": ({"optimizer": {**SGD, "_args_": []}}, "optimizer._args_ is not allowed"),
        "an optimizer at once": ({"optimizer": {**SGD, "_partial_": False}}, "optimizer._partial_ must be true"),
        "below a package's": ({"model": {**MINE, "inner": WRITER}}, "model.inner._target_=node_cli.files.write"),
    }.values(),
)
def test_nothing_else_is(config, line):
    (problem,) = untrusted_parts(config, ["mylab"])
    assert problem.startswith(line)


def test_no_advice_to_trust_what_everybody_has():
    config = {"model": {"_target_": "os.system"}, "task": {"_target_": "theirs.T"}, "solver": WRITER}
    advice = ["packages=" in line for line in untrusted_parts(config, [])]
    assert advice == [False, True, False]


def test_every_group_of_parts_has_its_list():
    groups = "audit dataset gradient logger model optimizer problem scheduler solver task trainer vector_field"
    assert {*shipped()} == {*groups.split()}
    assert all(target.startswith(("node_cli.", "torch.optim.")) for group in shipped().values() for target in group)


def test_the_working_folder_holds_the_named_packages_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.chdir(tmp_path)
    for name in ("trusted_lab", "other_lab"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "nets.py").write_text("width = 3")
    make_importable(["trusted_lab.nets"])
    assert import_module("trusted_lab.nets").width == 3
    assert find_spec("other_lab") is None
    make_importable([])
    assert find_spec("trusted_lab.more") is None

"""What a command has loaded when it composes its config, and when its first update is done: all that it waits for."""

import json
import subprocess
import sys

import pytest

STAGES = """
import json, os, sys
from node_cli.cli import train

loaded = {}

def run(composed, run=train.run):
    loaded["composed"] = sorted(sys.modules)
    from node_cli.ode import odeint
    loaded["odeint"] = sorted(sys.modules)
    from node_cli.training.update import Updater
    update = Updater.update
    def first(*args):
        assert update(*args) is not None
        loaded["updated"] = sorted(sys.modules)
        import torch
        from node_cli.models.flows.along import Along, Conditioned
        field = Along(Conditioned(torch.nn.Linear(2, 2), None), (2,), None, ())
        field.vector_field.forward = lambda t, y: y.sin()
        field(torch.zeros(()), torch.ones(3, 3))
        loaded["traced"] = sorted(sys.modules)
        print(json.dumps(loaded), flush=True)
        os._exit(0)
    Updater.update = first
    run(composed)

train.run = run
sys.argv = ["node-train", "device=cpu", "run_dir=run"]
train.main()
"""
NEVER = {"matplotlib", "scipy", "sklearn", "pandas", "torchdiffeq", "optuna", "requests", "PIL", "torch._dynamo"}
NOT_YET = {
    "composed": NEVER | {"torch", "numpy", "tensorboard"},
    "odeint": NEVER | {"tensorboard", "sympy", "node_cli.training.trainer", "node_cli.datasets"},
    "updated": NEVER | {"torch._inductor", "torch.distributed.tensor", "node_cli.runs.report.plots"},
    "traced": {"torch._dynamo"},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> dict[str, list[str]]:
    """The modules that the default run has loaded at each stage, and once the trace of a density is found."""
    command = [sys.executable, "-c", STAGES]
    done = subprocess.run(command, cwd=tmp_path_factory.mktemp("run"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", NOT_YET)
def test_what_is_not_needed_yet_is_not_loaded_yet(loaded, stage: str):
    assert NOT_YET[stage].isdisjoint(loaded[stage])

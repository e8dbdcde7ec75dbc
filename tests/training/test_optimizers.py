import json
import subprocess
import sys

import pytest
import torch
from torch.optim import Optimizer

from node_cli.training.optimizers import without_compiler

KINDS = [
    name
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer)
    if kind is not Optimizer
]
COMPARED = """
import json, sys
import torch
from node_cli.training.optimizers import without_compiler

def trained(name, change):
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(4, 3, sparse=name == "SparseAdam")
    kind = change(getattr(torch.optim, name))
    optimizer = kind([{"params": embedding.parameters()}], lr=0.1)
    def loss():
        optimizer.zero_grad()
        total = (embedding(torch.tensor([0, 1, 1])) ** 2).sum()
        total.backward()
        return total
    states = []
    for _ in range(3):
        loss()
        optimizer.step(loss)
        states.append(optimizer.state_dict())
        optimizer.load_state_dict(states[-1])
    return kind, repr(optimizer), repr(states), embedding.weight.detach()

results = {}
names = sys.argv[1:]
ours = {name: trained(name, without_compiler) for name in names}
results["loaded"] = [name for name in ("torch._dynamo", "sympy") if name in sys.modules]
for name in names:
    kind, *mine, weights = ours[name]
    _, *torchs, others = trained(name, lambda kind: kind)
    results[name] = [kind.__mro__[1].__name__, mine == torchs, torch.equal(weights, others)]
results["late"] = without_compiler(torch.optim.AdamW) is torch.optim.AdamW
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def compared() -> dict[str, list[object]]:
    """Every optimizer of torch beside itself, in a process that has not loaded the compiler."""
    done = subprocess.run([sys.executable, "-c", COMPARED, *KINDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", KINDS)
def test_each_optimizer_makes_the_same_steps_to_the_last_bit(compared, name):
    assert compared[name] == [name, True, True]


def test_none_of_them_loads_the_compiler(compared):
    assert "AdamW" in KINDS
    assert compared["loaded"] == []


def test_where_the_compiler_is_loaded_torchs_own_is_taken(compared):
    assert compared["late"] is True


def test_an_optimizer_of_others_is_left_as_it_is():
    class Own(torch.optim.SGD):
        pass

    assert without_compiler(Own) is Own

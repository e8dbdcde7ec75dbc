"""What one process has compiled of a solve, others find without tracing it; only if it is made of the same."""

import json
import os
import subprocess
import sys
from functools import partial, wraps
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._functorch import config as functorch
from torch._inductor import config
from torch._inductor.utils import fresh_cache
from torch.nn.functional import silu

from node_cli.ode import odeint
from node_cli.ode.control import Controller, largest, rms
from node_cli.ode.graphs import remembered
from node_cli.ode.graphs.capture import Capture, capture_of
from node_cli.ode.graphs.examples import Examples
from node_cli.ode.graphs.field_graph import _operations
from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.graphs.remembered import compiled_earlier, key_of, recall, remember
from node_cli.ode.graphs.step_control import Control

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),  # torch's own
]


class Field(nn.Module):
    def __init__(self, rate=0.5, activation=torch.tanh):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.weight.data = torch.linspace(-1, 1, 9).view(3, 3)
        self.layer.bias.data = torch.linspace(0, 1, 3)
        self.rate = rate
        self.activation = activation

    def forward(self, t, y):
        return self.rate * self.activation(self.layer(y)) - t * y


def solved(batch, field=None):
    """Exact numbers of a compiled solve and of its gradient."""
    field = field or Field()
    field.zero_grad()
    y0 = torch.linspace(-1, 1, 3 * batch).view(batch, 3).requires_grad_()
    ys = odeint(field, y0, [0.0, 0.4, 1.0], method="midpoint", num_steps=1, compile="solve")
    (ys**2).sum().backward()
    return [tensor.flatten().tolist() for tensor in (ys, y0.grad, field.layer.weight.grad, field.layer.bias.grad)]


def nothing_is_traced(monkeypatch):
    def refuse(*arguments):
        raise RuntimeError("traced")

    monkeypatch.setattr("node_cli.ode.graphs.lowering.traced", refuse)
    monkeypatch.setattr("node_cli.ode.graphs.examples.traced", refuse)
    monkeypatch.setattr("node_cli.ode.graphs.split_step.traced", refuse)


def sizes_held(field):
    """Of these batches, those that all that was compiled is right for."""
    graph, _ = capture_of(field, "cpu", None)(torch.zeros(4, 3), by_sample=False)
    return [batch for batch in (1, 2, 4, 7, 1000, 2**20) if graph.holds_for((batch, 3))]


@pytest.fixture(scope="module")
def before():
    """The numbers of a process that has compiled, whose cache is in use, and the sizes that it may run."""
    field = Field()
    with fresh_cache():
        numbers = {batch: solved(batch, field) for batch in (4, 7)}
        yield numbers, sizes_held(field)


@pytest.fixture
def notes(before):
    """Where processes note what they have compiled; as it was, after the test."""
    paths = sorted(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], remembered.FOLDER).glob("*.json"))
    texts = {path: path.read_text() for path in paths}
    yield texts
    for path, text in texts.items():
        path.write_text(text)


def test_another_process_traces_nothing_and_has_the_same_numbers(before, notes):
    code = """
import json, pytest, test_remembered as here
here.nothing_is_traced(pytest.MonkeyPatch())
field = here.Field()
print(json.dumps({batch: here.solved(batch, field) for batch in (4, 7)}))
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "cannot compile" not in found.stderr
    assert {int(batch): numbers for batch, numbers in json.loads(found.stdout).items()} == before[0]
    assert {path.name: path.read_text() for path in next(iter(notes)).parent.iterdir()} == {
        path.name: text for path, text in notes.items()
    }


def test_what_is_found_is_right_for_the_same_sizes_as_when_it_was_compiled(before, monkeypatch):
    field = Field()
    nothing_is_traced(monkeypatch)
    assert solved(4, field) == before[0][4]
    assert sizes_held(field) == before[1]
    assert 2**20 not in before[1]  # the compiler has taken for granted that indices are short


@pytest.mark.parametrize(
    "noted",
    [
        "",
        "[1]",
        {},
        {"number": "2", "digest": 3, "operations": None, "graph": 4, "sizes": []},
        {"graph": "../../f", "sizes": {}},
        {"graph": "f" + 51 * "a", "sizes": {}},  # not there any more
        {"graph": "f" + 51 * "a", "sizes": {"s99": [0, 0]}},
    ],
)
def test_a_damaged_note_is_as_none(before, notes, monkeypatch, noted):
    graph, _ = capture_of(field := Field(), "cpu", None)(torch.zeros(4, 3), by_sample=False)
    for path in notes:
        path.write_text(noted if isinstance(noted, str) else json.dumps(noted))
    assert compiled_earlier(path.stem, graph) is None
    if "graph" not in noted or noted["graph"] == 4:
        monkeypatch.setattr("node_cli.ode.graphs.lowering.machine_code", in_no_cache)
        torch.testing.assert_close(solved(4, field), before[0][4], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("place", [1, [0], [0, "0"], ["0", 0], [0, 0, 0], [0, 0.5]])
def test_a_place_of_a_size_is_two_whole_numbers(notes, place):
    graph, _ = capture_of(Field(), "cpu", None)(torch.zeros(4, 3), by_sample=False)
    (name,) = graph.sizes
    path = next(path for path, text in notes.items() if "graph" in text)
    path.write_text(json.dumps({**json.loads(notes[path]), "sizes": {name: place}}))
    assert compiled_earlier(path.stem, graph) is None


def in_no_cache(graph, *, is_cpu, meanwhile):
    return lambda arguments: graph(*arguments), None


def test_steps_that_keep_something_else_have_nothing_to_do_with_those_of_an_earlier_process(
    before, notes, caplog, monkeypatch
):
    """As where another process had cut the graph of a step elsewhere; the next one has nothing to do with that."""
    for path, text in notes.items():
        if '"digest"' in text:
            path.write_text(json.dumps({**json.loads(text), "digest": "other"}))
            cut, right = path, text
    torch.testing.assert_close(solved(4), before[0][4], rtol=1e-5, atol=1e-6)
    (line,) = [line for line in caplog.messages if "cannot compile this vector field as a whole" in line]
    assert "what is kept of a step is not what an earlier process has kept" in line
    assert cut.read_text() == right
    nothing_is_traced(monkeypatch)
    assert solved(4) == before[0][4]


def test_a_size_that_was_fixed_while_compiling_is_given_all_the_same_and_not_noted(before):
    graph, _ = capture_of(Field(), "cpu", None)(torch.zeros(4, 3), by_sample=False)
    like = Examples(graph, by_sample=False)

    def fixed(y, *inputs):
        return (int(y.shape[0]) * y,)

    run = like.compiled((fixed, lambda: [like.y()]), None, "fixed")
    assert run([torch.ones(4, 3), *graph.inputs])[0].sum() == 48
    assert recall(key_of(graph, "fixed")) == {}


def key(field=None, y=None, what="w"):
    field, y = field or Field(), torch.zeros(4, 3) if y is None else y
    return key_of(Capture(field, "cpu")(y, by_sample=False)[0], what)


def test_the_same_field_has_the_same_key_and_another_one_another(monkeypatch):
    other = Field()
    other.layer.weight.data += 1
    assert key() == key(other) is not None
    frozen = Field()
    frozen.layer.bias.requires_grad_(False)
    keys = [
        key(),
        key(what="x"),
        key(Field(rate=0.25)),
        key(Field(activation=torch.sin)),
        key(Field().double(), torch.zeros(4, 3, dtype=torch.float64)),
        key(y=torch.zeros(5, 3)),  # what a step keeps may depend on it
        key(frozen),
    ]
    with config.patch({"cpp.simdlen": 1}):
        keys.append(key())
    with functorch.patch(ban_recompute_reductions=False):
        keys.append(key())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        keys.append(key())
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(remembered, "SOURCE", "another version")
    keys.append(key())
    assert len({*keys, None}) == len(keys) + 1


@torch.library.custom_op("test_remembered::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


twice.register_fake(torch.empty_like)


@torch._dynamo.allow_in_graph
def allowed(x):
    return 2 * x


@torch._dynamo.allow_in_graph
@wraps(silu)
def renamed(x):
    return 2 * x


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("numbers", torch.ones(3))

    def forward(self, y):
        return y * self.numbers


@pytest.mark.parametrize("function", [twice, allowed, renamed])
def test_what_another_process_may_have_otherwise_has_no_key(function):
    assert key(Field(activation=function)) is None


def test_a_graph_with_a_tensor_of_its_own_or_a_module_is_not_described():
    graph = torch.fx.symbolic_trace(Constant())
    with pytest.raises(NotWhole, match="a tensor of its own"):
        list(_operations(graph))
    with pytest.raises(NotWhole, match="calls a module"):
        list(_operations(torch.fx.symbolic_trace(nn.Sequential(nn.Tanh()))))


def test_without_the_cache_of_the_compiler_and_for_norms_of_ones_own_there_is_no_key():
    graph = Capture(Field(), "cpu")(torch.zeros(4, 3), by_sample=False)[0]
    for switch in ({"fx_graph_cache": False}, {"force_disable_caches": True}):
        with config.patch(switch):
            assert key_of(graph, "w") is None
    for norm in (lambda ratios: ratios.amax(), partial(rms), nn.Identity(), of_ones_own):
        assert control(norm=norm).description is None
    assert key_of(graph, None) is None
    with config.patch(_pre_fusion_custom_pass=lambda nodes: nodes):
        assert key_of(graph, "w") is None
    assert key_of(graph, control().description) is not None
    remember(None, {"graph": "f"})
    assert recall(None) == {}
    assert compiled_earlier(None, graph) is None


def of_ones_own(ratios):
    return ratios.amax()


def control(norm=rms, safety=0.9, **changed):
    settings = {"max_step": 1.0, "is_joint": True, "stepping_onto": False, "tolerance_shapes": (torch.Size([]),)}
    return Control(norm, controller=Controller(4, safety, 10.0, 0.2, 0.0, 1.0, 0.0), **{**settings, **changed})


def test_two_ways_to_control_steps_are_described_alike_only_if_they_are_equal():
    others = [control(norm=largest), control(safety=0.8), control(max_step=2.0), control(is_joint=False)]
    others += [control(stepping_onto=True), control(tolerance_shapes=(torch.Size([3]),))]
    assert len({control().description, *(each.description for each in others)}) == 1 + len(others)
    assert control().description == control().description

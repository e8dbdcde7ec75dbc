"""`odeint` in the place of torchdiffeq's: each line of the table in docs/engine.md, and its two demos in small."""

import inspect
import re
from collections import namedtuple
from pathlib import Path

import pytest
import torch
import torchdiffeq
from parts import make_gradient, make_solver
from problems import Wave, times
from torch import nn
from torchdiffeq._impl.odeint import SOLVERS

from node_cli import ode
from node_cli.models.ode_block import OdeBlock
from node_cli.ode import SolveError, Status, arguments, odeint, odeint_adjoint, odeint_event, solve

pytestmark = pytest.mark.slow

DOUBLE = torch.float64
Y0 = torch.tensor([[0.4, -0.2, 0.8], [1.0, 0.3, -0.5]], dtype=DOUBLE)
TS = times(0, 0.3, 1)
PAGE = Path(__file__).parents[2] / "docs/engine.md"
TABLES = PAGE.read_text(encoding="utf-8").partition("### Compared with torchdiffeq")[2]


def rows(head):
    """The first cells of a table in the docs."""
    table = TABLES.partition(f"| {head} | here |\n")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def both(function="odeint", field=Wave, y0=Y0, ts=TS, **keys):
    return [getattr(module, function)(field(), y0, ts, **keys) for module in (ode, torchdiffeq)]


def grads(module, keys, name="odeint_adjoint"):
    field, y0, ts = Wave(), Y0.clone().requires_grad_(), TS.clone().requires_grad_()
    keys = {key: value(field) if key == "adjoint_params" else value for key, value in keys.items()}
    (getattr(module, name)(field, y0, ts, **keys) ** 2).sum().backward()
    return [y0.grad, ts.grad, *(parameter.grad for parameter in field.parameters())]


# The table


def test_every_argument_method_and_option_of_torchdiffeq_has_a_line():
    assert rows("argument") == list(inspect.signature(torchdiffeq.odeint_adjoint).parameters)
    assert set(inspect.signature(torchdiffeq.odeint).parameters) < set(rows("argument"))
    assert set(rows("method")) == set(SOLVERS)
    constructors = [base.__init__ for solver in SOLVERS.values() for base in solver.__mro__]
    options = {key for init in constructors for key in inspect.signature(init).parameters}
    others = {"self", "args", "kwargs", "unused_kwargs", "func", "y0", "rtol", "atol", "implicit"}
    assert set(rows("option")) == options - others
    assert set(rows("method")) <= set(arguments.METHODS)


OPTIONS = {
    "first_step": ("dopri5", 0.05),
    "min_step": ("dopri5", 0.25),
    "max_step": ("dopri5", 0.1),
    "safety": ("dopri5", 0.8),
    "ifactor": ("dopri5", 4.0),
    "dfactor": ("dopri5", 0.3),
    "max_num_steps": ("dopri5", 500),
    "dtype": ("dopri5", DOUBLE),
    "step_t": ("dopri5", torch.tensor([0.7, 0.2])),
    "jump_t": ("dopri5", torch.tensor([0.5])),
    "norm": ("dopri5", lambda y: y.abs().max()),
    "step_size": ("rk4", 0.07),
    "grid_constructor": ("midpoint", lambda func, y0, t: torch.linspace(0, 1, 21, dtype=DOUBLE)),
    "interp": ("heun2", "cubic"),
    "perturb": ("euler", True),
    "max_order": ("explicit_adams", 5),
    "max_iters": ("implicit_adams", 6),
    "solver": ("scipy_solver", "RK23"),
}


@pytest.mark.filterwarnings("ignore:The following arguments have no effect")  # of scipy, about torchdiffeq
@pytest.mark.parametrize("option", OPTIONS)
def test_options_have_torchdiffeqs_meaning(option):
    method, value = OPTIONS[option]
    keys = {"method": method, "options": {option: value}}
    if method in (*arguments.ON_GRID, *arguments.THEIRS):
        keys["options"] |= {} if option in ("step_size", "grid_constructor") else {"step_size": 0.07}
    field = (lambda: Wave().requires_grad_(False)) if method == "scipy_solver" else Wave
    ours, theirs = both(field=field, **keys)
    is_same = option == "min_step" or method not in ("dopri5", "scipy_solver")
    tolerance = 1e-12 if is_same else 3e-6  # other steps at the same tolerance
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def test_every_option_is_tried():
    assert set(OPTIONS) == set(rows("option"))


@pytest.mark.parametrize("method", [*SOLVERS])
@pytest.mark.parametrize("ts", [TS, TS.flip(0)], ids=["forward", "reversed"])
def test_methods_by_their_names(method, ts):
    is_adaptive = method in (*arguments.ADAPTIVE, "scipy_solver")
    field = (lambda: Wave().requires_grad_(False)) if method == "scipy_solver" else Wave
    ours, theirs = both(field=field, ts=ts, method=method, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3 if is_adaptive else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("method", [*SOLVERS])
def test_one_time_alone_is_its_own_solution(method, dtype):
    y0 = Y0.to(dtype, copy=True).requires_grad_()
    ys = odeint(Wave(dtype=dtype), y0, TS[:1], method=method)
    assert torch.equal(ys, y0[None])
    ys.sum().backward()
    assert torch.equal(y0.grad, torch.ones_like(y0))


def test_arguments_by_position_and_by_either_name():
    expected = odeint(Wave(), Y0, TS, rtol=1e-4, atol=1e-5, method="bosh3", options={"max_step": 0.2})
    for ys in (
        odeint(Wave(), Y0, TS, 1e-4, 1e-5, "bosh3", {"max_step": 0.2}),
        odeint(func=Wave(), y0=Y0, t=TS.numpy(), rtol=1e-4, atol=1e-5, method="bosh3", max_step=0.2),
        odeint(Wave(), Y0, TS.tolist(), rtol=torch.tensor(1e-4, dtype=DOUBLE), atol=1e-5, method="bosh3", max_step=0.2),
    ):
        torch.testing.assert_close(ys, expected, rtol=0, atol=0)
    with pytest.raises(TypeError, match="ts and t are the same argument"):
        odeint(Wave(), Y0, t=TS, ts=TS)


def test_tolerances_for_each_part_and_each_number():
    def field(t, y):
        return -y[0], t * y[1]

    for keys in ({"rtol": (1e-5, 1e-7), "atol": [1e-6, 1e-9]}, {"rtol": 0, "atol": 1e-8}, {"rtol": 1e-8, "atol": 0.0}):
        ours, theirs = both(field=lambda: field, y0=(Y0, Y0[0]), **keys)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    ours, theirs = both(atol=torch.tensor([1e-5, 1e-6, 1e-7]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


REFUSED = [
    ({"event_fn": lambda t, y: y}, "event_fn is not supported: solve to a fixed time"),
    ({"options": {"dtype": torch.float32}}, "dtype must be torch.float64: times are always kept in it"),
    ({"options": {"max_step": 1.0}, "max_step": 1.0}, "max_step is given in options and as a keyword: leave one out"),
    ({"options": {"jump_t": [0.5, 0.5]}}, "step_t and jump_t must not repeat a time"),
    ({"options": {"grid_points": 1}}, "unknown option grid_points: this method takes norm, first_step"),
    ({"rtol": (1e-3,), "y0": (Y0, Y0)}, "rtol must be a number, or one for each of the 2 parts of the state"),
    (
        {"atol": torch.ones(5)},
        "a tensor of tolerances must broadcast with the state, got (5,) for a state",
    ),
    ({"atol": torch.ones(3, requires_grad=True)}, "atol must have no gradient: detach it"),
    ({"rtol": 1e-12, "atol": 1e-14, "y0": Y0.float()}, "rtol=1e-12 and atol=1e-14 are below what a state in float32"),
    ({"y0": Y0 + 1j}, "y0 must be real"),
    ({"y0": "one"}, "y0 must be a tensor, a number, or a tuple, list, dict or named tuple of them, got str"),
    ({"ts": 1.0}, "ts must be a tensor, an array or a list of times, got float"),
    ({"func": lambda t, y: 0.0}, "the vector field must return a tensor, got float"),
    ({"func": lambda t, y: (y[0],), "y0": (Y0, Y0)}, "the vector field must return what the state is made of"),
    ({"ts": 1.7e9 + TS, "y0": Y0.float()}, "ts from 1700000000 to 1700000001 are too close for their size"),
    (
        {"batching": "per_sample", "y0": (Y0, Y0[0])},
        "batching=per_sample, and ts of each sample's own, need parts of the state that share",
    ),
    ({"batching": "per_sample", "norm": torch.norm}, "norm must be rms or max with batching=per_sample"),
]


@pytest.mark.parametrize(("keys", "line"), REFUSED)
def test_refuses_in_one_line(keys, line):
    with pytest.raises(ValueError) as error:
        odeint(**{"func": Wave(), "y0": Y0, "ts": TS, **keys})
    assert str(error.value).startswith(line)


def test_a_norm_may_return_a_number():
    by_function = solve(Wave(), Y0, TS, norm=lambda y: float(y.abs().max()))
    by_name = solve(Wave(), Y0, TS, norm="max")
    assert by_function.stats == by_name.stats
    assert torch.equal(by_function.ys, by_name.ys)


@pytest.mark.parametrize("place", ["class", "attribute", "module", "function"])
def test_refuses_a_callback_wherever_the_vector_field_has_it(place):
    kind = type("Called", (Wave,), {"callback_step": lambda *_: None}) if place == "class" else Wave
    field = kind() if place != "function" else lambda t, y: -y
    if place != "class":
        field.callback_step = nn.Identity() if place == "module" else print
    with pytest.raises(ValueError, match="callback_step of the vector field would not be called"):
        odeint(field, Y0, TS)


def test_refuses_what_would_be_ignored():
    with pytest.raises(ValueError, match="event_fn is not supported"):
        odeint_event(Wave(), Y0, TS[0], event_fn=print)
    with pytest.raises(ValueError, match="adjoint_method differs from method and needs adjoint_options"):
        odeint_adjoint(Wave(), Y0, TS, options={"max_step": 1.0}, adjoint_method="bosh3")
    with pytest.raises(ValueError, match="jump_t must be in options too, as both solves stop at the same times"):
        odeint_adjoint(Wave(), Y0, TS, adjoint_options={"jump_t": [0.5]})


# The adjoint


ADJOINTS = {
    "alone": {},
    "seminorm": {"adjoint_options": {"norm": "seminorm"}},
    "norm": {"adjoint_options": {"norm": lambda state: max(part.abs().max() for part in state)}},
    "tolerances": {"adjoint_rtol": 1e-9, "adjoint_atol": 1e-9},
    "method": {"adjoint_method": "bosh3", "adjoint_atol": 1e-7},
    "grid": {"method": "rk4", "options": {"step_size": 0.05}},
    "one parameter": {"adjoint_params": lambda field: tuple(field.parameters())[:1]},
    "no parameters": {"adjoint_params": lambda field: ()},
    "a jump": {"options": {"jump_t": torch.tensor([0.5])}},
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_gradients_of_the_adjoint_are_torchdiffeqs(name):
    ours, theirs = grads(ode, ADJOINTS[name]), grads(torchdiffeq, ADJOINTS[name])
    assert [grad is None for grad in ours] == [grad is None for grad in theirs]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


# Jumps


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("method", ["dopri5", "bosh3", "adaptive_heun"])
def test_a_jump_that_is_known_costs_less_and_keeps_its_gradient(method, gradient):
    rate = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)

    def field(t, y):
        return -rate * y if t < 0.5 else y**2

    y0 = torch.tensor([1.0, 2.0], dtype=DOUBLE)
    solutions = []
    for options in ({}, {"jump_t": [0.5]}):
        solutions.append(solve(field, y0 / 2, times(0, 1), 1e-5, 1e-6, method, options, gradient=gradient))
    blind, told = solutions
    assert told.stats.nfe < blind.stats.nfe
    half = y0 / 2 * torch.exp(-rate / 2)
    exact = half / (1 - half / 2)
    torch.testing.assert_close(told.ys[-1], exact, rtol=1e-4, atol=0)
    wanted = torch.autograd.grad(exact.sum(), rate)[0]
    torch.testing.assert_close(torch.autograd.grad(told.ys[-1].sum(), rate)[0], wanted, rtol=1e-3, atol=0)
    assert (told.backward_stats.nfe > 0) == (gradient != "direct")


# States of any structure


Pair = namedtuple("Pair", "x v")


@pytest.mark.parametrize(
    ("y0", "field"),
    [
        ({"x": Y0, "v": 2.0}, lambda t, y: {"v": -y["v"], "x": -y["x"]}),
        ([Y0, Y0[0]], lambda t, y: [-part for part in y]),
        ((Y0, Y0[0]), lambda t, y: [-part for part in y]),
        (Pair(Y0, Y0[0]), lambda t, y: Pair(-y.x, -y.v)),
        (((Y0,), {"a": Y0[0]}), lambda t, y: ((-y[0][0],), {"a": -y[1]["a"]})),
        (1.5, lambda t, y: -y),
    ],
)
def test_states_of_any_structure(y0, field):
    ys = odeint(field, y0, TS, rtol=1e-6, atol=1e-6)
    assert type(ys) is (torch.Tensor if isinstance(y0, float) else type(y0))
    leaves, ends = torch.utils._pytree.tree_leaves(y0), torch.utils._pytree.tree_leaves(ys)
    for start, end in zip(leaves, ends, strict=True):
        assert end[0].dtype == (DOUBLE if len(leaves) > 1 else torch.float32)
        torch.testing.assert_close(end[-1].double(), torch.as_tensor(start).double() / torch.e, rtol=1e-5, atol=1e-5)


def test_samples_of_parts_are_stepped_each_by_itself():
    def field(t, y):
        x, v = y
        assert t.shape == (2, 1)
        return v * t.cos(), -9 * x

    y0 = (torch.tensor([[1.0], [30.0]], dtype=DOUBLE), torch.tensor([[0.0], [5.0]], dtype=DOUBLE))
    together = odeint(field, y0, TS, rtol=1e-6, atol=1e-6, batching="per_sample")

    def one(t, y):
        return y[1] * t.cos(), -9 * y[0]

    alone = odeint(one, tuple(part[1:] for part in y0), TS, rtol=1e-6, atol=1e-6, batching="per_sample")
    for part, single in zip(together, alone, strict=True):
        assert torch.equal(part[:, 1:], single)


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_a_small_part_is_held_to_the_tolerance_beside_a_large_one(gradient):
    rate = torch.tensor(3.0, dtype=DOUBLE, requires_grad=True)

    def field(t, y):
        return -0.1 * y[0], torch.stack([rate * y[1][1], -rate * y[1][0]])

    errors = []
    for size in (1, 10_000):
        y0 = (torch.ones(size, dtype=DOUBLE), torch.tensor([1.0, 0.0], dtype=DOUBLE))
        end = odeint(field, y0, times(0, 5), 1e-6, 1e-6, gradient=gradient)[1][-1, 0]
        grad = torch.autograd.grad(end, rate)[0]
        exact = torch.tensor(15.0, dtype=DOUBLE)
        errors.append((abs(end.item() - exact.cos().item()), abs(grad.item() + 5 * exact.sin().item())))
    assert all(large < 3 * small + 1e-6 for small, large in zip(*errors, strict=True))


# The face of a notebook


def test_a_failure_speaks_of_arguments():
    with pytest.raises(SolveError) as error:
        odeint(lambda t, y: -y, Y0 * torch.nan, TS)
    assert error.value.status is Status.NON_FINITE_START
    assert "look for NaN and infinity in y0" in str(error.value)
    with pytest.raises(SolveError, match=r"reached max_steps\. Raise it, or raise rtol and atol$"):
        odeint(Wave(), Y0, TS, max_steps=3)
    with pytest.raises(SolveError, match="Radau cannot go on: array must not contain infs"):
        odeint(lambda t, y: 1e305 * torch.sin(1e10 * y), Y0, TS, method="scipy_solver", options={"solver": "Radau"})


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of the compiler itself
@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_a_compiled_field_and_a_compiled_model(gradient):
    field = Wave()
    expected = odeint(field, Y0, TS, gradient=gradient)[-1]
    compiled = odeint(torch.compile(field, backend="eager"), Y0, TS, gradient=gradient)[-1]
    model = torch.compile(lambda y: odeint(field, y, TS, gradient=gradient)[-1], backend="eager")
    for got in (compiled, model(Y0), model(Y0)):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_compiled_model_with_an_ode_block():
    keys = {"t0": 0.0, "t1": 1.0, "learn_times": False}
    block = OdeBlock(Wave(), make_solver("dopri5"), make_gradient("direct"), **keys).eval()
    compiled = torch.compile(nn.Sequential(block, nn.Tanh()), backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(Y0), block(Y0).tanh(), rtol=1e-12, atol=1e-12)


# torchdiffeq's demos, with one import changed


class Spiral(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, t, y):
        return self.net(y**3)


@pytest.mark.parametrize("function", ["odeint", "odeint_adjoint"])
def test_the_demo_of_a_spiral(function):
    matrix, losses = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]]), []
    for module in (ode, torchdiffeq):
        torch.manual_seed(1)
        integrate, t = getattr(module, function), torch.linspace(0.0, 5.0, 50)
        with torch.no_grad():
            truth = module.odeint(lambda t, y: torch.mm(y**3, matrix), torch.tensor([[2.0, 0.0]]), t, method="dopri5")
        func = Spiral()
        optimizer = torch.optim.RMSprop(func.parameters(), lr=1e-3)
        for _ in range(2):
            optimizer.zero_grad()
            starts = torch.randint(0, 40, (5,))
            target = torch.stack([truth[starts + i] for i in range(10)])
            loss = torch.mean(torch.abs(integrate(func, truth[starts], t[:10]) - target))
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Convolutions(nn.Module):
    """With time as a channel, as in the MNIST demo; smooth, so that two solves can be compared."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3, 1, 1)

    def forward(self, t, x):
        return torch.tanh(self.conv(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1)))


@pytest.mark.parametrize("function", ["odeint", "odeint_adjoint"])
def test_the_block_of_the_mnist_demo(function):
    found = []
    for module in (ode, torchdiffeq):
        odefunc, x = Convolutions(), torch.linspace(-1, 1, 100).view(2, 2, 5, 5)
        integration_time = torch.tensor([0, 1]).float()
        out = getattr(module, function)(odefunc, x, integration_time.type_as(x), rtol=1e-6, atol=1e-6)
        out[1].square().mean().backward()
        found.append([out[1].detach(), *(parameter.grad for parameter in odefunc.parameters())])
    torch.testing.assert_close(*found, rtol=0, atol=2e-3)

"""What the tests of the gradients share: solvers by method, a loss that hears of every output, and comparisons."""

from dataclasses import dataclass, replace
from functools import cache

import torch
from parts import make_gradient, make_solver
from problems import Wave, times
from torch import Tensor

from node_cli.ode.solution import FirstSteps, Solution
from node_cli.ode.tableaus import ADAPTIVE_METHODS

GRADIENTS = ["direct", "checkpoint", "adjoint"]
EXACT = ["direct", "checkpoint"]
STARTS = [[0.4, -0.2, 0.8], [5.0, 0.1, -4.5], [1.0, 0.0, 0.3]]  # the second sample needs the shortest steps
FORWARD, BACKWARD = (0.0, 0.6, 0.9, 1.5), (1.5, 0.9, 0.6, 0.0)


def fixed(method="rk4", **grid):
    return replace(make_solver("rk4"), **{"method": method, "num_steps": None, **grid})


def adaptive(method="dopri5", **keys):
    return replace(make_solver("dopri5"), **{"method": method, "first_step": "chosen", **keys})


def tight(method="dopri8", tolerance=1e-11):
    return adaptive(method, rtol=tolerance, atol=tolerance)


def adaptive_cases():
    """Method, outputs and batching, all that go together."""
    return [
        (method, outputs, batching)
        for method in ADAPTIVE_METHODS
        for outputs in ("interpolate", "step")
        for batching in ("joint", "per_sample")
    ]


def solve(gradient, solver, vector_field, y0, ts, first_steps=None, **keys):
    """A solve whose gradient is given by its name in `configs/gradient`."""
    part = make_gradient(gradient, **keys)
    part.check(solver)
    return part.solve(solver, vector_field, y0, ts, first_steps or FirstSteps())


def start(dtype=torch.float64, requires_grad=True):
    return torch.tensor(STARTS, dtype=dtype, requires_grad=requires_grad)


def loss_of(ys):
    """Hears of every entry at every output time, of each with another weight."""
    weights = torch.linspace(-1, 2, ys.numel(), dtype=ys.dtype).view(ys.shape).sin()
    return (weights * (ys.sin() + ys**2 / 9)).sum()


@dataclass
class Run:
    solution: Solution
    grads: dict[str, Tensor]


def run(gradient, solver, ts=FORWARD, *, field=None, dtype=torch.float64, **keys):
    """A solve from `start` and the gradients of everything that it depends on."""
    field = field or Wave(dtype=dtype)
    y0, ts = start(dtype), times(*ts, requires_grad=True)
    solution = solve(gradient, solver, field, y0, ts, **keys)
    inputs = {"y0": y0, "ts": ts, **dict(field.named_parameters())}
    grads = torch.autograd.grad(loss_of(solution.ys), list(inputs.values()))
    return Run(solution, dict(zip(inputs, grads, strict=True)))


@cache
def exact_grads(ts=FORWARD):
    """Of `run`, to many more digits than any test asks for."""
    return run("direct", tight(), ts).grads


def assert_close(found, expected, rtol):
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        difference = (found[name] - grad).norm() / grad.norm()
        assert difference <= rtol, f"{name}: {difference:.2g}"


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    different = [name for name, grad in expected.items() if not torch.equal(found[name], grad)]
    assert not different


def in_one_vector(states, y0, ts, field=None):
    """`states(field, y0, ts)` as a function of one vector of all that it depends on, and that vector.

    A check along one direction is then one of state, times and parameters together. Times without a gradient stay.
    """
    field = field or Wave()
    inputs = {"y0": y0, **({"ts": ts} if ts.requires_grad else {}), **dict(field.named_parameters())}

    def of_vector(vector):
        parts = vector.split([value.numel() for value in inputs.values()])
        values = {name: part.view_as(inputs[name]) for name, part in zip(inputs, parts, strict=True)}
        y0, moved = values.pop("y0"), values.pop("ts", ts)
        return states(lambda t, y: torch.func.functional_call(field, values, (t, y)), y0, moved)

    return of_vector, torch.cat([value.detach().flatten() for value in inputs.values()]).requires_grad_()


def check_finite_differences(states, ts, y0=None):
    """Of `states(field, y0, ts)`; gradcheck also holds that a second backward pass gives the same."""
    of_vector, vector = in_one_vector(states, start() if y0 is None else y0, ts)
    assert torch.autograd.gradcheck(of_vector, vector, eps=1e-5, atol=1e-9, rtol=1e-8, fast_mode=True)

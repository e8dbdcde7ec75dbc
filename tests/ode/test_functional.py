"""The solve for notebooks: what torchdiffeq's `odeint` gives, from an import of ours."""

import inspect

import pytest
import torch
import torchdiffeq
from parts import ADAPTIVE, FIXED, load, make_gradient, make_solver
from problems import HARD_PROBLEMS, LOGISTIC, Growth, Wave, times

from node_cli import ode
from node_cli.ode import SolveError, Status, arguments, odeint, solve
from node_cli.ode.arguments import METHODS, solver_of
from node_cli.ode.functional import _GRADIENTS

Y0 = torch.tensor([[0.4, -0.2, 0.8], [1.0, 0.3, -0.5]], dtype=torch.float64)
TS = times(0, 0.3, 1)
OF_A_NOTEBOOK = {
    "on_failure": 0,
    "fallback_steps": 0,
    "accepts_min_step": 0,
    "passes_outputs": 0,
}  # not in a config


def refusal(y0=Y0, ts=TS, **keys):
    with pytest.raises(ValueError) as error:
        odeint(Wave(), y0, ts, **keys)
    return str(error.value)


# torchdiffeq with another import


@pytest.mark.parametrize("ts", [TS, TS.flip(0), TS[1:], torch.tensor([0.0, 1.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("keys", [{}, {"method": "dopri8"}, {"method": "bosh3"}, {"method": "dopri5"}])
def test_states_are_those_of_torchdiffeq(keys, dtype, ts):
    """Of its dopri5: what its other methods interpolate is further from the truth than their tolerance."""
    field, tolerance = Wave(dtype=dtype), 5e-5 if dtype == torch.float32 else 1e-6
    tolerances = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {}
    ours = odeint(field, Y0.to(dtype), ts, **keys, **tolerances)
    theirs = torchdiffeq.odeint(field, Y0.to(dtype), ts, **tolerances)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("method", "theirs"), [("euler", "euler"), ("midpoint", "midpoint"), ("heun", "heun2"), ("rk4", "rk4")]
)
@pytest.mark.parametrize("step_size", [None, 0.07, 0.11, 5.0])
def test_fixed_steps_are_those_of_torchdiffeq_to_rounding(method, theirs, step_size):
    """Also where steps run through the output times, which are then interpolated."""
    options = {} if step_size is None else {"step_size": step_size}
    field, ts = Wave(), times(0, 0.33, 0.99)
    expected = torchdiffeq.odeint(
        field, Y0, ts, method=theirs, options=None if step_size is None else {"step_size": step_size}
    )
    torch.testing.assert_close(odeint(field, Y0, ts, method=method, **options), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["van der Pol", "Brusselator"])
def test_hard_problems_are_solved_as_by_torchdiffeq(name):
    problem = HARD_PROBLEMS[name]
    y0, ts = torch.tensor([problem.y0], dtype=torch.float64), torch.linspace(0, problem.t1, 7, dtype=torch.float64)
    ours, theirs = (module(problem.vector_field, y0, ts) for module in (odeint, torchdiffeq.odeint))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", _GRADIENTS)
def test_gradients_are_those_of_torchdiffeq(gradient):
    found = []
    for module, keys in ((odeint, {"gradient": gradient}), (torchdiffeq.odeint, {})):
        field, y0, ts = Wave(), Y0.clone().requires_grad_(), times(0, 0.3, 1, requires_grad=True)
        (module(field, y0, ts, rtol=1e-9, atol=1e-11, **keys) ** 2).sum().backward()
        found.append([y0.grad, ts.grad, *(parameter.grad for parameter in field.parameters())])
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_a_tuple_of_states_comes_back_as_torchdiffeq_gives_it():
    def field(t, y):
        position, velocity = y
        return velocity.sum(1), -torch.sin(position)[:, None] * torch.ones(2, 2, dtype=torch.float64)

    y0 = (Y0[:, 0], Y0[:, 1:])
    ours, theirs = (module(field, y0, TS) for module in (odeint, torchdiffeq.odeint))
    assert isinstance(ours, tuple)
    assert [part.shape for part in ours] == [(3, 2), (3, 2, 2)]
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gradient", _GRADIENTS)
def test_a_tuple_of_states_has_gradients(gradient):
    rates = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    y0 = (torch.tensor([2.0]).double().requires_grad_(), torch.tensor([[3.0]]).double().requires_grad_())

    def field(t, y):
        return rates[0] * y[0], rates[1] * y[1]

    solution = solve(field, y0, times(0, 1), rtol=1e-10, atol=1e-10, gradient=gradient)
    (solution.ys[0][-1].sum() + solution.ys[1][-1].sum()).backward()
    e = torch.exp(rates.detach())
    assert rates.grad.tolist() == pytest.approx([2 * e[0].item(), 3 * e[1].item()], rel=1e-8)
    assert [part.grad.item() for part in y0] == pytest.approx(e.tolist(), rel=1e-8)
    assert (solution.backward_stats.nfe > 0) == (gradient != "direct")


@pytest.mark.parametrize("name", ["odeint", "odeint_adjoint"])
def test_the_arguments_stand_in_torchdiffeqs_order(name):
    """Those that it takes by name only, too: its older versions take them by position."""
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (ode, torchdiffeq))
    assert list(ours)[3 : len(theirs)] == list(theirs)[3:]
    assert [ours[key].default for key in list(theirs)[3:]] == [value.default for value in theirs.values()][3:]


def test_solve_takes_what_odeint_takes():
    assert inspect.signature(solve).parameters == inspect.signature(odeint).parameters


# What stands in the YAMLs


@pytest.mark.parametrize("name", ADAPTIVE)
def test_defaults_of_adaptive_methods_are_those_of_their_yaml(name):
    yaml = make_solver(name)
    keys = {key: vars(yaml)[key] for key in ("first_step", "max_steps", "max_nfe")}
    ours = solver_of(name, yaml.rtol, yaml.atol, keys)[0]
    assert vars(ours) | OF_A_NOTEBOOK == vars(yaml) | OF_A_NOTEBOOK
    alone = solver_of(name, yaml.rtol, yaml.atol, {})[0]
    assert (alone.first_step, alone.max_nfe) == ("chosen", None)  # there is no block to carry a first step, nor a run
    assert alone.max_steps == 100_000  # which stands for the YAML's bound of evaluations


@pytest.mark.parametrize("name", FIXED)
def test_defaults_on_a_grid_are_those_of_their_yaml(name):
    yaml = make_solver(name)
    ours = solver_of({"rk4": "rk4_classic"}.get(name, name), 1e-3, 1e-3, {"num_steps": yaml.num_steps})[0]
    assert vars(ours) | OF_A_NOTEBOOK == vars(yaml) | OF_A_NOTEBOOK


@pytest.mark.parametrize("name", _GRADIENTS)
def test_a_gradient_by_name_is_that_of_its_yaml(name):
    assert _GRADIENTS[name] == make_gradient(name)


# Options


@pytest.mark.parametrize("method", METHODS)
def test_every_method_by_name(method):
    solution = solve(LOGISTIC.vector_field, LOGISTIC.y0(TS), TS, method=method, rtol=1e-4, atol=1e-4)
    assert LOGISTIC.error(solution, TS) < 0.03
    is_adaptive = method in (*arguments.ADAPTIVE, "fehlberg2", "scipy_solver")
    sizes = solution.stats.step_sizes
    assert (sizes == pytest.approx([0.3, 0.7])) != is_adaptive
    if method in {**arguments.ADAPTIVE, **arguments.ON_GRID}:
        steps = solve(LOGISTIC.vector_field, LOGISTIC.y0(TS), TS, method=method, num_steps=5).stats
        assert steps.num_accepted == 10


def test_options_reach_the_solver():
    def stats(**keys):
        return solve(LOGISTIC.vector_field, LOGISTIC.y0(TS), TS, rtol=1e-4, atol=1e-4, **keys).stats

    assert stats(first_step=0.05).step_sizes[0] == 0.05
    assert max(stats(max_step=0.02).step_sizes) <= 0.02 + 1e-12
    assert stats(method="euler", step_size=0.1).num_accepted == 10
    assert len(stats(batching="per_sample").step_sizes) > len(stats().step_sizes)
    assert stats(outputs="step", first_step=1.0).num_accepted > 1
    with pytest.raises(SolveError) as error:
        stats(max_nfe=3)
    assert error.value.status is Status.TOO_MANY_EVALUATIONS


def test_tolerances_of_channels():
    loose = odeint(Wave(), Y0, TS, rtol=1e-12, atol=1e-3)
    assert torch.equal(odeint(Wave(), Y0, TS, rtol=1e-12, atol=[1e-3] * 3), loose)


@pytest.mark.parametrize("gradient", _GRADIENTS)
def test_the_gradient_by_name_or_as_a_part(gradient):
    part = make_gradient(gradient)
    ends = []
    for given in (gradient, part):
        field = Growth(0.5)
        solution = solve(field, times(2.0), times(0, 1), gradient=given, rtol=1e-9, atol=1e-9)
        Growth.loss(solution.ys[-1]).backward()
        ends.append(field.alpha.grad.item())
    assert ends[0] == ends[1] == pytest.approx(Growth(0.5).gradients(2.0, 0, 1)["alpha"], rel=1e-7)


def test_a_solve_without_gradients_keeps_no_graph():
    field = Wave()
    with torch.no_grad():
        assert not odeint(field, Y0, TS).requires_grad
    assert odeint(field, Y0, TS).requires_grad


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"method": "dopri6"}, f"method must be one of {', '.join(METHODS)}, got dopri6"),
        ({"gradient": "magic"}, "gradient must be one of direct, checkpoint, adjoint, got magic"),
        (
            {"method": "rk4", "safty": 0.9, "norm": "max"},
            (
                "unknown option norm, safty: this method takes num_steps, step_size, max_nfe, compile, interp, "
                "grid_constructor, perturb"
            ),
        ),
        ({"num_steps": 0}, "num_steps must be positive, got 0"),
        ({"first_step": "carry"}, "first_step must be a number or one of chosen, carried, got carry"),
        ({"rtol": -1.0}, "rtol must be 0 or more, got -1.0"),
        ({"rtol": 0, "atol": 0}, "rtol and atol must not both be 0, got rtol=0 atol=0"),
        ({"y0": Y0.half()}, "y0 must be float32 or float64, got torch.float16: convert it with .float()"),
        ({"y0": (Y0, Y0.half())}, "y0 must be float32 or float64, got torch.float16: convert it with .float()"),
        ({"y0": Y0[:0]}, "y0 must not be empty, got shape [(0, 3)]"),
        ({"ts": times(0, 2, 1)}, "ts must be increasing or decreasing, got [0.0, 2.0, 1.0]"),
    ],
)
def test_refuses_in_one_line(keys, message):
    assert refusal(**keys) == message


def test_an_unknown_option_is_answered_by_all_that_there_are():
    yaml = set(load("solver", "dopri5")) - {"_target_", "method", "rtol", "atol", "on_failure", "fallback_steps"}
    message = refusal(optoins={"dtype": torch.float64})
    assert message.startswith("unknown option optoins: this method takes ")
    assert set(message.split("takes ")[1].split(", ")) == yaml | {"step_t", "jump_t"}


def test_a_failure_says_what_to_do():
    with pytest.raises(SolveError, match=r"^the ODE solve failed at t = 0 after 7 evaluations: the state is no longer"):
        odeint(lambda t, y: y * torch.nan, Y0, TS)

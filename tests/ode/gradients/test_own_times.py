"""Output times of each sample's own: a batch is what its samples are alone, and padding costs nothing."""

import math
from functools import cache

import pytest
import torch
from gradient_checks import (
    EXACT,
    GRADIENTS,
    adaptive,
    assert_close,
    assert_same,
    check_finite_differences,
    fixed,
    loss_of,
    solve,
    start,
    tight,
)
from problems import LOGISTIC, Growth, Wave

from node_cli.ode import SolveError, Status, odeint, odeint_adjoint
from node_cli.ode import solve as solve_by_name
from node_cli.ode.solution import FirstSteps

pytestmark = pytest.mark.slow


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


# Forwards, backwards, and a shorter one, which is padded; no two have a time in common.
TS = rows([0.0, 0.4, 0.7, 1.3, 1.45], [1.05, 0.9, 0.31, 0.05, -0.2], [-0.5, 0.45, 0.66, 0.66, 0.66])
LENGTHS = (5, 5, 3)
LOOSE = {"rtol": 1e3, "atol": 1e3, "first_step": 1.0}  # no error changes a step
PER_SAMPLE = {
    f"{method}, {outputs}": adaptive(method, rtol=tolerance, atol=tolerance, outputs=outputs, batching="per_sample")
    for method, outputs, tolerance in [("dopri5", "interpolate", 1e-5), ("bosh3", "step", 1e-4), ("heun", "step", 1e-3)]
}
GRIDS = {
    "num_steps": fixed("rk4", num_steps=2),
    "step_size": fixed("bosh3", step_size=0.23),
    "passing outputs": fixed("midpoint", step_size=0.23, passes_outputs=True),
}
JOINT = {
    "joint, interpolate": adaptive(rtol=1e-5, atol=1e-5, first_step="carried"),
    "joint, step": adaptive("tsit5", rtol=1e-5, atol=1e-5, outputs="step"),
    "joint, dopri8": adaptive("dopri8", rtol=1e-5, atol=1e-5),
}
ALL = PER_SAMPLE | GRIDS | JOINT


def run(gradient, solver, y0, ts, loss=loss_of, **keys):
    """A solve, and the gradients of a loss of its states."""
    field, y0, ts = Wave(), y0.detach().requires_grad_(), ts.detach().requires_grad_()
    solution = solve(gradient, solver, field, y0, ts, **keys)
    inputs = {"y0": y0, "ts": ts, **dict(field.named_parameters())}
    return solution, dict(zip(inputs, torch.autograd.grad(loss(solution.ys), list(inputs.values())), strict=True))


def run_alone(gradient, solver, y0, ts, lengths):
    """Each sample in a solve of its own, without padding; what they would be in a batch."""
    weights = torch.linspace(-1, 2, ts.shape[1] * y0.numel(), dtype=y0.dtype).view(ts.shape[1], *y0.shape).sin()

    def loss(ys, i):
        padded = torch.cat([ys, ys[-1:].expand(ts.shape[1] - len(ys), *ys.shape[1:])])
        return (weights[:, i : i + 1] * (padded.sin() + padded**2 / 9)).sum()

    solutions, grads = [], []
    for i, length in enumerate(lengths):
        found = run(gradient, solver, y0[i : i + 1], ts[i, :length], lambda ys, i=i: loss(ys, i))
        padding = (0, ts.shape[1] - length)
        found[1]["ts"] = torch.nn.functional.pad(found[1]["ts"], padding)
        solutions.append(torch.cat([found[0].ys, found[0].ys[-1:].expand(padding[1], -1, -1)]))
        grads.append(found[1])
    together = {key: sum(each[key] for each in grads) for key in grads[0]}
    together |= {"y0": torch.cat([each["y0"] for each in grads]), "ts": torch.stack([each["ts"] for each in grads])}
    return torch.cat(solutions, 1).detach(), together


# A batch, and its samples alone


def test_64_series_with_50_times_each_are_what_each_is_alone():
    """A few of them, of which alone the loss hears."""
    generator = torch.Generator().manual_seed(0)
    y0 = torch.randn(64, 3, dtype=torch.float64, generator=generator)
    ts = torch.rand(64, 50, dtype=torch.float64, generator=generator).cumsum(1) / 25
    solver, some = adaptive(rtol=1e-6, atol=1e-6, batching="per_sample"), slice(None, None, 13)
    ys, alone = run_alone("direct", solver, y0[some], ts[some], [50] * 5)
    for gradient, rtol in (("direct", 1e-12), ("checkpoint", 1e-12), ("adjoint", 1e-3)):
        solution, grads = run(gradient, solver, y0, ts, lambda ys: loss_of(ys[:, some]))
        torch.testing.assert_close(solution.ys[:, some], ys, rtol=1e-12, atol=1e-12)
        assert_close(grads | {key: grads[key][some] for key in ("y0", "ts")}, alone, rtol)


@pytest.mark.parametrize("name", [*PER_SAMPLE, *GRIDS])
def test_a_batch_is_what_its_samples_are_alone(name):
    ys, alone = run_alone("direct", ALL[name], start(), TS, LENGTHS)
    solution, grads = run("direct", ALL[name], start(), TS)
    torch.testing.assert_close(solution.ys, ys, rtol=1e-12, atol=1e-12)
    assert_close(grads, alone, 1e-11)


@cache
def run_alone_to_many_digits():
    return run_alone("direct", tight("dopri8"), start(), TS, LENGTHS)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("method", ["dopri5", "dopri8"])
def test_steps_of_one_size_come_to_the_same(method, gradient):
    ys, alone = run_alone_to_many_digits()
    solution, grads = run(gradient, tight(method, 1e-10), start(), TS)
    torch.testing.assert_close(solution.ys, ys, rtol=1e-7, atol=1e-8)
    assert_close(grads, alone, 1e-6)


@pytest.mark.parametrize("name", ALL)
def test_checkpoint_equals_direct_bit_for_bit(name):
    (solution, direct), (again, checkpoint) = (run(gradient, ALL[name], start(), TS) for gradient in EXACT)
    assert torch.equal(solution.ys, again.ys)
    assert_same(checkpoint, direct)


@pytest.mark.parametrize(
    "solver",
    [
        *GRIDS.values(),
        adaptive("dopri5", batching="per_sample", **LOOSE),
        adaptive("dopri5", **LOOSE),
        adaptive("bosh3", outputs="step", **LOOSE),
    ],
)
def test_gradients_are_those_of_finite_differences(solver):
    """Of the first times too; repetitions move with the time that they repeat. The steps keep their shares."""

    def states(field, y0, ts):
        repeated = torch.cat([ts[:2], torch.cat([ts[2:, :3], ts[2:, 2:3].expand(1, 2)], 1)])
        return solve("direct", solver, field, y0, repeated).ys

    check_finite_differences(states, TS.clone().requires_grad_())


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_of_exponential_growth_have_their_closed_form(gradient, batching):
    field, y0 = Growth(0.8), rows([0.5], [2.0], [1.5]).requires_grad_()
    ts = rows([0.0, 1.0], [0.5, -1.0], [3.0, 3.5]).requires_grad_()
    field.loss(solve(gradient, adaptive(rtol=1e-10, atol=1e-10, batching=batching), field, y0, ts).ys[-1]).backward()
    alone = [field.gradients(y.item(), *row.tolist()) for y, row in zip(y0, ts, strict=True)]
    assert field.alpha.grad.item() == pytest.approx(sum(each["alpha"] for each in alone), rel=1e-8)
    assert y0.grad.flatten().tolist() == pytest.approx([each["z0"] for each in alone], rel=1e-8)
    assert ts.grad.tolist() == [pytest.approx([each["t0"], each["t1"]], rel=1e-8) for each in alone]


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("bosh3", 3)])
def test_the_error_falls_with_the_order_of_the_method(method, order):
    y0, errors = LOGISTIC.y0(torch.zeros(1, dtype=torch.float64))[:, None], []
    exact = torch.stack([LOGISTIC.exact(row - row[0])[:, i] for i, row in enumerate(TS)], 1)[..., None]
    for num_steps in (8, 16):
        ys = fixed(method, num_steps=num_steps).integrate(LOGISTIC.vector_field, y0, TS).ys
        errors.append((ys - exact).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_second_derivatives_are_those_of_each_sample_alone():
    """Of a sample that has arrived, and one that is interpolated, too."""

    def second(y0, ts):
        ys = solve("direct", adaptive("bosh3", batching="per_sample", **LOOSE), Wave(), y0, ts).ys
        first = torch.autograd.grad(ys.sin().sum(), (y0, ts), create_graph=True)
        return torch.autograd.grad(first[0].pow(2).sum() + first[1].pow(2).sum(), (y0, ts))

    found = second(start(), TS.clone().requires_grad_())
    alone = [second(start().detach()[i : i + 1].requires_grad_(), TS[i].clone().requires_grad_()) for i in range(2)]
    torch.testing.assert_close(found[0][:2], torch.cat([each[0] for each in alone]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[1][:2], torch.stack([each[1] for each in alone]), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_no_sample_is_evaluated_outside_its_own_times(name):
    seen, ts = [], torch.cat([TS[:2], -0.5 + 1e-4 * torch.arange(5, dtype=torch.float64)[None]])

    def watched(t, y):
        seen.append(t.flatten())
        return Wave()(t, y)

    ALL[name].integrate(watched, start().detach(), ts)
    assert all(((ts.amin(1) <= t) & (t <= ts.amax(1))).all() for t in seen)


# Times that repeat


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ALL)
def test_repeated_times_cost_nothing_and_are_one_output_whose_gradient_the_first_one_has(name, gradient):
    once = [0, 0, 1, 2, 2, 3, 4, 4, 4, 4]
    plain, expected = run(gradient, ALL[name], start(), TS, lambda ys: loss_of(ys[once]))
    solution, grads = run(gradient, ALL[name], start(), TS[:, once])
    assert solution.stats == plain.stats
    assert torch.equal(solution.ys, plain.ys[once])
    first = torch.zeros(3, 10, dtype=torch.float64)
    first[:, [0, 2, 3, 5, 6]] = expected["ts"]
    assert_close(grads, expected | {"ts": first}, 1e-12)
    assert torch.equal(grads["ts"] == 0, first == 0)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ALL)
def test_a_sample_of_one_single_time_stays_where_it_is(name, gradient):
    solution, grads = run(gradient, ALL[name], start(), torch.where(torch.arange(3)[:, None] == 1, 0.3, TS))
    assert torch.equal(solution.ys[:, 1], start()[1].expand(5, 3))
    assert grads["ts"][1].tolist() == [0] * 5
    alone = start()[1].detach().requires_grad_()
    weights = torch.linspace(-1, 2, 45, dtype=torch.float64).view(5, 3, 3).sin()[:, 1]
    torch.testing.assert_close(
        grads["y0"][1], torch.autograd.grad((weights * (alone.sin() + alone**2 / 9)).sum(), alone)[0]
    )


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ALL)
def test_where_no_sample_has_anywhere_to_go_nothing_is_solved(name, gradient):
    for ts in (TS[:, :1], TS[:, :1].expand(3, 4)):
        y0 = start()
        solution = solve(gradient, ALL[name], Wave(), y0, ts.clone().requires_grad_())
        assert torch.equal(solution.ys, y0.expand(ts.shape[1], 3, 3))
        assert (solution.stats.num_accepted, solution.stats.step_sizes) == (0, [])
        assert torch.equal(torch.autograd.grad(solution.ys.sum(), y0)[0], torch.full_like(y0, ts.shape[1]))


# What steps of one size are


def test_a_step_has_one_length_for_all_and_is_cut_off_where_a_sample_arrives():
    steps = []
    solver = adaptive(rtol=1e-3, atol=1e-3, max_step=0.3)
    ts = rows([0.0, 2.0], [5.0, 4.2], [-1.0, -0.95])
    solution = solver.integrate(Wave(), start().detach(), ts, record=lambda step, y: steps.append((step, y)))
    lengths = torch.stack([torch.from_numpy(abs(step.t1 - step.t0)) for step, _ in steps])
    assert torch.equal(lengths.amax(1), torch.tensor(solution.stats.step_sizes, dtype=torch.float64))
    torch.testing.assert_close(lengths.sum(0), (ts[:, 1] - ts[:, 0]).abs(), rtol=1e-14, atol=0)
    assert (lengths[:, 2] > 0).tolist() == [True] + [False] * (len(steps) - 1)
    assert all(torch.equal(y[2], solution.ys[-1, 2]) for _, y in steps[1:])
    assert [steps[0][0].t1[i] for i in (0, 1)] == [lengths[0, 0], 5.0 - lengths[0, 0]]


@pytest.mark.parametrize("solver", [JOINT["joint, interpolate"], JOINT["joint, dopri8"], GRIDS["num_steps"]])
def test_rows_that_are_all_the_same_are_solved_as_one(solver):
    """With the common time, a 0-dim one, unless each row is to have a gradient."""
    ts, seen = rows(0.1, 0.1, 0.5, 1.2), []

    def watched(t, y):
        seen.append(t.shape)
        return Wave()(t, y)

    common = solve("direct", solver, watched, start(), ts[[0, 2, 3]])
    same = solve("direct", solver, watched, start(), ts.expand(3, 4))
    assert set(seen) == {()}
    assert torch.equal(same.ys, common.ys[[0, 0, 1, 2]])
    assert same.stats == common.stats
    own = solve("direct", solver, watched, start(), ts.expand(3, 4).clone().requires_grad_())
    assert seen[-1] == (3, 1)
    torch.testing.assert_close(own.ys, same.ys, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["scipy_solver", "heun3"])
def test_solvers_that_take_no_own_times_take_rows_that_are_all_the_same(method):
    field, ts = Wave().requires_grad_(False), rows(0.1, 0.1, 0.5, 1.2)
    ys = odeint(field, start(), ts.expand(3, 4), method=method)
    torch.testing.assert_close(ys, odeint(field, start(), ts[[0, 2, 3]], method=method)[[0, 0, 1, 2]])


def test_the_first_step_is_carried_over_where_all_have_one():
    first_steps = FirstSteps()
    solve("adjoint", JOINT["joint, interpolate"], Wave(), start(), TS, first_steps).ys.sum().backward()
    assert None not in (first_steps.forward, first_steps.backward)
    steps = []
    solver = JOINT["joint, interpolate"]
    solver.integrate(Wave(), start(), TS, first_step=0.0123, record=lambda step, y: steps.append(step))
    assert steps[0].t1[0] == 0.0123


def test_a_method_with_too_great_an_error_for_its_shortest_step_goes_on():
    solution = solve_by_name(lambda t, y: torch.cos(40 * t) * y, start(), TS, min_step=0.2)
    assert min(solution.stats.step_sizes[:-3]) == 0.2


# Failures, refusals


@pytest.mark.parametrize(
    ("solver", "status"),
    [
        (adaptive(), Status.STEP_UNDERFLOW),
        (adaptive(batching="per_sample"), Status.STEP_UNDERFLOW),
        (fixed(num_steps=20), Status.NON_FINITE),
    ],
)
def test_the_sample_that_fails_is_named(solver, status):
    with pytest.raises(SolveError, match=r"evaluations: sample 1: ") as error:
        solver.integrate(lambda t, y: y**2, rows([0.1], [1.0], [0.2]), rows([7.0, 12.0], [-0.5, 2.0], [1.0, 4.0]))
    assert error.value.status is status
    assert 0.5 - 1e-3 < error.value.t < 2


def test_a_sample_that_turns_nan_or_starts_as_nan_is_named():
    def turning(t, y):
        return torch.where(t > 9, torch.nan, -y)

    ts = rows([0.0, 2.0], [1.0, 3.0], [8.0, 10.0])
    with pytest.raises(SolveError, match=r"t = 9 after \d+ evaluations: sample 2: the state is no longer finite"):
        adaptive().integrate(turning, torch.ones(3, 1).double(), ts)
    with pytest.raises(
        SolveError, match=r"t = 1 after \d+ evaluations: sample 1: the state is not finite at the start"
    ):
        adaptive().integrate(turning, rows([0.0], [torch.nan], [1.0]), ts)


def test_too_many_steps_name_the_time_of_the_sample_that_is_last():
    with pytest.raises(SolveError, match="the steps reached max_steps") as error:
        adaptive(max_steps=3, max_step=0.1).integrate(Wave(), start(), rows([0.0, 0.2], [5.0, 9.0], [1.0, 1.5]))
    assert error.value.t == pytest.approx(5.3, abs=0.1)


OF_SAMPLE_1 = torch.arange(3)[:, None] == 1
NO_ROWS = "ts must be (times,), or (batch, times) with a row for each sample of the state (batch, ...), got "
NOT_TAKEN = (
    "ts of shape (3, 5) has times of each sample's own, which this solver does not take: take "
    'method="dopri5", method="rk4" or another Runge-Kutta method of our own'
)
NO_STOPS = "step_t and jump_t must be left out where each sample has its own ts, got ts (3, 5)"
REFUSED = [
    (TS[:2], {}, NO_ROWS + "(2, 5) for a state of shape (3, 3)"),
    (TS[:, :0], {}, NO_ROWS + "(3, 0)"),
    (TS[None], {}, "ts must be 1-dim with at least two times, got shape (1, 3, 5)"),
    (torch.where(OF_SAMPLE_1, rows(0, 1, 2, 1, 3), TS), {}, "ts of sample 1 must be increasing or decreasing, got [0"),
    (torch.where(OF_SAMPLE_1, torch.nan, TS), {}, "ts of sample 1 must be finite, got [nan,"),
    (torch.where(OF_SAMPLE_1, torch.inf, TS), {}, "ts of sample 1 must be finite, got [inf,"),
    (torch.where(OF_SAMPLE_1, 1e15 + TS, TS), {}, "ts of sample 1 from 1000000000000001 to 999999999999999.75 are too"),
    ([[0, 1], [0, 1, 2], [0, 1]], {}, "ts must be numbers, in rows of one length (repeat the last time of a row)"),
    *((TS, {"method": method}, NOT_TAKEN) for method in ("scipy_solver", "heun3", "implicit_adams")),
    *((TS, {key: [0.5]}, NO_STOPS) for key in ("step_t", "jump_t")),
]


@pytest.mark.parametrize(("ts", "keys", "message"), REFUSED)
def test_refuses_in_one_line(ts, keys, message):
    field = Wave().requires_grad_(False)
    for function in (odeint, odeint_adjoint):
        with pytest.raises(ValueError) as error:
            function(field, start(), ts, **keys)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)


def test_a_row_may_be_short_for_its_times_beside_a_longer_one():
    ts = rows([13.0, 13.0008], [0.0, 1.0], [2.0, 2.5])
    ys = odeint(lambda t, y: y, start().detach().float(), ts)
    torch.testing.assert_close(ys[1], ys[0] * (ts[:, 1:] - ts[:, :1]).exp().float(), rtol=1e-5, atol=0)


def test_a_state_without_samples_and_a_tuple_of_states_in_a_solver_are_refused():
    message = r"^ts must be \(times,\), or \(batch, times\) with a row .* for a state of shape "
    with pytest.raises(ValueError, match=message + r"\(\)$"):
        odeint(lambda t, y: -y, 1.0, TS)
    with pytest.raises(ValueError, match=message + r"\[\(3, 3\)\]$"):
        adaptive().integrate(lambda t, y: y, (start(),), TS)


# From Python


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_a_structured_state_is_solved_through_own_times(batching):
    y0 = {"place": rows([0.0], [1.0], [2.0]), "speed": rows(1.0, 0.5, -1.0)}
    seen = set()

    def field(t, y):
        seen.add(t.shape)
        return {"place": y["speed"][:, None], "speed": -t[:, 0] * 0 - y["place"][:, 0]}

    ys = odeint(field, y0, TS.tolist(), rtol=1e-10, atol=1e-10, batching=batching)
    away = TS.t() - TS[:, 0]
    assert seen == {(3, 1)}
    expected = y0["place"][:, 0] * away.cos() + y0["speed"] * away.sin()
    torch.testing.assert_close(ys["place"][..., 0], expected, rtol=1e-7, atol=1e-7)


def test_the_adjoint_takes_a_backward_solver_and_a_norm_of_its_own():
    grads = []
    for function, keys in (
        (odeint, {}),
        (odeint_adjoint, {"adjoint_method": "bosh3", "adjoint_options": {"norm": "seminorm"}}),
    ):
        field, ts = Wave(), TS.clone().requires_grad_()
        function(field, start(), ts, rtol=1e-8, atol=1e-8, **keys).sin().sum().backward()
        grads.append({"ts": ts.grad, **{name: each.grad for name, each in field.named_parameters()}})
    assert_close(grads[1], grads[0], 1e-5)

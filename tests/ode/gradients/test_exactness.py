"""`direct` and `checkpoint` are the derivative of the steps that were made, and equal each other.

Steps that the error chooses are held fixed, as shares of their interval. So such a solve is compared with a solve on
that grid, with `replay` (plain autograd over the recorded steps), and with finite differences at a tolerance so loose
that no error changes a step.
"""

import pytest
import torch
from gradient_checks import (
    BACKWARD,
    EXACT,
    FORWARD,
    GRADIENTS,
    adaptive,
    adaptive_cases,
    assert_close,
    assert_same,
    check_finite_differences,
    fixed,
    loss_of,
    run,
    solve,
    start,
    tight,
)
from problems import Growth, Wave, times

from node_cli.ode.gradients.replay import replay
from node_cli.ode.tableaus import ADAPTIVE_METHODS, TABLEAUS

pytestmark = pytest.mark.slow

REPEATED = (0.0, 0.0, 0.3, 0.3, 1.5, 1.5)
DIRECTIONS = pytest.mark.parametrize("ts", [FORWARD, BACKWARD], ids=["forward", "backward"])
GRIDS = {"num_steps": {"num_steps": 2}, "step_size": {"step_size": 0.25}}
ONE_WAY = {"num_steps": FORWARD, "step_size": BACKWARD, "joint": FORWARD, "per_sample": BACKWARD}  # either way, once


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", TABLEAUS)
def test_on_a_grid_it_is_the_derivative_of_the_discrete_solution(method, grid):
    solver, ts = fixed(method, **GRIDS[grid]), times(*ONE_WAY[grid], requires_grad=True)
    check_finite_differences(lambda f, y0, ts: solve("direct", solver, f, y0, ts).ys, ts)


@pytest.mark.parametrize(("method", "outputs", "batching"), adaptive_cases())
def test_in_steps_of_half_an_interval_it_is_the_derivative_of_the_discrete_solution(method, outputs, batching):
    ts = ONE_WAY[batching]
    first_step, num_steps = (1.0, 2) if outputs == "interpolate" else (0.4, 4)
    solver = adaptive(method, rtol=1e3, atol=1e3, outputs=outputs, batching=batching, first_step=first_step)
    stats = run("direct", solver, ts).solution.stats
    assert (stats.num_accepted, stats.num_rejected) == (num_steps, 0)
    check_finite_differences(lambda f, y0, ts: solve("direct", solver, f, y0, ts).ys, times(*ts, requires_grad=True))


def with_rejected_steps(method, outputs, batching):
    rtol = {2: 1e-2, 3: 1e-3}.get(TABLEAUS[method].order, 1e-5)
    return adaptive(method, rtol=rtol, atol=rtol, outputs=outputs, batching=batching, first_step=5.0)


def recorded(solver, y0, ts):
    """A solve with the steps that its gradient is told."""
    steps = []
    return solver.integrate(Wave(), y0.detach(), ts, record=lambda step, _: steps.append(step)), steps


def grads_of(ys, inputs):
    return dict(zip(inputs, torch.autograd.grad(loss_of(ys), list(inputs.values())), strict=True))


@DIRECTIONS
@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_with_chosen_steps_it_is_that_of_a_solve_on_their_grid(method, ts):
    solver = with_rejected_steps(method, "step", "joint")
    found = run("direct", solver, ts)
    field, y0, learned = Wave(), start(), times(*ts, requires_grad=True)
    solution, steps = recorded(solver, y0, learned)
    assert solution.stats.num_rejected > 0
    ends, outputs = [learned[0]], [0]
    for step in steps:
        begin, end = step.segment
        share = (step.t1 - ts[begin]) / (ts[end] - ts[begin])
        ends.append(learned[begin] + share * (learned[end] - learned[begin]))
        outputs += [len(ends) - 1] * len(step.ends)
    ys = solve("direct", fixed(method, num_steps=1), field, y0, torch.stack(ends)).ys[outputs]
    torch.testing.assert_close(ys, found.solution.ys, rtol=1e-12, atol=1e-12)
    assert_close(found.grads, grads_of(ys, {"y0": y0, "ts": learned, **dict(field.named_parameters())}), rtol=1e-11)


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize(("method", "outputs"), [("heun", "step"), ("bosh3", "interpolate"), ("dopri5", "step")])
def test_replay_is_the_derivative_at_fixed_steps(method, outputs, batching):
    solver, ts = with_rejected_steps(method, outputs, batching), times(*FORWARD)
    solution, steps = recorded(solver, start(), ts)
    assert solution.stats.num_rejected > 0
    check_finite_differences(lambda f, y0, ts: replay(solver.tableau, f, steps, y0, ts), ts)


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("method", "outputs", "batching"), adaptive_cases())
def test_with_chosen_steps_it_is_that_of_their_replay(method, outputs, batching, repeated):
    ts = REPEATED if repeated else ONE_WAY[batching]
    solver, field = with_rejected_steps(method, outputs, batching), Wave()
    y0, learned = start(), times(*ts, requires_grad=True)
    solution, steps = recorded(solver, y0, learned)
    ys = replay(solver.tableau, field, steps, y0, learned)
    torch.testing.assert_close(solution.ys, ys, rtol=1e-13, atol=1e-13)
    expected = grads_of(ys, {"y0": y0, "ts": learned, **dict(field.named_parameters())})
    found = run("direct", solver, ts).grads
    if repeated:
        for grads in (expected, found):
            grads["ts"] = grads["ts"].view(3, 2).sum(1)
    assert_close(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("method", "outputs"), [case[:2] for case in adaptive_cases() if case[2] == "per_sample"])
def test_per_sample_it_is_the_sum_over_samples_solved_alone(method, outputs):
    found = run("direct", with_rejected_steps(method, outputs, "per_sample"))
    solver, field, learned = with_rejected_steps(method, outputs, "joint"), Wave(), times(*FORWARD, requires_grad=True)
    starts = [y0[None].detach().requires_grad_() for y0 in start()]
    ys = torch.cat([solve("direct", solver, field, y0, learned).ys for y0 in starts], 1)
    torch.testing.assert_close(found.solution.ys, ys, rtol=1e-11, atol=1e-11)
    alone = dict(enumerate(starts))
    grads = grads_of(ys, {**alone, "ts": learned, **dict(field.named_parameters())})
    grads["y0"] = torch.cat([grads.pop(i) for i in alone])
    assert_close(found.grads, grads, rtol=1e-10)


def check_equality(solver, ts, dtype):
    direct, checkpoint = (run(gradient, solver, ts, dtype=dtype) for gradient in EXACT)
    assert torch.equal(checkpoint.solution.ys, direct.solution.ys)
    assert_same(checkpoint.grads, direct.grads)


@pytest.mark.parametrize(("grid", "dtype"), [*zip(GRIDS, [torch.float32, torch.float64], strict=True)])
@pytest.mark.parametrize("method", TABLEAUS)
def test_checkpoint_equals_direct_on_a_grid_bit_for_bit(method, grid, dtype):
    check_equality(fixed(method, **GRIDS[grid]), REPEATED, dtype)


@pytest.mark.parametrize(("ts", "dtype"), [(BACKWARD, torch.float32), (REPEATED, torch.float64)])
@pytest.mark.parametrize(("method", "outputs", "batching"), adaptive_cases())
def test_checkpoint_equals_direct_in_chosen_steps_bit_for_bit(method, outputs, batching, ts, dtype):
    check_equality(with_rejected_steps(method, outputs, batching), ts, dtype)


@pytest.mark.parametrize("ts", [(0.0, 1.0), (0.5, -1.0)], ids=["forward", "backward"])
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(
    "solver", [tight("dopri5"), tight("dopri8"), fixed("rk4", num_steps=80)], ids=lambda s: s.method
)
def test_gradients_of_exponential_growth_have_their_closed_form(solver, gradient, ts):
    field, y0, learned = Growth(0.8), times(0.5, requires_grad=True), times(*ts, requires_grad=True)
    field.loss(solve(gradient, solver, field, y0, learned).ys[-1]).backward()
    found = {"alpha": field.alpha.grad, "z0": y0.grad[0], "t0": learned.grad[0], "t1": learned.grad[1]}
    assert {key: value.item() for key, value in found.items()} == pytest.approx(field.gradients(0.5, *ts), rel=1e-8)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("batching", ["joint", "per_sample"])
def test_an_output_moves_with_its_own_time_where_a_step_happens_to_end(batching, gradient):
    solver = adaptive("dopri5", rtol=1e3, atol=1e3, batching=batching, first_step=1.0)  # two steps, to 0.75 and 1.5
    ts = times(0.0, 0.75, 1.5, requires_grad=True)
    ys = solve(gradient, solver, Wave(), start(), ts).ys
    ys[1].sum().backward()
    slope = Wave()(ts[1], ys[1]).sum()
    torch.testing.assert_close(ts.grad[1], slope.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("outputs", ["interpolate", "step"])
def test_equal_output_times_have_a_gradient_each(outputs, gradient):
    field, ts = Wave(), times(0.0, 0.5, 0.5, requires_grad=True)
    ys = solve(gradient, adaptive("dopri5", rtol=1e-9, atol=1e-9, outputs=outputs), field, start(), ts).ys
    (ys[1].sum() - 2 * ys[2].sum()).backward()
    slope = field(ts[1], ys[1]).sum().item()
    assert ts.grad[1:].tolist() == pytest.approx([slope, -2 * slope], rel=1e-6)


@pytest.mark.parametrize("method", ["bosh3", "dopri5"])
@pytest.mark.parametrize("gradient", EXACT)
def test_an_interpolated_output_of_a_state_without_dimension_moves_with_its_time_alone(gradient, method):
    y0, ts = torch.tensor(3.2, dtype=torch.float64), times(1, 2, 5, 8, requires_grad=True)
    w = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    ys = solve(gradient, adaptive(method), lambda t, y: w + 0 * y, y0, ts).ys
    found = torch.autograd.grad(ys[1], ts)[0]
    torch.testing.assert_close(found, times(-0.2, 0.2, 0, 0), rtol=0, atol=1e-9)

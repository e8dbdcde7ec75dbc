"""Samples that keep their own time and step: none sees the others."""

import numpy as np
import pytest
import torch
from parts import ADAPTIVE, load, make_solver
from problems import LOGISTIC, times

from node_cli.ode.solution import SolveError, Status

SHAPES = [(4,), (4, 3), (4, 2, 4, 4)]
RATES = torch.tensor([0.5, 3.0, 20.0, 90.0], dtype=torch.float64)
STEPS = [(name, outputs) for outputs in ("step", "interpolate") for name in ADAPTIVE]
SENSES = pytest.mark.parametrize("sign", [1, -1], ids=["forward", "backward"])


def make(name, **keys):
    return make_solver(name, batching="per_sample", **keys)


def relax(sign=1):
    """y' = rate (cos t - y): the first entry of the state `(batch, 2, ...)` of each sample, its rate, stays."""

    def field(t, y):
        rate, y = y[:, :1], y[:, 1:]
        return torch.cat([torch.zeros_like(rate), sign * rate * (torch.cos(t) - y)], 1)

    return field


def states(shape, dtype=torch.float64):
    """Four samples that differ in stiffness and in where they start."""
    y0 = torch.linspace(-1, 2, torch.Size(shape).numel(), dtype=dtype).view(shape)
    y0[:, 0] = RATES.view(-1, *(1,) * (len(shape) - 2)).to(dtype)
    return y0


def bend(t, y):
    """Of states of any shape, `(batch,)` too; each sample is as stiff as it is large."""
    return torch.cos(t) - y**3


def bend_back(t, y):
    return -bend(t, y)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "outputs"), STEPS)
@SENSES
def test_a_sample_alone_and_in_a_batch_agree_to_rounding(name, outputs, shape, sign):
    y0 = torch.linspace(-1, 6, torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    ts, field = sign * times(0, 0.1, 0.35, 0.8), bend if sign > 0 else bend_back
    solver = make(name, outputs=outputs)
    together = solver.integrate(field, y0, ts).ys
    alone = [solver.integrate(field, y0[i : i + 1], ts).ys for i in range(4)]
    assert together.shape == (4, *shape)
    torch.testing.assert_close(together, torch.cat(alone, 1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("norm", ["rms", "max"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_one_is_solved_as_by_steps_for_all(norm, dtype):
    y0 = states((4, 3), dtype)[1:2]
    ts = times(0, 0.3, 0.5, 2)
    own, joint = (
        make_solver("dopri5", batching=batching, norm=norm).integrate(relax(), y0, ts)
        for batching in ("per_sample", "joint")
    )
    torch.testing.assert_close(own.ys, joint.ys, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)
    assert own.stats.step_sizes == pytest.approx(joint.stats.step_sizes, rel=1e-3 if dtype == torch.float32 else 1e-10)
    assert (own.stats.nfe, own.stats.num_accepted) == (joint.stats.nfe, joint.stats.num_accepted)


def test_a_stiff_sample_does_not_shorten_the_steps_of_the_others():
    taken = np.zeros(4)

    def count(step, y):
        nonlocal taken
        taken = taken + (np.ones(4) if step.accepted is None else step.accepted.numpy())

    solution = make("dopri5").integrate(relax(), states((4, 2)), times(0, 2), record=count)
    assert taken[0] < 10
    assert taken[3] > 5 * taken[0]
    assert taken.tolist() == sorted(taken)
    assert solution.stats.num_accepted == taken.max()
    assert len(solution.stats.step_sizes) == taken.sum()
    assert sum(solution.stats.step_sizes) == pytest.approx(4 * 2)


@pytest.mark.parametrize(("name", "outputs"), STEPS)
@SENSES
def test_outputs_lie_where_each_sample_is_at_their_time(name, outputs, sign):
    ts = sign * torch.linspace(0, 2, 21, dtype=torch.float64)
    tolerance = 1e-4 if name == "adaptive_heun" else 1e-6
    solution = make(name, outputs=outputs, rtol=tolerance, atol=tolerance).integrate(
        LOGISTIC.vector_field, LOGISTIC.y0(times(0)), ts
    )
    assert LOGISTIC.error(solution, ts) < 40 * tolerance


def test_the_vector_field_sees_a_time_for_each_sample():
    for shape in SHAPES:
        seen = []

        def watched(t, y, seen=seen):
            seen.append((tuple(t.shape), t.dtype, t.flatten().tolist()))
            return bend(t, y)

        y0 = torch.linspace(-1, 6, torch.Size(shape).numel()).view(shape)
        make("dopri5").integrate(watched, y0, times(0.25, 1))
        assert {(shape, dtype) for shape, dtype, _ in seen} == {((4, *(1,) * (len(shape) - 1)), torch.float32)}
        assert seen[0][2] == [0.25] * 4
        assert max(len(set(ts)) for _, _, ts in seen) == 4
        assert max(max(ts) for _, _, ts in seen) == 1
        assert min(min(ts) for _, _, ts in seen) == 0.25


def test_a_sample_that_has_arrived_stands_still():
    ends = []
    make("dopri5").integrate(
        relax(), states((4, 2)), times(0, 0.5, 2), record=lambda step, y: ends.append((step.t1.copy(), y.clone()))
    )
    arrived = [(t1[0] == 2, y[0]) for t1, y in ends]
    first = [done for done, _ in arrived].index(True)
    assert all(done for done, _ in arrived[first:])
    assert all(torch.equal(y, arrived[-1][1]) for _, y in arrived[first + 1 :])


def test_the_first_step_is_chosen_for_each_sample_and_never_carried():
    steps = []
    solver = make("dopri5", first_step="carried")
    stats = solver.integrate(
        relax(), states((4, 2)), times(0, 2), first_step=0.123, record=lambda step, y: steps.append(step)
    ).stats
    assert len(set(steps[0].t1 - steps[0].t0)) > 1
    assert 0.123 not in steps[0].t1
    assert stats.next_first_step is None


@SENSES
def test_absolute_tolerances_of_channels_hold_for_each_sample(sign):
    y0 = states((4, 3))
    loose, tight, mixed = (
        make("dopri5", rtol=1e-12, atol=atol).integrate(relax(sign), y0, sign * times(0, 1)).ys[-1]
        for atol in (1e-3, 1e-10, [1.0, 1e-3, 1e-8])
    )
    assert ((mixed - tight).abs() < 1e-5).all()
    assert ((loose - tight).abs() > 1e-5).any()


def test_a_tuple_of_states_is_stepped_as_one():
    y0 = (torch.tensor([0.2, 0.5], dtype=torch.float64), torch.tensor([0.9], dtype=torch.float64))
    seen = []

    def field(t, y):
        seen.append(t.dim())
        return tuple(part * (1 - part) for part in y)

    own, joint = (
        make_solver("dopri5", batching=batching).integrate(field, y0, times(0, 1))
        for batching in ("per_sample", "joint")
    )
    assert set(seen) == {0}
    assert all(torch.equal(a, b) for a, b in zip(own.ys, joint.ys, strict=True))


# Failures


def failure(field, y0, ts=(0.0, 2.0), **keys):
    with pytest.raises(SolveError) as error:
        make("dopri5", **keys).integrate(field, y0, times(*ts))
    return error.value


@SENSES
def test_a_sample_that_turns_nan_is_named(sign):
    turns = torch.tensor([[3.0], [3.0], [0.5], [3.0]], dtype=torch.float64)

    def field(t, y):
        return torch.where(sign * t > turns, torch.nan, -y)

    error = failure(field, torch.ones(4, 1).double(), ts=(0.0, sign * 2.0))
    assert error.status is Status.NON_FINITE
    assert error.t == pytest.approx(sign * 0.5, abs=1e-9)
    assert str(error).startswith(
        f"the ODE solve failed at t = {sign * 0.5:g} after {error.nfe} evaluations: sample 2: "
    )
    assert "the state is no longer finite. " in str(error)


def test_a_sample_that_starts_as_nan_is_named():
    y0 = torch.ones(3, 2)
    y0[1, 1] = torch.nan
    error = failure(lambda t, y: -y, y0)
    assert (error.status, error.t) == (Status.NON_FINITE_START, 0)
    assert "evaluations: sample 1: the state is not finite at the start" in str(error)


def test_a_sample_whose_step_is_too_short_is_named():
    y0 = torch.tensor([0.1, 1.0, 0.2], dtype=torch.float64)
    error = failure(lambda t, y: y**2, y0, min_step=1e-4)
    assert error.status is Status.STEP_UNDERFLOW
    assert "evaluations: sample 1: the step size underflowed" in str(error)
    assert error.t == pytest.approx(1, abs=0.01)


def test_a_sample_at_a_pole_is_named():
    y0 = torch.tensor([0.1, 1.0, 0.2], dtype=torch.float64)
    error = failure(lambda t, y: y**2, y0, max_steps=2000)
    assert error.status is Status.STEP_UNDERFLOW
    assert "evaluations: sample 1: the step size underflowed" in str(error)


def test_too_many_steps_name_the_time_of_the_sample_that_is_last():
    error = failure(relax(), states((4, 2)), max_steps=10)
    assert error.status is Status.TOO_MANY_STEPS
    assert 0 < error.t < 0.5


def test_a_sample_that_looks_ahead_into_nan_does_not_change_the_others():
    def walled(t, y):
        return torch.where(y > 1, torch.nan, 50 * (1 - y))

    y0 = torch.tensor([[0.0], [0.99999], [0.3]], dtype=torch.float64)
    solver = make("dopri5", first_step=1.0, rtol=1e-4, atol=1e-4)
    solution = solver.integrate(walled, y0, times(0, 0.05))
    alone = [solver.integrate(walled, y0[i : i + 1], times(0, 0.05)).ys for i in range(3)]
    assert solution.stats.num_rejected > 0
    torch.testing.assert_close(solution.ys, torch.cat(alone, 1), rtol=1e-12, atol=1e-13)


def test_a_state_without_samples_is_refused():
    with pytest.raises(ValueError, match="batch"):
        make("dopri5").integrate(lambda t, y: -y, torch.tensor(1.0), times(0, 1))


def test_yaml_steps_all_samples_as_one():
    assert {load("solver", name).batching for name in ADAPTIVE} == {"joint"}

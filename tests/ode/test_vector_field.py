import pytest
import torch

from node_cli.ode.solution import SolveError, Status
from node_cli.ode.vector_field import CountedVectorField, all_finite

T, STEP = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.1, dtype=torch.float64)


def counted(max_nfe=None, max_steps=None, f=lambda t, y: -y):
    return CountedVectorField(f, max_nfe, max_steps)


def test_slope_has_the_dtype_of_the_state():
    assert counted(f=lambda t, y: y.bfloat16())(T, torch.ones(2)).dtype == torch.float32


def test_counts_evaluations_up_to_the_bound():
    field = counted(max_nfe=2)
    field(T, STEP)
    field(T, STEP)
    assert field.stats.nfe == 2
    with pytest.raises(SolveError, match=r"^the ODE solve failed at t = 0\.5 after 2 evaluations: the evaluations"):
        field(T, STEP)


def test_counts_accepted_and_rejected_steps_up_to_the_bound():
    field = counted(max_steps=2)
    field.start_step(T, STEP, STEP)
    field.accept_step(T, STEP, -STEP)
    field.start_step(T, STEP, STEP)
    field.reject_step(T, STEP, STEP)
    assert (field.stats.num_accepted, field.stats.num_rejected, field.stats.step_sizes) == (1, 1, [0.1])
    with pytest.raises(SolveError, match="the steps reached"):
        field.start_step(T, STEP, STEP)


@pytest.mark.parametrize(
    ("t", "y", "step", "status"),
    [
        (0.5, 1.0, 1e-17, Status.STEP_UNDERFLOW),
        (-1.0, 1.0, 1e-16, Status.STEP_UNDERFLOW),  # towards 0 the neighbours of -1 lie closer: a step away from it
        (0.5, float("inf"), 0.1, Status.NON_FINITE),
        (0.5, float("nan"), 1e-17, Status.NON_FINITE),
        (0.5, 1.0, 0.0, Status.NON_FINITE),
    ],
)
def test_refuses_a_step_that_cannot_succeed(t, y, step, status):
    with pytest.raises(SolveError) as error:
        counted().start_step(*(torch.tensor(value, dtype=torch.float64) for value in (t, y, step)))
    assert (error.value.status, error.value.t) == (status, t)


def test_all_finite_looks_at_every_part():
    assert all_finite((torch.ones(2), torch.zeros(1)))
    assert not all_finite((torch.ones(2), torch.tensor([torch.inf])))
    assert not all_finite(torch.tensor([1.0, torch.nan]))

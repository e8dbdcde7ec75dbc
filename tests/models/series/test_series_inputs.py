"""Controls between their times, and the solves that stop where they jump."""

import pytest
import torch
from series_data import batch_of
from series_models import FINE, series_model
from torch import nn

from node_cli.models.series.parts.inputs import Inputs
from node_cli.series import CONTROLS, MASK, STATICS, TIMES

TIMES_OF_TWO = torch.tensor(
    [[0.0, 1.0, 3.0, 4.0], [0.0, 2.0, 3.0, 3.0]], dtype=torch.float64
)  # the last one is padding
CONTROLS_OF_TWO = torch.tensor([[1.0, 3.0, -1.0, 5.0], [2.0, 6.0, 4.0, 99.0]], dtype=torch.float64)[:, :, None]


def at(between, *times):
    """The two series' control at these times, one solve for all."""
    inputs = Inputs(TIMES_OF_TWO, CONTROLS_OF_TWO, None, between)
    return [inputs.source(0)(torch.tensor(t, dtype=torch.float64))[:, 0].tolist() for t in times]


def test_linear_controls_pass_through_their_values_and_end_with_the_last():
    assert at("linear", 0.5, 1.0, 2.0, 3.5, 9.0) == [[2, 3], [3, 4], [1, 6], [2, 4], [5, 4]]


def test_hermite_controls_begin_an_interval_with_the_slope_of_the_one_before():
    step = 1e-6
    middle, before, after = at("hermite", 1.0, 1.0 - step, 1.0 + step)
    assert middle[0] == pytest.approx(3.0)
    for here, there, sign in ((before, middle, 1), (middle, after, 1)):
        assert (there[0] - here[0]) / step * sign == pytest.approx(2.0, abs=1e-4)  # (3 - 1) / 1, on both sides
    assert at("hermite", 0.5) == at("linear", 0.5)  # there is none before the first


def test_controls_at_their_own_time_for_each_sample():
    inputs = Inputs(TIMES_OF_TWO, CONTROLS_OF_TWO, None, "linear")
    assert inputs.source(0)(torch.tensor([[0.5], [2.5]], dtype=torch.float64))[:, 0].tolist() == [2.0, 5.0]


def test_held_controls_are_constant_from_jump_to_jump_and_statics_follow():
    statics = torch.tensor([[7.0], [8.0]], dtype=torch.float64)
    held = torch.tensor([[1.0, 1.0, 2.0, 2.0, 5.0], [3.0, 3.0, 3.0, 3.0, 9.0]], dtype=torch.float64)[:, :, None]
    inputs = Inputs(torch.arange(5.0, dtype=torch.float64).expand(2, 5), held, statics, "hold")
    pieces = [(first, last, source(torch.tensor(0.0)).tolist()) for first, last, source in inputs.pieces()]
    assert pieces == [(0, 2, [[1, 7], [3, 8]]), (2, 4, [[2, 7], [3, 8]])]
    assert inputs.at_times()[:, -1].tolist() == [[5, 7], [9, 8]]


@pytest.mark.parametrize("between", ["linear", "hermite"])
def test_no_state_depends_on_a_control_after_its_time(between):
    batch = batch_of(k=1)
    model = series_model(
        "neural_ode", data={"num_controls": 1}, controls_between=between, width=4, solver=("dopri5", FINE)
    )
    changed = {**batch, CONTROLS: batch[CONTROLS].clone()}
    changed[CONTROLS][:, 4:] += 3.0
    before, after = model(batch), model(changed)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before[:, 5], after[:, 5], rtol=1e-3)


class Integral(nn.Module):
    """dy/dt is the first input, times a weight."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, t, y, inputs):
        return self.weight * inputs[:, :1].expand_as(y)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("solver", [("rk4", {"num_steps": 1}), ("dopri5", {"first_step": 0.1})])
def test_steps_end_where_a_held_control_jumps(solver, gradient):
    batch = batch_of(k=1, s=1)
    model = series_model(
        "neural_ode",
        data={"num_controls": 1, "num_statics": 1},
        solver=solver,
        gradient=gradient,
        vector_field=Integral,
    )
    areas = (batch[CONTROLS][:, :-1, 0] * batch[TIMES].diff(dim=1)).cumsum(1)
    values = model(batch)
    torch.testing.assert_close(values[:, 1:, 0] - values[:, :1, 0], areas, rtol=1e-12, atol=1e-12)
    values.sum().backward()
    torch.testing.assert_close(model.dynamics.field.weight.grad, areas.sum().expand(2), rtol=1e-9, atol=1e-9)


def test_statics_alone_take_one_solve():
    batch = batch_of(s=1)
    model = series_model("neural_ode", data={"num_statics": 1}, vector_field=Integral)
    model.block.solves = []
    values = model(batch)
    assert len(model.block.solves) == 1
    rise = batch[STATICS] * (batch[TIMES] - batch[TIMES][:, :1])
    torch.testing.assert_close(values[:, :, 0] - values[:, :1, 0], rise)


def test_slopes_take_the_inputs_of_their_times():
    batch = batch_of(k=1)
    batch[MASK] = torch.ones_like(batch[MASK])
    model = series_model("neural_ode", data={"num_controls": 1}, vector_field=Integral)
    torch.testing.assert_close(model.slopes(batch), batch[CONTROLS].expand(-1, -1, 2))

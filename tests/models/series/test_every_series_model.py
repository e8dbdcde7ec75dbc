"""What holds for all models of series, on batches with gaps and padding."""

import copy
import math

import pytest
import torch
from series_data import batch_of
from series_models import FINE, series_model

from node_cli.batch import take
from node_cli.series import CONTROLS, MASK, TIMES, VALUES

SMALL = {"width": 4, "num_hidden_layers": 1}
MODELS = {
    "neural_ode": ("neural_ode", SMALL, {}),
    "neural_ode with all inputs": (
        "neural_ode",
        {**SMALL, "time_input": True, "augment_dim": 1, "start": "encoder", "encoder_width": 3},
        {"num_controls": 2, "num_statics": 1},
    ),
    "neural_ode with linear controls": (
        "neural_ode",
        {**SMALL, "start": "learned", "controls_between": "linear"},
        {"num_controls": 1},
    ),
    "neural_ode from the last": (
        "neural_ode",
        {**SMALL, "start": "last", "controls_between": "hermite"},
        {"num_controls": 1},
    ),
    "known": ("known", {}, {"is_log": True}),
    "known with a hidden part": (
        "known",
        {"equations": "linear", "hidden": {"owl": 0.5}, "parameters": {"a_1_3": 0.2, "a_2_1": -0.4}},
        {},
    ),
    "second_order": (
        "second_order",
        {**SMALL, "time_input": True, "velocities": {"hare": "owl"}, "start": "learned"},
        {"num_channels": 3, "num_controls": 1},
    ),
    "second_order with all velocities": ("second_order", {**SMALL, "velocities": {"lynx": "hare"}}, {}),
    "second_order from the last": ("second_order", {**SMALL, "start": "last"}, {"num_statics": 1}),
    "hamiltonian": ("hamiltonian", SMALL, {"num_channels": 4}),
    "lagrangian": ("lagrangian", {**SMALL, "start": "encoder", "encoder_width": 2}, {"num_channels": 4}),
    "hybrid": ("hybrid", {**SMALL, "network_penalty": 0.5}, {"is_log": True}),
    "hybrid with inputs": (
        "hybrid",
        {**SMALL, "equations": "linear", "time_input": True, "start": "last"},
        {"num_controls": 1, "num_statics": 1},
    ),
    "sindy": ("sindy", {"degree": 3, "start": "first"}, {}),
    "sindy with all": (
        "sindy",
        {"trigonometric": True, "controls_between": "linear"},
        {"num_controls": 1, "is_log": True},
    ),
    "gru": ("gru", {"width": 3}, {"num_controls": 1, "num_statics": 1}),
    "ode_rnn": ("ode_rnn", {"width": 3, "hidden_width": 4}, {}),
    "linear_ar": ("linear_ar", {"lags": 3}, {"num_controls": 1}),
}


def made(case, **more):
    name, keys, data = MODELS[case]
    return series_model(name, data=data, solver=("rk4", {"num_steps": 1}), **keys, **more)


def batch_for(case, **more):
    data = MODELS[case][2]
    sizes = {"C": data.get("num_channels", 2), "k": data.get("num_controls", 0), "s": data.get("num_statics", 0)}
    return batch_of(**sizes, **more)


def loss_of(model, batch):
    """Of both kinds of prediction, where a time has been passed."""
    values, steps = model(batch), model.one_step(batch)[:, 1:]
    penalty = model.penalty()
    return values.square().sum() + steps.sin().sum() + (0 if penalty is None else penalty)


@pytest.mark.parametrize("case", MODELS)
def test_gives_a_value_at_every_time_and_a_gradient_to_every_parameter(case):
    model, batch = made(case), batch_for(case)
    assert model(batch).shape == batch[VALUES].shape
    steps = model.one_step(batch)
    assert steps[:, 0].isnan().all()
    assert steps[:, 1:].isfinite().all()
    loss_of(model, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("case", MODELS)
def test_does_not_read_what_the_mask_hides(case):
    model = made(case)
    results = []
    for hidden in (0.0, math.nan):
        model.zero_grad()
        batch = batch_for(case, hidden=hidden)
        loss = loss_of(model, batch)
        loss.backward()
        results.append([loss.detach(), model(batch).detach(), *(p.grad.clone() for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("case", MODELS)
def test_one_step_does_not_read_what_comes_after(case):
    model, batch = made(case), batch_for(case)
    changed = {**batch, VALUES: batch[VALUES].clone(), MASK: batch[MASK].clone()}
    changed[VALUES][:, 3:], changed[MASK][:, 3:] = 1.5, True
    assert torch.equal(model.one_step(batch)[:, 1:4], model.one_step(changed)[:, 1:4])


@pytest.mark.parametrize("case", MODELS)
def test_single_steps_are_the_same_all_at_once_and_one_after_the_other(case):
    model, batch = made(case), batch_for(case, own_times=True)
    everything = {**batch, MASK: torch.ones_like(batch[MASK])}
    everything[MASK][2, -2:] = False  # padding
    all_but_the_last = {**everything, MASK: everything[MASK].clone()}
    all_but_the_last[MASK][0, -1] = False  # from which no step starts
    at_once, in_turn = model.one_step(everything), model.one_step(all_but_the_last)
    goes_on = batch[TIMES].diff(dim=1) > 0
    torch.testing.assert_close(at_once[:, 1:][goes_on], in_turn[:, 1:][goes_on], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", MODELS)
def test_gradients_are_those_of_finite_differences(case):
    model, batch = made(case), batch_for(case, T=4)
    loss_of(model, batch).backward()
    generator = torch.Generator().manual_seed(1)
    parameters, found, eps = list(model.parameters()), [], 1e-6
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    for step in (eps, -2 * eps):
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data += step * direction
        found.append(loss_of(model, batch).item())
    slope = sum((p.grad * direction).sum().item() for p, direction in zip(parameters, directions, strict=True))
    assert slope == pytest.approx((found[0] - found[1]) / (2 * eps), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("case", MODELS)
def test_series_of_a_batch_have_their_own_times_and_do_not_see_each_other(case):
    model, batch = made(case), batch_for(case, own_times=True)
    together = (model(batch), model.one_step(batch)[:, 1:])
    for i in range(3):
        sample = take(batch, slice(i, i + 1))
        for found, alone in zip(together, (model(sample), model.one_step(sample)[:, 1:]), strict=True):
            torch.testing.assert_close(found[i], alone[0], rtol=1e-9, atol=1e-12)
    no_time_passes = torch.equal(together[0][2, 3], together[0][2, 5])
    assert no_time_passes or case in ("gru", "ode_rnn", "linear_ar")


@pytest.mark.parametrize("case", MODELS)
def test_goes_on_from_its_state_in_float32_and_can_be_copied(case):
    model, batch = made(case, dtype=torch.float32), batch_for(case, dtype=torch.float32)
    values = model(batch)
    assert values.dtype == torch.float32
    other = copy.deepcopy(model)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(batch), values)


@pytest.mark.parametrize("case", MODELS)
def test_slopes_are_those_that_the_values_have(case):
    model, batch = made(case).eval(), batch_for(case)
    batch = {**batch, MASK: torch.ones_like(batch[MASK])}
    slopes = model.slopes(batch)
    if slopes is None:
        return
    step = 1e-5
    pairs = {**batch, TIMES: torch.stack([batch[TIMES][:, 0], batch[TIMES][:, 0] + step], dim=1)}
    pairs |= {name: batch[name][:, [0, 0]] for name in (VALUES, MASK, CONTROLS) if name in batch}
    ahead = model.one_step(pairs)[:, 1]
    torch.testing.assert_close((ahead - batch[VALUES][:, 0]) / step, slopes[:, 0], rtol=1e-3, atol=1e-4)


def test_series_with_the_same_times_are_solved_by_any_solver():
    batch = batch_of(n=2, T=4)
    batch = {**batch, MASK: torch.ones_like(batch[MASK])}
    keys = {"data": {"num_starts": 2}, "width": 4, "num_hidden_layers": 1}
    ours = series_model("neural_ode", solver=("dopri5", FINE), **keys)
    theirs = series_model("neural_ode", solver=("scipy", {"rtol": 1e-9, "atol": 1e-9}), gradient="adjoint", **keys)
    torch.testing.assert_close(theirs(batch), ours(batch), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(theirs.one_step(batch)[:, 1:], ours.one_step(batch)[:, 1:], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("between", [None, "hold", "linear"])
def test_neighbouring_times_of_a_long_series_may_lie_close(between):
    """So close that float32 has but a few more between them."""
    data = {"num_controls": 0 if between is None else 1, "num_starts": 1}
    keys = {} if between is None else {"controls_between": between}
    results = []
    for dtype in (torch.float32, torch.float64):
        batch = batch_of(n=1, k=data["num_controls"], dtype=dtype)
        batch[TIMES] = torch.tensor([[0.0, 20.0, 20.0001, 20.0002, 40.0, 40.0001]], dtype=torch.float64)
        batch[MASK][:, 1:4, 0] = False
        model = series_model("neural_ode", data=data, dtype=dtype, width=8, time_input=True, **keys)
        results.append([tensor.double() for tensor in (model(batch), model.one_step(batch)[:, 1:])])
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-5)

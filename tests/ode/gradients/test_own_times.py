"""Output times of each sample's own: a batch is what its samples are alone, and padding costs nothing."""

import pytest
import torch
from gradient_checks import EXACT, adaptive, assert_close, fixed, solve
from problems import Wave

NUM_SERIES, NUM_TIMES = 64, 50
SOLVERS = {
    "per_sample": adaptive(batching="per_sample", rtol=1e-6, atol=1e-6),
    "euler": fixed("euler", num_steps=1),
}


def series(count=NUM_SERIES, num_times=NUM_TIMES):
    """States and times of so many series, each from a time of its own on."""
    generator = torch.Generator().manual_seed(0)
    y0 = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    steps = torch.rand(count, num_times, dtype=torch.float64, generator=generator)
    return y0, steps.cumsum(1) / 25


def grads_of(gradient, solver, y0, ts, weights):
    """States of a solve, and the gradients of a loss that hears of all of them."""
    field, y0, ts = Wave(), y0.clone().requires_grad_(), ts.clone().requires_grad_()
    ys = solve(gradient, solver, field, y0, ts).ys
    inputs = {"y0": y0, "ts": ts, **dict(field.named_parameters())}
    grads = torch.autograd.grad((weights * (ys.sin() + ys**2 / 9)).sum(), list(inputs.values()))
    return ys.detach(), dict(zip(inputs, grads, strict=True))


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_batch_of_series_is_what_each_is_alone(name, gradient):
    y0, ts = series()
    weights = torch.linspace(-1, 2, NUM_TIMES * y0.numel(), dtype=torch.float64).view(NUM_TIMES, *y0.shape).sin()
    ys, found = grads_of(gradient, SOLVERS[name], y0, ts, weights)
    alone = [grads_of(gradient, SOLVERS[name], y0[i : i + 1], ts[i], weights[:, i : i + 1]) for i in range(NUM_SERIES)]
    torch.testing.assert_close(ys, torch.cat([states for states, _ in alone], 1), rtol=1e-12, atol=1e-12)
    grads = [grads for _, grads in alone]
    expected = {key: sum(each[key] for each in grads) for key in found}
    expected |= {"y0": torch.cat([each["y0"] for each in grads]), "ts": torch.stack([each["ts"] for each in grads])}
    assert_close(found, expected, rtol=1e-12)

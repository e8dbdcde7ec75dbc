"""An ODE-RNN against a loop over its samples."""

import pytest
import torch
from encoders import encoder, irregular, picked


@pytest.mark.parametrize("solver", [("rk4", {}), ("dopri5", {"batching": "per_sample", "first_step": "chosen"})])
@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_a_batch_of_own_times_is_a_loop_over_samples(solver, gradient):
    batch, made = irregular(6, 3, 5), encoder("ode_rnn", solver=solver, gradient=gradient)
    together = made(batch)
    alone = torch.cat([made(picked(batch, [sample])) for sample in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-13)
    slopes = [torch.autograd.grad(memory.square().sum(), list(made.parameters())) for memory in (together, alone)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)

"""The log-density of a flow against closed forms, its gradients by every method, and both ways through it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from node_cli.flow import INTEGRALS
from node_cli.models.cnf import Cnf
from node_cli.ode.arguments import solver_of
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct

GRADIENTS = {
    "direct": Direct(),
    "checkpoint": Checkpoint(max_checkpoints=None),
    "adjoint": Adjoint(rtol=None, atol=None, norm="full"),
}


class Linear(nn.Module):
    """dy/dt = A y, a Gaussian for ever."""

    def __init__(self, features):
        super().__init__()
        generator = torch.Generator().manual_seed(features)
        self.matrix = nn.Parameter(torch.randn(features, features, generator=generator, dtype=torch.float64) / 2)

    def forward(self, t, y):
        return y @ self.matrix.T


def cnf(shape=(3,), gradient="direct", tolerance=1e-8, **settings):
    options = {key: settings.pop(key) for key in ("batching", "num_steps") if key in settings}
    solver = solver_of(settings.pop("method", "dopri5"), tolerance, tolerance, options)[0]
    keys = {"num_conditions": 0, "network": "mlp", "width": 8, "num_layers": 1, "num_blocks": 1} | settings
    torch.manual_seed(0)
    return Cnf(input_shape=shape, solver=solver, gradient=GRADIENTS[gradient], **keys).double()


def samples(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STATES_AND_PROBES = samples(4, 3), samples(2, 4, 3)


def test_a_gaussian_through_a_linear_field_has_its_exact_density_in_the_units_of_the_samples():
    model, x = cnf(vector_field=Linear), samples(6, 3)
    model.fit_scale(5 + 3 * samples(40, 3, seed=2))
    forwards = torch.linalg.matrix_exp(model.blocks[0].vector_field.matrix.detach()).T * model.scale
    true = torch.distributions.MultivariateNormal(model.shift, forwards.T @ forwards).log_prob(x)
    found = model.log_density(x, None)
    torch.testing.assert_close(found.estimates[:, 0], true, atol=1e-6, rtol=0)
    assert found.nfe == model.nfe > 0


def test_the_integrals_along_straight_paths_are_known():
    """dy/dt = A y with A = c 1: |y|^2 grows by exp(2 c t), the Jacobian is c 1, and the slope changes by c^2 y."""
    c, model, x = 0.7, cnf(vector_field=Linear), samples(5, 3)
    with torch.no_grad():
        model.blocks[0].vector_field.matrix.copy_(c * torch.eye(3))
    probes = torch.where(samples(4, 5, 3) < 0, -1.0, 1.0).double()
    of_path = x.square().mean(1) * (1 - math.exp(-2 * c)) / (2 * c)
    for given in (None, probes):  # of a diagonal Jacobian, probes of +1 and -1 are exact
        found = model.log_density(x, given, integrals=INTEGRALS).integrals
        torch.testing.assert_close(found["kinetic"], c**2 * of_path)
        torch.testing.assert_close(found["jacobian"], torch.full_like(of_path, c**2))
        torch.testing.assert_close(found["total_derivative"], c**4 * of_path)


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_probes_estimate_the_exact_density_within_their_own_error(noise):
    model, x = cnf(tolerance=1e-4), samples(4, 3)
    probes = samples(400, 4, 3) if noise == "gaussian" else torch.where(samples(400, 4, 3) < 0, -1.0, 1.0).double()
    estimates = model.log_density(x, probes).estimates
    off = estimates.mean(1) - model.log_density(x, None).estimates[:, 0]
    assert (off.abs() < 4 * estimates.std(1) / 20).all()


@pytest.mark.parametrize("blocks", [1, 2])
def test_every_gradient_is_that_of_finite_differences(blocks):
    gradients = {}
    for name in GRADIENTS:
        model, x, probes = cnf(gradient=name, num_blocks=blocks, method="rk4", num_steps=3), *STATES_AND_PROBES

        def loss(model=model, x=x, probes=probes):
            found = model.log_density(x, probes, integrals=INTEGRALS)
            return found.estimates.sum() + sum(k * each.sum() for k, each in enumerate(found.integrals.values(), 1))

        loss().backward()
        weight = model.blocks[-1].vector_field.first.weight
        gradients[name] = weight.grad[0, 0].item()
    ends = []
    with torch.no_grad():
        for step in (1e-4, -2e-4):
            weight[0, 0] += step
            ends.append(loss().item())
    true = (ends[0] - ends[1]) / 2e-4
    assert gradients["checkpoint"] == pytest.approx(gradients["direct"], rel=1e-10)
    assert gradients["direct"] == pytest.approx(true, rel=1e-4)
    assert gradients["adjoint"] == pytest.approx(true, rel=0.1)  # of the ODE, not of so few steps


def test_samples_with_steps_of_their_own_see_no_other():
    x, probes = STATES_AND_PROBES
    together = cnf(batching="per_sample", tolerance=1e-4).log_density(x, probes).estimates
    alone = cnf(batching="per_sample", tolerance=1e-4).log_density(x[1:2], probes[:, 1:2]).estimates
    torch.testing.assert_close(together[1:2], alone)
    torch.testing.assert_close(together, cnf(tolerance=1e-6).log_density(x, probes).estimates, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("shape", "network", "conditions", "blocks"),
    [((3,), "mlp", 0, 1), ((2, 4, 5), "mlp", 3, 2), ((2, 4, 5), "unet", 0, 2), ((2, 4, 5), "unet", 3, 1)],
)
def test_samples_are_carried_to_the_base_and_back(shape, network, conditions, blocks):
    model = cnf(shape, network=network, num_conditions=conditions, num_blocks=blocks, tolerance=1e-5)
    model.fit_scale(2 + samples(9, *shape, seed=2))
    x, labels = samples(3, *shape), torch.tensor([0, 2, 1]) if conditions else None
    with torch.no_grad():
        found = model.log_density(x, samples(2, 3, *shape), labels)
        paths = model.carried(found.base, labels, num_times=4)
    assert paths.shape == (3 * blocks + 1, 3, *shape)
    torch.testing.assert_close(paths[-1], x, atol=2e-3, rtol=0)


def test_the_slope_at_a_time_of_each_sample_is_that_of_its_block_at_that_time():
    model, y, labels = cnf(num_blocks=2, num_conditions=2), samples(4, 3), torch.tensor([0, 1, 0, 1])
    times = torch.tensor([0.1, 0.5, 1.0, 0.49]).double()
    found = model.velocity(times, y, labels)
    for k, t in enumerate(times):
        field = model.blocks[int(t >= 0.5)].vector_field
        torch.testing.assert_close(found[k : k + 1], field(t, y[k : k + 1], labels[k : k + 1]))


@pytest.mark.parametrize(("shape", "network"), [((3,), "mlp"), ((1, 4, 4), "unet")])
def test_under_autocast_the_state_keeps_its_precision_and_both_objectives_have_gradients(shape, network):
    model = cnf(shape, network=network, method="rk4", num_steps=1).float()
    x, probes = samples(2, *shape).float(), samples(2, 2, *shape).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.log_density(x, probes, integrals=INTEGRALS)
        slope = model.velocity(torch.tensor([0.2, 0.7]), x)
    assert found.estimates.dtype == slope.dtype == torch.float32
    (found.estimates.sum() + slope.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match=r"^vector_field must be null with task\.condition=label"):
        cnf(vector_field=Linear, num_conditions=2)
    with pytest.raises(ValueError, match=r"model needs points \(d,\)"):
        cnf((1, 4, 4), vector_field=Linear)
    with pytest.raises(ValueError, match=r"^solver.atol must be one number"):
        cnf(tolerance=[1e-3, 1e-3, 1e-3])
    with pytest.raises(ValueError, match=r"^network=unet needs images .* at least 4 x 4 pixels, the dataset has"):
        cnf(network="unet")
    for key, value in {"num_blocks": 0, "width": 0, "num_layers": 0, "network": "cnn"}.items():
        with pytest.raises(ValueError, match=f"^{key} must be "):
            cnf(**{key: value})

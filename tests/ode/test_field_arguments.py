"""What a vector field does to the state and the time that it is handed reaches neither the solve nor the caller."""

import pytest
import torch
from parts import make_solver
from torch import nn
from torch.autograd import forward_ad

from node_cli.ode import odeint

WRITES = "the vector field writes into its arguments, which the solver goes on from: let it work on a copy"
HOW = [
    *({"gradient": gradient} for gradient in ("direct", "checkpoint", "adjoint")),
    {"method": "rk4"},
    {"method": "bosh3", "batching": "per_sample"},
]


def overwrites_state(t, y):
    y[..., 0] = 0
    return 1 - y


def scales_state(t, y):
    return y.mul_(-1)


def scales_view_of_state(t, y):
    y.view(-1)[0] = 7
    return -y


def scales_time(t, y):
    return -y * t.mul_(2)


def ones():
    return torch.ones(2, 2, dtype=torch.float64)


TS = torch.tensor([0.0, 1.0], dtype=torch.float64)
WRITERS = [overwrites_state, scales_state, scales_view_of_state, scales_time]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_field_that_writes_into_its_arguments_is_refused(writer, how):
    for with_grad in (True, False):
        y0 = ones().requires_grad_(with_grad)
        with torch.set_grad_enabled(with_grad), pytest.raises(ValueError, match=WRITES):
            odeint(writer, y0, TS, **how)
        assert torch.equal(y0, ones())


def test_so_is_one_of_tuples():
    y0 = (ones(), ones())
    with torch.no_grad(), pytest.raises(ValueError, match=WRITES):
        odeint(lambda t, y: (scales_state(t, y[0]), y[1]), y0, TS)
    assert all(torch.equal(part, ones()) for part in y0)


@pytest.mark.parametrize("name", ["scipy", "torchdiffeq"])
def test_so_is_one_under_any_solver(name):
    y0 = ones()
    for writer in WRITERS:
        with torch.no_grad(), pytest.raises(ValueError, match=WRITES):
            make_solver(name).integrate(writer, y0, TS)
    assert torch.equal(y0, ones())


def test_in_inference_mode_it_gets_copies():
    with torch.inference_mode():
        y0 = ones()
        end = odeint(overwrites_state, y0, TS)[-1]
    assert torch.equal(y0, ones())
    torch.testing.assert_close(end, torch.tensor([[2.0, 1.0]], dtype=torch.float64).expand(2, 2))


@pytest.mark.parametrize("how", HOW)
def test_a_state_that_the_field_wants_gradients_of_leaves_the_start_as_it_is(how):
    y0 = ones()
    with torch.no_grad():
        odeint(lambda t, y: -y.requires_grad_(), y0, TS, **how)
    make_solver("torchdiffeq").integrate(lambda t, y: -y.requires_grad_(), y0, TS)
    assert not y0.requires_grad


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("with_grad", [True, False])
@pytest.mark.parametrize("which", ["start", "times", "closure", "parameter"])
@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_a_forward_mode_derivative_is_refused(gradient, which, with_grad):
    with forward_ad.dual_level(), torch.set_grad_enabled(with_grad):
        tensors = {"start": ones(), "times": TS, "closure": ones(), "parameter": nn.Parameter(ones())}
        tensors[which] = forward_ad.make_dual(tensors[which], torch.ones_like(tensors[which]))
        with pytest.raises(ValueError, match=r"^a solve has no forward-mode derivative: use reverse mode"):
            odeint(
                lambda t, y: tensors["closure"] * tensors["parameter"] * y,
                tensors["start"],
                tensors["times"],
                gradient=gradient,
            )
        odeint(lambda t, y: -y, ones(), TS, gradient=gradient)  # nothing here has a tangent


@pytest.mark.parametrize("solve", [lambda f: torch.func.vmap(f)(ones()), lambda f: torch.func.jacrev(f)(ones())])
@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_a_solve_inside_a_function_transform_is_refused(gradient, solve):
    with pytest.raises(ValueError, match=r"^a solve cannot be inside a transform of torch\.func"):
        solve(lambda y: odeint(lambda t, y: -y, y, TS, gradient=gradient)[-1])


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("how", HOW)
def test_a_field_that_differentiates_its_state_is_solved_without_a_graph_too(how, mode):
    energy = nn.Linear(2, 2, dtype=torch.float64)

    def field(t, y):
        (slope,) = torch.autograd.grad(torch.tanh(energy(y)).sum(), y, create_graph=True)
        return slope

    right = odeint(field, ones(), TS, rtol=1e-9, atol=1e-9)[-1].detach()
    with mode():
        found = odeint(field, ones(), TS, **how)[-1].detach()
    torch.testing.assert_close(found, right, rtol=1e-2, atol=1e-2)
    if mode is torch.enable_grad:
        odeint(field, ones(), TS, **how).sum().backward()
        assert energy.weight.grad.any()

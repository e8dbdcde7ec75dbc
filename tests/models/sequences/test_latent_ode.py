"""The latent ODE: what its posterior depends on, and its paths beside a closed form."""

import pytest
import torch
from encoders import irregular
from parts import load, make_gradient, make_solver

from node_cli.models.sequences.latent_ode import ENCODERS, LatentOde
from node_cli.series import MASK, TARGET, TIMES, VALUES, visible


def latent_ode(*, method: str = "dopri5", gradient: str = "direct", **keys) -> LatentOde:
    settings = {name: value for name, value in load("model", "latent_ode").items() if not name.startswith("_")}
    given = {"num_channels": 2, "num_controls": 0, "num_statics": 0, "learns_rates": False}
    tolerances = {"rtol": 1e-8, "atol": 1e-8} if method == "dopri5" else {}
    torch.manual_seed(0)
    model = LatentOde(
        **{**settings, "width": 6, "encoder_width": 5, "decoder_width": 4, **given, **keys},
        solver=make_solver(method, **tolerances),
        gradient=make_gradient(gradient),
    )
    return model.double().eval()  # in training, a first step is carried over


def in_float64(batch):
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in batch.items()}


class Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.tensor([[-0.2, 1.0], [-1.0, 0.1]]))

    def forward(self, t, y):
        return y @ self.matrix.T


def linear_model() -> LatentOde:
    model = latent_ode(latent_dim=2)
    model.block.vector_field = Linear().double()
    return model


def test_paths_of_a_linear_field_are_matrix_exponentials_at_the_times_of_each_sample():
    model, batch = linear_model(), in_float64(irregular(6, 4))
    latent = torch.randn(3, 2, 2).double()
    paths = model.paths(latent, batch)
    since = batch[TIMES] - batch[TIMES][:, :1]
    exact = (
        torch.linalg.matrix_exp(since[..., None, None] * model.block.vector_field.matrix.double())
        @ latent[:, :, None, :, None]
    )
    torch.testing.assert_close(paths, exact[..., 0], rtol=0, atol=1e-6)


def test_samples_whose_times_are_as_far_apart_are_solved_at_times_in_common(monkeypatch):
    model, batch = linear_model(), in_float64(irregular(6, 6))
    first, asked = batch[TIMES][:1], []
    solve = model.block.solve
    monkeypatch.setattr(model.block, "solve", lambda y0, ts: asked.append(ts) or solve(y0, ts))
    batch[TIMES] = torch.cat([first, first + 100 / 3])
    model.paths(torch.randn(3, 2, 2).double(), batch)
    assert asked[0].shape == (6,)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_posterior_depends_on_what_is_seen_and_on_when_alone(encoder):
    model, batch = latent_ode(encoder=encoder), in_float64(irregular(6, 5))
    batch[MASK][:, 0] = False
    before = model.posterior(visible(batch))
    hidden = {**batch, VALUES: torch.where(batch[MASK], batch[VALUES], 7.0), TARGET: ~batch[MASK]}
    torch.testing.assert_close(model.posterior(visible(hidden)), before)
    later = {**batch, TIMES: torch.cat([batch[TIMES][:, :1] - 0.5, batch[TIMES][:, 1:]], 1)}  # the state is earlier
    assert not torch.allclose(model.posterior(visible(later)).mean, before.mean)
    assert (before.std > 0).all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_weight_has_a_gradient(encoder):
    model, batch = latent_ode(encoder=encoder, learns_rates=True, method="rk4"), in_float64(irregular(5, 4))
    posterior = model.posterior(visible(batch))
    paths = model.paths(posterior.draw(2, None), batch)
    (model.values(paths).square().sum() + model.log_rates(paths).sum() + posterior.kl().sum()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_gradients_are_those_of_the_direct_one(gradient):
    found = []
    for each in ("direct", gradient):
        model, batch = latent_ode(gradient=each), in_float64(irregular(5, 4))
        latent = model.posterior(visible(batch)).mean[None]
        model.values(model.paths(latent, batch)).square().sum().backward()
        found.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    for other, direct in zip(*reversed(found), strict=True):
        torch.testing.assert_close(other, direct, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        ({"decoder_width": -1}, "decoder_width must be at least 0, got -1"),
        ({"encoder": "lstm"}, f"encoder must be one of {', '.join(ENCODERS)}, got lstm"),
        ({"num_controls": 1}, "a dataset for model=latent_ode must have no controls, got 1"),
    ],
)
def test_refuses(keys, message):
    with pytest.raises(ValueError) as refused:
        latent_ode(**keys)
    assert str(refused.value) == message


def test_a_linear_decoder_is_one_layer():
    assert isinstance(latent_ode(decoder_width=0).decoder, torch.nn.Linear)

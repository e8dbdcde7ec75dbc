"""The latent task on a linear Gaussian model, all of which is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from lines import UNITS, Line, lines
from torch import Tensor

from node_cli.batch import take
from node_cli.latent import LatentModel, Posterior
from node_cli.series import MASK, TARGET, TIMES, VALUES, Units
from node_cli.tasks.latent import NOISE, Latent
from node_cli.tasks.latent_likelihood import _of_a_poisson_process
from node_cli.tasks.latent_metrics import coverage

KEYS = {
    "num_samples": 1,
    "eval_samples": 4,
    "kl_weight": 1.0,
    "kl_from": 0.0,
    "kl_until": 0.0,
    "rates": False,
}
WEIGHT = torch.tensor([[1.0, -0.5], [0.3, 0.8]])  # from two latent numbers to two channels
DECAY = torch.tensor([0.3, 0.1])
STD = 0.4


class Points(Posterior):
    """Whose samples are one std on each side of the mean, so that the mean of what is quadratic is exact."""

    def draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        axes = torch.eye(2) * math.sqrt(2)
        return self.mean + self.std * torch.cat([axes, -axes])[:, None]


class Decaying(LatentModel):
    """Latent numbers decay, each at its own rate; channels are sums of them."""

    latent_dim = 2

    def __init__(self, kind: type[Posterior] = Posterior, *, learns_rates: bool = False) -> None:
        super().__init__()
        self.kind, self.learns_rates = kind, learns_rates
        self.shift = torch.nn.Parameter(torch.tensor([0.2, -0.1]))

    def design(self, batch) -> Tensor:
        """What maps latent states to all values `(n, T * C, L)`."""
        decay = (-DECAY * batch[TIMES][..., None].float()).exp()
        return (decay[:, :, None] * WEIGHT).flatten(1, 2)

    def posterior(self, batch) -> Posterior:
        assert TARGET not in batch
        return self.kind(self.shift.expand(len(batch[TIMES]), 2), torch.full((len(batch[TIMES]), 2), 0.7))

    def paths(self, latent: Tensor, batch) -> Tensor:
        return latent[:, :, None] * (-DECAY * batch[TIMES][..., None].float()).exp()

    def values(self, paths: Tensor) -> Tensor:
        return paths @ WEIGHT.T

    def log_rates(self, paths: Tensor) -> Tensor:
        return self.shift.expand_as(paths)


class Exact(Decaying):
    """With the true posterior of what is shown, which has correlations unless the design is diagonal."""

    def posterior(self, batch) -> Posterior:
        design = self.design(batch).double() * batch[MASK].flatten(1)[..., None]
        precision = torch.eye(2).double() + design.mT @ design / STD**2
        covariance = precision.inverse()
        mean = (covariance @ design.mT @ batch[VALUES].double().flatten(1)[..., None])[..., 0] / STD**2
        assert (covariance[:, 0, 1].abs() < 1e-12).all()
        return Posterior(mean.float(), covariance.diagonal(dim1=1, dim2=2).sqrt().float())


def task(**keys) -> Latent:
    return Latent(UNITS, ("a", "b"), channel_units=("kg", "kg"), **{**KEYS, **keys})


def equipped(one: Latent, model):
    one.equip(model)
    with torch.no_grad():
        model.get_parameter(NOISE).fill_(math.log(STD))
    return model.eval()


def rows_of(one: Latent, model, batch):
    with torch.no_grad():
        return one.predict(model, batch, torch.Generator().manual_seed(0))


def log_marginal(model: Decaying, batch) -> Tensor:
    """Of all that was observed, by the normal distribution that it has."""
    design, found = model.design(batch).double(), []
    for number, where in enumerate((batch[MASK] | batch[TARGET]).flatten(1)):
        own, values = design[number][where], batch[VALUES].flatten(1)[number][where].double()
        covariance = own @ own.T + STD**2 * torch.eye(len(own))
        found.append(
            torch.distributions.MultivariateNormal(torch.zeros(len(own)).double(), covariance).log_prob(values)
        )
    return torch.stack(found)


def shown(batch):
    """With nothing beyond what is seen."""
    return {**batch, TARGET: batch[MASK]}


def test_the_loss_is_the_bound_of_a_linear_gaussian_model_in_closed_form():
    model, batch = equipped(task(), Decaying(Points)), shown(lines((0.1, -0.2), 5))
    loss = task(num_samples=4).loss(model, batch, 1.0)
    design, where = model.design(batch).double(), batch[MASK].flatten(1)
    mean, std = (each.double() for each in model.posterior({TIMES: batch[TIMES]}))
    errors = (batch[VALUES].flatten(1).double() - (design @ mean[..., None])[..., 0]) * where
    spread = (design.square() * std[:, None].square()).sum(2) * where
    log_noise = math.log(STD) + 0.5 * math.log(2 * math.pi)
    likelihood = -((errors.square() + spread) / (2 * STD**2)).sum() - where.sum() * log_noise
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0))
    expected = (kl.sum() - likelihood).item()
    assert loss.total.item() == pytest.approx(expected, abs=1e-4 * loss.weight.item())
    assert loss.weight.item() == 2 * 5 * 2
    assert loss.metrics["nll"].item() + loss.metrics["kl"].item() == pytest.approx(loss.total.item(), abs=1e-4)


def test_both_bounds_lie_below_the_marginal_likelihood_and_the_tighter_one_comes_near_it():
    batch = shown(lines((0.1, -0.2), 5))
    batch[VALUES] *= 0.2  # not far from where the posterior looks
    model = equipped(task(), Decaying())
    exact = log_marginal(model, batch)
    few, many = (rows_of(task(eval_samples=count), model, batch) for count in (2, 20_000))
    assert (many["elbo"] < many["iwae"]).all()
    assert (many["elbo"] < exact - 0.1).all()
    assert many["iwae"].double().sub(exact).abs().max() < 0.1
    assert (few["iwae"] <= many["iwae"] + 1).all()


def test_with_the_true_posterior_every_sample_gives_the_marginal_likelihood(monkeypatch):
    monkeypatch.setitem(globals(), "WEIGHT", torch.eye(2))
    batch = shown(lines((0.1, -0.2), 5))
    model = equipped(task(), Exact())
    rows, exact = rows_of(task(), model, batch), log_marginal(model, batch)
    torch.testing.assert_close(rows["iwae"].double(), exact, rtol=0, atol=1e-4)
    metrics = task().metrics(batch, rows)
    assert metrics["iwae"] == pytest.approx(-exact.sum().item() / 20, abs=1e-5)


@pytest.mark.parametrize(
    ("keys", "progress", "weight"),
    [
        ({"kl_until": 0.5}, 0.0, 0.0),
        ({"kl_until": 0.5}, 0.25, 0.5),
        ({"kl_until": 0.5}, 0.75, 1.0),
        ({"kl_until": 0.5, "kl_from": 0.2, "kl_weight": 2.0}, 0.25, 1.2),
        ({"kl_weight": 0.1}, 0.0, 0.1),
    ],
)
def test_the_weight_of_the_divergence_grows_with_the_run(keys, progress, weight):
    model, batch = equipped(task(), Decaying(Points)), lines((0.1, -0.2), 5)
    loss = task(**keys).loss(model, batch, progress)
    expected = loss.metrics["nll"] + weight * loss.metrics["kl"]
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_shards_of_a_batch_add_up_and_hidden_values_count_though_no_model_sees_them():
    model, batch = equipped(task(), Decaying(Points)), lines((0.1, -0.2), 5)
    batch[TARGET] = batch[TARGET] & (torch.arange(8) < 7)[None, :, None]
    whole, *parts = (task().loss(model, each, 1.0) for each in (batch, *(take(batch, [k]) for k in range(2))))
    assert whole.weight.item() == 2 * 7 * 2
    for name in ("total", "weight"):
        assert getattr(whole, name).item() == pytest.approx(sum(getattr(part, name).item() for part in parts))


def test_a_loss_without_training_is_the_same_each_time_and_in_training_never():
    model, batch = equipped(task(), Decaying()), lines((0.1, -0.2), 5)
    losses = [task().loss(model, batch, 1.0).total.item() for _ in range(2)]
    assert losses[0] == losses[1]
    model.train()
    assert len({task().loss(model, batch, 1.0).total.item() for _ in range(2)}) == 2


def test_rates_are_those_of_a_poisson_process():
    batch = lines((0.1, -0.2), 5)
    plain, timed = (
        task().loss(equipped(task(), Decaying(Points, learns_rates=rates)), shown(batch), 1.0)
        for rates in (False, True)
    )
    rates = torch.tensor([0.2, -0.1]).exp()  # constant; times are 0 to 4
    expected = 2 * (4 * rates.sum() - 5 * rates.log().sum())
    assert (timed.total - plain.total).item() == pytest.approx(expected.item(), rel=1e-5)


def test_rates_that_change_are_integrated_by_the_trapezoidal_rule():
    batch = lines((0.1, -0.2), 5)
    slopes = torch.tensor([0.3, 0.1])
    log_rates = (1 + slopes * batch[TIMES][..., None].float()).log()[None]  # rates of straight lines; times are 0 to 4
    found = _of_a_poisson_process(log_rates, batch, batch[MASK])
    expected = (log_rates[0] * batch[MASK]).sum((1, 2)) - (4 + slopes * 8).sum()
    torch.testing.assert_close(found, expected[None])


def test_of_probabilities_that_are_uniform_a_band_holds_its_level():
    levels = [0.1, 0.5, 0.9]
    assert coverage((torch.arange(1000) + 0.5) / 1000, levels) == pytest.approx(levels)
    assert coverage(torch.tensor([0.04, 0.5, 0.96, 0.7]), [0.9]) == [0.5]


def test_bands_are_quantiles_of_the_mixture_and_metrics_say_how_often_they_hold():
    model, batch = equipped(task(), Decaying()), lines((0.1, -0.2), 5)
    one = task(eval_samples=500)
    rows = rows_of(one, model, batch)
    mean, std = model.posterior({TIMES: batch[TIMES]})
    design = model.design(batch)
    center = (design @ mean[..., None])[..., 0].view(2, 8, 2)
    spread = ((design.square() * std[:, None].square()).sum(2) + STD**2).sqrt().view(2, 8, 2)
    for name, sign in (("low", -1), ("high", 1)):
        torch.testing.assert_close(UNITS.scaled(rows[name]), center + sign * 1.645 * spread, rtol=0, atol=0.15)
    expected = torch.special.ndtr((batch[VALUES] - center) / spread)
    torch.testing.assert_close(rows["probability"], expected, rtol=0, atol=0.06)
    inside = (batch[VALUES] - center).abs() <= 1.645 * spread
    held = one.metrics(batch, rows)["coverage"]
    assert held == pytest.approx(inside[batch[TARGET]].float().mean().item(), abs=0.1)
    curve = one.details(model, batch, rows)["calibration"]
    assert sorted(curve["extrapolation"]) == curve["extrapolation"]


def test_errors_are_told_apart_by_time_and_are_in_the_users_units():
    model, batch = equipped(task(), Line([1.0, 0.0])), lines((0.5, -0.25), 4)
    hidden = torch.zeros_like(batch[MASK])
    hidden[:, 2] = True
    batch |= {MASK: batch[MASK] & ~hidden, TARGET: batch[TARGET] | hidden}
    one = task()
    metrics = one.metrics(batch, rows_of(one, model, batch))
    times = np.arange(8.0)
    errors = np.stack([2 * 0.5 * times, 4 * 0.25 * times], axis=1)  # of both series, times the std of each channel
    assert metrics["interpolation_rmse"] == pytest.approx(math.sqrt((errors[:4] ** 2).mean()), rel=1e-5)
    assert metrics["extrapolation_rmse"] == pytest.approx(math.sqrt((errors[4:] ** 2).mean()), rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["iwae"])


def test_a_model_without_a_latent_state_is_not_asked_for_the_first_value_that_it_sees():
    model, batch = equipped(task(), Line([0.5, -0.25])), lines((0.5, -0.25), 4)
    batch[MASK] = batch[MASK].clone()
    batch[MASK][0, 0, 0] = False
    batch[VALUES][0, 0, 0] = 100.0
    loss = task().loss(model, batch, 0.5)
    assert loss.weight.item() == 2 * 8 * 2 - 4 - 1
    assert loss.total.item() / loss.weight.item() == pytest.approx(
        math.log(STD) + 0.5 * math.log(2 * math.pi), rel=1e-4
    )
    assert not model.train().pruned
    task().loss(model, batch, 0.5)
    assert model.pruned == [0.5]


@pytest.mark.parametrize("is_log", [False, True])
def test_the_likelihood_is_of_values_in_the_users_units(is_log):
    units = Units(mean=(0.1, 0.2), std=(0.5, 0.3), is_log=is_log, t0=0.0, time_scale=1.0)
    one = Latent(units, ("a", "b"), **KEYS)
    batch = lines((0.1, -0.2), 5)
    model = equipped(one, Line([0.0, 0.0]))
    rows = rows_of(one, model, batch)
    values = units.values(batch[VALUES].double())
    base = torch.distributions.Normal(rows["scaled"].double(), STD)
    steps = [torch.distributions.AffineTransform(torch.tensor(units.mean), torch.tensor(units.std))]
    steps += [torch.distributions.ExpTransform()] if is_log else []
    density = torch.distributions.TransformedDistribution(base, steps)
    expected = -density.log_prob(values)[batch[TARGET]].mean().item()
    assert one.metrics(batch, rows)["nll"] == pytest.approx(expected, rel=1e-5)
    assert one.metrics(batch, rows).keys() == set(one.metric_names)


def test_the_noise_is_learned_and_told_in_the_users_units():
    one = task()
    model = equipped(one, Decaying())
    batch = lines((0.1, -0.2), 5)
    one.loss(model.train(), batch, 1.0).total.backward()
    assert (model.get_parameter(NOISE).grad != 0).all()
    details = one.details(model, batch, rows_of(one, model.eval(), batch))
    assert details["noise_std"] == pytest.approx({"a": 2 * STD, "b": 4 * STD})
    assert one.shown(details) == {"noise std": "a 0.8, b 1.6"}


def test_the_table_has_the_ends_of_the_bands():
    one, model, batch = task(), equipped(task(), Decaying()), lines((0.1, -0.2), 5)
    table = one.table(batch, rows_of(one, model, batch), ["p", "q"])
    assert [*table] == [
        "series",
        "time",
        "a",
        "a_low",
        "a_high",
        "a_observed",
        "b",
        "b_low",
        "b_high",
        "b_observed",
        "is_shown",
    ]
    assert (table["a_low"] < table["a"]).all()
    assert (table["a"] < table["a_high"]).all()


def test_figures_of_a_latent_model_and_of_one_without():
    one, batch = task(), lines((0.1, -0.2), 5)
    for model, more in ((Decaying(), {"latent", "prior"}), (Line([0.1, 0.2]), set[str]())):
        rows = rows_of(one, equipped(one, model), batch)
        assert set(one.figures(model, batch, rows)) == {"series", "plane", "calibration"} | more
        assert set(one.prediction_figures(batch, rows)) == {"series", "plane", "calibration"}

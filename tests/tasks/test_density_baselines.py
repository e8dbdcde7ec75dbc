"""Densities that need no network: exact where that is known, and chosen on validation alone."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from shipped import dataset_keys

from node_cli.datasets.digits import digits
from node_cli.datasets.eight_gaussians import eight_gaussians
from node_cli.tasks import density_baselines, gaussian_mixture
from node_cli.tasks.density_baselines import baselines
from node_cli.tasks.density_space import Space
from node_cli.tasks.gaussian_mixture import GaussianMixture, chosen_mixture

RANDOM = torch.Generator().manual_seed(0)
INPUTS = ("train", "val", "test")


def normal(*shape):
    return torch.randn(shape, generator=RANDOM, dtype=torch.float64)


def inputs_of(dataset):
    return [dataset.splits[name]["inputs"] for name in INPUTS]


def test_a_mixture_has_the_density_of_scipy():
    parts = torch.rand(200, 3, generator=RANDOM, dtype=torch.float64)
    points = normal(200, 2) @ torch.tensor([[2.0, 1.0], [0.0, 0.5]]).double()
    mixture = GaussianMixture.of(points, parts / parts.sum(1, keepdim=True), 1e-3)
    covariances = mixture.factors @ mixture.factors.mT
    expected = sum(
        weight.item() * multivariate_normal(mean.numpy(), covariance.numpy()).pdf(points.numpy())
        for weight, mean, covariance in zip(mixture.log_weights.exp(), mixture.means, covariances, strict=True)
    )
    np.testing.assert_allclose(mixture.log_prob(points).exp(), expected, rtol=1e-9)


def test_one_gaussian_has_the_mean_and_the_covariance_of_the_data():
    points = normal(500, 3) * torch.tensor([1.0, 2.0, 3.0]) + 5
    model = GaussianMixture.single(points)
    torch.testing.assert_close(model.means[0], points.mean(0))
    torch.testing.assert_close((model.factors @ model.factors.mT)[0], points.T.cov(correction=0), atol=1e-3, rtol=0)


def test_the_mixture_finds_eight_gaussians_and_their_entropy():
    keys = {**dataset_keys("eight_gaussians"), "noise": 0.3, "num_samples": 2000}
    found = baselines(*inputs_of(eight_gaussians(**keys)), Space((2,), None, None, None))
    entropy = math.log(8) + math.log(2 * math.pi * math.e * 0.3**2)  # of Gaussians that hardly overlap
    assert found["gaussian_mixture"] == pytest.approx(entropy, abs=0.1)
    assert found["gaussian"] > entropy + 1
    assert found.keys() == {"gaussian", "gaussian_mixture"}


def test_more_components_are_taken_only_where_validation_says_so():
    train, val = normal(60, 5), normal(60, 5)
    model = chosen_mixture(train, val)
    assert len(model.means) == 1
    assert -model.log_prob(val).mean() <= -GaussianMixture.single(train).log_prob(val).mean()
    many = chosen_mixture(torch.cat([train, train + 20]), torch.cat([val, val + 20]))
    assert len(many.means) == 2


@pytest.mark.parametrize(
    "points",
    [torch.zeros(20, 2), torch.eye(4).repeat(5, 1), torch.arange(20.0)[:, None] * torch.tensor([1.0, 0.0])],
    ids=["one point", "four points", "a line"],
)
def test_data_without_a_density_of_their_own_are_fitted_all_the_same(points):
    points = points.double()
    assert chosen_mixture(points, points).log_prob(points).isfinite().all()


def test_levels_of_each_pixel_are_counted_from_one(monkeypatch):
    monkeypatch.setattr(density_baselines, "CHUNK", 3)  # in several pieces
    train = torch.tensor([[0, 2], [0, 1], [0, 2], [1, 2]])
    test = torch.tensor([[0, 2], [2, 0], [1, 1], [0, 2]])
    expected = torch.tensor([[4 / 7, 4 / 7], [1 / 7, 1 / 7], [2 / 7, 2 / 7], [4 / 7, 4 / 7]]).log().sum(1).mean()
    space = Space((2,), None, 3, None)
    found = baselines(train / 2, train / 2, test / 2, space)
    assert found["categorical"] == pytest.approx(-expected.item())
    assert found.keys() == {"categorical", "gaussian", "gaussian_mixture"}


def test_digits_are_as_hard_as_they_were_measured_to_be():
    dataset = digits(**dataset_keys("digits"))
    space = Space((1, 8, 8), dataset.offers["scaling"], dataset.offers["num_levels"], 0.05)
    found = {name: space.bits_per_dim(nats) for name, nats in baselines(*inputs_of(dataset), space).items()}
    assert found == pytest.approx(
        {
            "categorical": 2.425,
            "gaussian": 2.939,
            "gaussian_mixture": 2.75,
            "logit_gaussian": 2.446,
            "logit_gaussian_mixture": 2.32,
        },
        abs=0.02,
    )


def test_a_gaussian_of_levels_and_one_of_scaled_levels_are_the_same():
    dataset = digits(**{**dataset_keys("digits"), "normalize": False})
    scaled = digits(**dataset_keys("digits"))
    monkey = {"gaussian": density_baselines.FITS["gaussian"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(density_baselines, "FITS", monkey)
        one, other = (
            baselines(*inputs_of(each), Space((1, 8, 8), each.offers["scaling"], 17, None))
            for each in (dataset, scaled)
        )
    assert one == pytest.approx(other, rel=1e-6)


def test_what_has_too_many_dimensions_is_left_out(monkeypatch):
    monkeypatch.setattr(density_baselines, "LARGEST", {"gaussian": 6, "gaussian_mixture": 5})
    points = normal(30, 6)
    assert baselines(points, points, points, Space((6,), None, None, None)).keys() == {"gaussian"}
    monkeypatch.setattr(gaussian_mixture, "MOST_PRODUCTS", 30 * 36)
    assert len(chosen_mixture(torch.cat([points, points + 30]), torch.cat([points, points + 30])).means) == 1

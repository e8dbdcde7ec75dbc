import math
import re

import pytest
import torch

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.moons import moons
from node_cli.datasets.spheres import spheres
from node_cli.datasets.spirals import spirals

SPHERES = {"dim": 2, "r1": 0.5, "r2": 1.0, "r3": 1.5, "num_samples": 2000}
MOONS = {"num_samples": 500, "noise": 0.0}
SPIRALS = {"num_samples": 600, "num_classes": 3, "turns": 1.5, "noise": 0.0}
SPLITS = {"data_seed": 0, "split_seed": 0, "val_fraction": 0.1, "test_fraction": 0.2}
SOURCES = [(spheres, SPHERES), (moons, MOONS), (spirals, SPIRALS)]


def points(dataset: Dataset, label: int) -> torch.Tensor:
    """All points of one class, of all splits, in float64."""
    return torch.cat([split["inputs"][split["targets"] == label] for split in dataset.splits.values()]).double()


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_spheres_fill_ball_and_shell_evenly(dim):
    dataset = spheres(**{**SPHERES, "dim": dim}, **SPLITS)
    assert dataset.offers["input_shape"] == (dim,)
    for label, (inner, outer) in enumerate([(0.0, 0.5), (1.0, 1.5)]):
        radii = points(dataset, label).norm(dim=1)
        assert len(radii) == 1000
        assert float(radii.min()) >= inner
        assert float(radii.max()) <= outer + 1e-6
        # Even filling: the share of the volume within the radius is uniform in (0, 1).
        shares = (radii**dim - inner**dim) / (outer**dim - inner**dim)
        assert abs(float(shares.mean()) - 0.5) < 0.03
        assert abs(float(shares.var()) - 1 / 12) < 0.01
        assert float(points(dataset, label).mean(dim=0).norm()) < 0.15


def test_spheres_of_high_dimension_stay_finite():
    inputs = spheres(**{**SPHERES, "dim": 4000, "num_samples": 40}, **SPLITS).splits["train"]["inputs"]
    assert bool(inputs.isfinite().all())
    assert float(inputs.norm(dim=1).max()) == pytest.approx(1.5, abs=1e-2)


def test_moons_lie_on_their_half_circles():
    dataset = moons(**MOONS, **SPLITS)
    upper, lower = points(dataset, 0), points(dataset, 1)
    torch.testing.assert_close(upper.norm(dim=1), torch.ones(250).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        (lower - torch.tensor([1.0, 0.5])).norm(dim=1), torch.ones(250).double(), rtol=0, atol=1e-6
    )
    assert float(upper[:, 1].min()) > -1e-6
    assert float(lower[:, 1].max()) < 0.5 + 1e-6


def test_spirals_lie_on_their_arms():
    dataset = spirals(**SPIRALS, **SPLITS)
    assert len(dataset.offers["class_names"]) == 3
    for label in range(3):
        arm = points(dataset, label)
        radii = arm.norm(dim=1)
        angles = 2 * math.pi * (1.5 * radii + label / 3)
        expected = radii[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
        torch.testing.assert_close(arm, expected, rtol=0, atol=1e-5)
        assert len(arm) == 200
        assert float(radii.max()) > 0.95


@pytest.mark.parametrize("source", [(moons, MOONS), (spirals, SPIRALS)])
def test_noise_has_the_deviation_asked_for(source):
    make, keys = source
    clean, noisy = make(**keys, **SPLITS), make(**{**keys, "noise": 0.2}, **SPLITS)
    noise = noisy.splits["train"]["inputs"] - clean.splits["train"]["inputs"]
    assert float(noise.std()) == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize("source", SOURCES)
def test_seeds_fix_points_and_splits_apart(source):
    make, keys = source

    def made(**seeds: int) -> Dataset:
        return make(**keys, **{**SPLITS, **seeds})

    first = made().splits["val"]["inputs"]
    assert torch.equal(made().splits["val"]["inputs"], first)
    assert not torch.equal(made(data_seed=1).splits["val"]["inputs"], first)
    assert not torch.equal(made(split_seed=1).splits["val"]["inputs"], first)
    all_points = {tuple(p) for label in range(2) for p in points(made(), label).tolist()}
    assert all_points == {tuple(p) for label in range(2) for p in points(made(split_seed=1), label).tolist()}


@pytest.mark.parametrize("source", SOURCES)
def test_splits_have_the_fractions_of_every_class_and_the_dtypes(source):
    make, keys = source
    dataset = make(**keys, **SPLITS)
    for name, fraction in [("train", 0.7), ("val", 0.1), ("test", 0.2)]:
        counts = dataset.splits[name]["targets"].bincount()
        num_classes = len(dataset.offers["class_names"])
        assert counts.tolist() == [round(keys["num_samples"] * fraction / num_classes)] * num_classes
        assert dataset.splits[name]["inputs"].dtype == torch.float32
        assert dataset.splits[name]["targets"].dtype == torch.int64


@pytest.mark.parametrize(
    ("source", "change", "message"),
    [
        ((spheres, SPHERES), {"dim": 0}, "dim must be at least 1, got 0"),
        (
            (spheres, SPHERES),
            {"r2": 0.5},
            "dataset.r1, dataset.r2, dataset.r3: got 0.5, 0.5, 1.5, must be positive and",
        ),
        ((spheres, SPHERES), {"num_samples": -3}, "num_samples must be at least 2, got -3"),
        ((spheres, SPHERES), {"num_samples": 6}, "class 0 has 3 sample(s), too few"),
        ((moons, MOONS), {"noise": -0.1}, "noise must be at least 0, got -0.1"),
        ((moons, MOONS), {"noise": float("nan")}, "noise must be at least 0, got nan"),
        ((spirals, SPIRALS), {"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ((spirals, SPIRALS), {"num_samples": 2}, "num_samples must be at least 3, got 2"),
    ],
)
def test_refusals(source, change, message):
    make, keys = source
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**{**keys, **change}, **SPLITS)

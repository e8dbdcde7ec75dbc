import math
import re

import pytest
import torch

from node_cli.batch import num_samples
from node_cli.datasets.arms import arms
from node_cli.datasets.checkerboard import checkerboard
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.eight_gaussians import eight_gaussians
from node_cli.datasets.eight_gaussians_to_moons import eight_gaussians_to_moons
from node_cli.datasets.moons import moons
from node_cli.datasets.rings import rings
from node_cli.datasets.spheres import spheres
from node_cli.datasets.swiss_roll import swiss_roll

SPHERES = {"dim": 2, "r1": 0.5, "r2": 1.0, "r3": 1.5, "num_samples": 2000}
MOONS = {"num_samples": 500, "noise": 0.0}
ARMS = {"num_samples": 600, "num_classes": 3, "turns": 1.5, "noise": 0.0}
EIGHT = {"num_samples": 800, "radius": 4.0, "noise": 0.0}
BOARD = {"num_samples": 4000}
RINGS = {"num_samples": 600, "num_rings": 3, "noise": 0.0}
ROLL = {"num_samples": 600, "noise": 0.0}
TO_MOONS = {"num_samples": 4000, "noise": 0.0}
SPLITS = {"data_seed": 0, "split_seed": 0, "val_fraction": 0.1, "test_fraction": 0.2}
SOURCES = [
    (spheres, SPHERES),
    (moons, MOONS),
    (arms, ARMS),
    (eight_gaussians, {**EIGHT, "noise": 0.1}),
    (checkerboard, BOARD),
    (rings, RINGS),
    (eight_gaussians_to_moons, TO_MOONS),
]
NOISY = [(moons, MOONS), (arms, ARMS), (eight_gaussians, EIGHT), (rings, RINGS), (swiss_roll, ROLL)]


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


def test_arms_lie_on_their_arms():
    dataset = arms(**ARMS, **SPLITS)
    assert len(dataset.offers["class_names"]) == 3
    for label in range(3):
        arm = points(dataset, label)
        radii = arm.norm(dim=1)
        angles = 2 * math.pi * (1.5 * radii + label / 3)
        expected = radii[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1)
        torch.testing.assert_close(arm, expected, rtol=0, atol=1e-5)
        assert len(arm) == 200
        assert float(radii.max()) > 0.95


def test_eight_gaussians_lie_around_a_circle():
    centres = torch.cat([points(eight_gaussians(**EIGHT, **SPLITS), label)[:1] for label in range(8)])
    torch.testing.assert_close(centres.norm(dim=1), torch.full((8,), 4.0).double(), rtol=0, atol=1e-5)
    apart = (centres - centres.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(apart, torch.full((8,), 8 * math.sin(math.pi / 8)).double(), rtol=0, atol=1e-5)


def test_the_checkerboard_fills_every_other_square_evenly():
    dataset = checkerboard(**BOARD, **SPLITS)
    corners = set()
    for label in range(8):
        square = points(dataset, label)
        corner = (square.min(0).values / 2).floor()
        inside = square / 2 - corner
        assert (float(inside.min()) >= 0, float(inside.max()) < 1) == (True, True)
        torch.testing.assert_close(inside.mean(0), torch.full((2,), 0.5).double(), rtol=0, atol=0.05)
        torch.testing.assert_close(inside.var(0), torch.full((2,), 1 / 12).double(), rtol=0, atol=0.01)
        corners.add(tuple(corner.int().tolist()))
    assert corners == {(x, y) for x in range(-2, 2) for y in range(-2, 2) if (x + y) % 2 == 0}


def test_rings_have_evenly_spaced_radii():
    dataset = rings(**RINGS, **SPLITS)
    for label, radius in enumerate([1.0, 2.0, 3.0]):
        ring = points(dataset, label)
        torch.testing.assert_close(ring.norm(dim=1), torch.full((200,), radius).double(), rtol=0, atol=1e-5)
        assert float(ring.mean(0).norm()) < 0.15 * radius


def test_the_swiss_roll_is_a_spiral_without_classes():
    dataset = swiss_roll(**ROLL, **SPLITS)
    assert dataset.offers.keys() == {"input_shape", "scaling"}
    assert {name: num_samples(split) for name, split in dataset.splits.items()} == {
        "train": 420,
        "val": 60,
        "test": 120,
    }
    roll = torch.cat([split["inputs"] for split in dataset.splits.values()]).double()
    radii = roll.norm(dim=1)
    angles = 5 * radii
    torch.testing.assert_close(roll, radii[:, None] * torch.stack([angles.cos(), angles.sin()], 1), rtol=0, atol=1e-4)
    assert 0.3 * math.pi < float(radii.min()) < 1.0 < 2.7 < float(radii.max()) < 0.9 * math.pi


def test_moons_have_eight_gaussians_as_source_anew_in_every_batch_and_independent_of_them():
    dataset = eight_gaussians_to_moons(**TO_MOONS, **SPLITS)
    for split in dataset.splits.values():
        inputs, source = split["inputs"], split["source"]
        plain = (inputs + 1) / 3
        upper = plain[split["targets"] == 0]
        torch.testing.assert_close(upper.norm(dim=1), torch.ones(len(upper)), rtol=0, atol=1e-5)
        assert source.shape == inputs.shape
    source = dataset.splits["train"]["source"]
    assert float(source.norm(dim=1).mean()) == pytest.approx(5.0, abs=0.2)
    assert abs(float(torch.corrcoef(torch.stack([source[:, 0], inputs_of(dataset)[:, 0]]))[0, 1])) < 0.06
    one, other = (next(dataset.train_batches(64, seed=0, epoch=epoch)) for epoch in (0, 1))
    again = next(dataset.train_batches(64, seed=0, epoch=0))
    assert all(torch.equal(one[name], again[name]) for name in one)
    stored = {tuple(point) for point in source.tolist()}
    assert not any(tuple(point) in stored for point in [*one["source"].tolist(), *other["source"].tolist()])
    assert not torch.equal(one["source"], other["source"])


def inputs_of(dataset: Dataset) -> torch.Tensor:
    return dataset.splits["train"]["inputs"]


@pytest.mark.parametrize("source", NOISY)
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
        ((arms, ARMS), {"num_classes": 1}, "num_classes must be at least 2, got 1"),
        ((arms, ARMS), {"num_samples": 2}, "num_samples must be at least 3, got 2"),
        ((eight_gaussians, EIGHT), {"radius": 0.0}, "radius must be positive, got 0.0"),
        ((eight_gaussians, EIGHT), {"num_samples": 7}, "num_samples must be at least 8, got 7"),
        ((rings, RINGS), {"num_rings": 1}, "num_rings must be at least 2, got 1"),
        ((swiss_roll, ROLL), {"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ((swiss_roll, ROLL), {"num_samples": 3}, "there are 3 sample(s), too few to leave one in every split"),
    ],
)
def test_refusals(source, change, message):
    make, keys = source
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**{**keys, **change}, **SPLITS)

"""The exact distance of two sets of samples, and its floor."""

import itertools
import math
import re

import pytest
import torch

from node_cli.tasks.wasserstein import wasserstein2, wasserstein2_floor

RANDOM = torch.Generator().manual_seed(0)


def test_it_is_the_best_of_all_pairings():
    a, b = torch.randn(2, 6, 3, generator=RANDOM)
    best = min((a - b[list(order)]).square().sum(1).mean().sqrt().item() for order in itertools.permutations(range(6)))
    assert wasserstein2(a, b) == pytest.approx(best, rel=1e-6)


def test_of_numbers_it_is_that_of_sorted_ones():
    a, b = torch.randn(2, 300, 1, generator=RANDOM)
    expected = (a.sort(0).values - b.sort(0).values).square().mean().sqrt().item()
    assert wasserstein2(a, b) == pytest.approx(expected, rel=1e-6)


def test_a_shift_is_as_far_as_it_is_and_the_order_says_nothing():
    a = torch.randn(200, 1, 2, 2, generator=RANDOM) + 1e4  # far from 0: differences, not products, make the distance
    shifted = a[torch.randperm(200, generator=RANDOM)] + 0.5
    assert wasserstein2(a, shifted) == pytest.approx(1.0, rel=1e-3)
    assert wasserstein2(a, a.flip(0)) == 0.0


def test_the_floor_is_that_of_two_fresh_sets_even_of_data_of_balanced_classes():
    """Sets drawn from balanced data differ in their classes as much as fresh ones do."""
    labels = torch.arange(800) % 2
    data = 10.0 * labels[:, None].float()
    floors = [wasserstein2_floor(data, 200, RANDOM) ** 2 for _ in range(60)]
    fresh = [
        wasserstein2(*(10.0 * torch.randint(2, (200, 1), generator=RANDOM).float() for _ in "ab")) ** 2
        for _ in range(60)
    ]
    assert sum(floors) / 60 == pytest.approx(sum(fresh) / 60, rel=0.3)
    expected = 100 * math.sqrt(2 * 200 / 4) * math.sqrt(2 / math.pi) / 200  # mean of |difference of two binomials|
    assert sum(floors) / 60 == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: wasserstein2(torch.zeros(3, 2), torch.zeros(4, 2)),
            "points must be paired with as many of their kind",
        ),
        (lambda: wasserstein2(*torch.zeros(2, 2001, 1)), "there must be at most 2,000 samples for an exact distance"),
        (
            lambda: wasserstein2(torch.full((2, 2), torch.nan), torch.zeros(2, 2)),
            "the distances between points must be",
        ),
        (
            lambda: wasserstein2_floor(torch.zeros(9, 2), 5, RANDOM),
            "there must be at least 2 * 5 samples for two sets, got 9",
        ),
    ],
)
def test_what_has_no_distance_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()

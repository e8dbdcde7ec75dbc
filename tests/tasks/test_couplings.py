"""Couplings of noise and data: exact, without repeats, and unbiased given a label."""

import itertools
import re

import pytest
import torch

from node_cli.tasks.couplings import coupled

RANDOM = torch.Generator().manual_seed(0)


def batch(size, *shape):
    return torch.randn(2, size, *shape, generator=RANDOM).unbind()


def cost(noise, data, order):
    return (noise[order] - data).square().sum().item()


@pytest.mark.parametrize("shape", [(2,), (1, 3, 3)])
def test_optimal_transport_is_the_best_of_all_permutations(shape):
    noise, data = batch(6, *shape)
    best = min(cost(noise, data, list(order)) for order in itertools.permutations(range(6)))
    assert cost(noise, data, coupled(noise, data, "ot")) == pytest.approx(best)


@pytest.mark.parametrize("kind", ["independent", "ot", "conditional_ot"])
def test_every_noise_is_used_once_even_where_several_are_equal(kind):
    noise, data = batch(40, 2)
    noise[10:] = noise[0]
    order = coupled(noise, data, kind, torch.arange(40) % 3)
    assert order.sort().values.tolist() == list(range(40))


def test_independent_noise_stays_where_it_is():
    assert coupled(*batch(5, 2), "independent").tolist() == [0, 1, 2, 3, 4]


def test_with_labels_each_label_keeps_its_own_noise_and_takes_the_best_of_it():
    noise, data = batch(30, 2)
    labels = torch.tensor([4, 0, 2] * 10)
    order = coupled(noise, data, "conditional_ot", labels)
    assert torch.equal(labels[order], labels)
    for label in (0, 2, 4):
        members = (labels == label).nonzero().squeeze(1)
        alone = coupled(noise[members], data[members], "ot")
        assert torch.equal(order[members], members[alone])


def test_plain_transport_makes_the_noise_depend_on_the_label_and_the_conditional_one_does_not():
    labels = torch.arange(400) % 2
    noise = torch.randn(400, 2, generator=RANDOM)
    data = torch.randn(400, 2, generator=RANDOM) + 6.0 * labels[:, None]

    def gap(kind):
        chosen = noise[coupled(noise, data, kind, labels)]
        return (chosen[labels == 1].mean(0) - chosen[labels == 0].mean(0)).norm().item()

    assert gap("ot") > 1.0
    assert gap("conditional_ot") < 0.3


@pytest.mark.parametrize(
    ("noise", "kind", "message"),
    [
        (torch.zeros(4, 2), "sinkhorn", "coupling must be one of independent, ot, conditional_ot, got sinkhorn"),
        (torch.zeros(3, 2), "ot", "points must be paired with as many of their kind, got (4, 2) and (3, 2)"),
        (torch.zeros(4, 2), "conditional_ot", "coupling=conditional_ot needs the label of each sample"),
        (torch.full((4, 2), torch.nan), "ot", "the distances between points must be finite"),
        (torch.full((4, 2), torch.inf), "ot", "the distances between points must be finite"),
    ],
)
def test_what_cannot_be_coupled_is_refused(noise, kind, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        coupled(noise, torch.ones(4, 2), kind)

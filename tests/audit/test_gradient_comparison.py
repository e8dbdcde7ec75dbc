"""Errors, cosines and mistakes of gradients whose differences are known."""

import math

import pytest
import torch

from node_cli.audit.comparison import SMALL, SURELY, difference, errors_alone, norm, what_is_wrong


def gradients(**values):
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


TRUE = gradients(a=[3.0, 0.0], b=[[0.0], [4.0]])  # norms 3 and 4, together 5


def test_the_norm_is_that_of_one_vector():
    assert norm(TRUE) == 5
    assert norm(gradients(a=3.0, b=[4.0])) == 5


def test_a_gradient_that_is_met():
    found = difference(TRUE, TRUE)
    assert (found.relative_error, found.worst_error) == (0, 0)
    assert found.cosine == 1


def test_error_and_cosine_of_a_gradient_that_is_turned():
    """(3, 0, 0, 4) against (3, 0, 4, 0): 9 of 25 in common."""
    found = difference(gradients(a=[3.0, 0.0], b=[[4.0], [0.0]]), TRUE)
    assert found.relative_error == pytest.approx(math.sqrt(32) / 5, rel=1e-15)
    assert found.cosine == pytest.approx(9 / 25, rel=1e-15)
    assert (found.worst, found.worst_norm) == ("b", 4)
    assert found.worst_error == pytest.approx(math.sqrt(2), rel=1e-15)


@pytest.mark.parametrize(("factor", "cosine"), [(2.0, 1.0), (-1.0, -1.0), (1e-9, 1.0)])
def test_a_factor_turns_nothing_but_the_sign(factor, cosine):
    found = difference({name: factor * g for name, g in TRUE.items()}, TRUE)
    assert found.relative_error == pytest.approx(abs(factor - 1), rel=1e-15)
    assert found.cosine == pytest.approx(cosine, rel=1e-15)


def test_the_worst_is_the_worst_for_its_own_size():
    computed = gradients(a=[3.0, 0.6], b=[[0.0], [4.7]])  # off by 0.6 of 3 and by 0.7 of 4
    found = difference(computed, TRUE)
    assert (found.worst, found.worst_norm) == ("a", 3)
    assert found.worst_error == pytest.approx(0.2, rel=1e-14)
    alone = errors_alone(computed, TRUE)
    assert alone["b"] == pytest.approx(0.7 / 4, rel=1e-14)


def test_a_tiny_true_gradient_is_held_to_the_share_of_the_whole():
    """A bias that a norm takes out again has a gradient of rounding size: wrong by its whole size is not wrong."""
    true = gradients(weight=[3.0, 4.0], bias=[1e-9])
    found = difference(gradients(weight=[3.0, 4.005], bias=[-1e-9]), true)
    assert found.worst == "weight"
    alone = errors_alone(gradients(weight=[3.0, 4.0], bias=[-1e-9]), true)
    assert alone["bias"] == pytest.approx(2e-9 / (5 * SMALL), rel=1e-6)


def test_a_tiny_true_gradient_that_comes_out_large_is_found():
    true = gradients(weight=[3.0, 4.0], bias=[0.0])
    found = difference(gradients(weight=[3.0, 4.0], bias=[0.05]), true)
    assert (found.worst, found.worst_norm) == ("bias", 0)
    assert found.worst_error == pytest.approx(0.05 / (5 * SMALL), rel=1e-14)


def test_a_true_gradient_of_zero_is_met_or_missed():
    zero = gradients(a=[0.0, 0.0])
    met, missed = difference(zero, zero), difference(gradients(a=[0.0, 1e-30]), zero)
    assert (met.relative_error, met.cosine, met.worst_error) == (0, 1, 0)
    assert (missed.relative_error, missed.cosine, missed.worst_error) == (math.inf, 0, math.inf)


def test_a_computed_gradient_of_zero_points_nowhere():
    found = difference({name: torch.zeros_like(g) for name, g in TRUE.items()}, TRUE)
    assert (found.relative_error, found.cosine, found.worst_error) == (1, 0, 1)


@pytest.mark.parametrize(
    ("computed", "clause"),
    [
        (gradients(a=[0.0, 0.0], b=[[0.0], [4.0]]), "a gets no gradient"),
        (gradients(a=[0.0, 0.0], b=[[0.01], [4.0]]), "a gets no gradient"),
        (gradients(a=[0.0, 0.0], b=[[0.0], [0.0]]), "a and b get no gradient"),
        (gradients(a=[-3.0, 0.0], b=[[0.0], [-4.0]]), "its sign is wrong throughout"),
        (gradients(a=[-3.01, 0.0], b=[[0.02], [-4.0]]), "its sign is wrong throughout"),
        (gradients(a=[3.0, 7.0], b=[[0.0], [4.0]]), "the known mistake"),
        (gradients(a=[3.0, 7.2], b=[[0.0], [3.9]]), "the known mistake"),
        (gradients(a=[-3.0, 0.0], b=[[0.0], [4.0]]), ""),
        (gradients(a=[4.0, 1.0], b=[[2.0], [3.0]]), ""),
        (gradients(a=[0.0, 0.1], b=[[0.0], [-1.0]]), ""),
    ],
)
def test_what_is_wrong(computed, clause):
    known = {"the known mistake": gradients(a=[3.0, 7.0], b=[[0.0], [4.0]])}
    assert what_is_wrong(computed, TRUE, known) == clause


@pytest.mark.parametrize(("share", "clause"), [(0.9, "the known mistake"), (1.1, "")])
def test_a_mistake_must_explain_all_but_a_share_of_the_error(share, clause):
    """What is left, x, against the error, 10 + x."""
    left = share * SURELY * 10 / (1 - share * SURELY)
    known = {"the known mistake": gradients(a=[13.0, 0.0], b=[[0.0], [4.0]])}
    assert what_is_wrong(gradients(a=[13.0 + left, 0.0], b=[[0.0], [4.0]]), TRUE, known) == clause


def test_a_correct_gradient_is_not_accused():
    known = {"the known mistake": gradients(a=[3.0, 1e-2], b=[[0.0], [4.0]])}
    assert what_is_wrong(TRUE, TRUE, known) == ""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        noisy = {
            name: g + 1e-7 * torch.randn(g.shape, generator=generator, dtype=torch.float64) for name, g in TRUE.items()
        }
        assert what_is_wrong(noisy, TRUE, known) == ""


def test_a_gradient_that_is_truly_zero_is_not_missing():
    true = gradients(weight=[3.0, 4.0], bias=[1e-9], unused=[0.0])
    assert what_is_wrong(gradients(weight=[3.0, 4.1], bias=[0.0], unused=[0.0]), true, {}) == ""
    assert what_is_wrong(gradients(weight=[0.0, 0.0], bias=[0.0], unused=[0.0]), true, {}) == "weight gets no gradient"

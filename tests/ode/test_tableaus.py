"""The coefficients of every method: the conditions of its order, of its embedded pair and of its interpolant.

A method is of order p if sum_i b_i Phi_i(t) = 1 / gamma(t) for every rooted tree t of at most p nodes (Hairer, Norsett,
Wanner, *Solving Ordinary Differential Equations I*, section II.2).
"""

import math
from functools import cache

import numpy as np
import pytest
from parts import ADAPTIVE, FIXED, load

from node_cli.ode.tableaus import ADAPTIVE_METHODS, TABLEAUS, Tableau

DENSE_ORDERS = {"midpoint": 2, "heun": 2, "ralston": 2, "bosh3": 3, "dopri5": 4, "tsit5": 4, "dopri8": 5}
PAIRS = {name: TABLEAUS[name] for name in ADAPTIVE_METHODS}
TIMES = {  # of the stages, as published
    "euler": [0],
    "midpoint": [0, 1 / 2],
    "heun": [0, 1],
    "ralston": [0, 2 / 3],
    "rk4": [0, 1 / 2, 1 / 2, 1],
    "rk4_38": [0, 1 / 3, 2 / 3, 1],
    "bosh3": [0, 1 / 2, 3 / 4, 1],
    "dopri5": [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1],
    "tsit5": [0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1],
    "dopri8": [
        *(0, 1 / 18, 1 / 12, 1 / 8, 5 / 16, 3 / 8, 59 / 400, 93 / 200),
        *(5490023248 / 9719169821, 13 / 20, 1201146811 / 1299019798, 1, 1, 1),
    ],
}


@cache
def trees(size):
    """All rooted trees of `size` nodes, each the sorted tuple of the subtrees at its root."""
    return sorted({tuple(sorted(forest)) for forest in forests(size - 1)})


def forests(size):
    """All collections of trees with `size` nodes in all."""
    if size == 0:
        return [()]
    return [(tree, *rest) for first in range(1, size + 1) for tree in trees(first) for rest in forests(size - first)]


def size_of(tree):
    return 1 + sum(map(size_of, tree))


def gamma(tree):
    return size_of(tree) * math.prod(map(gamma, tree))


def phi(tree, a):
    """The elementary weight of each stage."""
    return np.prod([a @ phi(subtree, a) for subtree in tree], axis=0) * np.ones(len(a))


def matrix(tableau):
    a = np.zeros((tableau.num_stages, tableau.num_stages))
    for i, row in enumerate(tableau.a, start=1):
        a[i, : len(row)] = row
    return a


def defect(tableau, weights, size, theta=1.0):
    """The greatest violation of the conditions of order `size`, for the state at `t + theta h`."""
    a = matrix(tableau)
    return max(abs(np.dot(weights, phi(tree, a)) - theta**size / gamma(tree)) for tree in trees(size))


def test_there_are_as_many_trees_as_in_the_book():
    assert [len(trees(size)) for size in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]
    assert sorted(gamma(tree) for tree in trees(4)) == [4, 8, 12, 24]
    assert all(size_of(tree) == 5 for tree in trees(5))


@pytest.mark.parametrize("name", TABLEAUS)
def test_stages_lie_at_the_published_times_and_the_weights_add_up_to_one(name):
    tableau = TABLEAUS[name]
    assert tableau.name == name
    assert tableau.c == pytest.approx(TIMES[name], abs=1e-14)
    assert [c for c in tableau.c if c == 1.0] == [c for c in TIMES[name] if c == 1]  # exactly: the end is hit
    assert sum(tableau.b) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("name", TABLEAUS)
def test_the_method_has_its_order_and_no_higher_one(name):
    tableau = TABLEAUS[name]
    for size in range(1, tableau.order + 1):
        assert defect(tableau, tableau.b, size) < 1e-13
    assert defect(tableau, tableau.b, tableau.order + 1) > 1e-7


@pytest.mark.parametrize("name", PAIRS)
def test_the_embedded_solution_has_the_lower_order(name):
    tableau = TABLEAUS[name]
    assert tableau.error_order == tableau.order - 1
    for size in range(1, tableau.order):
        assert defect(tableau, tableau.b_hat, size) < 1e-13
        assert abs(np.dot(tableau.error_weights, phi(trees(size)[0], matrix(tableau)))) < 1e-13
    assert defect(tableau, tableau.b_hat, tableau.order) > 1e-6
    assert tableau.error_weights == tuple(np.subtract(tableau.b, tableau.b_hat))


def test_what_has_no_embedded_solution_has_no_error():
    assert sorted(set(TABLEAUS) - set(PAIRS)) == ["euler", "rk4", "rk4_38"]
    assert TABLEAUS["rk4"].error_weights is None


def test_the_last_stage_is_the_first_of_the_next_step_where_it_is_published_so():
    assert {name for name, tableau in TABLEAUS.items() if tableau.is_fsal} == {"bosh3", "dopri5", "tsit5", "dopri8"}


@pytest.mark.parametrize("name", PAIRS)
def test_the_interpolant_joins_the_ends_of_the_step_smoothly(name):
    tableau = TABLEAUS[name]
    stages = np.eye(tableau.num_stages)
    assert tableau.dense_weights(0.0).tolist() == [0.0] * tableau.num_stages
    np.testing.assert_allclose(tableau.dense_weights(1.0), tableau.b, atol=1e-14)
    np.testing.assert_allclose(tableau.dense_slopes(0.0), stages[0], atol=1e-14)
    if tableau.is_fsal:
        np.testing.assert_allclose(tableau.dense_slopes(1.0), stages[-1], atol=1e-13)


@pytest.mark.parametrize("theta", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("name", PAIRS)
def test_the_interpolant_has_its_order_inside_the_step(name, theta):
    tableau, order = TABLEAUS[name], DENSE_ORDERS[name]
    for size in range(1, order + 1):
        assert defect(tableau, tableau.dense_weights(theta), size, theta) < 1e-13
    assert defect(tableau, tableau.dense_weights(theta), order + 1, theta) > 1e-6


@pytest.mark.parametrize("name", PAIRS)
def test_slopes_of_the_interpolant_are_its_derivatives(name):
    tableau, theta, step = TABLEAUS[name], np.linspace(0.1, 0.9, 5), 1e-5
    after, before = (np.array([np.broadcast_to(w, 5) for w in tableau.dense_weights(theta + s)]) for s in (step, -step))
    slopes = np.array([np.broadcast_to(slope, 5) for slope in tableau.dense_slopes(theta)])
    np.testing.assert_allclose(slopes, (after - before) / (2 * step), atol=1e-7)


def test_every_method_has_its_yaml_and_every_yaml_its_method():
    assert {load("solver", name).method for name in ADAPTIVE} | {load("solver", name).method for name in FIXED} == set(
        TABLEAUS
    )
    assert all(tableau.source for tableau in TABLEAUS.values())


@pytest.mark.parametrize(
    "coefficients",
    [
        {"a": ((0.5, 0.5),), "b": (0.5, 0.5)},
        {"a": (), "b": (1.0,), "b_hat": (1.0, 0.0), "error_order": 0},
        {"a": (), "b": (1.0,), "b_hat": (1.0,)},
        {"a": (), "b": (1.0,), "dense": ((1.0,), (1.0,))},
        {"a": (), "b": (1.0,), "b_hat": (0.0,), "error_order": 0},
    ],
)
def test_coefficients_that_do_not_fit_each_other_make_no_method(coefficients):
    with pytest.raises(AssertionError):
        Tableau("mistyped", 1, **coefficients, source="none")

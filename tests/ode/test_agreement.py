"""Non-linear problems without exact solutions, against scipy's `solve_ivp`."""

from functools import cache

import numpy as np
import pytest
import torch
from parts import ADAPTIVE, make_solver
from problems import HARD_PROBLEMS, times
from scipy.integrate import solve_ivp

pytestmark = pytest.mark.slow

TOLERANCES = {
    "adaptive_heun": (1e-3, 1e-4),
    "bosh3": (1e-3, 1e-5, 1e-7),
    "dopri5": (1e-4, 1e-6, 1e-8),
    "tsit5": (1e-4, 1e-6, 1e-8),
    "dopri8": (1e-4, 1e-7, 1e-10),
}
SAME_METHOD = {"bosh3": "RK23", "dopri5": "RK45"}


def by_scipy(problem, method, tolerance):
    def field(t, y):
        return problem.vector_field(torch.tensor(t), torch.from_numpy(y)).numpy()

    return solve_ivp(field, (0, problem.t1), problem.y0, method, rtol=tolerance, atol=tolerance)


@cache
def reference(name):
    return by_scipy(HARD_PROBLEMS[name], "DOP853", 1e-13).y[:, -1]


@cache
def by_us(problem, name, tolerance):
    hard, solver = HARD_PROBLEMS[problem], make_solver(name, rtol=tolerance, atol=tolerance)
    y0 = torch.tensor([hard.y0], dtype=torch.float64)
    return solver.integrate(hard.vector_field, y0, times(0, hard.t1))


def error(y1, name):
    return abs(np.asarray(y1) - reference(name)).max()


@pytest.mark.parametrize("problem", HARD_PROBLEMS)
def test_the_reference_is_much_closer_than_any_tolerance(problem):
    assert error(by_scipy(HARD_PROBLEMS[problem], "LSODA", 1e-12).y[:, -1], problem) < 2e-10


@pytest.mark.parametrize("problem", HARD_PROBLEMS)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_error_stays_within_a_small_factor_of_the_tolerance(name, problem):
    for tolerance in TOLERANCES[name]:
        solution = by_us(problem, name, tolerance)
        assert error(solution.ys[-1, 0], problem) < HARD_PROBLEMS[problem].growth * tolerance


@pytest.mark.parametrize("problem", HARD_PROBLEMS)
@pytest.mark.parametrize("name", SAME_METHOD)
def test_scipys_solver_of_the_same_method_is_no_more_accurate_at_the_same_cost(name, problem):
    for tolerance in TOLERANCES[name]:
        theirs = by_scipy(HARD_PROBLEMS[problem], SAME_METHOD[name], tolerance)
        ours = by_us(problem, name, tolerance)
        assert error(ours.ys[-1, 0], problem) < 2 * error(theirs.y[:, -1], problem) + 1e-12
        assert ours.stats.nfe <= 1.1 * theirs.nfev


@pytest.mark.parametrize("problem", HARD_PROBLEMS)
def test_a_problem_turns_back_to_where_it_came_from(problem):
    hard = HARD_PROBLEMS[problem]
    y0, solver = torch.tensor([hard.y0], dtype=torch.float64), make_solver("dopri8", rtol=1e-12, atol=1e-12)
    there = solver.integrate(hard.vector_field, y0, times(0, hard.t1 / 4)).ys[-1]
    back = solver.integrate(hard.vector_field, there, times(hard.t1 / 4, 0)).ys[-1]
    torch.testing.assert_close(back, y0, rtol=0, atol=1e-8)

"""Cases from names, as `node-audit` makes them, with the planted mistakes among the gradients."""

import planted
import pytest
from parts import make_gradient, make_solver, names

from node_cli.audit.base import make_cases


def _gradient(name):
    return make_gradient(name) if name in names("gradient") else getattr(planted, name)()


@pytest.fixture
def cases():
    """`cases("dopri5 rk4", "direct WrongSign", 1e-3)`: every solver with every gradient at every tolerance."""

    def make(solvers, gradients, *rtols):
        return make_cases(
            {name: make_solver(name) for name in solvers.split()},
            {name: _gradient(name) for name in gradients.split()},
            rtols,
        )[0]

    return make


@pytest.fixture
def audited(cases):
    """The report of a problem on such cases; it ticks as often as it says."""

    def audit(problem, *words):
        ticks, made = [], cases(*words)
        report = problem.audit(made, ticks.append)
        assert len(ticks) == problem.num_measurements(made)
        return report

    return audit

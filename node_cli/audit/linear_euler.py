"""Euler's method on dz/dt = A z: the exact gradient of its steps, and how far from it and from the ODE's others are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, repeat

import torch
from matplotlib.axes import Axes

from node_cli.audit.base import Tick
from node_cli.audit.comparison import Gradients, difference, order
from node_cli.audit.drawing import draw_errors, number_counts
from node_cli.audit.linear_problem import LinearProblem
from node_cli.ode.functional import odeint
from node_cli.tables import Table, two_digits

EULER_NOTE = (
    "Under Euler's method z_k = (I + h A)^k z0. direct differentiates this product (discretise, then optimise), "
    "adjoint solves da/dt = -A^T a by Euler too (optimise, then discretise): a third gradient, beside that of the "
    "product and that of the ODE; all three meet as the steps shrink."
)
COLUMNS = {
    "direct_discrete": "direct - exact discrete",
    "direct_continuous": "direct - ODE",
    "adjoint_continuous": "adjoint - ODE",
    "adjoint_discrete": "adjoint - exact discrete",
}
EulerErrors = dict[str, float]  # `steps` between two observations, and the relative error of each of COLUMNS


def euler_gradients(problem: LinearProblem, steps: int) -> Gradients:
    """The exact gradients of the discrete problem z_{k+1} = (I + h A) z_k, with `steps` between two observations.

    In powers of B = I + h A: a_k = sum over the observations from k on of (B^T)^{n_i - k} g_i. The observations are at
    equal distances.
    """
    matrix, count = problem.matrix, steps * len(problem.targets)
    h = float(problem.ts[-1] - problem.ts[0]) / count
    identity = torch.eye(len(matrix), dtype=matrix.dtype)
    powers = torch.stack(list(accumulate(repeat(identity + h * matrix, count), torch.matmul, initial=identity)))
    zs = powers @ problem.z0
    g = 2 * problem.weight * (zs[steps::steps] - problem.targets)
    adjoints = torch.zeros_like(zs)
    for n, g_i in zip(range(steps, count + 1, steps), g, strict=True):
        adjoints[: n + 1] += g_i @ powers[: n + 1].flip(0)
    of_matrix = h * adjoints[1:].T @ zs[:-1]
    # Each of the steps between t_{i-1} and t_i is longer by 1/steps of what t_i - t_{i-1} is.
    of_lengths = torch.einsum("ka,ab,kb->k", adjoints[1:], matrix, zs[:-1]).reshape(-1, steps).mean(1)
    zero = of_lengths.new_zeros(1)
    return problem.named(of_matrix, adjoints[0], torch.cat([zero, of_lengths]) - torch.cat([of_lengths, zero]))


def euler_errors(problem: LinearProblem, true: Gradients, counts: Sequence[int], tick: Tick) -> list[EulerErrors]:
    """Under Euler with each of these numbers of steps, with a tick before; `true` are the gradients of the ODE."""
    errors = []
    for steps in counts:
        tick(f"Euler with {steps} steps")
        euler, discrete = partial(odeint, method="euler", num_steps=steps), euler_gradients(problem, steps)
        direct, adjoint = (problem.gradients(partial(euler, gradient=name)) for name in ("direct", "adjoint"))
        pairs = ((direct, discrete), (direct, true), (adjoint, true), (adjoint, discrete))
        found = [difference(*pair).relative_error for pair in pairs]
        errors.append({"steps": steps} | dict(zip(COLUMNS, found, strict=True)))
    return errors


def orders(euler: Sequence[EulerErrors]) -> dict[str, float]:
    """How fast the gradients under Euler near the continuous one."""
    steps = [each["steps"] for each in euler]
    return {name: order(steps, [each[f"{name}_continuous"] for each in euler]) for name in ("direct", "adjoint")}


def euler_table(euler: Sequence[EulerErrors]) -> Table:
    """A row for each number of steps, and the orders."""
    title = (
        "Euler's method, steps between two observations: relative differences of gradients "
        "(order against the ODE: direct {direct:.2f}, adjoint {adjoint:.2f})"
    )
    rows = [
        {"steps": str(each["steps"])} | {column: two_digits(each[key]) for key, column in COLUMNS.items()}
        for each in euler
    ]
    return Table(title.format(**orders(euler)), rows)


def draw_euler(axes: Axes, euler: Sequence[EulerErrors]) -> None:
    """How the gradients meet as the steps shrink."""
    names = {
        f"direct, order {orders(euler)['direct']:.2f}": "direct_continuous",
        f"adjoint, order {orders(euler)['adjoint']:.2f}": "adjoint_continuous",
        "adjoint against direct": "adjoint_discrete",
    }
    curves = {name: [(each["steps"], each[key]) for each in euler] for name, key in names.items()}
    draw_errors(axes, "Euler's gradients", "steps between two observations", curves)
    number_counts(axes)

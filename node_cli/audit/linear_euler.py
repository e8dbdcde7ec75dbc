"""Euler's method on dz/dt = A z: the exact gradient of its steps, and how far from it and from the ODE's others are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, repeat

import numpy as np
import torch
from matplotlib.axes import Axes

from node_cli.audit.base import Tick
from node_cli.audit.closed_form import Problem
from node_cli.audit.comparison import Gradients, difference
from node_cli.audit.drawing import draw_errors, number_counts
from node_cli.ode.functional import odeint
from node_cli.tables import Table, two_digits

EULER_NOTE = (
    "Under Euler's method z_k = (I + h A)^k z0. direct differentiates this product (discretise, then optimise), "
    "adjoint solves da/dt = -A^T a by Euler too (optimise, then discretise): a third gradient, beside that of the "
    "product and that of the ODE; all three meet as the steps shrink."
)


@dataclass(frozen=True)
class EulerErrors:
    """Relative errors of gradients under Euler with `steps` between two observations."""

    steps: int
    direct_discrete: float  # of direct, from the exact gradient of the discrete problem
    direct_continuous: float  # and from that of the ODE
    adjoint_continuous: float
    adjoint_discrete: float


def euler_gradients(problem: Problem, steps: int) -> Gradients:
    """The exact gradients of the discrete problem z_{k+1} = (I + h A) z_k, with `steps` between two observations.

    In powers of B = I + h A: a_k = sum over the observations from k on of (B^T)^{n_i - k} g_i. The observations are at
    equal distances.
    """
    matrix, targets = problem.matrix.numpy(), problem.targets.numpy()
    count = steps * len(targets)
    h = float(problem.ts[-1] - problem.ts[0]) / count
    identity = np.eye(len(matrix))
    powers = np.stack(list(accumulate(repeat(identity + h * matrix, count), np.matmul, initial=identity)))
    zs = powers @ problem.z0.numpy()
    g = 2 * problem.weight * (zs[steps::steps] - targets)
    adjoints = np.zeros_like(zs)
    for n, g_i in zip(range(steps, count + 1, steps), g, strict=True):
        adjoints[: n + 1] += g_i @ powers[n::-1]
    of_matrix = h * adjoints[1:].T @ zs[:-1]
    # Each of the steps between t_{i-1} and t_i is longer by 1/steps of what t_i - t_{i-1} is.
    of_lengths = np.einsum("ka,ab,kb->k", adjoints[1:], matrix, zs[:-1]).reshape(-1, steps).mean(1)
    of_times = np.append(0.0, of_lengths) - np.append(of_lengths, 0.0)
    return problem.named(*map(torch.from_numpy, (of_matrix, adjoints[0], of_times)))


def euler_errors(problem: Problem, true: Gradients, counts: Sequence[int], tick: Tick) -> list[EulerErrors]:
    """Under Euler with each of these numbers of steps, with a tick before; `true` are the gradients of the ODE."""
    errors = []
    for steps in counts:
        tick(f"Euler with {steps} steps")
        errors.append(_errors_with(problem, true, steps))
    return errors


def _errors_with(problem: Problem, true: Gradients, steps: int) -> EulerErrors:
    discrete = euler_gradients(problem, steps)
    euler = partial(odeint, method="euler", num_steps=steps)
    direct, adjoint = (problem.gradients(partial(euler, gradient=name)) for name in ("direct", "adjoint"))
    pairs = ((direct, discrete), (direct, true), (adjoint, true), (adjoint, discrete))
    return EulerErrors(steps, *(difference(*pair).relative_error for pair in pairs))


def orders(euler: Sequence[EulerErrors]) -> dict[str, float]:
    """How fast the gradients under Euler near the continuous one: the slope over the finer half, by regression."""
    finer = euler[len(euler) // 2 :] if len(euler) > 3 else euler[1:]
    steps = np.log([each.steps for each in finer])
    errors = {
        "direct": [each.direct_continuous for each in finer],
        "adjoint": [each.adjoint_continuous for each in finer],
    }
    return {name: -float(np.polyfit(steps, np.log(each), 1)[0]) for name, each in errors.items()}


def euler_table(euler: Sequence[EulerErrors]) -> Table:
    """A row for each number of steps, and the orders."""
    order = orders(euler)
    title = (
        "Euler's method, steps between two observations: relative differences of gradients "
        f"(order against the ODE: direct {order['direct']:.2f}, adjoint {order['adjoint']:.2f})"
    )
    rows = [
        {
            "steps": str(each.steps),
            "direct - exact discrete": two_digits(each.direct_discrete),
            "direct - ODE": two_digits(each.direct_continuous),
            "adjoint - ODE": two_digits(each.adjoint_continuous),
            "adjoint - exact discrete": two_digits(each.adjoint_discrete),
        }
        for each in euler
    ]
    return Table(title, rows)


def draw_euler(axes: Axes, euler: Sequence[EulerErrors]) -> None:
    """How the gradients meet as the steps shrink."""
    steps, order = [each.steps for each in euler], orders(euler)
    curves = {
        f"direct, order {order['direct']:.2f}": (steps, [each.direct_continuous for each in euler]),
        f"adjoint, order {order['adjoint']:.2f}": (steps, [each.adjoint_continuous for each in euler]),
        "adjoint against direct": (steps, [each.adjoint_discrete for each in euler]),
    }
    draw_errors(axes, "Euler's gradients", "steps between two observations", curves)
    number_counts(axes)

"""Which of two solvers has the smaller error, by what they are and not by what they cost."""

from __future__ import annotations

from typing import Any

import numpy as np

from node_cli.ode.base import Solver
from node_cli.ode.runge_kutta import RungeKutta

TOLERANCES = 10  # how many times smaller those of a finer solver are, at least
STEPS = 2  # how many times as many a finer solver makes, at least
ROUNDING = 1e-9


def is_finer(other: Solver, own: Solver) -> bool:
    """Whether `other` is the method of `own`, or one of no lower order, with far smaller tolerances or steps.

    A solver with tolerances and one with fixed steps cannot be compared so.
    """
    if not _is_as_good(other, own):
        return False
    settings = [(_setting(other, name), _setting(own, name)) for name in ("num_steps", "step_size")]
    if other.has_tolerances and own.has_tolerances and all(setting == (None, None) for setting in settings):
        pairs = [(_setting(other, name), _setting(own, name)) for name in ("rtol", "atol")]
        return all(_smaller(theirs, TOLERANCES, than=ours).all() for theirs, ours in pairs)
    (their_steps, our_steps), (their_size, our_size) = settings
    if their_steps and our_steps:
        return bool(their_steps >= STEPS * our_steps)
    return bool(their_size and our_size and _smaller(their_size, STEPS, than=our_size).all())


def _is_as_good(other: Solver, own: Solver) -> bool:
    if isinstance(other, RungeKutta) and isinstance(own, RungeKutta):
        return other.method == own.method or other.tableau.order >= own.tableau.order
    return bool(_setting(other, "method") == _setting(own, "method"))


def _smaller(value: Any, factor: int, *, than: Any) -> Any:
    """Elementwise, of numbers or of one for each channel."""
    return factor * np.asarray(value) <= (1 + ROUNDING) * np.asarray(than)


def _setting(solver: Solver, name: str) -> Any:
    return vars(solver).get(name)

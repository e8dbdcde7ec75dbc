"""The numerics: solves of ordinary differential equations and their gradients, in torch."""

from node_cli.ode.functional import odeint, odeint_adjoint, odeint_event, solve
from node_cli.ode.solution import Solution, SolveError, SolveStats, Status

__all__ = ["Solution", "SolveError", "SolveStats", "Status", "odeint", "odeint_adjoint", "odeint_event", "solve"]

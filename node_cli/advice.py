"""The advice of `ode/`, which names arguments, in the words of a command: the keys of its config."""

from __future__ import annotations

from node_cli.ode.errors import Advice, Names

KEYS = Names(
    "solver.",
    {
        **{name: f"gradient={name}" for name in ("direct", "checkpoint", "adjoint")},
        **{f"adjoint_{name}": f"gradient.{name}" for name in ("rtol", "atol")},
        **{name: f"gradient.norm={name}" for name in ("full", "semi")},
        "dopri5": "solver=dopri5",
        "fixed": "solver=rk4",
        "stiff": "solver=scipy solver.method=Radau gradient=adjoint",
        "explicit": "solver.method=RK45",
        "compiled_step": "solver.compile=step",
        "sync_steps": "solver.sync_steps=true",
        "ts": "model.t1",
        "clip": "trainer.clip_norm=1",
        "y0": "the input of an ODE block",
    },
)


def in_keys(error: Exception) -> str:
    """The message of an error as a command prints it."""
    return error.worded(KEYS) if isinstance(error, Advice) else str(error)

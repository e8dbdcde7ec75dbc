"""What `model=rknet` goes with: the paper's RK-Net is the ODE-Net, named for its solver and gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_rknet(cfg: Mapping[str, Any], choices: Mapping[str, str]) -> list[str]:
    """A line for a solver or a gradient that would make it an ODE-Net of the wrong name."""
    solver, gradient = cfg.get("solver"), choices.get("gradient")
    if choices.get("model") != "rknet" or not isinstance(solver, Mapping):
        return []
    chooses = solver.get("num_steps") is None and solver.get("step_size") is None
    problems = [f"solver={choices['solver']} chooses its steps"] if chooses and "solver" in choices else []
    problems += [f"gradient={gradient} solves backwards"] if gradient == "adjoint" else []
    return [f"model=rknet has fixed steps and their gradient, {text}: take model=odenet" for text in problems]

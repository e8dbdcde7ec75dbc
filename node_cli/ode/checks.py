"""Checks of settings: each raises ValueError with the name, the rule and the value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def require(holds: bool, rule: str, got: object) -> None:
    """Raises ValueError unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}, got {got}")


def require_at_least(name: str, value: float, minimum: float) -> None:
    """`value` must be `minimum` or more, and a number."""
    require(value >= minimum, f"{name} must be at least {minimum}", value)


def require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """`value` must be one of `allowed`."""
    require(value in allowed, f"{name} must be one of {', '.join(allowed)}", value)


def require_positive(**values: float | None) -> None:
    """Every value must be more than 0, or None."""
    for name, value in values.items():
        require(value is None or value > 0, f"{name} must be positive", value)


def require_step_control(settings: Mapping[str, Any]) -> None:
    """What bounds a step and its change, of all the settings of a solver; None: not given."""
    safety, ifactor, dfactor = (settings[name] for name in ("safety", "ifactor", "dfactor"))
    min_step, max_step = settings["min_step"], settings["max_step"]
    require(min_step is None or min_step >= 0, "min_step must be 0 or more", min_step)
    require(safety is None or 0 < safety < 1, "safety must be between 0 and 1", safety)
    require(dfactor is None or 0 < dfactor < 1, "dfactor must be between 0 and 1", dfactor)
    require(ifactor is None or ifactor > 1, "ifactor must be more than 1", ifactor)
    require_positive(max_step=max_step)
    require(max_step is None or max_step > (min_step or 0), "max_step must exceed min_step", max_step)


def require_grid(num_steps: int | None, step_size: float | None) -> None:
    """Exactly one of the two must be set, and positive."""
    if (num_steps is None) == (step_size is None):
        raise ValueError(
            f"num_steps and step_size exclude each other, got num_steps={num_steps} step_size={step_size}: "
            "set exactly one of them"
        )
    require_positive(num_steps=num_steps, step_size=step_size)

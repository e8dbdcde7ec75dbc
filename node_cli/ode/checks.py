"""Checks of settings: each raises ValueError with the key, the rule and the value."""

from __future__ import annotations


def require(holds: bool, rule: str, got: object) -> None:
    """Raises ValueError unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}, got {got}")


def require_at_least(key: str, value: float, minimum: float) -> None:
    """`value` must be `minimum` or more, and a number."""
    require(value >= minimum, f"{key} must be at least {minimum}", value)


def require_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """`value` must be one of `allowed`."""
    require(value in allowed, f"{key} must be one of {', '.join(allowed)}", value)


def require_positive(**values: float | None) -> None:
    """Every value must be more than 0, or None."""
    for key, value in values.items():
        require(value is None or value > 0, f"{key} must be positive", value)


def require_grid(num_steps: int | None, step_size: float | None) -> None:
    """Exactly one of the two must be set, and positive."""
    if (num_steps is None) == (step_size is None):
        raise ValueError(
            f"num_steps and step_size exclude each other, got num_steps={num_steps} step_size={step_size}: "
            "set exactly one of them"
        )
    require_positive(num_steps=num_steps, step_size=step_size)

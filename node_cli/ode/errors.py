"""Errors with advice: it names arguments, or what a caller has in their places."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import ChainMap
from collections.abc import Mapping


class Names(dict[str, str]):
    """What stands for an argument in a message; for one that is not listed, its own name after the `prefix`."""

    def __init__(self, prefix: str, names: Mapping[str, str]) -> None:
        super().__init__(names)
        self._prefix = prefix

    def __missing__(self, name: str) -> str:
        return self._prefix + name


ARGUMENTS = Names(
    "",
    {
        **{name: f'gradient="{name}"' for name in ("direct", "checkpoint", "adjoint")},
        "full": 'norm="full"',
        "semi": 'norm="semi" ("seminorm" in adjoint_options)',
        "dopri5": 'method="dopri5"',
        "fixed": 'method="rk4"',
        "stiff": 'method="scipy_solver" with options={"solver": "Radau"}',
        "explicit": 'options={"solver": "RK45"}',
        "compiled_step": 'compile="step"',
        "sync_steps": "sync_steps=True",
        "clip": "torch.nn.utils.clip_grad_norm_",
    },
)


class Advice(ABC, Exception):
    """An error whose message names arguments, by `ARGUMENTS` unless it is asked for in other names."""

    @abstractmethod
    def worded(self, names: Names) -> str:
        """The message."""

    def __str__(self) -> str:
        return self.worded(ARGUMENTS)


class ArgumentError(Advice, ValueError):
    """Arguments that do not go together. In `template`, `{name}` stands for an argument, or for one of the `values`."""

    def __init__(self, template: str, **values: object) -> None:
        super().__init__(template)
        self._template = template
        self._values = values

    def worded(self, names: Names) -> str:
        """See `Advice.worded`."""
        return self._template.format_map(ChainMap[str, object](self._values, names))  # type: ignore[arg-type]

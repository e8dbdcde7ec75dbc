"""What was measured of one case on a model, and how far that is from what it ought to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from node_cli.audit.backward_pass import Cost, Pass
from node_cli.audit.base import Case
from node_cli.audit.comparison import Difference, Gradients, difference, what_is_wrong

THE_REST = "the rest"


@dataclass(frozen=True)
class ModelRow:
    """One case: the pass that it made, the exact gradient of that pass (None: not available), and that of the ODE.

    `rounding` is how far plain autograd over the same steps is from `exact`, in the precision of the model. `mistakes`
    are the gradients of known mistakes, by the clause that names each. `reconstruction` is how far the solve back is
    from the solve there, over time for each block; empty if it failed. A case that failed has nothing but `failure`.
    """

    case: Case
    block_names: Sequence[str]
    reference: Pass
    made: Pass | None = None
    exact: Pass | None = None
    rounding: float = 0.0
    mistakes: Mapping[str, Gradients] = field(default_factory=dict)
    cost: Cost | None = None
    reconstruction: Mapping[str, Sequence[float]] = field(default_factory=dict)
    failure: str = ""

    @cached_property
    def against_pass(self) -> Difference | None:
        """How far from the gradient of the loss that was computed."""
        return self._difference(self.exact, self._all)

    @cached_property
    def against_ode(self) -> Difference | None:
        """How far from the gradient of the continuous problem."""
        return self._difference(self.reference, self._all)

    def parts(self) -> dict[str, tuple[Difference | None, Difference | None]]:
        """Both differences for the parameters of each block, and for those outside them."""
        return {
            part: (self._difference(self.exact, names), self._difference(self.reference, names))
            for part, names in self._parts.items()
        }

    @cached_property
    def mistake(self) -> str:
        """What is wrong with the gradient, if that is known."""
        if self.made is None or self.exact is None:
            return ""
        whole = what_is_wrong(self.made.parameters, self.exact.parameters, self.mistakes)
        if whole:
            return whole
        for part, names in self._parts.items():
            clause = what_is_wrong(_only(self.made.parameters, names), _only(self.exact.parameters, names), {})
            if clause:
                return f"{part}: {clause}"
        return what_is_wrong(self.made.times, self.exact.times, {})

    def plain(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        own = {"solver": self.case.solver_name, "gradient": self.case.gradient_name, "rtol": self.case.rtol}
        if self.made is None or self.cost is None:
            return own | {"failure": self.failure}
        return own | {
            "loss": self.made.loss,
            "against_pass": _plain(self.against_pass),
            "rounding": self.rounding if self.exact else None,
            "against_ode": _plain(self.against_ode),
            "parts": {
                part: {"against_pass": _plain(ours), "against_ode": _plain(ode)}
                for part, (ours, ode) in self.parts().items()
            },
            "times": self.times(),
            "mistake": self.mistake,
            **asdict(self.cost),
            "reconstruction": dict(self.reconstruction),
        }

    def times(self) -> dict[str, dict[str, float | None]]:
        """dL/dt0 and dL/dt1 of every block that solves at its own times: as made, of the pass, of the ODE."""
        assert self.made is not None
        found = {
            name: {
                "made": value.item(),
                "pass": self.exact.times[name].item() if self.exact else None,
                "ode": self.reference.times[name].item(),
            }
            for name, value in self.made.times.items()
        }
        return {name: values for name, values in found.items() if any(values.values())}

    @cached_property
    def _parts(self) -> dict[str, list[str]]:
        """The names of the parameters of each block, and of those outside them."""
        names = {block: [name for name in self._all if name.startswith(f"{block}.")] for block in self.block_names}
        inside = {name for block in names.values() for name in block}
        names[THE_REST] = [name for name in self._all if name not in inside]
        return {part: own for part, own in names.items() if own}

    @property
    def _all(self) -> list[str]:
        return list(self.reference.parameters)

    def _difference(self, true: Pass | None, names: Sequence[str]) -> Difference | None:
        if self.made is None or true is None:
            return None
        return difference(_only(self.made.parameters, names), _only(true.parameters, names))


def _only(gradients: Gradients, names: Sequence[str]) -> Gradients:
    return {name: gradients[name] for name in names}


def _plain(found: Difference | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)

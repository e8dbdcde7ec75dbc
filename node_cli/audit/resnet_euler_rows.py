"""What the audit of ResNet and Euler computes, and how far each computation lies from the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from node_cli.audit.comparison import Difference, Gradients, difference
from node_cli.tables import percent

ROUNDING = 1e-12  # relative; what float64 leaves of the same sums in another order


@dataclass(frozen=True)
class Distance:
    """From one computation to another: relative errors of output and loss, and the difference of the gradients."""

    output: float
    loss: float
    gradient: Difference

    @property
    def largest(self) -> float:
        """The largest of the three errors."""
        return max(self.output, self.loss, self.gradient.relative_error)

    @property
    def is_rounding(self) -> bool:
        """Whether the two computed the same."""
        return self.largest <= ROUNDING


@dataclass(frozen=True)
class Computed:
    """Output, loss and gradients (parameters by name, y0) of one way to compute, and its evaluations."""

    output: Tensor
    loss: float
    gradients: Gradients
    nfe_forward: int
    nfe_backward: int

    def distance(self, true: Computed) -> Distance:
        """How far it lies from `true`."""
        output = difference({"output": self.output}, {"output": true.output}).relative_error
        loss = abs(self.loss - true.loss) / true.loss
        return Distance(output, loss, difference(self.gradients, true.gradients))


@dataclass(frozen=True)
class Row:
    """A computation beside the ResNet and the ODE, and beside the exact gradient of its own steps if that is known."""

    made: Computed
    from_resnet: Distance
    from_ode: Distance
    from_own_steps: Difference | None = None
    mistake: str = ""

    def cells(self) -> dict[str, str]:
        """Its part of a table."""
        return {
            "evaluations": f"{self.made.nfe_forward} + {self.made.nfe_backward}",
            "output from ResNet": percent(self.from_resnet.output),
            "output from ODE": percent(self.from_ode.output),
            "gradient from ResNet": percent(self.from_resnet.gradient.relative_error),
            "gradient from ODE": percent(self.from_ode.gradient.relative_error),
        }

    def more_cells(self) -> dict[str, str]:
        """And those of a solver of its own."""
        exact = "-" if self.from_own_steps is None else percent(self.from_own_steps.relative_error)
        worst = self.from_ode.gradient
        return {"from its own steps": exact, "worst from ODE": f"{worst.worst} {percent(worst.worst_error)}"}

    def plain(self) -> dict[str, Any]:
        """Its numbers, in plain containers."""
        made = {key: vars(self.made)[key] for key in ("loss", "nfe_forward", "nfe_backward")}
        differences = {key: vars(self)[key] for key in ("from_resnet", "from_ode", "from_own_steps")}
        return made | {key: each and asdict(each) for key, each in differences.items()} | {"mistake": self.mistake}

"""What the audit of ResNet and Euler has found, and how it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from node_cli.audit.base import AuditReport
from node_cli.audit.case import Case
from node_cli.audit.comparison import Difference, Gradients, difference
from node_cli.audit.drawing import Curve, draw_errors
from node_cli.figures import panels
from node_cli.tables import Table, percent, two_digits

ROUNDING = 1e-12  # relative; what float64 leaves of the same sums in another order
EXACT = ("direct", "checkpoint")  # discretise, then optimise: under Euler the gradient of the ResNet
FROM_ODE = ("output from ODE", "gradient from ODE", "worst from ODE")  # columns

NOTE_EQUAL = (
    "direct and checkpoint differentiate the steps that were made, and Euler's steps are the residual blocks. "
    "adjoint solves the adjoint ODE by Euler instead: another gradient until the steps are fine."
)
NOTE_CORNERS = (
    "ReLU has corners, where the derivative of the field jumps: with any solver the gradient is less exact than the "
    "output, and gains less from a tighter tolerance."
)


@dataclass(frozen=True)
class Pass:
    """Output, loss and gradients (parameters by name, y0) of one way to compute, and its evaluations."""

    output: Tensor
    loss: float
    gradients: Gradients
    nfe_forward: int
    nfe_backward: int


@dataclass(frozen=True)
class Change:
    """How far a pass lies from another; output and loss as relative errors."""

    output: float
    loss: float
    gradient: Difference

    @property
    def is_rounding(self) -> bool:
        """Whether the two computed the same."""
        return self.largest <= ROUNDING

    @property
    def largest(self) -> float:
        """The largest of the three errors."""
        return max(self.output, self.loss, self.gradient.relative_error)


def change(computed: Pass, true: Pass) -> Change:
    """How far `computed` lies from `true`."""
    output = difference({"output": computed.output}, {"output": true.output}).relative_error
    loss = abs(computed.loss - true.loss) / true.loss
    return Change(output, loss, difference(computed.gradients, true.gradients))


@dataclass(frozen=True)
class Measured:
    """A pass beside the ResNet and the ODE, and its gradient beside the exact one of its steps if that can be had."""

    made: Pass
    from_resnet: Change
    from_ode: Change
    from_own_steps: Difference | None = None
    mistake: str = ""

    @property
    def output_error(self) -> float:
        """Relative, from the ODE."""
        return self.from_ode.output

    @property
    def gradient_error(self) -> float:
        """Relative, from the ODE."""
        return self.from_ode.gradient.relative_error


@dataclass(frozen=True)
class Findings:
    """All that was measured.

    `under_euler` and `mistakes` go by the name of the gradient, `euler` by the number of steps; `blur` lies between the
    solve that stands for the ODE and one at ten times its tolerance.
    """

    num_blocks: int
    under_euler: Mapping[str, Change]
    mistakes: Mapping[str, str]
    euler: Mapping[int, Measured]
    cases: Sequence[tuple[Case, Measured]]
    ode: Measured
    reference_rtol: float
    blur: Change

    def report(self) -> AuditReport:
        """In tables, notes, one sentence, a picture, and plain containers."""
        notes = [NOTE_EQUAL, NOTE_CORNERS, self._note_on_the_reference()]
        return AuditReport(self._tables(), notes, self._verdict(), {"resnet_euler": self._picture()}, self._details())

    def _order(self, error: Callable[[Measured], float]) -> float:
        """Of Euler's error, by regression over the finer half of the steps."""
        finer = list(self.euler)[len(self.euler) // 2 :]
        return -float(np.polyfit(np.log(finer), np.log([error(self.euler[n]) for n in finer]), 1)[0])

    @property
    def _orders(self) -> tuple[float, float]:
        return self._order(lambda each: each.output_error), self._order(lambda each: each.gradient_error)

    def _tables(self) -> list[Table]:
        title = f"The ODE-Net under Euler with {self.num_blocks} steps, compared with the ResNet"
        same = [_row_under_euler(name, each, self.mistakes[name]) for name, each in self.under_euler.items()]
        euler = [{"steps": str(n)} | _row(each) for n, each in self.euler.items()]
        ode = {"solver": "the ODE"} | _row(self.ode) | _own_steps(self.ode) | dict.fromkeys(FROM_ODE, "-")
        cases = [{"solver": case.name} | _row(each) | _own_steps(each) for case, each in self.cases]
        return [
            Table(title, same),
            Table("Euler with more steps, direct", euler),
            Table("The ODE itself, and the chosen solvers and gradients", [ode, *cases]),
        ]

    def _note_on_the_reference(self) -> str:
        return (
            f"The ODE itself is dopri5 at {self.reference_rtol:g}, which differs from dopri5 at "
            f"{10 * self.reference_rtol:g} by {percent(self.blur.output)} (output) and "
            f"{percent(self.blur.gradient.relative_error)} (gradient): errors below that say nothing."
        )

    def _verdict(self) -> str:
        away, orders = self.ode.from_resnet, self._orders
        outcome = (
            f"The output of the ODE is {percent(away.output)} and its gradient "
            f"{percent(away.gradient.relative_error)} away from the ResNet's, "
            f"and Euler nears them with order {orders[0]:.2f} and {orders[1]:.2f}"
        )
        mistakes = {case.method: each.mistake for case, each in self.cases if each.mistake}
        wrong = ", ".join(f"{method} ({mistake})" for method, mistake in mistakes.items())
        return ". ".join([self._equality(), outcome, *([f"Wrong: {wrong}"] if wrong else [])]) + "."

    def _equality(self) -> str:
        unequal = [self._unequal(name) for name in EXACT if not self.under_euler[name].is_rounding]
        if unequal:
            return f"The ODE-Net under Euler is not the ResNet, as it should be: {', '.join(unequal)}"
        largest = max(self.under_euler[name].largest for name in EXACT)
        return (
            f"The ResNet is the ODE-Net under Euler with {self.num_blocks} steps: output, loss and gradients of direct "
            f"and checkpoint are equal to rounding ({two_digits(largest)})"
        )

    def _unequal(self, name: str) -> str:
        each, mistake = self.under_euler[name], self.mistakes[name]
        errors = f"output {percent(each.output)}, gradient {percent(each.gradient.relative_error)}"
        return f"{name} differs by {errors}" + (f" ({mistake})" if mistake else "")

    def _picture(self) -> Figure:
        figure, axes = panels(3, title=f"A ResNet of {self.num_blocks} blocks with shared weights is Euler's method")
        draw_errors(axes[0], "Euler: distance from the ODE", "steps", self._euler_curves())
        axes[0].axvline(self.num_blocks, color="0.5", linestyle=":", label="the ResNet")
        axes[0].legend(frameon=False, fontsize=8)
        outputs = self._curves(lambda case: case.solver_name, lambda each: (each.made.nfe_forward, each.output_error))
        draw_errors(axes[1], "Output: distance from the ODE", "evaluations, forward", outputs)
        gradients = self._curves(
            lambda case: case.method,
            lambda each: (each.made.nfe_forward + each.made.nfe_backward, each.gradient_error),
        )
        draw_errors(axes[2], "Gradient: distance from the ODE", "evaluations, forward and backward", gradients)
        return figure

    def _euler_curves(self) -> dict[str, Curve]:
        steps, errors, orders = list(self.euler), self.euler.values(), self._orders
        return {
            f"output, order {orders[0]:.2f}": (steps, [each.output_error for each in errors]),
            f"gradient, order {orders[1]:.2f}": (steps, [each.gradient_error for each in errors]),
        }

    def _curves(
        self, label: Callable[[Case], str], point: Callable[[Measured], tuple[float, float]]
    ) -> dict[str, Curve]:
        """A curve for Euler, and one for each label of the cases."""
        groups = {"Euler, more steps": [point(each) for each in self.euler.values()]}
        for case, each in self.cases:
            groups.setdefault(label(case), []).append(point(each))
        return {name: ([x for x, _ in group], [y for _, y in group]) for name, group in groups.items()}

    def _details(self) -> dict[str, Any]:
        output_order, gradient_order = self._orders
        return {
            "num_blocks": self.num_blocks,
            "under_euler": {name: asdict(each) for name, each in self.under_euler.items()},
            "euler": [{"steps": n} | _plain(each) for n, each in self.euler.items()],
            "order": {"output": output_order, "gradient": gradient_order},
            "reference": {"rtol": self.reference_rtol, "from_ten_times_rtol": asdict(self.blur)},
            "ode": _plain(self.ode),
            "cases": {case.name: _plain(each) for case, each in self.cases},
        }


def _row_under_euler(name: str, each: Change, mistake: str) -> dict[str, str]:
    return {
        "gradient method": name,
        "output off": two_digits(each.output),
        "loss off": two_digits(each.loss),
        "gradient off": two_digits(each.gradient.relative_error),
        "cosine": f"{each.gradient.cosine:.6f}",
        "worst": f"{each.gradient.worst} {two_digits(each.gradient.worst_error)}",
        "equal to the ResNet": "yes, to rounding" if each.is_rounding else f"no: {mistake}" if mistake else "no",
    }


def _row(each: Measured) -> dict[str, str]:
    return {
        "evaluations": f"{each.made.nfe_forward} + {each.made.nfe_backward}",
        "output from ResNet": percent(each.from_resnet.output),
        "output from ODE": percent(each.output_error),
        "gradient from ResNet": percent(each.from_resnet.gradient.relative_error),
        "gradient from ODE": percent(each.gradient_error),
    }


def _own_steps(each: Measured) -> dict[str, str]:
    """How far the gradient is from the exact one of the steps that were made."""
    exact = "-" if each.from_own_steps is None else percent(each.from_own_steps.relative_error)
    worst = each.from_ode.gradient
    return {"from its own steps": exact, "worst from ODE": f"{worst.worst} {percent(worst.worst_error)}"}


def _plain(each: Measured) -> dict[str, Any]:
    own_steps = each.from_own_steps
    return {
        "loss": each.made.loss,
        "nfe_forward": each.made.nfe_forward,
        "nfe_backward": each.made.nfe_backward,
        "from_resnet": asdict(each.from_resnet),
        "from_ode": asdict(each.from_ode),
        "from_own_steps": None if own_steps is None else asdict(own_steps),
        "mistake": each.mistake,
    }

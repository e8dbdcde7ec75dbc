"""A residual network with shared weights is the ODE-Net under Euler's method; and what a finer solver changes.

Source: Chen et al. 2018, equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from node_cli.audit.base import AuditReport, Case, Tick
from node_cli.audit.comparison import Gradients, difference, draw_errors, order, what_is_wrong
from node_cli.audit.fixed_steps import FixedSteps
from node_cli.figures import panels
from node_cli.models.odenet import ConvField
from node_cli.ode.checks import require, require_at_least
from node_cli.ode.functional import solve
from node_cli.ode.gradients import Gradient
from node_cli.ode.solution import Solution
from node_cli.ode.solvers import Fixed
from node_cli.tables import Table, percent, two_digits

ROUNDING = 1e-12  # relative; what float64 leaves of the same sums in another order
EXACT = ("direct", "checkpoint")  # discretise, then optimise: under Euler the gradient of the ResNet
REFERENCE_RTOL = 1e-9  # of the solve that stands for the ODE: a few seconds
UNEXPLAINED = 3.0  # a gradient is wrong if it is so many times as far from the ODE's as the exact one of its steps,
NOTICEABLE = 0.1  # and by more than this, relative
NOTES = (
    (
        "direct and checkpoint differentiate the steps that were made, and Euler's steps are the residual blocks. "
        "adjoint solves the adjoint ODE by Euler instead: another gradient until the steps are fine."
    ),
    (
        "ReLU has corners, where the derivative of the field jumps: with any solver the gradient is less exact than "
        "the output, and gains less from a tighter tolerance."
    ),
)

Row = dict[str, Any]  # the numbers of a computation beside those of the ResNet and of the ODE


@dataclass(frozen=True)
class Computed:
    """Output, loss and gradients (parameters by name, y0) of one way to compute, and its evaluations."""

    output: Tensor
    loss: float
    gradients: Gradients
    nfe_forward: int
    nfe_backward: int

    def off(self, true: Computed) -> dict[str, Any]:
        """How far it lies from `true`: relative errors of output and loss, and the `Difference` of the gradients."""
        output = difference({"output": self.output}, {"output": true.output}).relative_error
        gradient = asdict(difference(self.gradients, true.gradients))
        return {"output": output, "loss": abs(self.loss - true.loss) / true.loss, "gradient": gradient}

    def beside(self, resnet: Computed, ode: Computed) -> Row:
        """Its row; what its own steps would give, and a mistake, are not known."""
        evaluations = {"nfe_forward": self.nfe_forward, "nfe_backward": self.nfe_backward}
        distances = {"from_resnet": self.off(resnet), "from_ode": self.off(ode), "from_own_steps": None}
        return {"loss": self.loss, **evaluations, **distances, "mistake": ""}


class ResnetEulerAudit:
    """Images `(batch_size, channels, 6, 6)` through y + h f(t, y), `num_blocks` times, in float64.

    Raises:
        ValueError: a key is out of range.
    """

    def __init__(
        self, *, channels: int, num_blocks: int, batch_size: int, seed: int, euler_steps: Sequence[int]
    ) -> None:
        for key, value in (("channels", channels), ("num_blocks", num_blocks), ("batch_size", batch_size)):
            require_at_least(key, value, 1)
        require_at_least("seed", seed, 0)
        grows = len(euler_steps) >= 3 and list(euler_steps) == sorted({n for n in euler_steps if n > 0})
        require(grows, "euler_steps must be three or more growing numbers from 1 up", list(euler_steps))
        self._num_blocks, self._euler_steps = num_blocks, euler_steps
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
            self._field = ConvField(channels).double()
        generator = torch.Generator().manual_seed(seed)
        shape = (2, batch_size, channels, 6, 6)
        self._y0, self._targets = torch.randn(shape, generator=generator, dtype=torch.float64)
        self._y0.requires_grad_()
        self._ts = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def num_measurements(self, cases: Sequence[Case]) -> int:
        """See `AuditProblem`."""
        return 3 + len(_euler_gradients(cases)) + len(self._euler_steps) + len(cases)

    def audit(self, cases: Sequence[Case], tick: Tick) -> AuditReport:
        """See `AuditProblem`."""
        tick("the ResNet")
        resnet = self._compute(self._resnet)
        under_euler = {
            name: self._euler(tick, self._num_blocks, gradient, name)
            for name, gradient in _euler_gradients(cases).items()
        }
        looser, ode = (self._ode(tick, rtol) for rtol in (10 * REFERENCE_RTOL, REFERENCE_RTOL))
        euler = {n: self._euler(tick, n, "direct", "direct").beside(resnet, ode) for n in self._euler_steps}
        rows = [(case, self._row(case, resnet, ode, tick)) for case in cases]
        of_ode, blur = ode.beside(resnet, ode), looser.off(ode)
        same = {name: made.off(resnet) for name, made in under_euler.items()}
        mistakes = {name: what_is_wrong(made.gradients, resnet.gradients, {}) for name, made in under_euler.items()}
        orders = {
            "output": order(self._euler_steps, [row["from_ode"]["output"] for row in euler.values()]),
            "gradient": order(self._euler_steps, [_gradient_error(row) for row in euler.values()]),
        }
        title = f"The ODE-Net under Euler with {self._num_blocks} steps, compared with the ResNet"
        nothing = dict.fromkeys(("output from ODE", "gradient from ODE", "worst from ODE"), "-")
        solvers = [_columns_of_solver("the ODE", of_ode) | nothing]
        solvers += [_columns_of_solver(case.name, row) for case, row in rows]
        tables = [
            Table(title, [_columns_under_euler(name, off, mistakes[name]) for name, off in same.items()]),
            Table("Euler with more steps, direct", [{"steps": str(n)} | _columns(row) for n, row in euler.items()]),
            Table("The ODE itself, and the chosen solvers and gradients", solvers),
        ]
        reference = (
            f"The ODE itself is dopri5 at {REFERENCE_RTOL:g}, which differs from dopri5 at {10 * REFERENCE_RTOL:g} by "
            f"{percent(blur['output'])} (output) and {percent(blur['gradient']['relative_error'])} (gradient): "
            "errors below that say nothing."
        )
        wrong = {case.method: f"{case.method} ({row['mistake']})" for case, row in rows if row["mistake"]}
        sentences = [_equality(self._num_blocks, same, mistakes), _outcome(of_ode["from_resnet"], orders)]
        sentences += [f"Wrong: {', '.join(wrong.values())}"] if wrong else []
        details = {
            "num_blocks": self._num_blocks,
            "under_euler": same,
            "euler": [{"steps": n} | row for n, row in euler.items()],
            "order": orders,
            "reference": {"rtol": REFERENCE_RTOL, "from_ten_times_rtol": blur},
            "ode": of_ode,
            "cases": {case.name: row for case, row in rows},
        }
        figures = {"resnet_euler": _figure(self._num_blocks, euler, orders, rows)}
        return AuditReport(tables, [*NOTES, reference], ". ".join(sentences) + ".", figures, details)

    def _resnet(self) -> Tensor:
        y: Tensor = self._y0
        h = 1 / self._num_blocks
        for k in range(self._num_blocks):
            y = y + h * self._field(torch.tensor(k * h, dtype=y.dtype), y)
        return y

    def _euler(self, tick: Tick, num_steps: int, gradient: str | Gradient, name: str) -> Computed:
        tick(f"Euler, {num_steps} steps, {name}")
        how: dict[str, Any] = {"method": "euler", "num_steps": num_steps, "gradient": gradient}
        return self._compute(lambda: solve(self._field, self._y0, self._ts, **how))

    def _ode(self, tick: Tick, rtol: float) -> Computed:
        tick(f"the ODE at {rtol:g}")
        return self._compute(lambda: solve(self._field, self._y0, self._ts, rtol, rtol, gradient="checkpoint"))

    def _row(self, case: Case, resnet: Computed, ode: Computed, tick: Tick) -> Row:
        tick(case.name)
        made = self._compute(lambda: case.solve(self._field, self._y0, self._ts))
        row = made.beside(resnet, ode)
        if not case.solver.differentiable:
            return row | {"mistake": what_is_wrong(made.gradients, ode.gradients, {})}
        steps = FixedSteps(case.solver, self._field, self._y0, self._ts)
        exact = self._compute(lambda: steps(self._field, self._y0, self._ts)[-1])
        mistake = what_is_wrong(made.gradients, exact.gradients, {})
        error, of_steps = (difference(each.gradients, ode.gradients).relative_error for each in (made, exact))
        if not mistake and error > max(NOTICEABLE, UNEXPLAINED * of_steps):
            mistake = f"it is {percent(error)} off, the exact one of its steps {percent(of_steps)}"
        return row | {"from_own_steps": asdict(difference(made.gradients, exact.gradients)), "mistake": mistake}

    def _compute(self, forward: Callable[[], Tensor | Solution[Tensor]]) -> Computed:
        found = forward()
        output = found.ys[-1] if isinstance(found, Solution) else found
        loss = (output - self._targets).pow(2).mean()
        inputs = dict(self._field.named_parameters()) | {"y0": self._y0}
        grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)
        nfe = (found.stats.nfe, found.backward_stats.nfe) if isinstance(found, Solution) else (self._num_blocks, 0)
        return Computed(output.detach(), loss.item(), dict(zip(inputs, grads, strict=True)), *nfe)


def _euler_gradients(cases: Sequence[Case]) -> dict[str, str | Gradient]:
    """Ours, and those of the cases that go with Euler's method; a case's own takes the place of ours."""
    settings: dict[str, Any] = {"step_size": None, "max_nfe": None, "compile": "none"}
    euler = Fixed(method="euler", num_steps=1, on_failure="raise", fallback_steps=1, **settings)
    gradients: dict[str, str | Gradient] = {name: name for name in (*EXACT, "adjoint")}
    for case in cases:
        with suppress(ValueError):
            case.gradient.check(euler)
            gradients[case.gradient_name] = case.gradient
    return gradients


def _gradient_error(row: Row) -> float:
    return float(row["from_ode"]["gradient"]["relative_error"])


def _largest(off: Mapping[str, Any]) -> float:
    return float(max(off["output"], off["loss"], off["gradient"]["relative_error"]))


def _columns(row: Row) -> dict[str, str]:
    of_both = {"ResNet": row["from_resnet"], "ODE": row["from_ode"]}
    return (
        {"evaluations": f"{row['nfe_forward']} + {row['nfe_backward']}"}
        | {f"output from {name}": percent(off["output"]) for name, off in of_both.items()}
        | {f"gradient from {name}": percent(off["gradient"]["relative_error"]) for name, off in of_both.items()}
    )


def _columns_of_solver(name: str, row: Row) -> dict[str, str]:
    steps, ode = row["from_own_steps"], row["from_ode"]["gradient"]
    of_steps = {"from its own steps": "-" if steps is None else percent(steps["relative_error"])}
    worst = {"worst from ODE": f"{ode['worst']} {percent(ode['worst_error'])}"}
    return {"solver": name} | _columns(row) | of_steps | worst


def _columns_under_euler(name: str, off: Mapping[str, Any], mistake: str) -> dict[str, str]:
    gradient, unlike = off["gradient"], f"no: {mistake}" if mistake else "no"
    return {
        "gradient method": name,
        "output off": two_digits(off["output"]),
        "loss off": two_digits(off["loss"]),
        "gradient off": two_digits(gradient["relative_error"]),
        "cosine": f"{gradient['cosine']:.6f}",
        "worst": f"{gradient['worst']} {two_digits(gradient['worst_error'])}",
        "equal to the ResNet": "yes, to rounding" if _largest(off) <= ROUNDING else unlike,
    }


def _equality(num_blocks: int, same: Mapping[str, Mapping[str, Any]], mistakes: Mapping[str, str]) -> str:
    unequal = [
        f"{name} differs by output {percent(same[name]['output'])}, "
        f"gradient {percent(same[name]['gradient']['relative_error'])}"
        + (f" ({mistakes[name]})" if mistakes[name] else "")
        for name in EXACT
        if _largest(same[name]) > ROUNDING
    ]
    if unequal:
        return f"The ODE-Net under Euler is not the ResNet, as it should be: {', '.join(unequal)}"
    return (
        f"The ResNet is the ODE-Net under Euler with {num_blocks} steps: output, loss and gradients of direct "
        f"and checkpoint are equal to rounding ({two_digits(max(_largest(same[name]) for name in EXACT))})"
    )


def _outcome(away: Mapping[str, Any], orders: Mapping[str, float]) -> str:
    return (
        f"The output of the ODE is {percent(away['output'])} and its gradient "
        f"{percent(away['gradient']['relative_error'])} away from the ResNet's, "
        f"and Euler nears them with order {orders['output']:.2f} and {orders['gradient']:.2f}"
    )


def _figure(
    num_blocks: int, euler: Mapping[int, Row], orders: Mapping[str, float], rows: Sequence[tuple[Case, Row]]
) -> Figure:
    figure, axes = panels(3, title=f"A ResNet of {num_blocks} blocks with shared weights is Euler's method")
    outputs, gradients = (
        {"Euler, more steps": [point(row) for row in euler.values()]} for point in (_output_point, _gradient_point)
    )
    over_steps = {
        f"{name}, order {orders[name]:.2f}": [(n, error) for n, (_, error) in zip(euler, curve, strict=True)]
        for name, points in (("output", outputs), ("gradient", gradients))
        for curve in points.values()
    }
    for case, row in rows:
        outputs.setdefault(case.solver_name, []).append(_output_point(row))
        gradients.setdefault(case.method, []).append(_gradient_point(row))
    draw_errors(axes[0], "Euler: distance from the ODE", "steps", over_steps)
    axes[0].axvline(num_blocks, color="0.5", linestyle=":", label="the ResNet")
    axes[0].legend(frameon=False, fontsize=8)
    draw_errors(axes[1], "Output: distance from the ODE", "evaluations, forward", outputs)
    draw_errors(axes[2], "Gradient: distance from the ODE", "evaluations, forward and backward", gradients)
    return figure


def _output_point(row: Row) -> tuple[float, float]:
    return row["nfe_forward"], row["from_ode"]["output"]


def _gradient_point(row: Row) -> tuple[float, float]:
    return row["nfe_forward"] + row["nfe_backward"], _gradient_error(row)

"""A residual network with shared weights is the ODE-Net under Euler's method; and what a finer solver changes.

Source: Chen et al. 2018, equations 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from node_cli.audit.base import AuditReport, Tick
from node_cli.audit.case import Case
from node_cli.audit.comparison import difference, what_is_wrong
from node_cli.audit.fixed_steps import FixedSteps
from node_cli.audit.resnet_euler_findings import EXACT, Findings, Measured, Pass, change
from node_cli.models.checks import require_at_least
from node_cli.models.odenet import ConvField
from node_cli.ode.functional import solve
from node_cli.ode.gradients import Gradient
from node_cli.ode.solution import Solution
from node_cli.ode.solvers import Fixed
from node_cli.tables import percent

REFERENCE_RTOL = 1e-9  # of the solve that stands for the ODE: a few seconds
UNEXPLAINED = 3.0  # a gradient is wrong if it is so many times as far from the ODE's as the exact one of its steps,
NOTICEABLE = 0.1  # and by more than this, relative


class ResnetEulerAudit:
    """Images `(batch_size, channels, 6, 6)` through y + h f(t, y), `num_blocks` times, in float64.

    Raises:
        ValueError: when a key is out of range.
    """

    def __init__(
        self, *, channels: int, num_blocks: int, batch_size: int, seed: int, euler_steps: Sequence[int]
    ) -> None:
        for key, value in (("channels", channels), ("num_blocks", num_blocks), ("batch_size", batch_size)):
            require_at_least(key, value, 1)
        require_at_least("seed", seed, 0)
        if len(euler_steps) < 3 or list(euler_steps) != sorted({n for n in euler_steps if n > 0}):
            raise ValueError(f"euler_steps must be three or more growing numbers from 1 up, got {list(euler_steps)}")
        self._num_blocks = num_blocks
        self._euler_steps = euler_steps
        self._field = _field(channels, seed)
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
        resnet = self._pass(self._resnet)
        under_euler = {
            name: self._euler(self._num_blocks, gradient, name, tick)
            for name, gradient in _euler_gradients(cases).items()
        }
        looser, ode = (self._ode(rtol, tick) for rtol in (10 * REFERENCE_RTOL, REFERENCE_RTOL))
        euler = {n: self._euler(n, "direct", "direct", tick) for n in self._euler_steps}
        return Findings(
            num_blocks=self._num_blocks,
            under_euler={name: change(made, resnet) for name, made in under_euler.items()},
            mistakes={name: what_is_wrong(made.gradients, resnet.gradients, {}) for name, made in under_euler.items()},
            euler={n: Measured(made, change(made, resnet), change(made, ode)) for n, made in euler.items()},
            cases=[(case, self._measure(case, resnet, ode, tick)) for case in cases],
            ode=Measured(ode, change(ode, resnet), change(ode, ode)),
            reference_rtol=REFERENCE_RTOL,
            blur=change(looser, ode),
        ).report()

    def _resnet(self) -> Tensor:
        y: Tensor = self._y0
        h = 1 / self._num_blocks
        for k in range(self._num_blocks):
            y = y + h * self._field(torch.tensor(k * h, dtype=y.dtype), y)
        return y

    def _euler(self, num_steps: int, gradient: str | Gradient, name: str, tick: Tick) -> Pass:
        tick(f"Euler, {num_steps} steps, {name}")
        return self._pass(lambda: self._solve(method="euler", num_steps=num_steps, gradient=gradient))

    def _ode(self, rtol: float, tick: Tick) -> Pass:
        tick(f"the ODE at {rtol:g}")
        return self._pass(lambda: self._solve(rtol=rtol, atol=rtol, gradient="checkpoint"))

    def _solve(self, **how: Any) -> Solution[Tensor]:
        return solve(self._field, self._y0, self._ts, **how)

    def _measure(self, case: Case, resnet: Pass, ode: Pass, tick: Tick) -> Measured:
        tick(case.name)
        made = self._pass(lambda: case.solve(self._field, self._y0, self._ts))
        from_resnet, from_ode = change(made, resnet), change(made, ode)
        if not case.solver.differentiable:
            return Measured(made, from_resnet, from_ode, mistake=what_is_wrong(made.gradients, ode.gradients, {}))
        steps = FixedSteps(case.solver, self._field, self._y0, self._ts)
        exact = self._pass(lambda: steps(self._field, self._y0, self._ts)[-1])
        mistake = what_is_wrong(made.gradients, exact.gradients, {})
        error, of_steps = from_ode.gradient.relative_error, change(exact, ode).gradient.relative_error
        if not mistake and error > max(NOTICEABLE, UNEXPLAINED * of_steps):
            mistake = f"it is {percent(error)} off, the exact one of its steps {percent(of_steps)}"
        return Measured(made, from_resnet, from_ode, difference(made.gradients, exact.gradients), mistake)

    def _pass(self, forward: Callable[[], Tensor | Solution[Tensor]]) -> Pass:
        found = forward()
        output = found.ys[-1] if isinstance(found, Solution) else found
        loss = (output - self._targets).pow(2).mean()
        inputs = dict(self._field.named_parameters()) | {"y0": self._y0}
        grads = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True, materialize_grads=True)
        nfe = (found.stats.nfe, found.backward_stats.nfe) if isinstance(found, Solution) else (self._num_blocks, 0)
        return Pass(output.detach(), loss.item(), dict(zip(inputs, grads, strict=True)), *nfe)


def _field(channels: int, seed: int) -> ConvField:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the accelerators too
        return ConvField(channels).double()


def _euler_gradients(cases: Sequence[Case]) -> dict[str, str | Gradient]:
    """Ours, and those of the cases that go with Euler's method; a case's own takes the place of ours."""
    own = {case.gradient_name: case.gradient for case in cases if _goes_with_euler(case.gradient)}
    return {name: name for name in (*EXACT, "adjoint")} | own


def _goes_with_euler(gradient: Gradient) -> bool:
    settings: dict[str, Any] = {"step_size": None, "max_nfe": None, "compile": "none"}
    try:
        gradient.check(Fixed(method="euler", num_steps=1, on_failure="raise", fallback_steps=1, **settings))
    except ValueError:
        return False
    return True
